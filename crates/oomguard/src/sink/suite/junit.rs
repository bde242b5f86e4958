//! JUnit's XML: one suite a file, one case a test, a memory kill as an error of the test that was at work.
//!
//! Written whole again and again while the run goes on, so that it can be read whatever happens to us: a file's end is in
//! it at once, or, because it grows, when a second has gone by since it was last written. A thread of its own writes, because
//! a busy disk may take seconds, and the guard has none to give.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use quick_junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestRerun, TestSuite};

use crate::error::Error;
use crate::outcome::{COMMAND, FileOutcome, TestOutcome, TestVerdict, Verdict};
use crate::record::{Notice, Record, Roster, Told};
use crate::sink::Sink;
use crate::state::{can_write_beside, write_whole};

/// Not written more often than this.
const PAUSE: Duration = Duration::from_secs(1);

/// Has the file written.
pub struct Junit {
    path: PathBuf,
    writer: Option<Writer>,
}

/// Takes the outcomes; gives why it could not write, in the end.
type Writer = (Sender<FileOutcome>, JoinHandle<Result<(), String>>);

impl Junit {
    /// Will write to `path`; found out now, not after hours of work.
    pub fn open(path: &Path) -> Result<Junit, Error> {
        can_write_beside(path).map_err(|error| Error::io("write", path, &error))?;
        Ok(Junit { path: path.to_owned(), writer: None })
    }

    /// Starts the writer: with the first outcome, because a thread that is there before the guard has blocked its signals
    /// would be killed by them in the guard's place.
    fn writer(&mut self) -> Option<&Writer> {
        if self.writer.is_none() {
            let (sender, receiver) = channel();
            let path = self.path.clone();
            let thread = std::thread::Builder::new().name("junit".to_owned());
            match thread.spawn(move || keep_written(&path, &receiver)) {
                Ok(thread) => self.writer = Some((sender, thread)),
                Err(error) => self.complain(&error.to_string()),
            }
        }
        self.writer.as_ref()
    }

    fn complain(&self, why: &str) {
        crate::complain(&format!("oomguard: could not write `{}`: {why}", self.path.display()));
    }
}

impl Sink for Junit {
    fn tell(&mut self, record: &Record, _: &Roster) {
        let Told::Notice(Notice::FileEnded { outcome, .. }) = &record.told else { return };
        if let Some((sender, _)) = self.writer() {
            // Without a writer there is nobody left to tell.
            let _ = sender.send((**outcome).clone());
        }
    }

    fn finish(&mut self) {
        self.writer();
        let Some((sender, thread)) = self.writer.take() else { return };
        drop(sender);
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(why)) => self.complain(&why),
            Err(_) => self.complain("its writer has died"),
        }
    }
}

/// Writes what has come, and once more when nothing comes any more; gives how that went.
fn keep_written(path: &Path, outcomes: &Receiver<FileOutcome>) -> Result<(), String> {
    let mut ended = Ended::default();
    let mut written: Option<Instant> = None;
    // When what has come since then is to be written.
    let mut due: Option<Instant> = None;
    loop {
        let next = match due {
            None => outcomes.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) => outcomes.recv_timeout(due.saturating_duration_since(Instant::now())),
        };
        match next {
            Ok(outcome) => {
                ended.take(outcome);
                due = due.or_else(|| Some(written.map_or_else(Instant::now, |at| at + PAUSE)));
            }
            Err(RecvTimeoutError::Timeout) => {
                // It is tried again with the next, and what remains is said in the end.
                let _ = ended.write(path);
                (written, due) = (Some(Instant::now()), None);
            }
            Err(RecvTimeoutError::Disconnected) => return ended.write(path),
        }
    }
}

/// Every file's last outcome, and the one before it where it was run again.
#[derive(Default)]
struct Ended(Vec<(FileOutcome, Option<FileOutcome>)>);

impl Ended {
    fn take(&mut self, outcome: FileOutcome) {
        match self.0.iter_mut().find(|(before, _)| before.path == outcome.path) {
            Some((last, before)) => *before = Some(std::mem::replace(last, outcome)),
            None => self.0.push((outcome, None)),
        }
    }

    fn write(&self, path: &Path) -> Result<(), String> {
        let mut report = Report::new("oomguard");
        for (outcome, before) in &self.0 {
            report.add_test_suite(suite(outcome, before.as_ref()));
        }
        let xml = report.to_string().map_err(|error| error.to_string())?;
        write_whole(path, xml.as_bytes(), 0o666).map_err(|error| error.to_string())
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
    let nobody_tells = match outcome.verdict {
        // Of another runner's tests nothing is known but how all of them ended.
        Verdict::Passed | Verdict::NoTests => outcome.isolation == COMMAND,
        Verdict::Interrupted => outcome.tests.is_empty(),
        _ => !outcome.tests.iter().any(|test| test.outcome.is_failure()),
    };
    if nobody_tells {
        suite.add_test_case(whole_file(outcome));
    }
    suite
}

/// A file that ended badly, or was never begun, without a test to blame; and every file of another runner's.
fn whole_file(outcome: &FileOutcome) -> TestCase {
    let mut status = match outcome.verdict {
        Verdict::Passed | Verdict::NoTests => TestCaseStatus::success(),
        verdict if verdict.is_not_its_own() => TestCaseStatus::skipped(),
        _ => TestCaseStatus::non_success(NonSuccessKind::Error),
    };
    if let Some(message) = &outcome.message {
        status.set_message(message.clone());
    }
    if !outcome.verdict.is_good() && outcome.verdict != Verdict::NotRun {
        status.set_type(outcome.verdict.kind());
    }
    let mut case = TestCase::new(outcome.path.clone(), status);
    case.set_classname(classname(&outcome.path));
    case.set_time(Duration::from_secs_f64(outcome.seconds.max(0.0)));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::suite::tests::outcome;
    use oomguard_core::Instant as Mono;

    fn ends(junit: &mut Junit, path: &str, verdict: Verdict, isolation: &str) {
        let outcome = FileOutcome { isolation: isolation.to_owned(), ..outcome(path, verdict, Vec::new()) };
        let told = Notice::FileEnded { job: None, vram: None, outcome: Box::new(outcome) };
        junit.tell(&Record::now(Mono(0), told), &Roster::default());
    }

    #[test]
    fn what_has_ended_is_written_though_nothing_else_happens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("junit.xml");
        let mut junit = Junit::open(&path).unwrap();
        for name in ["a.py", "b.py", "c.py"] {
            ends(&mut junit, name, Verdict::Passed, "spawn");
        }
        let late = Instant::now() + Duration::from_secs(20);
        // Nobody ends it: this is what somebody finds after our death.
        while !std::fs::read_to_string(&path).is_ok_and(|xml| xml.contains("c.py")) {
            assert!(Instant::now() < late, "{:?}", std::fs::read_to_string(&path));
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_file_of_another_runner_is_a_test_and_one_that_was_interrupted_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("junit.xml");
        let mut junit = Junit::open(&path).unwrap();
        for (name, verdict) in
            [("good", Verdict::Passed), ("bad", Verdict::Failed), ("late", Verdict::Interrupted)]
        {
            ends(&mut junit, name, verdict, COMMAND);
        }
        junit.finish();
        let xml = std::fs::read_to_string(&path).unwrap();
        assert!(xml.contains("tests=\"3\" skipped=\"1\" failures=\"0\" errors=\"1\""), "{xml}");
    }

    #[test]
    fn a_run_without_a_file_has_a_report_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("junit.xml");
        Junit::open(&path).unwrap().finish();
        assert!(std::fs::read_to_string(&path).unwrap().contains("tests=\"0\""));
    }
}
