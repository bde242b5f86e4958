//! The JSON document of a run (`--report FILE`): every file, every test, and who keeps memory.
//!
//! Written once, at the end, whole or not at all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::Error;
use crate::outcome::{Counts, FileOutcome};
use crate::record::{Notice, Record, Roster, Told};
use crate::sink::{Sink, jsonl};
use crate::state::{can_write_beside, write_whole};

/// So many tests are named as leaking.
const RANKED: usize = 20;

/// Collects and writes.
pub struct SuiteReport {
    path: PathBuf,
    armed: Value,
    isolation: Value,
    files: Vec<FileOutcome>,
    ended: Value,
}

impl SuiteReport {
    /// Will write to `path`; found out now, not after hours of work.
    pub fn open(path: &Path) -> Result<SuiteReport, Error> {
        can_write_beside(path).map_err(|error| Error::io("write", path, &error))?;
        let (armed, isolation, ended) = (Value::Null, Value::Null, Value::Null);
        Ok(SuiteReport { path: path.to_owned(), armed, isolation, files: Vec::new(), ended })
    }

    fn document(&self) -> Value {
        // A file that was to run again, and did not because the run was stopped, ended as it did the first time.
        let last: BTreeMap<&str, &FileOutcome> =
            self.files.iter().map(|file| (file.path.as_str(), file)).collect();
        let counts = last.values().map(|file| file.counts()).fold(Counts::default(), Counts::plus);
        json!({
            "schema": jsonl::SCHEMA, "machine": self.armed, "isolation": self.isolation, "ended": self.ended,
            "counts": counts, "leaks": leaks(&self.files), "files": self.files,
        })
    }
}

/// Tests after which their process was larger than before, the worst first: `leaks N bytes per test`.
fn leaks(files: &[FileOutcome]) -> Vec<Value> {
    let tests = files.iter().flat_map(|file| &file.tests);
    let mut kept: Vec<_> = tests.filter_map(|test| Some((test.kept()?, test))).collect();
    kept.retain(|(kept, _)| kept.0 > 0);
    kept.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.nodeid.cmp(&b.1.nodeid)));
    kept.truncate(RANKED);
    kept.iter()
        .map(|(kept, test)| json!({"nodeid": test.nodeid, "kept": kept, "rss_peak": test.rss_peak}))
        .collect()
}

impl Sink for SuiteReport {
    fn tell(&mut self, record: &Record, roster: &Roster) {
        let object = || Value::Object(jsonl::object(record, roster));
        match &record.told {
            Told::Notice(Notice::Armed { .. }) => self.armed = object(),
            Told::Notice(Notice::Isolated { .. }) => self.isolation = object(),
            Told::Notice(Notice::FileEnded { outcome, .. }) => self.files.push((**outcome).clone()),
            Told::Notice(Notice::SuiteEnded { .. }) => self.ended = object(),
            _ => {}
        }
    }

    fn finish(&mut self) {
        let text = format!("{:#}\n", self.document());
        if let Err(error) = write_whole(&self.path, text.as_bytes(), 0o666) {
            crate::complain(&Error::io("write", &self.path, &error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::outcome;
    use super::*;
    use crate::outcome::{TestOutcome, TestVerdict, Verdict};

    #[test]
    fn every_file_counts_once_by_how_it_ended_last() {
        let folder = tempfile::tempdir().unwrap();
        let mut report = SuiteReport::open(&folder.path().join("report.json")).unwrap();
        let one = |verdict| vec![TestOutcome::new("t.py::test", verdict)];
        let again = |path, verdict, tests| FileOutcome { again: true, ..outcome(path, verdict, tests) };
        report.files = vec![
            again("flaky.py", Verdict::Failed, one(TestVerdict::Failed)),
            again("stopped.py", Verdict::Crash, one(TestVerdict::Killed)),
            outcome("flaky.py", Verdict::Passed, one(TestVerdict::Passed)),
        ];
        let document = report.document();
        let count = |what| &document["counts"][what];
        assert_eq!(
            (count("tests"), count("passed"), count("failed"), count("errors")),
            (&json!(2), &json!(1), &json!(0), &json!(1))
        );
    }
}
