//! cgroup v1 memory files of one leaf.
//!
//! Touches `memory.{limit,memsw.limit,usage,max_usage}_in_bytes`, `memory.stat`, `memory.failcnt`,
//! `memory.oom_control` and `cgroup.event_control`. Never disables the kernel's OOM killer.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;

use oomguard_core::Bytes;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{DupFlags, Errno};

use super::memory::{Counters, Events, Limits, check_held, optional};
use crate::os::error::{Error, Result};
use crate::os::kept::{Kept, buffer};
use crate::os::text::{self, Line};
use crate::os::wait::Interest;

#[derive(Debug)]
pub(crate) struct Memory1 {
    limit: Kept,
    memsw: Option<Kept>,
    usage: Kept,
    stat: Kept,
    max_usage: Kept,
    failcnt: Kept,
    oom_control: Kept,
    event_control: Option<Kept>,
    /// Told when this cgroup, or one above it, is out of memory.
    oom: OwnedFd,
    /// Told when usage crosses the soft mark. Its number stays the same when the mark is moved.
    threshold: OwnedFd,
    ooms: u64,
    crossings: u64,
}

/// Writes a limit; `Bytes::MAX` is none.
pub(crate) fn write_limit(file: &Kept, limit: Bytes) -> Result<()> {
    if limit == Bytes::MAX { file.write(b"-1") } else { file.write_number(limit.0) }
}

fn new_eventfd() -> Result<OwnedFd> {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(|errno| Error::Call { doing: "eventfd", errno })
}

/// How often an eventfd was told something since it was last asked.
fn drain(fd: &OwnedFd) -> u64 {
    let mut count = [0u8; 8];
    match rustix::io::read(fd, &mut count[..]) {
        Ok(8) => u64::from_ne_bytes(count),
        _ => 0,
    }
}

/// The same for any cgroup's `memory.stat`.
pub(crate) fn cache(stat: &Kept) -> Result<Bytes> {
    let mut space = buffer::<16384>();
    match text::fields(stat.read(&mut space)?, ["total_inactive_file", "total_active_file"]) {
        [Some(inactive), Some(active)] => Ok(Bytes(inactive).plus(Bytes(active))),
        _ => Err(stat.malformed("`total_inactive_file` and `total_active_file` expected")),
    }
}

impl Memory1 {
    pub(crate) fn open(dir: &Path) -> Result<Memory1> {
        let both = |file: &str| Kept::read_write(&dir.join(file));
        let memory = Memory1 {
            limit: both("memory.limit_in_bytes")?,
            memsw: optional(both("memory.memsw.limit_in_bytes"))?,
            usage: Kept::read_only(&dir.join("memory.usage_in_bytes"))?,
            stat: Kept::read_only(&dir.join("memory.stat"))?,
            max_usage: Kept::read_only(&dir.join("memory.max_usage_in_bytes"))?,
            failcnt: Kept::read_only(&dir.join("memory.failcnt"))?,
            oom_control: Kept::read_only(&dir.join("memory.oom_control"))?,
            event_control: optional(Kept::write_only(&dir.join("cgroup.event_control")))?,
            oom: new_eventfd()?,
            threshold: new_eventfd()?,
            ooms: 0,
            crossings: 0,
        };
        if memory.event_control.is_some() {
            memory.watch(&memory.oom, &memory.oom_control, None)?;
        }
        Ok(memory)
    }

    /// Registers an eventfd: `EVENTFD FILE [THRESHOLD]`.
    fn watch(&self, eventfd: &OwnedFd, file: &Kept, threshold: Option<Bytes>) -> Result<()> {
        let control = self.event_control.as_ref().ok_or(Error::Call {
            doing: "asking for events (`cgroup.event_control` is missing)",
            errno: Errno::NOSYS,
        })?;
        let number = |fd: i32| u64::from(fd.unsigned_abs());
        let line = Line::<64>::new()
            .number(number(eventfd.as_raw_fd()))
            .text(b" ")
            .number(number(file.as_fd().as_raw_fd()));
        let line = match threshold {
            Some(bytes) => line.text(b" ").number(bytes.0),
            None => line,
        };
        control.write(line.bytes().unwrap_or_default())
    }

    /// The kernel keeps `limit <= memory + swap` at every moment, so the order depends on the direction.
    pub(crate) fn set(&self, limits: &Limits) -> Result<Bytes> {
        // Never quite the same: of two equal limits the kernel meets that of memory + swap first, and new kernels
        // (6.18) do not count that, so that nothing would tell a kill at this limit from one at a limit above.
        let page = Bytes(rustix::param::page_size() as u64);
        let both = match (limits.memory, limits.swap.unwrap_or(Bytes::ZERO)) {
            (Bytes::MAX, _) | (_, Bytes::MAX) => Bytes::MAX,
            (memory, swap) => memory.plus(swap.max(page)),
        };
        match &self.memsw {
            Some(memsw) if both >= memsw.limit()? => {
                write_limit(memsw, both)?;
                write_limit(&self.limit, limits.memory)?;
            }
            Some(memsw) => {
                write_limit(&self.limit, limits.memory)?;
                write_limit(memsw, both)?;
            }
            None => write_limit(&self.limit, limits.memory)?,
        }
        if let Some(memsw) = &self.memsw {
            check_held(memsw, both)?;
        }
        check_held(&self.limit, limits.memory)
    }

    /// v1 only tells; it does not throttle. The old mark goes away with its eventfd, whose number the new one takes
    /// over, so that whoever polls it need not know.
    pub(crate) fn set_soft(&mut self, soft: Option<Bytes>) -> Result<()> {
        let fresh = new_eventfd()?;
        if let Some(soft) = soft {
            self.watch(&fresh, &self.usage, Some(soft))?;
        }
        rustix::io::dup3(&fresh, &mut self.threshold, DupFlags::CLOEXEC)
            .map_err(|errno| Error::Call { doing: "dup3", errno })
    }

    pub(crate) fn event_fds(&self) -> Events<'_> {
        [Some((self.oom.as_fd(), Interest::Read)), Some((self.threshold.as_fd(), Interest::Read))]
    }

    pub(crate) fn events(&mut self) -> Result<Counters> {
        self.ooms = self.ooms.saturating_add(drain(&self.oom));
        self.crossings = self.crossings.saturating_add(drain(&self.threshold));
        let mut space = buffer::<256>();
        let [oom_kill] = text::fields(self.oom_control.read(&mut space)?, ["oom_kill"]);
        // Before Linux 4.13 kills are not counted; then every notification stands for one.
        let oom_kill = oom_kill.unwrap_or(self.ooms);
        let max = self.failcnt.number()?;
        Ok(Counters { high: self.crossings, max, oom: self.ooms, oom_kill, oom_local: None })
    }

    pub(crate) fn charged(&self) -> Result<Bytes> {
        self.usage.number().map(Bytes)
    }

    /// Pages of files; v1 does not tell which kernel memory could be given back.
    pub(crate) fn cache(&self) -> Result<Bytes> {
        cache(&self.stat)
    }

    pub(crate) fn shmem(&self) -> Result<Bytes> {
        let mut space = buffer::<16384>();
        let [shmem] = text::fields(self.stat.read(&mut space)?, ["total_shmem"]);
        shmem.map(Bytes).ok_or_else(|| self.stat.malformed("`total_shmem` expected"))
    }

    pub(crate) fn peak(&self) -> Result<Bytes> {
        self.max_usage.number().map(Bytes)
    }

    pub(crate) fn reclaim(&self, _amount: Bytes) -> Result<()> {
        Err(Error::Call { doing: "asking cgroup v1 to reclaim memory", errno: Errno::NOSYS })
    }
}
