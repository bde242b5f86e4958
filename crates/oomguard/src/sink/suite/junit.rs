//! JUnit's XML: one suite a file, one case a test, a memory kill as an error of the test that was at work.
//!
//! Written whole again and again while the run goes on, so that it can be read whatever happens to us; at most once a
//! second, because it grows.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use quick_junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestRerun, TestSuite};

use crate::error::Error;
use crate::outcome::{FileOutcome, TestOutcome, TestVerdict, Verdict};
use crate::record::{Notice, Record, Roster, Told};
use crate::sink::Sink;
use crate::state::{can_write_beside, write_whole};

/// Not written more often than this.
const PAUSE: Duration = Duration::from_secs(1);

/// Writes the file.
pub struct Junit {
    path: PathBuf,
    /// Every file's last outcome, and the one before it where it was run again.
    ended: Vec<(FileOutcome, Option<FileOutcome>)>,
    written: Option<Instant>,
    failed: Option<String>,
}

impl Junit {
    /// Will write to `path`; found out now, not after hours of work.
    pub fn open(path: &Path) -> Result<Junit, Error> {
        can_write_beside(path).map_err(|error| Error::io("write", path, &error))?;
        Ok(Junit { path: path.to_owned(), ended: Vec::new(), written: None, failed: None })
    }

    fn write(&mut self) {
        self.written = Some(Instant::now());
        let mut report = Report::new("oomguard");
        for (outcome, before) in &self.ended {
            report.add_test_suite(suite(outcome, before.as_ref()));
        }
        let written = report.to_string().map_err(|error| error.to_string()).and_then(|xml| {
            write_whole(&self.path, xml.as_bytes(), 0o666).map_err(|error| error.to_string())
        });
        self.failed = written.err();
    }
}

impl Sink for Junit {
    fn tell(&mut self, record: &Record, _: &Roster) {
        let Told::Notice(Notice::FileEnded { outcome, .. }) = &record.told else { return };
        match self.ended.iter_mut().find(|(before, _)| before.path == outcome.path) {
            Some(entry) => {
                let before = std::mem::replace(&mut entry.0, (**outcome).clone());
                entry.1 = Some(before);
            }
            None => self.ended.push(((**outcome).clone(), None)),
        }
        if self.written.is_none_or(|at| at.elapsed() >= PAUSE) {
            self.write();
        }
    }

    fn finish(&mut self) {
        self.write();
        if let Some(why) = &self.failed {
            crate::complain(&format!("oomguard: could not write `{}`: {why}", self.path.display()));
        }
    }
}

fn suite(outcome: &FileOutcome, before: Option<&FileOutcome>) -> TestSuite {
    let mut suite = TestSuite::new(outcome.path.clone());
    suite.set_time(Duration::from_secs_f64(outcome.seconds.max(0.0)));
    let bytes = |size: Option<oomguard_core::Bytes>| size.map(|size| size.0.to_string());
    let known = [
        ("peak_ram", bytes(outcome.peak_ram)),
        ("peak_vram", bytes(outcome.peak_vram)),
        ("limit", bytes(outcome.limit)),
        ("isolation", Some(outcome.isolation.clone())),
        ("outcome", Some(outcome.verdict.word().to_owned())),
    ];
    for (name, value) in known {
        if let Some(value) = value {
            suite.add_property(Property::new(name, value));
        }
    }
    for left in &outcome.left_behind {
        suite.add_property(Property::new("left_behind", left.clone()));
    }
    let again = before.filter(|_| outcome.verdict.is_good());
    for test in &outcome.tests {
        suite.add_test_case(case(outcome, test, again));
    }
    if !outcome.verdict.is_good() && !outcome.tests.iter().any(|test| test.outcome.is_failure()) {
        suite.add_test_case(whole_file(outcome));
    }
    suite
}

/// A file that ended badly, or was never begun, without a test to blame.
fn whole_file(outcome: &FileOutcome) -> TestCase {
    let mut status = match outcome.verdict {
        Verdict::NotRun => TestCaseStatus::skipped(),
        _ => TestCaseStatus::non_success(NonSuccessKind::Error),
    };
    status.set_message(outcome.message.clone().unwrap_or_default());
    if outcome.verdict != Verdict::NotRun {
        status.set_type(outcome.verdict.kind());
    }
    let mut case = TestCase::new(outcome.path.clone(), status);
    case.set_classname(classname(&outcome.path));
    case
}

fn case(outcome: &FileOutcome, test: &TestOutcome, before: Option<&FileOutcome>) -> TestCase {
    let (file, name) = test.nodeid.split_once("::").unwrap_or((&test.nodeid, &test.nodeid));
    // `path::Class::test` is class `path.Class`, as pytest writes it.
    let (class, name) = match name.split('[').next().unwrap_or(name).rsplit_once("::") {
        Some((class, _)) => {
            (format!("{}.{}", classname(file), class.replace("::", ".")), &name[class.len() + 2..])
        }
        None => (classname(file), name),
    };
    let mut case = TestCase::new(name, status(outcome, test, before));
    case.set_classname(class);
    case.set_time(Duration::from_secs_f64(test.seconds.max(0.0)));
    if let Some(peak) = test.rss_peak {
        case.add_property(Property::new("rss_peak", peak.0.to_string()));
    }
    for (title, text) in &test.sections {
        let out = if title.contains("stderr") { &mut case.system_err } else { &mut case.system_out };
        let before = out.take().map(|text| text.to_string()).unwrap_or_default();
        *out = Some(format!("{before}--- {title} ---\n{text}\n").into());
    }
    case
}

fn status(outcome: &FileOutcome, test: &TestOutcome, before: Option<&FileOutcome>) -> TestCaseStatus {
    let mut status = match test.outcome {
        TestVerdict::Passed | TestVerdict::Xpassed => TestCaseStatus::success(),
        TestVerdict::Failed => TestCaseStatus::non_success(NonSuccessKind::Failure),
        TestVerdict::Error | TestVerdict::Killed => TestCaseStatus::non_success(NonSuccessKind::Error),
        TestVerdict::Skipped | TestVerdict::Xfailed | TestVerdict::NotRun => TestCaseStatus::skipped(),
    };
    match test.outcome {
        TestVerdict::Passed | TestVerdict::Xpassed => {
            // It did not pass the first time: Surefire's `flakyError`.
            let earlier = before.and_then(|before| before.tests.iter().find(|it| it.nodeid == test.nodeid));
            if let (Some(before), Some(earlier)) = (before, earlier)
                && earlier.outcome.is_failure()
            {
                let mut rerun = TestRerun::new(NonSuccessKind::Error);
                rerun.set_type(before.verdict.kind());
                rerun.set_message(earlier.message.clone().or(before.message.clone()).unwrap_or_default());
                status.add_rerun(rerun);
            }
            return status;
        }
        TestVerdict::Killed => drop(status.set_type(outcome.verdict.kind())),
        TestVerdict::Failed => drop(status.set_type("pytest.failure")),
        TestVerdict::Error => drop(status.set_type("pytest.error")),
        TestVerdict::Skipped => drop(status.set_type("pytest.skip")),
        TestVerdict::Xfailed => drop(status.set_type("pytest.xfail")),
        TestVerdict::NotRun => drop(status.set_type("oomguard.NotRun")),
    }
    if let Some(message) = &test.message {
        status.set_message(message.clone());
    }
    if let Some(text) = &test.text {
        status.set_description(text.clone());
    }
    status
}

/// `tests/unit/test_a.py` as a module: `tests.unit.test_a`.
fn classname(path: &str) -> String {
    path.strip_suffix(".py").unwrap_or(path).replace('/', ".")
}
