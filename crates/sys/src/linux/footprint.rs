//! What this process itself holds: resident bytes, their peak, and the freed heap that the allocator keeps.
//!
//! Touches `/proc/self/{statm,status,clear_refs}` and the C library's heap. Never touches another process.

use std::path::Path;
use std::sync::Arc;

use oomguard_core::Bytes;

use super::error::{Error, Result};
use super::kept::{Kept, buffer};
use super::{procfs, text};

/// Resident bytes of this process, read again and again: one `pread`, 1 us. A forked child must open its own: the file
/// goes on showing the parent.
#[derive(Debug)]
pub struct Resident {
    statm: Kept,
    page: u64,
}

impl Resident {
    /// Opens `/proc/self/statm`.
    pub fn open() -> Result<Resident> {
        let statm = Kept::read_only(Path::new("/proc/self/statm"))?;
        Ok(Resident { statm, page: rustix::param::page_size() as u64 })
    }

    /// Bytes in RAM, shared pages included. The kernel adds them up per CPU and may be some pages late.
    pub fn read(&self) -> Result<Bytes> {
        let mut buffer = buffer::<128>();
        let line = self.statm.read(&mut buffer)?;
        procfs::resident(line, self.page).map(Bytes).ok_or_else(|| self.statm.malformed("no resident pages"))
    }
}

/// Bytes of this process that are in RAM, shared pages included. Opens the file anew: 15 us.
pub fn resident() -> Result<Bytes> {
    Resident::open()?.read()
}

/// The most that [`resident`] has been since the process began, or since [`forget_peak`].
pub fn peak() -> Result<Bytes> {
    let path: Arc<Path> = Arc::from(Path::new("/proc/self/status"));
    let status = std::fs::read(&path).map_err(|e| Error::io("read", &path, &e))?;
    let line = status.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"VmHWM:"));
    let kib = line.and_then(|line| text::leading(line.trim_ascii_start()));
    kib.map(|(kib, _)| Bytes::kib(kib)).ok_or_else(|| Error::malformed(&path, "no `VmHWM` line"))
}

/// Begins a new [`peak`] at what is resident now.
pub fn forget_peak() -> Result<()> {
    let path = Path::new("/proc/self/clear_refs");
    std::fs::write(path, "5").map_err(|e| Error::io("write 5 to", path, &e))
}

/// Gives freed heap back to the kernel, whole pages in the middle of it too (`malloc_trim(0)`). Bytes that the resident
/// set fell by: other threads may have grown meanwhile, so it can be less than what was given back. Takes 50 ms for
/// 400 MB (measured); other threads' allocations wait for their arena's turn.
///
/// `None` where the allocator has no such call.
pub fn trim() -> Option<Bytes> {
    let before = resident().ok();
    if !trim_heap() {
        return None;
    }
    Some(before.unwrap_or(Bytes::ZERO).minus(resident().unwrap_or(Bytes::MAX)))
}

#[cfg(target_env = "gnu")]
fn trim_heap() -> bool {
    // SAFETY: takes an integer, is thread-safe, and only gives back pages that hold no live allocation.
    unsafe { libc::malloc_trim(0) };
    true
}

#[cfg(not(target_env = "gnu"))]
fn trim_heap() -> bool {
    false
}
