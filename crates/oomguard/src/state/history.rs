//! What test files took before: time, memory, and which of their tests failed last.
//!
//! One file in the state directory of a suite. A damaged one is begun anew: it only makes the next run plan worse.

use std::collections::BTreeMap;
use std::path::Path;

use oomguard_core::Bytes;
use serde::{Deserialize, Serialize};

use super::write_whole;

/// Changes when a field changes its meaning.
const VERSION: u32 = 1;
const NAME: &str = "history.json";
/// So much of an old peak is still believed after a run that used less: a file does not always do the same.
const FADES_PERCENT: u64 = 90;

/// All files of a suite, by their path from its root directory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    version: u32,
    files: BTreeMap<String, Past>,
}

/// One file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Past {
    /// From its start to its end, when it last ran with all of the suite. A run of a part (`--shard`) leaves it alone: the
    /// parts are cut by it, and a part that had changed it would be cut otherwise than the others.
    #[serde(default)]
    pub seconds: Option<f64>,
    /// The most memory that its process tree used, of the last runs.
    pub peak_ram: Option<Bytes>,
    /// The most GPU memory.
    #[serde(default)]
    pub peak_vram: Option<Bytes>,
    /// Node ids that failed in the last run.
    #[serde(default)]
    pub failed: Vec<String>,
}

impl History {
    /// What was written last; the sentence says what is wrong with it.
    pub fn load(dir: &Path) -> (History, Option<String>) {
        let path = dir.join(NAME);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return (History::default(), None),
            Err(error) => return (History::default(), Some(format!("`{}`: {error}", path.display()))),
        };
        match History::parse(&text) {
            Ok(history) => (history, None),
            Err(error) => (History::default(), Some(format!("`{}`: {error}", path.display()))),
        }
    }

    /// From the bytes of its file.
    pub fn parse(text: &[u8]) -> Result<History, String> {
        let history: History = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        match history.version {
            VERSION => Ok(history),
            other => Err(format!("version {other} is not known here")),
        }
    }

    /// Replaces what was written.
    pub fn save(&self, dir: &Path) -> std::io::Result<()> {
        let text = serde_json::to_vec(&History { version: VERSION, files: self.files.clone() })?;
        write_whole(&dir.join(NAME), &text, 0o600)
    }

    /// What is known about a file.
    pub fn get(&self, path: &str) -> Option<&Past> {
        self.files.get(path)
    }

    /// Takes note of a run.
    pub fn note(&mut self, path: &str, now: Past) {
        let before = self.files.get(path);
        let old =
            |of: fn(&Past) -> Option<Bytes>| before.and_then(of).map(|peak| peak.percent(FADES_PERCENT));
        let now = Past {
            seconds: now.seconds.or(before.and_then(|past| past.seconds)),
            peak_ram: now.peak_ram.max(old(|past| past.peak_ram)),
            peak_vram: now.peak_vram.max(old(|past| past.peak_vram)),
            ..now
        };
        self.files.insert(path.to_owned(), now);
    }

    /// Files with tests that failed last time.
    pub fn failed(&self) -> impl Iterator<Item = (&str, &[String])> {
        let failed = self.files.iter().filter(|(_, past)| !past.failed.is_empty());
        failed.map(|(path, past)| (path.as_str(), past.failed.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(peak: u64) -> Past {
        Past { seconds: Some(1.0), peak_ram: Some(Bytes::mib(peak)), ..Past::default() }
    }

    #[test]
    fn what_was_saved_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut history = History::default();
        history.note("t.py", Past { failed: vec!["t.py::a".to_owned()], ..past(100) });
        history.save(dir.path()).unwrap();
        let (found, complaint) = History::load(dir.path());
        assert_eq!(complaint, None);
        assert_eq!(found.get("t.py").unwrap().failed, ["t.py::a"]);
        assert_eq!(found.failed().count(), 1);
    }

    #[test]
    fn a_peak_is_forgotten_slowly_and_learned_at_once() {
        let mut history = History::default();
        history.note("t.py", past(100));
        history.note("t.py", past(10));
        assert_eq!(history.get("t.py").unwrap().peak_ram, Some(Bytes::mib(90)));
        history.note("t.py", past(200));
        assert_eq!(history.get("t.py").unwrap().peak_ram, Some(Bytes::mib(200)));
    }

    #[test]
    fn a_time_stays_until_there_is_another() {
        let mut history = History::default();
        history.note("t.py", past(100));
        history.note("t.py", Past { seconds: None, ..past(100) });
        assert_eq!(history.get("t.py").unwrap().seconds, Some(1.0));
    }

    #[test]
    fn a_damaged_file_is_said_and_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let mut history = History::default();
        history.note("t.py", past(100));
        history.save(dir.path()).unwrap();
        let whole = std::fs::read(dir.path().join(NAME)).unwrap();
        for length in 0..whole.len() {
            std::fs::write(dir.path().join(NAME), &whole[..length]).unwrap();
            let (found, complaint) = History::load(dir.path());
            assert!(complaint.is_some(), "{length}");
            assert_eq!(found.get("t.py"), None);
        }
    }
}
