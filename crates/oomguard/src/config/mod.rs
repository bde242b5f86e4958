//! What the user wants: `oomguard.toml`, or `[tool.oomguard]` in `pyproject.toml`, with what the environment
//! and the command line say on top.
//!
//! [`load`] reads and checks it all, and gives either plain numbers or one error that points at the value which
//! is wrong. It never starts, limits or writes anything, and never guesses a value that it could not read.

mod diff;
mod example;
mod load;
mod overrides;
mod parse;
mod source;
mod table;
pub mod test;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

pub use example::EXAMPLE;
pub use load::{find, load, single, whereabouts};
pub use oomguard_core::policy::{OnLimit, Restart};
use oomguard_core::{Amount, Bytes, Enforcement, HostPolicy, JobPolicy};
pub use overrides::Overrides;

use crate::error::Error;

/// What `text` in a file of that name means on a machine with this much memory.
#[cfg(any(test, fuzzing))]
pub(crate) fn parse_text(text: &str, name: &str, total: Bytes) -> Result<Config, Error> {
    let source = source::Source { shown: name.to_owned(), text };
    parse::parse(&source, name == "pyproject.toml", std::path::Path::new("/nonexistent"), total)
}

/// A whole configuration. Percentages are resolved, relative paths lie beside the file they were written in.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file it was read from, if there is one.
    pub path: Option<PathBuf>,
    /// Where relative paths start: the file's directory, else the working directory.
    pub base: PathBuf,
    /// Where the guard keeps what it must find again; `None` for the default.
    pub state_dir: Option<PathBuf>,
    /// The cgroup to put jobs under, instead of one that we find or make.
    pub cgroup_parent: Option<PathBuf>,
    /// `[memory]`.
    pub memory: Memory,
    /// `[log]`.
    pub log: Log,
    /// `[pool.NAME]`, in the order of the file.
    pub pools: Vec<Pool>,
}

/// `[memory]`: the machine as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    /// Available memory that must never be used.
    pub reserve: Bytes,
    /// Below it people are warned.
    pub warning: Bytes,
    /// What must be left of every GPU that jobs use; `None`: nobody looks.
    pub vram_reserve: Option<Amount>,
    /// Swap that each job may use.
    pub swap_limit: Bytes,
    /// Refuse to start unless jobs are held by this.
    pub require: Option<Enforcement>,
}

/// `[log]`: `watchdog.log`, `events.jsonl` and one file a worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// The folder.
    pub dir: PathBuf,
    /// A file this large is moved aside.
    pub max_size: Bytes,
    /// How many old ones are kept.
    pub keep: u32,
}

/// `[pool.NAME]`: workers that run the same command.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// How many workers.
    pub count: u16,
    /// Added to the guard's own environment.
    pub env: BTreeMap<String, String>,
    /// Where they run.
    pub cwd: PathBuf,
    /// What each may use.
    pub memory_limit: Option<Bytes>,
    /// What each may hold of any one GPU.
    pub vram_limit: Option<Amount>,
    /// Each is restarted when it is this old.
    pub max_age: Option<Duration>,
    /// From SIGTERM to SIGKILL.
    pub grace: Duration,
    /// How long a worker may take to stop by itself at its next check.
    pub prune_patience: Duration,
    /// Wall-clock limit of each start.
    pub timeout: Option<Duration>,
    /// What ends at the limit.
    pub on_limit: OnLimit,
    /// What follows a worker's end.
    pub restart: Restart,
    /// How the C library treats memory that a worker has freed.
    pub malloc: Malloc,
}

/// How glibc treats freed memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malloc {
    /// It goes back to the machine.
    Tight,
    /// As it does by itself: blocks up to 32 MiB may stay with the process for good.
    Default,
}

impl Malloc {
    /// The word in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Malloc::Tight => "tight",
            Malloc::Default => "default",
        }
    }

    /// What a worker's environment gets, unless it says something about `malloc` already. Of 200 updates of a 20 MB
    /// replay buffer 3.2 payloads stay resident without these, 1.8 with either (measured with glibc 2.36); both, because
    /// either one alone still leaves the other's kind of block.
    pub fn env(self, says: impl Fn(&str) -> Option<String>) -> Vec<(&'static str, &'static str)> {
        const OURS: [(&str, &str); 2] =
            [("MALLOC_TRIM_THRESHOLD_", "65536"), ("MALLOC_MMAP_THRESHOLD_", "131072")];
        let others = ["MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_"];
        let said = OURS.iter().map(|(name, _)| *name).chain(others).any(|name| says(name).is_some());
        let tuned = says("GLIBC_TUNABLES").is_some_and(|text| text.contains("glibc.malloc."));
        if self == Malloc::Default || said || tuned { Vec::new() } else { OURS.to_vec() }
    }
}

/// The name of one worker in commands, files and events, and in sentences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerName {
    /// `worker-1`; with several pools `train-1`.
    pub name: String,
    /// `Worker 1`; with several pools `train 1`.
    pub label: String,
}

impl Memory {
    /// The thresholds as the engine wants them, for a machine with this much memory and this many cores.
    pub fn host_policy(&self, total: Bytes, cores: u64) -> HostPolicy {
        let defaults = HostPolicy::for_machine(total, cores);
        let Memory { reserve, warning, vram_reserve, .. } = *self;
        HostPolicy { reserve, warning, vram_reserve, ..defaults }
    }
}

impl Pool {
    /// The rules for the worker with this number (from 1). Planned restarts are `max_age / count` apart, so
    /// that no two workers of a pool are ever due at once.
    pub fn policy(&self, number: u16, enforcement: Enforcement) -> JobPolicy {
        let share = u32::from(number.saturating_sub(1));
        let stagger = self.max_age.unwrap_or_default() * share / u32::from(self.count.max(1));
        JobPolicy {
            limit: self.memory_limit,
            vram_limit: self.vram_limit,
            enforcement,
            grace: self.grace,
            prune_patience: self.prune_patience,
            timeout: self.timeout,
            max_age: self.max_age,
            stagger,
            on_limit: self.on_limit,
            restart: self.restart,
            leaves_nothing: false,
        }
    }
}

impl Config {
    /// What the worker with this number (from 1) of `pool` is called.
    pub fn worker_name(&self, pool: &Pool, number: u16) -> WorkerName {
        match self.pools.len() {
            0 | 1 => WorkerName { name: format!("worker-{number}"), label: format!("Worker {number}") },
            _ => WorkerName {
                name: format!("{}-{number}", pool.name),
                label: format!("{} {number}", pool.name),
            },
        }
    }

    /// The pools, or an error that says how to write one.
    pub fn need_pools(&self) -> Result<&[Pool], Error> {
        if !self.pools.is_empty() {
            return Ok(&self.pools);
        }
        Err(match &self.path {
            Some(path) => Error::new(format!("`{}` has no pool of workers", path.display()))
                .hint("add a table `[pool.train]` with `command = [\"python\", \"train.py\"]`"),
            None => Error::new(format!("no `oomguard.toml` in `{}` or above it", self.base.display()))
                .hint("`oomguard init` writes an example, `-c FILE` names another file"),
        })
    }

    /// Every worker: its pool and its number in it, in the order of the file.
    pub fn workers(&self) -> impl Iterator<Item = (&Pool, u16)> {
        self.pools.iter().flat_map(|pool| (1..=pool.count).map(move |number| (pool, number)))
    }
}
