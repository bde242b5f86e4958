//! Freezing and killing every process of a leaf.
//!
//! Touches `cgroup.{kill,freeze,events,procs}` of v2, `freezer.state` of v1, or else the processes one by one
//! through pidfds. Never allocates, never signals a process that is not in the leaf at that moment.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use oomguard_core::Instant;
use rustix::process::Signal;

use super::members::Members;
use super::memory::optional;
use crate::os::error::Result;
use crate::os::kept::{Kept, buffer};
use crate::os::wait::{Interest, until_ready};
use crate::os::{clock, text};

/// How a leaf was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// By the kernel, all at once (`cgroup.kill`).
    AtOnce,
    /// One by one, round after round until no living process was left or the rounds were used up.
    OneByOne,
}

/// The outcome of a kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Killed {
    /// How.
    pub how: How,
    /// Processes that were signalled one by one.
    pub signalled: u32,
    /// After many rounds somebody was still listed: dying slowly, or forking faster than we kill.
    pub incomplete: bool,
}

/// What stops a leaf's processes.
#[derive(Debug)]
pub(crate) enum Stop {
    /// A v2 directory.
    V2 { kill: Option<Kept>, freeze: Kept, events: Kept },
    /// The v1 freezer.
    Freezer { state: Kept },
    /// Only signals.
    Signals,
}

/// Rounds of killing one by one: each leaves only what was forked during the round before it.
const ROUNDS: u32 = 64;

impl Stop {
    pub(crate) fn open_v2(dir: &Path) -> Result<Stop> {
        Ok(Stop::V2 {
            kill: optional(Kept::write_only(&dir.join("cgroup.kill")))?,
            freeze: Kept::read_write(&dir.join("cgroup.freeze"))?,
            events: Kept::read_only(&dir.join("cgroup.events"))?,
        })
    }
    pub(crate) fn open_freezer(dir: &Path) -> Result<Stop> {
        Ok(Stop::Freezer { state: Kept::read_write(&dir.join("freezer.state"))? })
    }
    /// Ready (`POLLPRI`) when it has become empty or is not any more.
    pub(crate) fn populated_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Stop::V2 { events, .. } => Some(events.as_fd()),
            _ => None,
        }
    }
    /// Whether a living process is in it or below; `None`: it does not know.
    pub(crate) fn is_populated(&self) -> Result<Option<bool>> {
        let Stop::V2 { events, .. } = self else { return Ok(None) };
        let mut space = buffer::<256>();
        match text::fields(events.read(&mut space)?, ["populated"]) {
            [Some(n)] => Ok(Some(n != 0)),
            [None] => Err(events.malformed("`populated` expected")),
        }
    }
    /// Stops (or lets go) everything in the leaf.
    pub(crate) fn freeze(&self, members: &Members, frozen: bool) -> Result<()> {
        match self {
            Stop::V2 { freeze, .. } => freeze.write(if frozen { b"1" } else { b"0" }),
            Stop::Freezer { state, .. } => state.write(if frozen { b"FROZEN" } else { b"THAWED" }),
            Stop::Signals => members.signal(if frozen { Signal::STOP } else { Signal::CONT }).map(|_| ()),
        }
    }
    /// Waits until everything in the leaf stands still; whether it does. At most until `until`.
    pub(crate) fn wait_frozen(&self, until: Instant) -> Result<bool> {
        loop {
            let frozen = match self {
                Stop::V2 { events, .. } => {
                    text::fields(events.read(&mut buffer::<256>())?, ["frozen"]) == [Some(1)]
                }
                Stop::Freezer { state } => state.read(&mut buffer::<32>())?.starts_with(b"FROZEN"),
                // SIGSTOP stops within microseconds, and nothing tells when.
                Stop::Signals => true,
            };
            if frozen || clock::now() >= until {
                return Ok(frozen);
            }
            match self.populated_fd() {
                Some(fd) => drop(until_ready(fd, Interest::Priority, until)?),
                None => std::thread::yield_now(),
            }
        }
    }
    /// Kills everything in the leaf. `apart`: the leaf's members are listed by another hierarchy than ours, so
    /// there may be some that we do not hold.
    pub(crate) fn kill(&self, members: &Members, apart: bool) -> Result<Killed> {
        match self {
            Stop::V2 { kill: Some(kill), .. } => {
                kill.write(b"1")?;
                let signalled = if apart { members.signal(Signal::KILL)? } else { 0 };
                Ok(Killed { how: How::AtOnce, signalled, incomplete: false })
            }
            Stop::V2 { .. } | Stop::Freezer { .. } => {
                // What is stopped cannot fork. If it cannot be frozen, more rounds are needed, that is all.
                let _ = self.freeze(members, true);
                let first = members.signal(Signal::KILL);
                // A process that the v1 freezer holds cannot die, so thaw whatever else has happened.
                self.freeze(members, false)?;
                first?;
                kill_in_rounds(members)
            }
            Stop::Signals => kill_in_rounds(members),
        }
    }
}

/// SIGKILL to every member, again and again until nobody is listed. A process with SIGKILL pending cannot fork any
/// more, so each round leaves only what was forked during the one before.
fn kill_in_rounds(members: &Members) -> Result<Killed> {
    let mut killed = Killed { how: How::OneByOne, signalled: 0, incomplete: false };
    for _ in 0..ROUNDS {
        let found = members.signal(Signal::KILL)?;
        killed.signalled = killed.signalled.max(found);
        if found == 0 {
            return Ok(killed);
        }
        std::thread::yield_now();
    }
    killed.incomplete = members.any()?;
    Ok(killed)
}
