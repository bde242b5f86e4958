//! Every reader of what people, workers and earlier guards wrote, on bytes that none of them wrote: what `fuzz/` drives,
//! and what must hold for any bytes at all.
//!
//! Touches files in the folder it is given. In no build but those of fuzzers and of this crate's own tests.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a check that cannot be made has failed")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use oomguard_core::Bytes;
use oomguard_core::watch::Who;
use oomguard_sys::processes::About;

use crate::amount::{self, Amount};
use crate::config::Overrides;
use crate::drive::{replay, up};
use crate::notify::Said;
use crate::record::Notice;
use crate::state::{Death, Deaths, Loaded, Lock, StateDir};
use crate::target::Target;
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
        match one {
            Said::Status(text) => {
                assert!(text.chars().count() <= notify::LONGEST_STATUS && !text.contains('\n'));
            }
            Said::Vram(told) => {
                assert!(told.used <= told.total && told.free <= told.total && told.place < notify::MOST_GPUS);
                assert!(told.name.chars().all(|letter| letter.is_ascii() && !letter.is_ascii_control()));
            }
            Said::Word(_) => {}
        }
    }
}

/// What clients ask of the guard, and what a guard answers.
pub fn control(bytes: &[u8]) {
    control::fuzz::requests(bytes);
    control::fuzz::one_answer(bytes);
}

/// What `--record` wrote, whole, and as the lines after a first one: it is told as far as it makes sense.
pub fn recording(bytes: &[u8]) {
    replay::tell_bytes(bytes);
    for engine in [JOBS, WATCH] {
        let header = format!(
            r#"{{"recording":1,"build":"","verb":"run","mono":1,"unix_ns":1,"machine":{{"kernel":"","cores":1,"total":9}},"engine":{engine}}}"#
        );
        let whole = [header.as_bytes(), b"\n", bytes].concat();
        assert!(replay::tell_bytes(&whole), "its first line makes sense");
    }
}

const JOBS: &str =
    r#"{"jobs":{"policy":{"reserve":2147483648,"warning":4294967296,"worst_rate":17179869184},"seed":7}}"#;
const WATCH: &str = r#"{"watch":{"host":{"reserve":2147483648,"warning":4294967296,"worst_rate":17179869184},"grace":{"secs":1,"nanos":0},"enforce":true}}"#;

/// Whom somebody means, what the environment asks for, and what a worker's interpreter says about trials.
pub fn words(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(target) = text.parse::<Target>() {
        let about = About { who: Who::default(), name: bytes, uid: 0, cgroup: bytes };
        assert!(!target.means(&about) || !text.is_empty(), "nothing names nobody");
    }
    if let Err(error) = Overrides::from_env(&|_| Some(text.to_owned())) {
        assert!(error.message.contains("OOMGUARD_"), "{error}");
    }
    for notice in up::reaped(text) {
        let Notice::TrialsReaped { trials, .. } = notice else { panic!("{notice:?}") };
        assert!(!trials.is_empty() && trials.len() <= text.lines().count(), "no line counts twice");
    }
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
#[path = "../../../fuzz/each.rs"]
mod each;

#[cfg(test)]
mod tests {
    use super::each::each;
    use super::*;

    #[test]
    fn seeds_and_their_beginnings_hold() {
        each("config", false, |_, bytes| config(bytes));
        each("amounts", false, |_, bytes| amounts(bytes));
        each("notify", false, |_, bytes| notify(bytes));
        each("suite", false, |_, bytes| suite(bytes));
        each("control", false, |_, bytes| control(bytes));
        each("recording", false, |_, bytes| recording(bytes));
        each("words", false, |_, bytes| words(bytes));
        each("state", true, state);
    }
}
