//! What people type for sizes and times: `8GiB` or `60%`, `90s` or `1h30m`.
//!
//! Only parsing; a percentage becomes bytes where the machine's memory is known.

use std::time::Duration;

use oomguard_core::Bytes;
pub use oomguard_core::units::Amount;

/// The smallest limit that makes sense: below it not even a dynamic linker fits.
pub const LEAST_LIMIT: Bytes = Bytes::mib(1);

/// A limit: an amount that is at least [`LEAST_LIMIT`].
pub fn limit(text: &str) -> Result<Amount, String> {
    match text.parse()? {
        Amount::Bytes(bytes) if bytes < LEAST_LIMIT => {
            // A bare number is bytes, and rarely meant to be.
            let meant = if text.trim().parse::<u64>().is_ok() {
                format!("; `{text}GiB`?", text = text.trim())
            } else {
                String::new()
            };
            Err(format!("`{text}` is too small for a limit; nothing runs in less than {LEAST_LIMIT}{meant}"))
        }
        amount => Ok(amount),
    }
}

/// `90`, `90s`, `2m`, `1h30m`, `250ms`; whole numbers, each unit once, longest first.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration (try `90s`, `2m` or `1h30m`)");
    if text.trim().starts_with('-') {
        return Err(format!("`{text}` is negative; a duration is a time such as `2m`"));
    }
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    let mut least = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let letters = rest[digits..].find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len() - digits);
        let unit_ms = match rest[digits..digits + letters].trim() {
            "ms" => 1,
            "" | "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        if unit_ms >= least {
            return Err(wrong());
        }
        least = unit_ms;
        total += Duration::from_millis(number.checked_mul(unit_ms).ok_or_else(wrong)?);
        rest = &rest[digits + letters..];
    }
    if text.trim().is_empty() || total > Duration::from_secs(366 * 86_400) { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_holds_nothing_is_refused() {
        assert!(limit("0").unwrap_err().contains("too small"));
        assert!(limit("100KiB").unwrap_err().contains("too small"));
        assert!(limit("1MiB").is_ok());
    }

    #[test]
    fn durations_add_up_from_the_longest_unit_down() {
        let s = Duration::from_secs;
        for (text, want) in
            [("90", s(90)), ("90s", s(90)), ("2m", s(120)), ("1h30m", s(5400)), ("1d", s(86400)), ("0", s(0))]
        {
            assert_eq!(duration(text), Ok(want), "{text}");
        }
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for wrong in ["", "m", "5x", "-1s", "30m1h", "1m1m", "999999999999d", "400d", "1.5h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
