//! `[test]`, or `[tool.oomguard.test]` in `pyproject.toml`: what a run of tests is held to, and what single files are.
//!
//! Holds only what was said; what is true without being said is for the driver of `test`.

mod parse;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use oomguard_core::Bytes;

use crate::amount::Amount;
use crate::error::Error;

pub(super) use parse::parse;

/// What the `explicit` file says about tests, else the one that [`super::find`] finds in `cwd`. Percentages of RAM are of
/// `total`. The rest of the file is not looked at.
pub fn load(explicit: Option<&Path>, cwd: &Path, total: Bytes) -> Result<Settings, Error> {
    super::load::test(explicit, cwd, total)
}

/// What `text` in a file of that name says, on a machine with this much memory.
#[cfg(any(test, fuzzing))]
pub(crate) fn parse_text(text: &str, name: &str, total: Bytes) -> Result<Settings, Error> {
    let source = super::source::Source { shown: name.to_owned(), text };
    parse(&source, name == "pyproject.toml", Path::new("/nonexistent"), total)
}

/// What a file says about runs of tests. `None` everywhere: nothing was said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// The file it was read from.
    pub path: Option<PathBuf>,
    /// What each test file may use; `Some(None)`: no limit.
    pub memory_limit: Option<Option<Bytes>>,
    /// What each test file may use of a GPU's memory, or the share of it; `Some(None)`: no limit.
    pub vram_limit: Option<Option<Amount>>,
    /// Refuse to start when more percent of RAM are used.
    pub ram_preflight: Option<u8>,
    /// Refuse to start when more percent of VRAM are used.
    pub vram_preflight: Option<u8>,
    /// The next file waits until no more percent of RAM are used.
    pub ram_target: Option<u8>,
    /// For so long.
    pub wait: Option<Duration>,
    /// How long each test file may run; `Some(None)`: as long as it likes.
    pub timeout: Option<Option<Duration>>,
    /// How often a file is run again.
    pub retries: Option<u32>,
    /// After which ends it is.
    pub retry_on: Option<Vec<RetryOn>>,
    /// How each file gets a process of its own.
    pub isolation: Option<Isolation>,
    /// How many files at once.
    pub jobs: Option<Jobs>,
    /// Another runner than pytest; `{file}` in it is the file.
    pub command: Option<Vec<String>>,
    /// The interpreter: a path from the file's folder, or a name to look up in `PATH`.
    pub python: Option<PathBuf>,
    /// No limit on the test files.
    pub disable_memory_limit: Option<bool>,
    /// No brake when the machine's memory runs short.
    pub disable_watchdog: Option<bool>,
    /// A line on memory before and after each file.
    pub memory_profile: Option<bool>,
    /// How GPU files share the GPU.
    pub gpu: Option<GpuFiles>,
    /// `[[test.override]]`, in the order of the file.
    pub overrides: Vec<Override>,
}

/// `[[test.override]]`: what holds for the files that `filter` matches.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    /// A glob over paths from pytest's rootdir; `*` ends at a `/`, `**` does not.
    pub filter: glob::Pattern,
    /// What it says about them.
    pub values: FileSettings,
}

/// What holds for one test file. `None`: nothing was said for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileSettings {
    /// What it may use; `Some(None)`: no limit.
    pub memory_limit: Option<Option<Bytes>>,
    /// What it may use of a GPU's memory, or the share of it; `Some(None)`: no limit.
    pub vram_limit: Option<Option<Amount>>,
    /// No other file runs meanwhile.
    pub serial: Option<bool>,
    /// How long it may run; `Some(None)`: as long as it likes.
    pub timeout: Option<Option<Duration>>,
    /// Added to its environment.
    pub env: BTreeMap<String, String>,
    /// How it gets a process of its own.
    pub isolation: Option<Isolation>,
}

/// How a test file gets a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Isolation {
    /// as deep a fork as is safe, else a new process
    Auto,
    /// a fork, or nothing
    Fork,
    /// a new process
    Spawn,
}

/// How many files run at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jobs {
    /// As many as there are cores.
    Auto,
    /// So many at most.
    Count(u16),
}

/// How a file can end that is worth another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RetryOn {
    /// it was ended because of memory
    Memory,
    /// a signal, or an exit that is none of pytest's
    Crash,
    /// it ran into its time limit
    Timeout,
    /// a test failed
    Failure,
}

/// How files that use the GPU share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GpuFiles {
    /// one at a time
    Serial,
    /// together, as long as what each used before fits
    Packed,
}

impl Settings {
    /// What holds for the file at `path` (from pytest's rootdir): for each key what the last override that matches
    /// says about it, else what the table itself says. Of `env` each variable is a key.
    pub fn of(&self, path: &Path) -> FileSettings {
        let mut all = FileSettings {
            memory_limit: self.memory_limit,
            vram_limit: self.vram_limit,
            timeout: self.timeout,
            isolation: self.isolation,
            ..FileSettings::default()
        };
        for Override { values, .. } in self.overrides.iter().filter(|one| one.matches(path)) {
            all.memory_limit = values.memory_limit.or(all.memory_limit);
            all.vram_limit = values.vram_limit.or(all.vram_limit);
            all.serial = values.serial.or(all.serial);
            all.timeout = values.timeout.or(all.timeout);
            all.isolation = values.isolation.or(all.isolation);
            all.env.extend(values.env.clone());
        }
        all
    }
}

impl Override {
    /// Is the file at `path` (from pytest's rootdir) one of those?
    pub fn matches(&self, path: &Path) -> bool {
        let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
        self.filter.matches_path_with(path, options)
    }
}
