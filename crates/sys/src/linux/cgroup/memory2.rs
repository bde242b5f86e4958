//! cgroup v2 memory files of one leaf.
//!
//! Touches `memory.{max,high,swap.max,oom.group,current,stat,peak,events,events.local,reclaim}`. Never leaves
//! `memory.high` in force by itself: who sets it takes it back.

use std::os::fd::AsFd as _;
use std::path::Path;

use oomguard_core::Bytes;
use rustix::io::Errno;

use super::memory::{Counters, Events, Limits, check_held, optional, optional_read};
use crate::os::error::{Error, Result};
use crate::os::kept::{Kept, buffer};
use crate::os::text;
use crate::os::wait::Interest;

#[derive(Debug)]
pub(crate) struct Memory2 {
    max: Kept,
    high: Kept,
    swap_max: Option<Kept>,
    oom_group: Option<Kept>,
    current: Kept,
    stat: Kept,
    peak: Option<Kept>,
    events: Kept,
    local: Option<Kept>,
    reclaim: Option<Kept>,
}

/// Writes a limit; `Bytes::MAX` is none.
pub(crate) fn write_limit(file: &Kept, limit: Bytes) -> Result<()> {
    if limit == Bytes::MAX { file.write(b"max") } else { file.write_number(limit.0) }
}

/// The same for any cgroup's `memory.stat`.
pub(crate) fn cache(stat: &Kept) -> Result<Bytes> {
    let mut space = buffer::<16384>();
    let keys = ["inactive_file", "active_file", "slab_reclaimable"];
    match text::fields(stat.read(&mut space)?, keys) {
        [Some(inactive), Some(active), slab] => {
            Ok(Bytes(inactive).plus(Bytes(active)).plus(Bytes(slab.unwrap_or(0))))
        }
        _ => Err(stat.malformed("`inactive_file` and `active_file` expected")),
    }
}

impl Memory2 {
    pub(crate) fn open(dir: &Path) -> Result<Memory2> {
        let both = |file: &str| Kept::read_write(&dir.join(file));
        Ok(Memory2 {
            max: both("memory.max")?,
            high: both("memory.high")?,
            swap_max: optional(both("memory.swap.max"))?,
            oom_group: optional(both("memory.oom.group"))?,
            current: Kept::read_only(&dir.join("memory.current"))?,
            stat: Kept::read_only(&dir.join("memory.stat"))?,
            peak: optional_read(dir, "memory.peak")?,
            events: Kept::read_only(&dir.join("memory.events"))?,
            local: optional_read(dir, "memory.events.local")?,
            reclaim: optional(Kept::write_only(&dir.join("memory.reclaim")))?,
        })
    }

    /// Swap first, so that a lowered limit cannot push the job out to swap.
    pub(crate) fn set(&self, limits: &Limits) -> Result<Bytes> {
        if let Some(swap_max) = &self.swap_max {
            let swap = limits.swap.unwrap_or(Bytes::ZERO);
            write_limit(swap_max, swap)?;
            check_held(swap_max, swap)?;
        }
        match &self.oom_group {
            Some(file) => file.write(if limits.whole_job { b"1" } else { b"0" })?,
            None if limits.whole_job => {
                return Err(Error::Refused(
                    "this kernel cannot end a whole cgroup at its limit (`memory.oom.group` needs Linux 4.19)"
                        .to_owned(),
                ));
            }
            None => {}
        }
        write_limit(&self.max, limits.memory)?;
        check_held(&self.max, limits.memory)
    }

    pub(crate) fn set_soft(&mut self, soft: Option<Bytes>) -> Result<()> {
        write_limit(&self.high, soft.unwrap_or(Bytes::MAX))
    }

    pub(crate) fn event_fds(&self) -> Events<'_> {
        [Some((self.events.as_fd(), Interest::Priority)), None]
    }

    /// Reading is also what makes the descriptor quiet again.
    pub(crate) fn events(&mut self) -> Result<Counters> {
        let mut space = buffer::<512>();
        let all = text::fields(self.events.read(&mut space)?, ["high", "max", "oom", "oom_kill"]);
        let [Some(high), Some(max), Some(oom), Some(oom_kill)] = all else {
            return Err(self.events.malformed("`high`, `max`, `oom` and `oom_kill` expected"));
        };
        let oom_local = match &self.local {
            Some(local) => text::fields(local.read(&mut buffer::<512>())?, ["oom"])[0],
            None => None,
        };
        Ok(Counters { high, max, oom, oom_kill, oom_local })
    }

    pub(crate) fn charged(&self) -> Result<Bytes> {
        self.current.number().map(Bytes)
    }

    /// What is charged and can be given back: pages of files, and kernel memory that only caches.
    pub(crate) fn cache(&self) -> Result<Bytes> {
        cache(&self.stat)
    }

    pub(crate) fn shmem(&self) -> Result<Bytes> {
        let mut space = buffer::<16384>();
        let [shmem] = text::fields(self.stat.read(&mut space)?, ["shmem"]);
        shmem.map(Bytes).ok_or_else(|| self.stat.malformed("`shmem` expected"))
    }

    pub(crate) fn peak(&self) -> Result<Bytes> {
        match &self.peak {
            Some(peak) => peak.number().map(Bytes),
            None => Err(Error::Call { doing: "reading `memory.peak` (Linux 5.19)", errno: Errno::NOSYS }),
        }
    }

    /// `EAGAIN` from the kernel means that less was reclaimed than asked for.
    pub(crate) fn reclaim(&self, amount: Bytes) -> Result<()> {
        match &self.reclaim {
            Some(file) => file.write_number(amount.0),
            None => Err(Error::Call { doing: "writing `memory.reclaim` (Linux 5.19)", errno: Errno::NOSYS }),
        }
    }
}
