//! What became of a test file and of each of its tests.
//!
//! Only data, and the words for it: `drive::test` fills it in, the sinks render it.

use oomguard_core::Bytes;
use serde::{Deserialize, Serialize};

/// The isolation of a file that another runner than pytest has run.
pub const COMMAND: &str = "command";

/// How a file ended, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every test that ran went well.
    Passed,
    /// There was no test in it, or all were deselected.
    NoTests,
    /// It was not started.
    NotRun,
    /// At least one test failed, or the file could not be imported.
    Failed,
    /// It grew to its own limit and was ended.
    MemoryLimit,
    /// The machine's memory ran short and this file was the one that grew.
    MemoryReserve,
    /// It ended without pytest having come to its end: a signal, `os._exit`.
    Crash,
    /// It took longer than it may.
    Timeout,
    /// It was interrupted.
    Interrupted,
    /// pytest refused its arguments or its configuration.
    Usage,
    /// pytest itself failed.
    Internal,
    /// It could not be started.
    StartFailed,
}

impl Verdict {
    /// Nothing to look at.
    pub const fn is_good(self) -> bool {
        matches!(self, Verdict::Passed | Verdict::NoTests)
    }

    /// Not of its own making: somebody stopped the run.
    pub const fn is_not_its_own(self) -> bool {
        matches!(self, Verdict::NotRun | Verdict::Interrupted)
    }

    /// Memory ended it.
    pub const fn is_memory(self) -> bool {
        matches!(self, Verdict::MemoryLimit | Verdict::MemoryReserve)
    }

    /// The word that people read.
    pub const fn word(self) -> &'static str {
        match self {
            Verdict::Passed => "passed",
            Verdict::NoTests => "no tests",
            Verdict::NotRun => "not run",
            Verdict::Failed => "failed",
            Verdict::MemoryLimit => "memory limit",
            Verdict::MemoryReserve => "memory short",
            Verdict::Crash => "crashed",
            Verdict::Timeout => "timed out",
            Verdict::Interrupted => "interrupted",
            Verdict::Usage => "usage error",
            Verdict::Internal => "pytest failed",
            Verdict::StartFailed => "not started",
        }
    }

    /// The `type` of the error in JUnit's XML.
    pub const fn kind(self) -> &'static str {
        match self {
            Verdict::MemoryLimit => "oomguard.MemoryLimit",
            Verdict::MemoryReserve => "oomguard.MemoryReserve",
            Verdict::Crash => "oomguard.Crash",
            Verdict::Timeout => "oomguard.Timeout",
            Verdict::Interrupted => "oomguard.Interrupted",
            Verdict::Usage => "oomguard.Usage",
            Verdict::Internal => "oomguard.Internal",
            Verdict::StartFailed => "oomguard.StartFailed",
            Verdict::Passed | Verdict::NoTests | Verdict::NotRun | Verdict::Failed => "oomguard.Failed",
        }
    }
}

/// How one test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TestVerdict {
    /// Well.
    Passed,
    /// Its call failed.
    Failed,
    /// Its setup or teardown failed, or its file could not be imported.
    Error,
    /// It was skipped.
    Skipped,
    /// It failed, as expected.
    Xfailed,
    /// It passed, though a failure was expected.
    Xpassed,
    /// It was at work when its process died.
    Killed,
    /// Its process died before its turn, or it was interrupted.
    NotRun,
}

impl TestVerdict {
    /// As the heartbeat says it.
    pub fn from_word(word: &str) -> Option<TestVerdict> {
        Some(match word {
            "passed" => TestVerdict::Passed,
            "failed" => TestVerdict::Failed,
            "error" => TestVerdict::Error,
            "skipped" => TestVerdict::Skipped,
            "xfailed" => TestVerdict::Xfailed,
            "xpassed" => TestVerdict::Xpassed,
            _ => return None,
        })
    }

    /// It counts against the file.
    pub const fn is_failure(self) -> bool {
        matches!(self, TestVerdict::Failed | TestVerdict::Error | TestVerdict::Killed)
    }
}

/// One test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestOutcome {
    /// pytest's name of it.
    pub nodeid: String,
    /// How it ended.
    pub outcome: TestVerdict,
    /// Setup, call and teardown; until its death for one that was killed.
    pub seconds: f64,
    /// Resident set of its process before, in bytes.
    pub rss_before: Option<Bytes>,
    /// ... and after its teardown.
    pub rss_after: Option<Bytes>,
    /// The most in between.
    pub rss_peak: Option<Bytes>,
    /// Why, in one line.
    pub message: Option<String>,
    /// What pytest shows about it.
    pub text: Option<String>,
    /// Captured output: its title and its text.
    pub sections: Vec<(String, String)>,
}

impl TestOutcome {
    /// A test of which only its name is known so far.
    pub fn new(nodeid: impl Into<String>, outcome: TestVerdict) -> TestOutcome {
        TestOutcome {
            nodeid: nodeid.into(),
            outcome,
            seconds: 0.0,
            rss_before: None,
            rss_after: None,
            rss_peak: None,
            message: None,
            text: None,
            sections: Vec::new(),
        }
    }

    /// What its process kept of what it took, in bytes.
    pub fn kept(&self) -> Option<Bytes> {
        Some(self.rss_after?.minus(self.rss_before?))
    }
}

/// What a file's tests came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// All that were collected.
    pub tests: usize,
    /// Passed, expected failures among them.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
    /// Errors in setup, teardown or import, and tests that died with their process.
    pub errors: usize,
    /// Skipped, and not run.
    pub skipped: usize,
}

impl Counts {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Counts) -> Counts {
        Counts {
            tests: self.tests + other.tests,
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            errors: self.errors + other.errors,
            skipped: self.skipped + other.skipped,
        }
    }
}

/// One run of one file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileOutcome {
    /// The file, relative to pytest's root directory.
    pub path: String,
    /// How it ended.
    pub verdict: Verdict,
    /// Why, in one sentence; always there where the verdict is not good.
    pub message: Option<String>,
    /// The test that was at work when it died.
    pub running: Option<String>,
    /// The how-manieth run of this file, from 1.
    pub attempt: u32,
    /// It will be run once more.
    pub again: bool,
    /// From its start to its end.
    pub seconds: f64,
    /// The most memory that its process tree used.
    pub peak_ram: Option<Bytes>,
    /// The most GPU memory.
    pub peak_vram: Option<Bytes>,
    /// What it was allowed to use.
    pub limit: Option<Bytes>,
    /// How it was kept apart from the others: `fork-collection`, `fork-imports`, `spawn`, `command`.
    pub isolation: String,
    /// Its exit code, if it had one.
    pub exit_code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// What it left behind and was ended or removed: processes, shared memory.
    pub left_behind: Vec<String>,
    /// Where its output is.
    pub log: Option<std::path::PathBuf>,
    /// Its tests, in the order in which they ran.
    pub tests: Vec<TestOutcome>,
}

impl FileOutcome {
    /// What its tests came to.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts { tests: self.tests.len(), ..Counts::default() };
        for test in &self.tests {
            match test.outcome {
                TestVerdict::Passed | TestVerdict::Xfailed | TestVerdict::Xpassed => counts.passed += 1,
                TestVerdict::Failed => counts.failed += 1,
                TestVerdict::Error | TestVerdict::Killed => counts.errors += 1,
                TestVerdict::Skipped | TestVerdict::NotRun => counts.skipped += 1,
            }
        }
        counts
    }
}
