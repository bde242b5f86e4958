//! Every reader of what people, workers and earlier guards wrote, on bytes that none of them wrote: what `fuzz/` drives,
//! and what must hold for any bytes at all.
//!
//! Touches files in the folder it is given. In no build but those of fuzzers and of this crate's own tests.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a check that cannot be made has failed")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use oomguard_core::Bytes;

use crate::amount::{self, Amount};
use crate::notify::Said;
use crate::record::Notice;
use crate::state::{Death, Deaths, Loaded, Lock, StateDir};
use crate::{config, control, notify, suite};

/// A folder for this process's files, below the one for temporary files.
pub fn folder() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("oomguard-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for temporary files");
    folder
}

/// `oomguard.toml` and `pyproject.toml`: a configuration that makes sense, or an error that points into the file.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for name in ["oomguard.toml", "pyproject.toml"] {
        match config::parse_text(text, name, Bytes::gib(32)) {
            Ok(config) => {
                assert!(config.memory.reserve <= config.memory.warning, "it would never warn");
                assert!(config.memory.reserve < Bytes::gib(32), "nothing is left");
                for pool in &config.pools {
                    assert!(pool.count > 0 && !pool.command.is_empty() && !pool.name.contains('/'));
                    assert!(pool.memory_limit.is_none_or(|limit| limit >= amount::LEAST_LIMIT));
                }
            }
            Err(error) => assert!(error.message.contains(&format!("--> {name}:")), "{error}"),
        }
        if let Err(error) = config::test::parse_text(text, name, Bytes::gib(32)) {
            assert!(error.message.contains(&format!("--> {name}:")), "{error}");
        }
    }
}

/// Sizes, shares and durations.
pub fn amounts(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(amount) = text.parse::<Amount>() {
        let bytes = amount.of(Bytes::gib(32));
        assert!(bytes < Bytes(1 << 60) && !bytes.to_string().is_empty());
    }
    if let Ok(Amount::Bytes(limit)) = amount::limit(text) {
        assert!(limit >= amount::LEAST_LIMIT);
    }
    if let Ok(time) = amount::duration(text) {
        assert!(time <= Duration::from_secs(366 * 86_400));
    }
}

/// Test files, and what pytest is told about them.
pub fn suite(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        suite::fuzz::text(text);
    }
}

/// A datagram of a worker.
pub fn notify(bytes: &[u8]) {
    let (said, ignored) = notify::parse(bytes);
    assert!(said.len() as u64 + ignored <= bytes.len() as u64, "more was heard than said");
    for one in said {
        if let Said::Status(text) = one {
            assert!(text.chars().count() <= notify::LONGEST_STATUS && !text.contains('\n'));
        }
    }
}

/// What clients ask of the guard, and what a guard answers.
pub fn control(bytes: &[u8]) {
    control::fuzz::requests(bytes);
    control::fuzz::one_answer(bytes);
}

/// A state directory in which every file holds `bytes`: the guard starts, says what it could not read, keeps it, and
/// what it writes from then on can be read.
pub fn state(dir: &Path, bytes: &[u8]) {
    let dir = StateDir::open(&dir.join("state")).unwrap();
    for file in ["state.json", "deaths.jsonl", "studies.jsonl", "lock"] {
        std::fs::write(dir.file(file), bytes).unwrap();
    }
    match dir.load() {
        Loaded::Nothing => panic!("a state that is there was overlooked"),
        Loaded::Found(state) => {
            dir.save(&state).unwrap();
            assert_eq!(dir.load(), Loaded::Found(state), "what was understood is written as it was");
        }
        Loaded::Damaged(Notice::StateDamaged { path, error, .. }, _) => {
            assert!(!error.is_empty() && !error.contains('\n'), "{error}");
            assert_eq!(std::fs::read(path).unwrap(), bytes, "what is damaged is kept");
        }
        Loaded::Damaged(other, _) => panic!("{other:?} says nothing about the state"),
    }
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
    let (mut before, unreadable) = Deaths::read(&dir).unwrap();
    assert_eq!(before.len() + unreadable, lines, "every line counts");
    let mut deaths = Deaths::open(&dir).unwrap();
    let death: Death = serde_json::from_str(DEATH).unwrap();
    deaths.append(&death).unwrap();
    before.push(death);
    let (after, still) = Deaths::read(&dir).unwrap();
    // Not compared by `==`: a number that is none is not itself.
    assert_eq!((format!("{after:?}"), still), (format!("{before:?}"), unreadable));
    let (studies, unreadable) = dir.studies();
    assert!(studies.len() + unreadable <= lines, "no line counts twice");
    assert_eq!(Lock::holder(dir.path()), None, "nobody holds it");
    let lock = Lock::take(&dir, Path::new("/run/x.sock")).unwrap();
    assert_eq!(Lock::holder(dir.path()).unwrap().socket, Path::new("/run/x.sock"));
    std::fs::write(dir.file("lock"), bytes).unwrap();
    let _ = Lock::holder(dir.path());
    drop(lock);
}

const DEATH: &str = r#"{"job":"r1/worker-1#3","boot_id":"boot","pid":17650,"start_time":9,"cause":"limit","own":true,
    "available_gb":1.5,"usage_gb":null,"limit_gb":8.0,"ts":"2026-01-02T01:23:31Z"}"#;

#[cfg(test)]
mod tests {
    use super::*;

    /// Every seed of a target, and every input that once broke it.
    fn each(target: &str, check: impl Fn(&Path, &[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
        let dir = tempfile::tempdir().unwrap();
        let mut count = 0;
        for seed in std::fs::read_dir(&corpus).unwrap() {
            let bytes = std::fs::read(seed.unwrap().path()).unwrap();
            for end in (0..bytes.len()).step_by(7).chain([bytes.len()]) {
                check(dir.path(), &bytes[..end]);
            }
            count += 1;
        }
        assert!(count > 0, "no seeds in {}", corpus.display());
    }

    #[test]
    fn seeds_and_their_beginnings_hold() {
        each("config", |_, bytes| config(bytes));
        each("amounts", |_, bytes| amounts(bytes));
        each("notify", |_, bytes| notify(bytes));
        each("suite", |_, bytes| suite(bytes));
        each("control", |_, bytes| control(bytes));
        each("state", state);
    }
}
