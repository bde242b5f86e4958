//! Numbers and foreign texts as the human log shows them: binary gibibytes printed as `GB`, as the logs that
//! people already search for have it.
//!
//! Only formatting; nothing here knows what an event is.

use std::fmt::Write;
use std::time::Duration;

use oomguard_core::Bytes;

/// The longest line; a worker's status may be any length.
const LONGEST: usize = 2000;

/// `3.5GB`, below one `410MB`: tenths of a gigabyte say nothing about a small job.
pub(super) fn gb(size: Bytes) -> String {
    if size < Bytes::gib(1) { mb(size) } else { format!("{:.1}GB", size.as_gib()) }
}

/// `2.27GB`, below one `410MB`.
pub(super) fn gb2(size: Bytes) -> String {
    if size < Bytes::gib(1) { mb(size) } else { format!("{:.2}GB", size.as_gib()) }
}

fn mb(size: Bytes) -> String {
    format!("{:.0}MB", size.0 as f64 / f64::from(1 << 20))
}

/// `4GB`, `3.5GB`: a threshold as it was configured.
pub(super) fn threshold(size: Bytes) -> String {
    let text = format!("{:.2}", size.as_gib());
    format!("{}GB", text.trim_end_matches('0').trim_end_matches('.'))
}

/// `1.2MB/s`, `3.4GB/s`.
pub(super) fn rate(per_second: Bytes) -> String {
    if per_second >= Bytes::gib(1) {
        return format!("{}/s", gb(per_second));
    }
    format!("{:.1}MB/s", per_second.0 as f64 / f64::from(1 << 20))
}

/// `22MB/min`, below ten `2.2MB/min`, below one `13MB/h`: slow growth in the unit in which people wait for it.
pub(crate) fn pace(per_second: Bytes) -> String {
    let per_minute = per_second.0 as f64 * 60.0 / f64::from(1 << 20);
    match per_minute {
        0.0..1.0 => format!("{:.0}MB/h", per_minute * 60.0),
        1.0..10.0 => format!("{per_minute:.1}MB/min"),
        _ => format!("{per_minute:.0}MB/min"),
    }
}

/// `0.3s` below ten seconds, `74s` below two minutes, `12m`, `3h05m`.
pub(crate) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 if time.subsec_millis() > 0 => format!("{:.1}s", time.as_secs_f64()),
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// `line` in a form that stays one line and shows what it is: control characters and those that turn the
/// direction of text are written out, so that nobody can forge a line of ours.
pub(crate) fn one_line(line: &str) -> String {
    let mut safe = String::with_capacity(line.len());
    for (index, letter) in line.chars().enumerate() {
        if index == LONGEST {
            safe.push('…');
            break;
        }
        match letter {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            _ if acts(letter) => {
                // Writing to a string does not fail.
                let _ = write!(safe, "\\u{{{:x}}}", u32::from(letter));
            }
            _ => safe.push(letter),
        }
    }
    safe
}

/// The same for a text whose lines are its own: an excerpt of a file, a table.
pub(crate) fn harmless(text: &str) -> String {
    text.split('\n').map(one_line).collect::<Vec<_>>().join("\n")
}

/// Whether a terminal does something else with it than show it: control characters (those above 127, too), line and
/// paragraph separators, and the marks that turn the text which follows.
pub(crate) fn acts(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_like_the_logs_that_people_know() {
        assert_eq!(gb(Bytes::gib(8)), "8.0GB");
        assert_eq!(gb2(Bytes::mib(2324)), "2.27GB");
        assert_eq!(threshold(Bytes::gib(4)), "4GB");
        assert_eq!(threshold(Bytes::mib(3584)), "3.5GB");
        assert_eq!(threshold(Bytes::gib(10)), "10GB");
        assert_eq!(rate(Bytes::kib(1200)), "1.2MB/s");
        assert_eq!(pace(Bytes(22 * (1 << 20) / 60)), "22MB/min");
        assert_eq!(pace(Bytes::kib(40)), "2.3MB/min");
        assert_eq!(pace(Bytes(4000)), "14MB/h");
        assert_eq!(rate(Bytes::mib(3500)), "3.4GB/s");
    }

    #[test]
    fn times_are_as_exact_as_they_matter() {
        assert_eq!(span(Duration::from_millis(340)), "0.3s");
        assert_eq!(span(Duration::from_secs(5)), "5s");
        assert_eq!(span(Duration::from_secs(119)), "119s");
        assert_eq!(span(Duration::from_secs(725)), "12m");
        assert_eq!(span(Duration::from_secs(11_100)), "3h05m");
    }

    #[test]
    fn a_foreign_text_stays_on_its_line() {
        assert_eq!(
            one_line("ok\n[00:00:00] ✅ Worker 9\u{1b}[2J\u{202e}"),
            "ok\\n[00:00:00] ✅ Worker 9\\u{1b}[2J\\u{202e}"
        );
        assert_eq!(one_line(&"x".repeat(5000)).chars().count(), LONGEST + 1);
        assert_eq!(harmless("error: a\n--> b\u{9b}31m"), "error: a\n--> b\\u{9b}31m");
    }
}
