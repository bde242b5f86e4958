//! What AMD's kernel driver says in sysfs about a card's memory.
//!
//! Touches `mem_info_vram_total`, `mem_info_vram_used`, `unique_id`, `product_name`. Some 20 us a card. Never asks ROCm.

use std::path::Path;

use oomguard_core::{Bytes, Reading, Why};

use super::{Memory, drm};

/// The memory of the card whose `device` folder this is.
pub(super) fn memory(device: &Path) -> Reading<Memory> {
    let total = number(&device.join("mem_info_vram_total"));
    let used = number(&device.join("mem_info_vram_used"));
    match (total, used) {
        (Ok(total), Ok(used)) if used <= total => {
            Reading::Known(Memory { total, used, free: total.minus(used) })
        }
        (Ok(_), Ok(_)) => Reading::Unknown(Why::Malformed),
        (Err(why), _) | (_, Err(why)) => Reading::Unknown(why),
    }
}

/// `GPU-` and the card's number, as ROCm writes it; empty for cards that have none.
pub(super) fn uuid(device: &Path) -> String {
    match std::fs::read_to_string(device.join("unique_id")) {
        Ok(text) if !text.trim().is_empty() => format!("GPU-{}", text.trim()),
        _ => String::new(),
    }
}

/// The card's name; most have none here.
pub(super) fn name(device: &Path) -> String {
    std::fs::read_to_string(device.join("product_name"))
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

fn number(path: &Path) -> Result<Bytes, Why> {
    let text = std::fs::read_to_string(path).map_err(|error| drm::why(&error))?;
    // Without its newline a number may have been cut short.
    let number = text.strip_suffix('\n').and_then(|text| text.parse().ok());
    number.map(Bytes).ok_or(Why::Malformed)
}
