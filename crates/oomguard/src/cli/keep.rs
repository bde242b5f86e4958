//! `keep`: what `test` tells the process that waits for its death.

use clap::Args;

use super::Place;

/// `oomguard keep`.
#[derive(Debug, Args)]
pub struct Keep {
    /// Cgroups whose names begin so.
    pub prefix: String,
    /// The run's mark.
    pub run: String,
    /// Where they are.
    #[command(flatten)]
    pub place: Place,
}
