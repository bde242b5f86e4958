//! `init`: where the example goes.

use std::path::PathBuf;

use clap::Args;

/// `oomguard init`.
#[derive(Debug, Args)]
pub struct Init {
    /// Where to; `-` for stdout
    #[arg(default_value = "oomguard.toml")]
    pub file: PathBuf,
}
