//! Pressure: for how long tasks were stalled on memory. A thrash alarm; without swap it stays silent until the
//! memory is gone, so it is never the alarm for a spike.
//!
//! Touches `/proc/pressure/memory` or a cgroup's `memory.pressure`. Never interprets the averages.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use super::error::{Error, Result};
use super::kept::{Kept, buffer};
use super::text::{self, Line};

/// Stall time in microseconds since boot (or since the cgroup was made).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    /// At least one task was stalled.
    pub some_us: u64,
    /// All tasks that were not idle were stalled.
    pub full_us: u64,
}

/// A pressure file, kept open.
#[derive(Debug)]
pub struct Psi {
    file: Kept,
}

impl Psi {
    /// The host's, under `proc_root` (`/proc`). An error with `EOPNOTSUPP` or `ENOENT` where the kernel has it off.
    pub fn open(proc_root: &Path) -> Result<Psi> {
        Ok(Psi { file: Kept::read_only(&proc_root.join("pressure/memory"))? })
    }
    /// A cgroup's, by its v2 directory.
    pub fn open_cgroup(dir: &Path) -> Result<Psi> {
        Ok(Psi { file: Kept::read_only(&dir.join("memory.pressure"))? })
    }
    /// Reads it: one `pread`, 2 us, no allocation.
    pub fn read(&mut self) -> Result<Stall> {
        let mut space = buffer::<512>();
        let bytes = self.file.read(&mut space)?;
        let total = |kind: &[u8]| {
            let line = text::lines(bytes).find_map(|line| line.strip_prefix(kind))?;
            let at = line.windows(6).position(|w| w == b"total=")?;
            text::leading(&line[at + 6..]).map(|(n, _)| n)
        };
        match (total(b"some "), total(b"full ")) {
            (Some(some_us), Some(full_us)) => Ok(Stall { some_us, full_us }),
            _ => Err(self.file.malformed("a `some` and a `full` line with `total=` expected")),
        }
    }
}

/// Which stall a trigger watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// At least one task stalled.
    Some,
    /// All tasks stalled.
    Full,
}

/// A descriptor that becomes ready (`POLLPRI`) when `stall` was lost within `window` on the pressure file at `path`.
///
/// Needs `CAP_SYS_RESOURCE` or, from Linux 6.4, a window that is a multiple of two seconds; else `EINVAL` or `EPERM`.
pub fn trigger(path: &Path, kind: Kind, stall: Duration, window: Duration) -> Result<OwnedFd> {
    let fd = rustix::fs::open(path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Error::file("open", path, errno))?;
    let word: &[u8] = match kind {
        Kind::Some => b"some ",
        Kind::Full => b"full ",
    };
    let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
    let line =
        Line::<64>::new().text(word).number(micros(stall)).text(b" ").number(micros(window)).text(b"\0");
    rustix::io::write(&fd, line.bytes().unwrap_or_default())
        .map_err(|errno| Error::file("set a trigger on", path, errno))?;
    Ok(fd)
}
