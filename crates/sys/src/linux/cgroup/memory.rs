//! A leaf's memory files, v1 or v2, behind one set of names.
//!
//! Touches the files of one cgroup. Never allocates after `open` except in errors.

use std::os::fd::BorrowedFd;
use std::path::Path;

use oomguard_core::{Bytes, LimitEvent};

use super::memory1::Memory1;
use super::memory2::Memory2;
use crate::os::error::Result;
use crate::os::kept::Kept;
use crate::os::wait::Interest;

/// What a leaf may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Memory, file cache included. `Bytes::MAX`: no limit.
    pub memory: Bytes,
    /// Swap on top of that. `None`: none at all; `Some(Bytes::MAX)`: no limit.
    pub swap: Option<Bytes>,
    /// At the limit the kernel ends the whole job instead of one process (`memory.oom.group`). cgroup v1 cannot do
    /// that; there the guard ends the rest.
    pub whole_job: bool,
}

impl Limits {
    /// This much memory, no swap, the whole job at once.
    pub const fn new(memory: Bytes) -> Limits {
        Limits { memory, swap: None, whole_job: true }
    }
}

/// What the kernel has counted in a leaf since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// The soft mark was crossed: v2 `high`; v1 the number of threshold notifications.
    pub high: u64,
    /// The limit was met and memory had to be reclaimed: v2 `max`, v1 `failcnt`.
    pub max: u64,
    /// The limit was met and nothing could be reclaimed. v1: notifications of an OOM here or above.
    pub oom: u64,
    /// Processes that the kernel killed in it.
    pub oom_kill: u64,
    /// The part of `oom` that happened at this leaf's own limit (v2 `memory.events.local`); v1 cannot tell.
    pub oom_local: Option<u64>,
}

impl Counters {
    /// What has happened since `earlier`, the most important first. v1 cannot say whose limit a kill was for: it
    /// was the leaf's own if that was met in the same time.
    pub fn since(&self, earlier: &Counters) -> Option<LimitEvent> {
        if self.oom_kill > earlier.oom_kill {
            let own = match (self.oom_local, earlier.oom_local) {
                // A limit that the job set on a cgroup of its own below the leaf is its own business too, so
                // the count of the whole leaf is the one to look at: what happens above is never in it.
                (Some(_), _) => self.oom > earlier.oom,
                _ => self.max > earlier.max,
            };
            return Some(if own { LimitEvent::KilledAtLimit } else { LimitEvent::KilledAbove });
        }
        (self.high > earlier.high).then_some(LimitEvent::Soft)
    }
}

/// Either kind.
#[derive(Debug)]
pub(crate) enum Memory {
    V1(Memory1),
    V2(Memory2),
}

/// Up to two descriptors that say that the kernel has counted something.
pub(crate) type Events<'f> = [Option<(BorrowedFd<'f>, Interest)>; 2];

/// Passes a call on to whichever it is.
macro_rules! either {
    ($self:ident, $inner:ident => $call:expr) => {
        match $self {
            Memory::V1($inner) => $call,
            Memory::V2($inner) => $call,
        }
    };
}

impl Memory {
    pub(crate) fn set(&self, limits: &Limits) -> Result<Bytes> {
        either!(self, m => m.set(limits))
    }
    pub(crate) fn set_soft(&mut self, soft: Option<Bytes>) -> Result<()> {
        either!(self, m => m.set_soft(soft))
    }
    pub(crate) fn event_fds(&self) -> Events<'_> {
        either!(self, m => m.event_fds())
    }
    pub(crate) fn events(&mut self) -> Result<Counters> {
        either!(self, m => m.events())
    }
    pub(crate) fn charged(&self) -> Result<Bytes> {
        either!(self, m => m.charged())
    }
    pub(crate) fn cache(&self) -> Result<Bytes> {
        either!(self, m => m.cache())
    }
    pub(crate) fn shmem(&self) -> Result<Bytes> {
        either!(self, m => m.shmem())
    }
    pub(crate) fn peak(&self) -> Result<Bytes> {
        either!(self, m => m.peak())
    }
    pub(crate) fn reclaim(&self, amount: Bytes) -> Result<()> {
        either!(self, m => m.reclaim(amount))
    }
}

/// Checks that the kernel holds what was asked for, rounded to pages; what it holds.
pub(crate) fn check_held(file: &Kept, asked: Bytes) -> Result<Bytes> {
    let held = file.limit()?;
    let page = rustix::param::page_size() as u64;
    if held == asked || (asked != Bytes::MAX && held.0 == asked.0 - asked.0 % page) {
        return Ok(held);
    }
    Err(crate::os::Error::NotHeld { path: std::sync::Arc::clone(file.path()), asked, held })
}

/// A file that this kernel may not have.
pub(crate) fn optional(result: Result<Kept>) -> Result<Option<Kept>> {
    match result {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.errno() == Some(rustix::io::Errno::NOENT.raw_os_error()) => Ok(None),
        Err(e) => Err(e),
    }
}

/// An optional file of `dir`, for reading.
pub(crate) fn optional_read(dir: &Path, file: &str) -> Result<Option<Kept>> {
    optional(Kept::read_only(&dir.join(file)))
}
