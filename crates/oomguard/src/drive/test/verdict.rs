//! How a file ended, from everything that is known: why the engine ended it, how its main process ended, what pytest
//! had told by then.
//!
//! Decides the verdict and its sentence. It reads nothing.

use std::time::Duration;

use oomguard_core::{Bytes, Cause, Exit};
use oomguard_sys::process::Signal;

use crate::outcome::Verdict;

/// A forked child could not enter its cgroup or its limits, and has run nothing.
const NOT_HELD: i32 = 125;

/// What is known about an end.
#[derive(Clone, Debug)]
pub struct End<'a> {
    /// The engine's cause.
    pub cause: Cause,
    /// How the main process ended.
    pub exit: Exit,
    /// The exit code that pytest announced on its pipe.
    pub announced: Option<i32>,
    /// It is pytest that ran, so that its exit codes are pytest's.
    pub pytest: bool,
    /// A test was at work.
    pub running: Option<&'a str>,
    /// What it was allowed to use.
    pub limit: Option<Bytes>,
    /// The most that it used.
    pub peak: Bytes,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// What was available on the machine when it was chosen.
    pub available: Option<Bytes>,
    /// The largest process in it, where it was killed: its name and what it used.
    pub largest: Option<(&'a str, Bytes)>,
}

impl End<'_> {
    /// The verdict, and its sentence where it is not good.
    pub fn verdict(&self) -> (Verdict, Option<String>) {
        let verdict = self.kind();
        let sentence = match verdict {
            Verdict::Passed | Verdict::NoTests | Verdict::NotRun => None,
            // Its tests say why, if they came to their end.
            Verdict::Failed if self.pytest && !self.was_left() => None,
            _ => Some(self.sentence(verdict)),
        };
        (verdict, sentence)
    }

    fn kind(&self) -> Verdict {
        match self.cause {
            Cause::Limit | Cause::Leak | Cause::Vram => return Verdict::MemoryLimit,
            Cause::Reserve => return Verdict::MemoryReserve,
            Cause::Timeout => return Verdict::Timeout,
            Cause::Requested => return Verdict::Interrupted,
            Cause::StartFailed => return Verdict::StartFailed,
            Cause::Finished | Cause::Crash | Cause::Age => {}
        }
        match self.exit {
            Exit::Code(NOT_HELD) if self.pytest && self.announced.is_none() => Verdict::StartFailed,
            Exit::Code(code) if !self.pytest => {
                if code == 0 {
                    Verdict::Passed
                } else {
                    Verdict::Failed
                }
            }
            // A test that ends the process with os._exit(0) has not passed.
            Exit::Code(0..=1) if self.announced.is_none() => Verdict::Crash,
            Exit::Code(0) => Verdict::Passed,
            Exit::Code(1) => Verdict::Failed,
            // Nobody interrupted it: pytest says this when a file cannot be imported, and tests may say it.
            Exit::Code(2) => Verdict::Failed,
            Exit::Code(3) => Verdict::Internal,
            Exit::Code(4) => Verdict::Usage,
            Exit::Code(5) => Verdict::NoTests,
            // `pytest.exit` with a code of its own.
            Exit::Code(code) if self.announced == Some(code) => Verdict::Failed,
            Exit::Code(_) => Verdict::Crash,
            Exit::Signal(_) => Verdict::Crash,
            // Whoever started it died before it could tell; pytest had said how it would end.
            Exit::Unknown => match self.announced {
                Some(0) => Verdict::Passed,
                Some(5) => Verdict::NoTests,
                Some(_) => Verdict::Failed,
                None => Verdict::Crash,
            },
        }
    }

    /// pytest ended in good order and left a test in the middle: `pytest.exit`, or a KeyboardInterrupt that a test raised.
    pub fn was_left(&self) -> bool {
        self.running.is_some() && self.announced.is_some_and(|code| code > 1)
    }

    fn sentence(&self, verdict: Verdict) -> String {
        let during = self.running.map_or_else(String::new, |id| format!(" during {id}"));
        let largest = self
            .largest
            .map_or_else(String::new, |(name, usage)| format!("; largest process: {name} ({usage})"));
        match verdict {
            Verdict::MemoryLimit => {
                let limit = self
                    .limit
                    .map_or_else(|| "its limit".to_owned(), |limit| format!("its limit of {limit}"));
                format!("killed{during}: it reached {limit} (peak {}){largest}", self.peak)
            }
            Verdict::MemoryReserve => {
                let left = self.available.map_or_else(String::new, |left| format!(", {left} were left"));
                format!(
                    "killed{during}: the machine's memory ran short{left} (its peak {}){largest}",
                    self.peak
                )
            }
            Verdict::Timeout => {
                let time = self.timeout.unwrap_or_default();
                format!("ended{during}: it took longer than {time:?}")
            }
            Verdict::Crash => format!("{}{during}", self.crash()),
            Verdict::Interrupted => format!("interrupted{during}"),
            Verdict::Usage => {
                "pytest refused its arguments or a `conftest.py` (exit code 4); its log says why".to_owned()
            }
            Verdict::Internal => "pytest itself failed (exit code 3)".to_owned(),
            Verdict::StartFailed => "it could not be started within its limits; its log says why".to_owned(),
            Verdict::Failed if self.was_left() => {
                let code = self.announced.unwrap_or_default();
                format!("pytest stopped{during} (exit code {code}): pytest.exit or a KeyboardInterrupt")
            }
            _ if !self.pytest => match self.exit {
                Exit::Code(code) => format!("exit code {code}"),
                _ => "failed".to_owned(),
            },
            _ => "failed".to_owned(),
        }
    }

    fn crash(&self) -> String {
        match self.exit {
            Exit::Signal(number) => {
                let name = Signal::from_named_raw(number).map_or("unknown", name);
                format!("crashed with signal {number} ({name})")
            }
            Exit::Code(code) => format!("its process ended with exit code {code} before pytest did"),
            Exit::Unknown => "its process vanished".to_owned(),
        }
    }
}

fn name(signal: Signal) -> &'static str {
    match signal {
        Signal::SEGV => "SIGSEGV",
        Signal::ABORT => "SIGABRT",
        Signal::BUS => "SIGBUS",
        Signal::FPE => "SIGFPE",
        Signal::ILL => "SIGILL",
        Signal::KILL => "SIGKILL",
        Signal::TERM => "SIGTERM",
        Signal::INT => "SIGINT",
        Signal::PIPE => "SIGPIPE",
        _ => "see `kill -l`",
    }
}

/// pytest's exit code for the whole suite, from its files' verdicts: interrupted, then wrong use, then pytest's own
/// failure, then failures; 5 if there was no test at all.
pub fn exit_code(verdicts: impl Iterator<Item = Verdict>, interrupted: bool) -> u8 {
    let (mut code, mut any) = (0, false);
    let rank = |code: u8| match code {
        4 => 3,
        3 => 2,
        1 => 1,
        _ => 0,
    };
    for verdict in verdicts {
        any |= verdict != Verdict::NoTests;
        let this = match verdict {
            Verdict::Passed | Verdict::NoTests => 0,
            Verdict::Usage => 4,
            Verdict::Internal => 3,
            _ => 1,
        };
        if rank(this) > rank(code) {
            code = this;
        }
    }
    match (interrupted, any, code) {
        (true, ..) => 2,
        (false, false, 0) => 5,
        _ => code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(cause: Cause, exit: Exit, announced: Option<i32>) -> End<'static> {
        End {
            cause,
            exit,
            announced,
            pytest: true,
            running: Some("t.py::a"),
            limit: Some(Bytes::gib(8)),
            peak: Bytes::gib(8),
            timeout: Some(Duration::from_secs(60)),
            available: None,
            largest: None,
        }
    }

    #[test]
    fn an_end_has_one_verdict() {
        let cases = [
            (Cause::Finished, Exit::Code(0), Some(0), Verdict::Passed),
            (Cause::Crash, Exit::Code(1), Some(1), Verdict::Failed),
            (Cause::Crash, Exit::Code(2), Some(2), Verdict::Failed),
            (Cause::Crash, Exit::Code(5), Some(5), Verdict::NoTests),
            (Cause::Crash, Exit::Code(4), None, Verdict::Usage),
            (Cause::Finished, Exit::Code(0), None, Verdict::Crash),
            (Cause::Crash, Exit::Signal(11), None, Verdict::Crash),
            (Cause::Crash, Exit::Code(1), None, Verdict::Crash),
            (Cause::Limit, Exit::Signal(9), None, Verdict::MemoryLimit),
            (Cause::Reserve, Exit::Signal(9), None, Verdict::MemoryReserve),
            (Cause::Timeout, Exit::Code(2), Some(2), Verdict::Timeout),
            (Cause::Requested, Exit::Code(2), Some(2), Verdict::Interrupted),
            (Cause::Crash, Exit::Unknown, Some(0), Verdict::Passed),
            (Cause::Crash, Exit::Unknown, None, Verdict::Crash),
        ];
        for (cause, exit, announced, verdict) in cases {
            assert_eq!(end(cause, exit, announced).verdict().0, verdict, "{cause:?} {exit:?} {announced:?}");
        }
    }

    #[test]
    fn a_sentence_names_the_cause_and_the_test() {
        let (_, sentence) = end(Cause::Limit, Exit::Signal(9), None).verdict();
        assert_eq!(sentence.unwrap(), "killed during t.py::a: it reached its limit of 8 GiB (peak 8 GiB)");
        let (_, sentence) = end(Cause::Crash, Exit::Signal(11), None).verdict();
        assert_eq!(sentence.unwrap(), "crashed with signal 11 (SIGSEGV) during t.py::a");
    }

    #[test]
    fn a_test_that_stops_pytest_is_named() {
        for code in [2, 7] {
            let (verdict, sentence) = end(Cause::Crash, Exit::Code(code), Some(code)).verdict();
            assert_eq!(verdict, Verdict::Failed);
            assert!(sentence.unwrap().starts_with("pytest stopped during t.py::a"));
        }
        let failed = End { running: None, ..end(Cause::Crash, Exit::Code(2), Some(2)) };
        assert_eq!(failed.verdict(), (Verdict::Failed, None));
    }

    #[test]
    fn another_runners_exit_code_is_its_verdict() {
        let other = |code| End { pytest: false, ..end(Cause::Crash, Exit::Code(code), None) };
        assert_eq!(other(0).verdict().0, Verdict::Passed);
        assert_eq!(other(5).verdict().0, Verdict::Failed);
    }

    #[test]
    fn the_suite_has_pytests_exit_code() {
        use Verdict::*;
        let code = |verdicts: &[Verdict]| exit_code(verdicts.iter().copied(), false);
        assert_eq!(code(&[Passed, NoTests]), 0);
        assert_eq!(code(&[Passed, MemoryLimit]), 1);
        assert_eq!(code(&[Failed, Internal]), 3);
        assert_eq!(code(&[Usage, Internal]), 4);
        assert_eq!(code(&[NoTests]), 5);
        assert_eq!(code(&[]), 5);
        assert_eq!(exit_code([Failed].into_iter(), true), 2);
    }
}
