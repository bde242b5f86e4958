//! Free pages that the kernel parks on per-CPU lists and that neither `MemFree` nor `MemAvailable` counts: after a
//! large process has died, up to half of its memory for seconds.
//!
//! Touches `/proc/zoneinfo`, kept open. Never allocates after `open`; the file may be of any length.

use std::path::Path;

use oomguard_core::Bytes;

use super::error::Result;
use super::kept::{Kept, buffer};
use super::text;

/// `/proc/zoneinfo`, kept open.
#[derive(Debug)]
pub struct PerCpuPages {
    file: Kept,
    page_size: u64,
}

/// The longest line that is looked at; the kernel's are under 80 bytes.
const LINE: usize = 256;

impl PerCpuPages {
    /// Opens `zoneinfo` under `proc_root` (`/proc`).
    pub fn open(proc_root: &Path) -> Result<PerCpuPages> {
        let file = Kept::read_only(&proc_root.join("zoneinfo"))?;
        Ok(PerCpuPages { file, page_size: rustix::param::page_size() as u64 })
    }

    /// Reads and adds the `count:` of every per-CPU pageset: about 20 us on two CPUs, more with every CPU and zone,
    /// so it is for the moments after a kill, not for every look. An error if the file names no pageset at all.
    pub fn read(&mut self) -> Result<Bytes> {
        let mut space = buffer::<16384>();
        let (mut offset, mut pages, mut pagesets) = (0u64, 0u64, 0u64);
        loop {
            let bytes = self.file.read_at(&mut space, offset)?;
            // Only whole lines are used; the next read begins where the last whole line ended.
            let Some(end) = bytes.iter().rposition(|b| *b == b'\n') else {
                if bytes.len() > LINE {
                    return Err(self.file.malformed("a line is too long"));
                }
                break;
            };
            for line in text::lines(&bytes[..=end]) {
                let Some(count) = line.trim_ascii_start().strip_prefix(b"count:") else { continue };
                let (count, _) = text::leading(count)
                    .ok_or_else(|| self.file.malformed("a pageset's `count:` is not a number"))?;
                pages = pages.saturating_add(count);
                pagesets += 1;
            }
            offset += end as u64 + 1;
        }
        if pagesets == 0 {
            return Err(self.file.malformed("it names no per-CPU pagesets"));
        }
        Ok(Bytes(pages.saturating_mul(self.page_size)))
    }
}
