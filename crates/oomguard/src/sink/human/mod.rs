//! Records as sentences: `watchdog.log` and the terminal. The wording is one that people already search for.
//!
//! Decides wording, colour and the clock in front. It never decides what is worth telling, and no text from
//! outside can add a line or a colour of its own.

mod event;
mod notice;
mod units;
mod vram;

pub use vram::remedy;
pub(crate) use vram::share as vram_share;

pub(crate) use units::{acts, harmless, one_line, pace, span};

use std::io::{self, IsTerminal};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use jiff::tz::TimeZone;

use super::terminal::Terminal;
use super::{LogFile, Sink};
use crate::record::{Notice, Record, Roster, Told};

/// How a line is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// For the record.
    Plain,
    /// All is well, or well again.
    Good,
    /// Look at this.
    Warn,
    /// Something was or is being lost.
    Bad,
}

impl Tone {
    fn line(self, text: String) -> Line {
        Line { tone: self, text }
    }

    fn style(self) -> Style {
        match self {
            Tone::Plain => Style::new(),
            Tone::Good => AnsiColor::Green.on_default(),
            Tone::Warn => AnsiColor::Yellow.on_default(),
            Tone::Bad => AnsiColor::Red.on_default().bold(),
        }
    }
}

/// One line without its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// How it is meant.
    pub tone: Tone,
    /// What it says; may hold text from outside as it came.
    pub text: String,
}

/// What `record` is in words: one line, a few for those that carry a list.
pub fn lines(record: &Record, roster: &Roster) -> Vec<Line> {
    let mut lines = match &record.told {
        Told::Engine(event) => event::lines(event, roster),
        Told::Notice(notice) => notice::lines(notice, roster),
    };
    for line in &mut lines {
        line.text = units::one_line(&line.text);
    }
    lines
}

/// The lines with `[HH:MM:SS] ` of this time zone in front, coloured or not, each with its line feed.
pub fn render(record: &Record, roster: &Roster, zone: &TimeZone, color: bool) -> String {
    let clock = record.ts.to_zoned(zone.clone()).strftime("[%H:%M:%S]").to_string();
    let mut text = String::new();
    for line in lines(record, roster) {
        let style = if color { line.tone.style() } else { Style::new() };
        text.push_str(&format!("{clock} {style}{}{style:#}\n", line.text));
    }
    text
}

/// Whether standard error takes colours: a terminal, and neither `NO_COLOR` nor `TERM=dumb` says otherwise.
pub fn stderr_takes_color() -> bool {
    anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never
}

#[derive(Debug)]
enum Out {
    File(LogFile),
    Terminal { terminal: Terminal, color: bool, health: bool },
}

/// The sentences in a log file or on standard error.
#[derive(Debug)]
pub struct Human {
    out: Out,
    zone: TimeZone,
}

impl Human {
    /// In a file: never coloured.
    pub fn file(file: LogFile) -> Human {
        Human { out: Out::File(file), zone: TimeZone::system() }
    }

    /// On standard error; the healthy lines of every minute only when `health`.
    pub fn stderr(health: bool) -> Human {
        let color = io::stderr().is_terminal() && stderr_takes_color() || forced();
        Human { out: Out::Terminal { terminal: Terminal::err(), color, health }, zone: TimeZone::system() }
    }
}

/// `CLICOLOR_FORCE` colours pipes as well.
fn forced() -> bool {
    stderr_takes_color() && std::env::var_os("CLICOLOR_FORCE").is_some_and(|value| value != "0")
}

impl Sink for Human {
    fn tell(&mut self, record: &Record, roster: &Roster) {
        match &mut self.out {
            Out::File(file) => file.write(&render(record, roster, &self.zone, false)),
            Out::Terminal { terminal, color, health } => {
                let is_health = matches!(record.told, Told::Engine(oomguard_core::Event::Health { .. }));
                if *health || !is_health {
                    terminal.write(&render(record, roster, &self.zone, *color));
                }
            }
        }
    }

    fn trouble(&mut self) -> Option<Notice> {
        match &mut self.out {
            Out::File(file) => file.trouble(),
            Out::Terminal { .. } => None,
        }
    }

    fn reopen(&mut self) {
        if let Out::File(file) = &mut self.out {
            file.reopen();
        }
    }

    fn finish(&mut self) {
        if let Out::Terminal { terminal, .. } = &mut self.out {
            terminal.flush(Duration::from_secs(1));
        }
    }
}

#[cfg(test)]
mod tests;
