//! `install`: where the service of `watch` goes.

use std::ffi::OsString;

use clap::Args;

/// `oomguard install`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  oomguard install --system                         what would be written, and where
  sudo oomguard install --system --yes -- --enforce --avoid user:postgres")]
#[command(group = clap::ArgGroup::new("scope").required(true).args(["system", "user"]))]
pub struct Install {
    /// For the machine: /etc/systemd/system
    #[arg(long)]
    pub system: bool,
    /// For this user: ~/.config/systemd/user
    #[arg(long)]
    pub user: bool,
    /// Write it
    #[arg(long)]
    pub yes: bool,
    /// Flags of `oomguard watch`; without --enforce the service is a dry run
    #[arg(last = true, value_name = "FLAG")]
    pub flags: Vec<OsString>,
}
