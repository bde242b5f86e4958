//! The host's memory, from `/proc/meminfo`.
//!
//! Touches that one file, kept open. Never allocates after `open`, and never estimates `MemAvailable` where the
//! kernel does not print it.

use std::path::Path;

use oomguard_core::Bytes;

use super::error::Result;
use super::kept::{Kept, buffer};
use super::text;

/// The host's memory at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// `MemTotal`.
    pub total: Bytes,
    /// `MemAvailable`: what can still be given without swapping. Free pages on per-CPU lists are not in it (see
    /// [`super::zoneinfo`]).
    pub available: Bytes,
    /// `MemFree`.
    pub free: Bytes,
    /// `Shmem`: tmpfs and shared memory.
    pub shmem: Bytes,
    /// `SwapTotal`.
    pub swap_total: Bytes,
    /// `SwapFree`.
    pub swap_free: Bytes,
}

/// `/proc/meminfo`, kept open.
#[derive(Debug)]
pub struct Meminfo {
    file: Kept,
}

impl Meminfo {
    /// Opens `meminfo` under `proc_root` (`/proc`).
    pub fn open(proc_root: &Path) -> Result<Meminfo> {
        Ok(Meminfo { file: Kept::read_only(&proc_root.join("meminfo"))? })
    }

    /// Reads it: one `pread`, no allocation, 5 to 8 us.
    ///
    /// An error if a line is missing (`MemAvailable` needs Linux 3.14) or cut short.
    pub fn read(&mut self) -> Result<Memory> {
        let mut space = buffer::<8192>();
        let bytes = self.file.read(&mut space)?;
        let keys = ["MemTotal", "MemAvailable", "MemFree", "Shmem", "SwapTotal", "SwapFree"];
        let [total, available, free, shmem, swap_total, swap_free] = text::fields(bytes, keys);
        let need = |value: Option<u64>, what| match value {
            Some(kib) => Ok(Bytes::kib(kib)),
            None => Err(self.file.malformed(what)),
        };
        Ok(Memory {
            total: need(total, "it has no `MemTotal` line")?,
            available: need(available, "it has no `MemAvailable` line (Linux 3.14 or newer is needed)")?,
            free: need(free, "it has no `MemFree` line")?,
            shmem: need(shmem, "it has no `Shmem` line")?,
            swap_total: need(swap_total, "it has no `SwapTotal` line")?,
            swap_free: need(swap_free, "it has no `SwapFree` line")?,
        })
    }
}
