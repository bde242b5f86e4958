//! `watch`: whom it may end, and when.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::amount::{Amount, duration};
use crate::target::Target;

/// `oomguard watch`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  oomguard watch                                   say whom it would end, and do nothing
  oomguard watch --enforce --avoid user:postgres --prefer 'cgroup:/ci.slice/*'
  oomguard watch --enforce --only user:ci          nobody else's processes

WHO is `name:GLOB` (the short name, 15 bytes), `cgroup:GLOB` or `user:NAME`; a bare GLOB is a name.
A family is what one process has started and what shares its process group, within one cgroup. Never
chosen: init, kernel threads, the guard and what is above it, login shells, sshd, service managers,
and whatever has an oom_score_adj of -1000.")]
pub struct Watch {
    /// Act: SIGTERM, grace, SIGKILL; without it only what would be done is said
    #[arg(long)]
    pub enforce: bool,
    /// Available memory that must never be used [default: 2GiB; an eighth of small machines]
    #[arg(long, value_name = "SIZE|%", env = "OOMGUARD_RESERVE", allow_hyphen_values = true)]
    pub reserve: Option<Amount>,
    /// Below this much available memory look closely [default: twice the reserve]
    #[arg(long, value_name = "SIZE|%", env = "OOMGUARD_WARNING", allow_hyphen_values = true)]
    pub warning: Option<Amount>,
    /// From SIGTERM to SIGKILL, if memory lasts so long
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s", env = "OOMGUARD_GRACE")]
    pub grace: Duration,
    /// End these before all others
    #[arg(long, value_name = "WHO", help_heading = "Whom")]
    pub prefer: Vec<Target>,
    /// End these only when no other can help
    #[arg(long, value_name = "WHO", help_heading = "Whom")]
    pub avoid: Vec<Target>,
    /// Never end anybody but these
    #[arg(long, value_name = "WHO", help_heading = "Whom")]
    pub only: Vec<Target>,
    /// Say what happens on stderr as JSON, one event a line
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    /// Write everything that the guard sees to FILE, for `oomguard replay` (an older one is kept as FILE.1)
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub record: Option<PathBuf>,
}
