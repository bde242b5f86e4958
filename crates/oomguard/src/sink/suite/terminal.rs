//! A run of tests for people: a line at the bottom while it goes on, a line for every file that went wrong, a table and a
//! summary at the end.
//!
//! Colours and the moving line only on a terminal. It never waits for a reader: what is not taken at once is kept for
//! later, within bounds.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use oomguard_core::{Bytes, JobId};

use super::{github, percent};
use crate::outcome::{Counts, FileOutcome, Verdict};
use crate::record::{Notice, Record, Roster, Told};
use crate::sink::Sink;
use crate::sink::human::{self, one_line};
use crate::sink::terminal::Terminal;

/// The table at the end shows all files of small suites; of larger ones those that matter.
const TABLE: usize = 40;
/// ... among them so many of the largest.
const LARGEST: usize = 5;
/// The most of a file's output that is shown; the log has the rest.
const SHOWN: u64 = 64 * 1024;

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wants {
    /// `-q`.
    Little,
    /// Without a flag.
    Usual,
    /// `-v`.
    All,
}

/// Writes to standard output.
pub struct SuiteTerminal {
    out: Terminal,
    wants: Wants,
    color: bool,
    moving: bool,
    github: bool,
    /// Where the root directory lies in GitHub's eyes.
    below: PathBuf,
    files: usize,
    done: usize,
    running: BTreeMap<JobId, String>,
    /// Every file's last outcome, in the order of their ends.
    ended: Vec<FileOutcome>,
    ram: Option<f64>,
    /// Where files use a GPU and somebody knows.
    vram: Option<f64>,
    sensors: Option<crate::drive::Sensors>,
}

impl SuiteTerminal {
    /// Asks standard output what it can do.
    pub fn new(wants: Wants) -> SuiteTerminal {
        let terminal = io::stdout().is_terminal();
        let choice = anstream::AutoStream::choice(&io::stdout());
        SuiteTerminal {
            out: Terminal::out(),
            wants,
            color: choice != anstream::ColorChoice::Never,
            moving: terminal && std::env::var_os("TERM").is_none_or(|term| term != "dumb"),
            github: std::env::var_os("GITHUB_ACTIONS").is_some_and(|value| value == "true"),
            below: PathBuf::new(),
            files: 0,
            done: 0,
            running: BTreeMap::new(),
            ended: Vec::new(),
            ram: None,
            vram: None,
            sensors: crate::drive::Sensors::open().ok(),
        }
    }

    fn paint(&self, style: Style, text: &str) -> String {
        if self.color { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    /// Lines above the moving one.
    fn say(&mut self, text: &str) {
        let clear = if self.moving { "\r\x1b[K" } else { "" };
        self.out.write(&format!("{clear}{text}"));
    }

    fn progress(&mut self) {
        if !self.moving || self.wants == Wants::Little {
            return;
        }
        self.ram = self.sensors.as_mut().map(|sensors| {
            let host = sensors.machine();
            100.0 * host.total.minus(host.available).0 as f64 / host.total.0.max(1) as f64
        });
        let line = self.moving_line();
        self.out.write(&format!("\r\x1b[K{line}"));
    }

    /// `[3/9] 1 not passed RAM 45.2% VRAM 12.3% tests/test_a.py and 1 more`.
    fn moving_line(&self) -> String {
        let bad = self.ended.iter().filter(|file| !file.verdict.is_good()).count();
        let mut line = format!("[{}/{}]", self.done, self.files);
        if bad > 0 {
            let text = format!("{bad} not passed");
            let _ = write!(line, " {}", self.paint(bad_style(), &text));
        }
        let _ = write!(line, " RAM {}", percent(self.ram));
        if self.vram.is_some() {
            let _ = write!(line, " VRAM {}", percent(self.vram));
        }
        if let Some(first) = self.running.values().next() {
            let more = self.running.len().saturating_sub(1);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let _ = write!(line, " {}{more}", short(&one_line(first), 50));
        }
        line
    }

    fn file_ended(&mut self, outcome: &FileOutcome, roster: &Roster) {
        self.ended.retain(|before| before.path != outcome.path);
        self.ended.push(outcome.clone());
        self.done += usize::from(!outcome.again);
        let good = outcome.verdict.is_good() && outcome.left_behind.is_empty();
        let shown = match self.wants {
            Wants::All => true,
            _ => !good && outcome.verdict != Verdict::NotRun,
        };
        if shown {
            let text = self.line(outcome);
            self.say(&text);
            let output = !outcome.verdict.is_good() || self.wants == Wants::All;
            if let Some(log) = outcome.log.as_deref().filter(|_| output) {
                self.show(log);
            }
        }
        let has_nothing_to_say = outcome.verdict.is_good() || outcome.verdict.is_not_its_own();
        if self.github && !has_nothing_to_say && !outcome.again {
            let text = github::annotations(outcome, &self.below);
            self.say(&text);
        }
        let _ = roster;
    }

    /// `FAILED  tests/test_a.py  1.2s  340MiB  3 passed, 1 failed`, and why.
    fn line(&self, outcome: &FileOutcome) -> String {
        let word = self.paint(style(outcome), &format!("{:<12}", outcome.verdict.word()));
        let peak = outcome.peak_ram.map_or_else(|| "-".to_owned(), |peak| peak.to_string());
        let again = if outcome.again { ", will be run again" } else { "" };
        let mut text = format!(
            "{word} {} ({:.2}s, {peak}, {}{again})\n",
            one_line(&outcome.path),
            outcome.seconds,
            in_words(outcome.counts())
        );
        if let Some(message) = &outcome.message {
            let _ = writeln!(text, "{:12} {}", "", one_line(message));
        }
        for left in &outcome.left_behind {
            let _ = writeln!(text, "{:12} left behind: {}", "", one_line(left));
        }
        text
    }

    /// The end of a file's own output.
    fn show(&mut self, log: &Path) {
        let Ok(text) = tail(log, SHOWN) else { return };
        let text = text.trim_end();
        if !text.is_empty() {
            let rule = "-".repeat(78);
            self.say(&format!("{rule}\n{text}\n{rule}\n"));
        }
    }

    fn table(&mut self) {
        let all = self.ended.len() <= TABLE || self.wants == Wants::All;
        let mut rows: Vec<&FileOutcome> =
            self.ended.iter().filter(|file| file.verdict != Verdict::NotRun).collect();
        rows.sort_by_key(|file| std::cmp::Reverse(file.peak_ram));
        if !all {
            let mut largest = 0;
            rows.retain(|file| {
                let good = file.verdict.is_good() && file.left_behind.is_empty();
                largest += usize::from(good);
                !good || largest <= LARGEST
            });
        }
        if rows.is_empty() {
            return;
        }
        rows.sort_by(|a, b| a.verdict.cmp(&b.verdict).then_with(|| a.path.cmp(&b.path)));
        let width =
            rows.iter().map(|file| one_line(&file.path).chars().count()).max().unwrap_or(4).clamp(4, 60);
        let size = |size: Option<Bytes>| size.map_or_else(|| "-".to_owned(), |size| size.to_string());
        let head =
            format!("{:<12} {:<width$} {:>9} {:>9} {:>9}  running", "outcome", "file", "time", "RAM", "VRAM");
        let mut text = format!("\n{}\n", self.paint(Style::new().bold(), &head));
        for file in rows {
            let word = self.paint(style(file), &format!("{:<12}", file.verdict.word()));
            let path = format!("{:<width$}", short(&one_line(&file.path), width));
            let running = file.running.as_deref().map(|id| id.split_once("::").map_or(id, |(_, test)| test));
            let note = match (running, file.left_behind.first()) {
                (Some(test), _) => one_line(test),
                (None, Some(left)) => format!("(left behind {})", one_line(left)),
                (None, None) => String::new(),
            };
            let (time, ram, vram) =
                (format!("{:.2}s", file.seconds), size(file.peak_ram), size(file.peak_vram));
            let row = format!("{word} {path} {time:>9} {ram:>9} {vram:>9}  {note}");
            let _ = writeln!(text, "{}", row.trim_end());
        }
        self.say(&text);
    }

    fn summary(&mut self, seconds: f64, stopped: Option<&str>) {
        let mut verdicts: BTreeMap<Verdict, usize> = BTreeMap::new();
        for file in &self.ended {
            *verdicts.entry(file.verdict).or_default() += 1;
        }
        let left_out = self.files.saturating_sub(self.ended.len());
        let mut parts: Vec<String> = verdicts
            .iter()
            .map(|(verdict, count)| {
                let style = if verdict.is_good() { good_style() } else { bad_style() };
                self.paint(style, &format!("{count} {}", verdict.word()))
            })
            .collect();
        if left_out > 0 {
            parts.push(format!("{left_out} not run"));
        }
        let counts = self.ended.iter().map(FileOutcome::counts).fold(Counts::default(), Counts::plus);
        let again = self.ended.iter().filter(|file| file.verdict.is_good() && file.attempt > 1).count();
        let again = if again > 0 { format!(", {again} only when run again") } else { String::new() };
        let mut text = format!(
            "\n{} files: {}{again} · {} · {:.2}s\n",
            self.files,
            parts.join(", "),
            in_words(counts),
            seconds
        );
        if let Some(why) = stopped {
            let _ = writeln!(text, "{}", self.paint(bad_style(), &format!("stopped: {}", one_line(why))));
        }
        self.say(&text);
    }

    fn notice(&mut self, notice: &Notice, roster: &Roster) {
        match notice {
            Notice::Armed { enforcement, notes, .. } if self.wants == Wants::All => {
                let mut text = format!("limits are held by {}\n", enforcement.name());
                for note in notes {
                    let _ = writeln!(text, "  {}", one_line(note));
                }
                self.say(&text);
            }
            Notice::Armed { .. } => {}
            Notice::SuiteFound { rootdir, files, jobs, limit, vram } => {
                (self.files, self.vram) = (*files, *vram);
                self.below = github::below(rootdir, std::env::var_os("GITHUB_WORKSPACE").as_deref());
                let limit = limit.map_or_else(|| "NO limit".to_owned(), |limit| format!("at most {limit}"));
                let root = one_line(&rootdir.display().to_string());
                if self.wants > Wants::Little {
                    let text = format!("{files} files in {root}, {jobs} at a time, {limit} each\n");
                    self.say(&text);
                }
            }
            Notice::Isolated { how, why, preloaded, python, pytest } if self.wants > Wants::Little => {
                let mut text = match how.as_str() {
                    "fork-collection" => "forked inside pytest's collection".to_owned(),
                    "fork-imports" => "forked after the imports".to_owned(),
                    "command" => "a process of its own for each file".to_owned(),
                    _ => "a fresh process for each file".to_owned(),
                };
                if let (Some(python), Some(pytest)) = (python, pytest) {
                    let _ = write!(text, ", Python {python}, pytest {pytest}");
                }
                if !preloaded.is_empty() && self.wants == Wants::All {
                    let _ = write!(text, ", imported once: {}", preloaded.join(" "));
                }
                if let Some(why) = why {
                    let _ = write!(text, " ({})", one_line(why));
                }
                self.say(&format!("{text}\n"));
            }
            Notice::FileStarted { job, path, vram, .. } => {
                self.vram = *vram;
                self.running.insert(*job, path.clone());
            }
            Notice::FileEnded { job, vram, outcome } => {
                // One that was never begun says nothing about it.
                self.vram = vram.or(self.vram);
                job.map(|job| self.running.remove(&job));
                self.file_ended(outcome, roster);
            }
            Notice::SuiteEnded { seconds, stopped, .. } => {
                if self.wants > Wants::Little {
                    self.table();
                }
                self.summary(*seconds, stopped.as_deref());
            }
            _ => {}
        }
    }
}

impl Sink for SuiteTerminal {
    fn tell(&mut self, record: &Record, roster: &Roster) {
        match &record.told {
            Told::Notice(
                notice @ (Notice::Armed { .. }
                | Notice::SuiteFound { .. }
                | Notice::Isolated { .. }
                | Notice::FileStarted { .. }
                | Notice::FileEnded { .. }
                | Notice::SuiteEnded { .. }),
            ) => self.notice(notice, roster),
            told => {
                if is_worth_a_line(told) || self.wants == Wants::All {
                    for line in human::lines(record, roster) {
                        self.say(&format!("{}\n", line.text));
                    }
                }
            }
        }
        if !matches!(record.told, Told::Notice(Notice::SuiteEnded { .. })) {
            self.progress();
        }
    }

    fn finish(&mut self) {
        self.out.flush(Duration::from_secs(1));
    }
}

/// What the guard does to somebody, and what it cannot do. That files start and end is told in other words.
fn is_worth_a_line(told: &Told) -> bool {
    use oomguard_core::Event;
    match told {
        Told::Engine(event) => {
            matches!(event, Event::Brake { .. } | Event::NoVictim { .. } | Event::Unkillable { .. })
        }
        Told::Notice(notice) => !matches!(notice, Notice::StartError { .. } | Notice::ShmRemoved { .. }),
    }
}

fn in_words(counts: Counts) -> String {
    let parts = [
        (counts.passed, "passed"),
        (counts.failed, "failed"),
        (counts.errors, if counts.errors == 1 { "error" } else { "errors" }),
        (counts.skipped, "skipped"),
    ];
    let parts: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    if parts.is_empty() { "no tests".to_owned() } else { parts.join(", ") }
}

fn good_style() -> Style {
    AnsiColor::Green.on_default()
}

fn bad_style() -> Style {
    AnsiColor::Red.on_default().bold()
}

fn style(outcome: &FileOutcome) -> Style {
    match outcome.verdict {
        Verdict::Passed if outcome.left_behind.is_empty() => good_style(),
        Verdict::Passed | Verdict::NoTests | Verdict::NotRun => AnsiColor::Yellow.on_default(),
        _ => bad_style(),
    }
}

/// The end of a text: the file's own name says more than its folders.
fn short(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    std::iter::once('…').chain(text.chars().skip(length - width + 1)).collect()
}

/// The last `most` bytes of a file as text.
fn tail(path: &Path, most: u64) -> io::Result<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    let mut text = Vec::new();
    let mut prefix = String::new();
    if length > most {
        file.seek(SeekFrom::End(-(most.cast_signed())))?;
        prefix = format!("(the first {} are in {})\n", Bytes(length - most), path.display());
    }
    file.take(most).read_to_end(&mut text)?;
    Ok(prefix + &String::from_utf8_lossy(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_moving_line_says_how_full_the_gpu_is_where_somebody_knows() {
        let mut terminal = SuiteTerminal::new(Wants::Usual);
        (terminal.files, terminal.done, terminal.ram) = (9, 3, Some(45.2));
        let record = |vram| {
            let (job, path) = (JobId(0), "tests/test_a.py".to_owned());
            let told = Notice::FileStarted { job, path, attempt: 1, limit: None, vram };
            Record::now(oomguard_core::Instant(0), told)
        };
        for (vram, line) in [
            (None, "[3/9] RAM 45.2% tests/test_a.py"),
            (Some(12.34), "[3/9] RAM 45.2% VRAM 12.3% tests/test_a.py"),
        ] {
            terminal.tell(&record(vram), &Roster::default());
            assert_eq!(terminal.moving_line(), line);
        }
    }
}
