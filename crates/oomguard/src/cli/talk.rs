//! `status`, `reload`, `restart`, `stop`: what is asked of a running `up`.

use clap::Args;

use super::ConfigFile;

/// `oomguard status`.
#[derive(Debug, Args)]
pub struct Status {
    /// Of which `up`.
    #[command(flatten)]
    pub config: ConfigFile,
    /// One JSON object on stdout
    #[arg(long)]
    pub json: bool,
    /// Show it again every two seconds, until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
}

/// `oomguard reload`.
#[derive(Debug, Args)]
pub struct Talk {
    /// Which `up`.
    #[command(flatten)]
    pub config: ConfigFile,
    /// One JSON object on stdout
    #[arg(long)]
    pub json: bool,
}

/// `oomguard restart`.
#[derive(Debug, Args)]
pub struct Restart {
    /// A worker's name, as `status` shows it [default: all]
    pub worker: Option<String>,
    /// Which `up`.
    #[command(flatten)]
    pub talk: Talk,
}

/// `oomguard stop`.
#[derive(Debug, Args)]
pub struct Stop {
    /// Without SIGTERM and grace
    #[arg(long)]
    pub now: bool,
    /// Which `up`.
    #[command(flatten)]
    pub talk: Talk,
}
