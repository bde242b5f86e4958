//! The one error that reaches people: what went wrong, what to do about it, and the exit code it means.
//!
//! Never wraps another error type: whoever meets one says in words what was being done. Messages are lowercase
//! fragments with the value in backticks.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use crate::sink::human::{harmless, one_line};

/// Not enough room: pre-flight refused (`EX_TEMPFAIL`, so that CI can queue the work again).
pub const REFUSED: u8 = 75;
/// The command ran into its wall-clock limit.
pub const TIMED_OUT: u8 = 124;
/// oomguard itself failed, or was used wrongly.
pub const FAILED: u8 = 125;
/// The command is there and cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// There is no such command.
pub const NOT_FOUND: u8 = 127;
/// Ended because of memory (128 + SIGKILL, as shells and containers report it).
pub const MEMORY: u8 = 137;

/// What went wrong, for people. `Display` gives `error: ...` and, where there is one, a line `hint: ...`; what a terminal
/// would act on is written out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// A lowercase fragment with the value in backticks; may go on over several lines (an excerpt of a file).
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The exit code it means.
    pub code: u8,
}

impl Error {
    /// A failure of oomguard itself or of its use (exit code 125).
    pub fn new(message: impl Into<String>) -> Error {
        Error { message: message.into(), hint: None, code: FAILED }
    }

    /// ``could not read `oomguard.toml`: no such file or directory``.
    pub fn io(doing: &str, path: &Path, error: &io::Error) -> Error {
        let path = one_line(&path.display().to_string());
        Error::new(format!("could not {doing} `{path}`: {}", in_words(error)))
    }

    /// With a line that says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = Some(hint.into());
        self
    }

    /// With this exit code.
    #[must_use]
    pub fn code(mut self, code: u8) -> Error {
        self.code = code;
        self
    }

    /// What `main` returns.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", harmless(&self.message))?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {}", harmless(hint)),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// The system's own words for an I/O error, in lowercase and without `(os error 2)`.
pub fn in_words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error ").next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        // `No such file` but not `EOF while parsing`.
        Some(first) if letters.clone().next().is_some_and(char::is_lowercase) => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_as_a_fragment_and_a_hint() {
        let missing = io::Error::from_raw_os_error(2);
        let error = Error::io("read", Path::new("oomguard.toml"), &missing).hint("write one");
        assert_eq!(
            error.to_string(),
            "error: could not read `oomguard.toml`: no such file or directory\nhint: write one"
        );
        assert_eq!(error.code, FAILED);
    }

    #[test]
    fn a_name_in_an_error_cannot_speak_to_the_terminal() {
        let missing = io::Error::from_raw_os_error(2);
        let shown = Error::io("read", Path::new("a\u{1b}]0;x\u{7}\u{9b}2J\nhint: b"), &missing).to_string();
        assert_eq!(
            shown,
            "error: could not read `a\\u{1b}]0;x\\u{7}\\u{9b}2J\\nhint: b`: no such file or directory"
        );
    }

    #[test]
    fn without_a_hint_there_is_one_line() {
        assert_eq!(Error::new("no room").code(REFUSED).to_string(), "error: no room");
    }
}
