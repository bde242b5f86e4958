//! What a running pytest tells: which test is at work, how each ended, and why.
//!
//! Two channels, both written by `oomguard.pytest` in the child: a pipe with a line for every start and end, and a
//! file with the whole text of every failure. Reads only. What it does not understand it passes over: a child that
//! dies in the middle of a line has told us everything before it.

use std::collections::{BTreeMap, BTreeSet};

use oomguard_core::Bytes;
use serde::Deserialize;

use crate::outcome::{TestOutcome, TestVerdict};

/// A line longer than this is no line of ours.
const LONGEST: usize = 64 * 1024;

/// One line of the pipe. See `python/oomguard/pytest/_heartbeat.py`.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Beat {
    Collected {
        ids: Vec<String>,
    },
    Start {
        nodeid: String,
    },
    Finish {
        nodeid: String,
        outcome: String,
        seconds: f64,
        rss_before: Option<Bytes>,
        rss_after: Option<Bytes>,
        rss_peak: Option<Bytes>,
    },
    End {
        exitstatus: i32,
    },
    #[serde(other)]
    Unknown,
}

/// One line of the file. See `python/oomguard/pytest/_details.py`.
#[derive(Debug, Deserialize)]
struct Detail {
    nodeid: String,
    #[serde(default)]
    when: String,
    #[serde(default)]
    outcome: String,
    #[serde(default)]
    seconds: f64,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    sections: Vec<(String, String)>,
}

/// Everything that has been told so far.
#[derive(Debug, Default)]
pub struct Beats {
    unread: Vec<u8>,
    collected: Vec<String>,
    tests: Vec<TestOutcome>,
    /// Where each is among them.
    places: BTreeMap<String, usize>,
    running: Option<String>,
    end: Option<i32>,
}

impl Beats {
    /// Takes in what came through the pipe.
    pub fn take(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            if let Ok(beat) = serde_json::from_slice(&line) {
                self.beat(beat);
            }
        }
        if self.unread.len() > LONGEST {
            self.unread.clear();
        }
    }

    fn beat(&mut self, beat: Beat) {
        match beat {
            Beat::Collected { ids } => self.collected.extend(ids),
            Beat::Start { nodeid } => self.running = Some(nodeid),
            Beat::Finish { nodeid, outcome, seconds, rss_before, rss_after, rss_peak } => {
                self.running.take_if(|running| *running == nodeid);
                let Some(outcome) = TestVerdict::from_word(&outcome) else { return };
                let told = TestOutcome {
                    seconds,
                    rss_before,
                    rss_after,
                    rss_peak,
                    ..TestOutcome::new(nodeid, outcome)
                };
                // A plugin that reruns a test tells it again: its last end counts.
                match self.places.get(&told.nodeid) {
                    Some(place) => self.tests[*place] = told,
                    None => {
                        self.places.insert(told.nodeid.clone(), self.tests.len());
                        self.tests.push(told);
                    }
                }
            }
            Beat::End { exitstatus } => self.end = Some(exitstatus),
            Beat::Unknown => {}
        }
    }

    /// The test that is at work.
    pub fn running(&self) -> Option<&str> {
        self.running.as_deref()
    }

    /// pytest came to its end, with this exit code.
    pub fn end(&self) -> Option<i32> {
        self.end
    }

    /// All tests with everything that is known about them, given the text of the file. Where the process did not come
    /// to its end, or pytest stopped in the middle, the test at work came to that after so many seconds, and those after it
    /// were not run, because of `died`.
    pub fn tests(self, details: &str, died: Option<(TestVerdict, &str, f64)>) -> Vec<TestOutcome> {
        let Beats { collected, mut tests, running, end, .. } = self;
        if let Some((at_work, why, seconds)) = died {
            if let Some(nodeid) = &running {
                let ended = TestOutcome::new(nodeid.clone(), at_work);
                tests.push(TestOutcome { seconds, message: Some(why.to_owned()), ..ended });
            }
            let told: BTreeSet<String> = tests.iter().map(|test| test.nodeid.clone()).collect();
            let left = collected.into_iter().filter(|id| !told.contains(id));
            tests.extend(left.map(|id| {
                let how = if end.is_some() { "pytest stopped" } else { "process killed" };
                let message = Some(format!("not run, {how}"));
                TestOutcome { message, ..TestOutcome::new(id, TestVerdict::NotRun) }
            }));
        }
        explain(&mut tests, details);
        tests
    }
}

/// Adds the texts; what failed before there was a test (an import) becomes one.
fn explain(tests: &mut Vec<TestOutcome>, details: &str) {
    let mut at: BTreeMap<String, usize> = BTreeMap::new();
    for (index, test) in tests.iter().enumerate() {
        at.insert(test.nodeid.clone(), index);
    }
    for detail in details.lines().filter_map(|line| serde_json::from_str::<Detail>(line).ok()) {
        let index = match at.get(&detail.nodeid) {
            Some(index) => *index,
            None if detail.when == "collect" => {
                let outcome =
                    if detail.outcome == "skipped" { TestVerdict::Skipped } else { TestVerdict::Error };
                tests.push(TestOutcome {
                    seconds: detail.seconds,
                    ..TestOutcome::new(&detail.nodeid, outcome)
                });
                at.insert(detail.nodeid.clone(), tests.len() - 1);
                tests.len() - 1
            }
            None => continue,
        };
        let test = &mut tests[index];
        // The first failure is why; a teardown that fails as well adds its text.
        test.message = test.message.take().or(detail.message);
        test.text = match (test.text.take(), detail.text.filter(|text| !text.is_empty())) {
            (Some(before), Some(more)) => Some(format!("{before}\n\n{more}")),
            (before, more) => before.or(more),
        };
        for section in detail.sections {
            if !test.sections.contains(&section) {
                test.sections.push(section);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = r#"{"v":1,"event":"collected","count":3,"ids":["t.py::a","t.py::b","t.py::c"]}
{"v":1,"event":"start","nodeid":"t.py::a"}
{"v":1,"event":"finish","nodeid":"t.py::a","outcome":"passed","seconds":0.5,"rss_before":10,"rss_after":30,"rss_peak":40}
{"v":1,"event":"start","nodeid":"t.py::b"}
"#;

    #[test]
    fn lines_may_come_in_pieces() {
        let mut beats = Beats::default();
        for byte in LINES.as_bytes() {
            beats.take(&[*byte]);
        }
        assert_eq!(beats.running(), Some("t.py::b"));
        assert_eq!(beats.end(), None);
    }

    #[test]
    fn the_test_at_work_was_killed_and_the_others_were_not_run() {
        let mut beats = Beats::default();
        beats.take(LINES.as_bytes());
        let tests = beats.tests("", Some((TestVerdict::Killed, "killed: memory", 2.0)));
        let found: Vec<_> = tests.iter().map(|test| (test.nodeid.as_str(), test.outcome)).collect();
        assert_eq!(
            found,
            [
                ("t.py::a", TestVerdict::Passed),
                ("t.py::b", TestVerdict::Killed),
                ("t.py::c", TestVerdict::NotRun)
            ]
        );
        assert_eq!(tests[0].kept(), Some(Bytes(20)));
        assert_eq!(tests[1].message.as_deref(), Some("killed: memory"));
        assert_eq!(tests[2].message.as_deref(), Some("not run, process killed"));
    }

    #[test]
    fn a_failure_has_its_text_and_a_file_that_cannot_be_imported_is_an_error() {
        let mut beats = Beats::default();
        beats.take(br#"{"v":1,"event":"finish","nodeid":"t.py::a","outcome":"failed","seconds":0.1,"rss_before":null,"rss_after":null,"rss_peak":null}"#);
        beats.take(b"\n{\"event\":\"new\",\"x\":1}\nnonsense\n");
        let details = r#"{"v":1,"nodeid":"t.py::a","when":"call","outcome":"failed","seconds":0.1,"message":"assert 0","text":"long","sections":[["Captured stdout call","hi"]]}
{"v":1,"nodeid":"t.py::a","when":"teardown","outcome":"failed","seconds":0.1,"message":"boom","text":"longer","sections":[["Captured stdout call","hi"]]}
{"v":1,"nodeid":"u.py","when":"collect","outcome":"failed","message":"ImportError"}
{"v":1,"nodeid":"half"#;
        let tests = beats.tests(details, None);
        assert_eq!(tests[0].message.as_deref(), Some("assert 0"));
        assert_eq!(tests[0].text.as_deref(), Some("long\n\nlonger"));
        assert_eq!(tests[0].sections.len(), 1);
        assert_eq!((tests[1].nodeid.as_str(), tests[1].outcome), ("u.py", TestVerdict::Error));
        assert_eq!(tests.len(), 2);
    }
}
