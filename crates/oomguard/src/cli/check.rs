//! `check`: how much room there must be.

use clap::Args;

use super::share;
use crate::amount::Amount;

/// `oomguard check`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  oomguard check && python train.py
  oomguard check --max-ram 70% --min-available 6GiB --json
  oomguard check --max-vram 80%          the fullest GPU of those that CUDA_VISIBLE_DEVICES leaves")]
pub struct Check {
    /// Refuse if more than this share of memory is used
    #[arg(long, value_name = "%", default_value = "70%", value_parser = share, env = "OOMGUARD_MAX_RAM")]
    pub max_ram: u8,
    /// Refuse if less than this is available
    #[arg(long, value_name = "SIZE|%", env = "OOMGUARD_MIN_AVAILABLE")]
    pub min_available: Option<Amount>,
    /// Refuse if more than this share of a GPU's memory is used, or if that cannot be known [default: not looked at]
    #[arg(long, value_name = "%", value_parser = share, env = "OOMGUARD_MAX_VRAM")]
    pub max_vram: Option<u8>,
    /// One JSON object on stdout
    #[arg(long)]
    pub json: bool,
}
