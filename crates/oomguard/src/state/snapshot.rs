//! `state.json`: the workers of the guard that runs, for the one that comes after it.
//!
//! Only remembers; whether a process is still that worker is for others to prove by (pid, start time). A file
//! that cannot be understood is never a reason not to start, and never thrown away.

use std::io;

use jiff::Timestamp;
use oomguard_core::Instant;
use oomguard_sys::folder;
use serde::{Deserialize, Serialize};
use std::fs;

use super::{StateDir, write_whole};
use crate::error::in_words;
use crate::record::Notice;

/// The form of the file that this version writes.
const SCHEMA: u32 = 1;
/// How a file without workers ends.
const END: &[u8] = b"]}";
/// No real file comes near this; a larger one is not ours.
const LARGEST: u64 = 16 << 20;

/// A guard and its workers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The form of this file.
    pub schema: u32,
    /// The run, as used in the names of its jobs.
    pub run_id: String,
    /// The boot in which its pids mean something.
    pub boot_id: String,
    /// The guard.
    pub guard_pid: u32,
    /// Its configuration.
    pub config_path: Option<std::path::PathBuf>,
    /// Its living workers and the slots that wait.
    pub workers: Vec<Worker>,
}

/// One slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Its `JobId`.
    pub slot: u16,
    /// Its name.
    pub name: String,
    /// The main process, if one runs.
    pub pid: Option<u32>,
    /// The process's start time as `/proc/PID/stat` has it, in clock ticks since boot.
    pub start_time: u64,
    /// The cgroup it lives in, if it has one.
    pub leaf: Option<std::path::PathBuf>,
    /// The how-manieth start.
    pub attempt: u32,
    /// It listens when asked to prune.
    #[serde(default)]
    pub checks: bool,
    /// When it was started, on the monotonic clock of that boot.
    pub started_mono_ns: Instant,
    /// When it was started.
    pub started_ts: Timestamp,
    /// Failures in a row.
    pub failures: u32,
}

impl State {
    /// Nobody yet.
    pub fn new(run_id: &str, boot_id: &str, config_path: Option<std::path::PathBuf>) -> State {
        State {
            schema: SCHEMA,
            run_id: run_id.to_owned(),
            boot_id: boot_id.to_owned(),
            guard_pid: std::process::id(),
            config_path,
            workers: Vec::new(),
        }
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub enum Loaded {
    /// No guard has worked here, or the last one ended in good order.
    Nothing,
    /// The state of the last guard.
    Found(State),
    /// It could not be understood; the notice says so and where the file is kept. With it what could be read all the
    /// same: a worker costs only itself, the line before the first one everything.
    Damaged(Notice, Option<State>),
}

impl StateDir {
    /// Writes the state, whole or not at all.
    pub fn save(&self, state: &State) -> io::Result<()> {
        write_whole(&self.file("state.json"), &lines(state)?, 0o600)
    }

    /// Removes the state: there is nothing to take over.
    pub fn clear(&self) {
        // If it cannot be removed the next guard finds dead pids in it and ignores them.
        let _ = fs::remove_file(self.file("state.json"));
    }

    /// Reads what the last guard wrote. Never fails: what is damaged is moved aside.
    pub fn load(&self) -> Loaded {
        let path = self.file("state.json");
        match folder::read(&path, LARGEST) {
            Ok(bytes) => match parse(&bytes) {
                Ok(state) => Loaded::Found(state),
                Err(why) => self.damaged(&why, salvage(&bytes)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Loaded::Nothing,
            Err(error) => self.damaged(&in_words(&error), None),
        }
    }

    fn damaged(&self, why: &str, left: Option<State>) -> Loaded {
        let aside = self.file("state.json.damaged");
        // Where even this fails the next save overwrites the file.
        let _ = fs::rename(self.file("state.json"), &aside);
        let workers = left.as_ref().map_or(0, |state| state.workers.len());
        Loaded::Damaged(Notice::StateDamaged { path: aside, error: why.to_owned(), workers }, left)
    }
}

/// One JSON object with each worker on a line of its own, so that a damaged one costs only itself.
fn lines(state: &State) -> serde_json::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(&State { workers: Vec::new(), ..state.clone() })?;
    text.truncate(text.len() - END.len());
    for (index, worker) in state.workers.iter().enumerate() {
        text.extend_from_slice(if index == 0 { b"\n" } else { b",\n" });
        serde_json::to_writer(&mut text, worker)?;
    }
    text.push(b'\n');
    text.extend_from_slice(END);
    Ok(text)
}

/// What can be read of a file that is damaged: the line before the workers, and every worker whose line is whole.
fn salvage(bytes: &[u8]) -> Option<State> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let head = [lines.next()?, END].concat();
    let mut state = parse(&head).ok()?;
    for line in lines {
        // One name is one worker; of two, who knows which is damaged.
        if let Ok(worker) = serde_json::from_slice::<Worker>(line.strip_suffix(b",").unwrap_or(line))
            && state.workers.iter().all(|other| other.name != worker.name)
        {
            state.workers.push(worker);
        }
    }
    Some(state)
}

fn parse(bytes: &[u8]) -> Result<State, String> {
    #[derive(Deserialize)]
    struct Form {
        schema: u32,
    }
    if bytes.is_empty() {
        return Err("`state.json` is empty".to_owned());
    }
    let form: Form = serde_json::from_slice(bytes).map_err(|error| error.to_string().to_lowercase())?;
    if form.schema != SCHEMA {
        return Err(format!("`state.json` has the form {}, this version knows {SCHEMA}", form.schema));
    }
    serde_json::from_slice(bytes).map_err(|error| error.to_string().to_lowercase())
}
