//! `up`: which configuration, and who is told.

use std::path::PathBuf;

use clap::Args;

use super::{ConfigFile, Place};

/// `oomguard up`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  oomguard up                            the pools of ./oomguard.toml
  oomguard up -c train.toml --json

A minimal oomguard.toml:
  [pool.train]
  command = [\"python\", \"train.py\"]
  count = 2
  memory_limit = \"8GiB\"

The first Ctrl-C ends the workers in good order, the second kills them. SIGHUP reads the
configuration again.")]
pub struct Up {
    /// Which configuration.
    #[command(flatten)]
    pub config: ConfigFile,
    /// Where the jobs' cgroups go.
    #[command(flatten)]
    pub place: Place,
    /// Say what happens on stderr as JSON, one event a line
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    /// Say nothing on the terminal; the logs are written all the same
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,
    /// Write everything that the guard sees to FILE, for `oomguard replay` (an older one is kept as FILE.1)
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub record: Option<PathBuf>,
}
