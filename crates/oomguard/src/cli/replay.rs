//! `replay`: which recording, and what if.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::amount::{Amount, duration, limit};

/// `oomguard replay`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  oomguard replay run.jsonl                        what happened
  oomguard replay run.jsonl --diff                 would this version have decided otherwise?
  oomguard replay run.jsonl --memory-limit 6GiB --diff

The world of a recording does not answer back: a job that another policy would have ended goes on in
it, and goes on growing. What a what-if says is right up to its first different decision.

Exit codes: 0; 1 if this version decides otherwise, or if --diff found a difference; 125 if the
recording is damaged, after telling what could be read.")]
pub struct Replay {
    /// What `--record` wrote
    pub file: PathBuf,
    /// One JSON object a line, as the run itself wrote them
    #[arg(long)]
    pub json: bool,
    /// Stop this long after the recording began
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub until: Option<Duration>,
    /// Only what differs: `-` the run told then, `+` is told now
    #[arg(long)]
    pub diff: bool,
    /// What if so much available memory had been the reserve?
    #[arg(long, value_name = "SIZE|%", help_heading = "What if")]
    pub reserve: Option<Amount>,
    /// What if every job had had this limit?
    #[arg(short = 'm', long, value_name = "SIZE|%", value_parser = limit, help_heading = "What if")]
    pub memory_limit: Option<Amount>,
    /// What if every job had had this limit on each GPU?
    #[arg(long, value_name = "SIZE|%", value_parser = limit, help_heading = "What if")]
    pub vram_limit: Option<Amount>,
    /// What if there had been so much time from SIGTERM to SIGKILL?
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "What if")]
    pub grace: Option<Duration>,
}
