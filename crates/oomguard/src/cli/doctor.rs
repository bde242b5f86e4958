//! `doctor`: where it looks, and how it tells.

use clap::Args;

use super::Place;

/// `oomguard doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Where a job's cgroup would go.
    #[command(flatten)]
    pub place: Place,
    /// One JSON object on stdout
    #[arg(long)]
    pub json: bool,
}
