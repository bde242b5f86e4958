//! What this process itself holds: resident bytes, their peak, and the freed heap that the allocator keeps.
//!
//! Touches `/proc/self/{statm,status,clear_refs}`, the C library's heap, a mapping of its own and `RLIMIT_DATA`. Never
//! touches another process.

use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use oomguard_core::Bytes;
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

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

/// Bytes of another process that are in RAM, shared pages included; `None`: there is no such process.
pub fn resident_of(pid: u32) -> Option<Bytes> {
    let line = std::fs::read(format!("/proc/{pid}/statm")).ok()?;
    procfs::resident(&line, rustix::param::page_size() as u64).map(Bytes)
}

/// The most that [`resident`] has been since the process began, or since [`forget_peak`].
pub fn peak() -> Result<Bytes> {
    status(["VmHWM:"]).map(|[peak]| peak)
}

/// Lines of `/proc/self/status` that are sizes.
fn status<const N: usize>(keys: [&str; N]) -> Result<[Bytes; N]> {
    let path: Arc<Path> = Arc::from(Path::new("/proc/self/status"));
    let text = std::fs::read(&path).map_err(|e| Error::io("read", &path, &e))?;
    parse_status(&text, keys).ok_or_else(|| Error::malformed(&path, "a size is missing"))
}

/// The sizes that begin with these keys, in the text of a `status` file.
pub(super) fn parse_status<const N: usize>(status: &[u8], keys: [&str; N]) -> Option<[Bytes; N]> {
    let mut sizes = [Bytes::ZERO; N];
    for (size, key) in sizes.iter_mut().zip(keys) {
        let line = status.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(key.as_bytes()))?;
        let (kib, _) = text::leading(line)?;
        *size = Bytes::kib(kib);
    }
    Some(sizes)
}

/// Bytes in RAM that a cgroup would charge to this process alone: anonymous and shared memory, no files.
pub fn charged() -> Result<Bytes> {
    let [anonymous, shared] = status(["RssAnon:", "RssShmem:"])?;
    Ok(anonymous.plus(shared))
}

/// Holds this process, without its children, to `more` bytes of private memory beyond what it has reserved now
/// (`RLIMIT_DATA`): then allocations fail, which Python raises as `MemoryError`. Shared memory and files do not count,
/// and memory counts once it is reserved, touched or not.
pub fn limit_data(more: Bytes) -> Result<()> {
    let [data] = status(["VmData:"])?;
    let old = getrlimit(Resource::Data);
    let limit = Rlimit { current: Some(data.plus(more).0), maximum: old.maximum };
    setrlimit(Resource::Data, limit).map_err(|errno| Error::Call { doing: "setrlimit(RLIMIT_DATA)", errno })
}

/// Memory held back, touched, so that there is something to give when nothing else is left.
#[derive(Debug)]
pub struct Reserve {
    start: NonNull<std::ffi::c_void>,
    size: usize,
}

// SAFETY: nobody reads or writes through the address; the kernel's calls on it are thread-safe.
unsafe impl Send for Reserve {}
// SAFETY: as above.
unsafe impl Sync for Reserve {}

impl Reserve {
    /// Maps `size` bytes; nothing is held back yet.
    pub fn new(size: Bytes) -> Result<Reserve> {
        let failed = |errno| Error::Call { doing: "map a reserve", errno };
        let size = usize::try_from(size.0).map_err(|_| failed(Errno::NOMEM))?;
        // SAFETY: a new private mapping wherever the kernel likes.
        let start = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                size,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }
        .map_err(failed)?;
        // A forked child has the addresses and none of the pages. Without the addresses, something else would lie there,
        // and `release` in the child would empty that.
        // SAFETY: the mapping above, of which nobody has an address yet.
        let _ = unsafe { madvise(start, size, Advice::LinuxWipeOnFork) };
        NonNull::new(start).map(|start| Reserve { start, size }).ok_or_else(|| failed(Errno::NOMEM))
    }

    /// Holds it back: touches every page. 4 ms for 16 MiB.
    pub fn fill(&self) -> Result<()> {
        match self.advise(Advice::LinuxPopulateWrite) {
            // Linux before 5.14.
            Err(Error::Call { errno: Errno::INVAL, .. }) => {
                for page in (0..self.size).step_by(rustix::param::page_size()) {
                    // SAFETY: inside the mapping, which is ours, writable, and holds nothing.
                    unsafe { self.start.as_ptr().cast::<u8>().add(page).write_volatile(1) };
                }
                Ok(())
            }
            result => result,
        }
    }

    /// Gives it to whoever needs it now; it can be filled again later.
    pub fn release(&self) {
        let _ = self.advise(Advice::LinuxDontNeed);
    }

    fn advise(&self, advice: Advice) -> Result<()> {
        // SAFETY: the mapping is ours as long as `self` lives, and nothing is stored in it.
        unsafe { madvise(self.start.as_ptr(), self.size, advice) }
            .map_err(|errno| Error::Call { doing: "fill or release the reserve", errno })
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nobody has its address.
        let _ = unsafe { munmap(self.start.as_ptr(), self.size) };
    }
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
