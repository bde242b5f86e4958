//! `run`: one command and its limits.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use oomguard_core::OnLimit;

use super::{Place, Require};
use crate::amount::{Amount, duration, limit};

/// `oomguard run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  oomguard run --memory-limit 8GiB -- python train.py
  oomguard run --memory-limit 50% --timeout 2h --report last.json -- make test
  oomguard run -- ./notebook.sh          no limit of its own, but the machine's reserve is guarded

Exit codes: the command's own; 75 no room (pre-flight), 124 time limit, 125 oomguard itself failed,
126 not executable, 127 not found, 128+n killed by signal n, 137 ended because of memory (the last
line on stderr says which limit).")]
pub struct Run {
    /// What the whole process tree may use: 8GiB, 512MiB, 60% (of all memory)
    #[arg(short = 'm', long, value_name = "SIZE|%", value_parser = limit, env = "OOMGUARD_MEMORY_LIMIT", allow_hyphen_values = true)]
    pub memory_limit: Option<Amount>,
    /// What it may hold of any one GPU: 4GiB, 50% (of the GPU's memory); torch, JAX and TensorFlow are told, too
    #[arg(long, value_name = "SIZE|%", value_parser = limit, env = "OOMGUARD_VRAM_LIMIT", allow_hyphen_values = true)]
    pub vram_limit: Option<Amount>,
    /// Available memory that must never be used [default: 2GiB; an eighth of small machines]
    #[arg(long, value_name = "SIZE|%", env = "OOMGUARD_RESERVE", allow_hyphen_values = true)]
    pub reserve: Option<Amount>,
    /// What must be left of every GPU that it holds memory of [default: GPUs are not watched]
    #[arg(long, value_name = "SIZE|%", env = "OOMGUARD_VRAM_RESERVE", allow_hyphen_values = true)]
    pub vram_reserve: Option<Amount>,
    /// Swap that the tree may use
    #[arg(long, value_name = "SIZE|%", default_value = "0", env = "OOMGUARD_SWAP_LIMIT")]
    pub swap_limit: Amount,
    /// End the command after this time (exit code 124)
    #[arg(long, value_name = "TIME", value_parser = duration, env = "OOMGUARD_TIMEOUT")]
    pub timeout: Option<Duration>,
    /// From SIGTERM to SIGKILL
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s", env = "OOMGUARD_GRACE")]
    pub grace: Duration,
    /// What ends when the kernel kills at the limit
    #[arg(long, value_enum, default_value = "job")]
    pub on_limit: LimitScope,
    /// Refuse to start unless the tree is really held by this
    #[arg(long, value_name = "ENFORCEMENT", value_enum, help_heading = "Enforcement")]
    pub require: Option<Require>,
    /// Start even if no cgroup can hold the tree; the guard then watches it
    #[arg(long, conflicts_with = "require", help_heading = "Enforcement")]
    pub best_effort: bool,
    /// Where the job's cgroup goes.
    #[command(flatten)]
    pub place: Place,
    /// Write what happened to FILE, as one JSON document
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub report: Option<PathBuf>,
    /// Write everything that the guard sees to FILE, for `oomguard replay` (an older one is kept as FILE.1)
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub record: Option<PathBuf>,
    /// Say what happens on stderr as JSON, one event a line
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    /// Say also what is not a problem
    #[arg(short, long, help_heading = "Output")]
    pub verbose: bool,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// `--on-limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LimitScope {
    /// the whole job ends
    Job,
    /// only the process that the kernel chose
    Process,
}

impl From<LimitScope> for OnLimit {
    fn from(scope: LimitScope) -> OnLimit {
        match scope {
            LimitScope::Job => OnLimit::Job,
            LimitScope::Process => OnLimit::Process,
        }
    }
}
