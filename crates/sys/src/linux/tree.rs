//! A job without a cgroup: a process, its descendants, and those that ran away from it but carry its mark.
//!
//! Touches `/proc/PID/{stat,statm,smaps_rollup,environ,comm,cmdline}` and the members' pidfds. Never contains the
//! guard or anything above it, and never a process that was started before the root.

mod marked;
pub(crate) mod member;

use std::path::Path;

use oomguard_core::Bytes;
use rustix::io::Errno;

/// Whether this process is ourselves or above us: never anybody's job.
pub fn is_above_us(pid: u32) -> bool {
    Procfs::open(Path::new("/proc")).is_ok_and(|proc| proc.lineage(std::process::id()).contains(&pid))
}

pub use marked::{Described, describe_largest, find_marked, pss, rss};

use self::member::Member;
use super::error::{Error, Result};
use super::process::{Process, Signal};
use super::procfs::Procfs;

/// The members of a job, as of the last [`Tree::rescan`].
#[derive(Debug)]
pub struct Tree {
    proc: Procfs,
    members: Vec<Member>,
    root_start: u64,
    marker: Option<(String, String)>,
    /// The guard and what is above it.
    off_limits: Vec<u32>,
    /// Processes that were looked at and carry no mark: (pid, start time).
    strangers: Vec<(u32, u64)>,
    seen: Vec<Seen>,
}

/// One process of a scan.
#[derive(Clone, Copy, Debug)]
struct Seen {
    pid: u32,
    parent: u32,
    start: u64,
    dead: bool,
}

/// What a kill of a whole tree has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeKilled {
    /// Rounds of scanning and killing.
    pub rounds: u32,
    /// Processes that were sent SIGKILL.
    pub signalled: u32,
    /// New members still turned up in the last round.
    pub incomplete: bool,
}

/// Rounds after which a tree that keeps forking is given up for this time.
const ROUNDS: u32 = 32;

impl Tree {
    /// A tree that has only its root; `marker` is an environment variable that all members were started with.
    pub fn new(root: Process, marker: Option<(String, String)>) -> Result<Tree> {
        Tree::new_in(Path::new("/proc"), root, marker)
    }

    /// The same on another mount of procfs.
    pub fn new_in(proc_root: &Path, root: Process, marker: Option<(String, String)>) -> Result<Tree> {
        let proc = Procfs::open(proc_root)?;
        let off_limits = proc.lineage(std::process::id());
        if off_limits.contains(&root.pid()) {
            return Err(Error::Refused(format!("process {} is the guard itself, or above it", root.pid())));
        }
        let root_start = root.start_time();
        let members = vec![Member::new(&proc, root)];
        Ok(Tree { proc, members, root_start, marker, off_limits, strangers: Vec::new(), seen: Vec::new() })
    }

    /// Looks at every process: forgets members that are gone, finds new children of members and, by the mark, those
    /// whose parents have died. 7 us a process, so not for every look. Allocates only while it grows.
    pub fn rescan(&mut self) -> Result<()> {
        let Tree { proc, seen, .. } = self;
        seen.clear();
        proc.each_pid(|pid| {
            if let Some(stat) = proc.stat(pid) {
                seen.push(Seen { pid, parent: stat.parent, start: stat.start, dead: stat.is_dead() });
            }
        })?;
        let before = self.members.len();
        // A pass finds the children of those that the one before it has found.
        while self.adopt_children() {}
        self.adopt_marked();
        while self.members.len() > before && self.adopt_children() {}
        self.members.retain(|member| member.process.is_alive());
        self.strangers.retain(|stranger| self.seen.iter().any(|s| (s.pid, s.start) == *stranger));
        Ok(())
    }

    /// Whether a process may be a member at all.
    fn is_candidate(&self, seen: &Seen) -> bool {
        !seen.dead
            && seen.start >= self.root_start
            && !self.off_limits.contains(&seen.pid)
            && !self.is_member(seen)
    }
    fn is_member(&self, seen: &Seen) -> bool {
        self.members.iter().any(|m| m.process.pid() == seen.pid && m.process.start_time() == seen.start)
    }

    /// Whether there were any.
    fn adopt_children(&mut self) -> bool {
        let mut found = false;
        for at in 0..self.seen.len() {
            let seen = self.seen[at];
            // The parent's number is the parent's: whoever has it now has been alive since before the scan read it,
            // or the child would have another parent.
            let ours = self.members.iter().any(|m| m.process.pid() == seen.parent);
            if ours && self.is_candidate(&seen) {
                found |= self.adopt(&seen);
            }
        }
        found
    }

    /// Those that carry the mark. Each process is asked only once: what it was started with does not change.
    fn adopt_marked(&mut self) {
        let Some((key, value)) = self.marker.clone() else { return };
        for at in 0..self.seen.len() {
            let seen = self.seen[at];
            let known = self.strangers.contains(&(seen.pid, seen.start));
            if known || !self.is_candidate(&seen) {
                continue;
            }
            match marked::carries(&self.proc, seen.pid, &key, &value) {
                Some(true) => drop(self.adopt(&seen)),
                Some(false) => self.strangers.push((seen.pid, seen.start)),
                // Between fork and exec, or gone: asked again next time.
                None => {}
            }
        }
    }

    /// Holds a process if it still is the one that was seen.
    fn adopt(&mut self, seen: &Seen) -> bool {
        match Process::open_in(&self.proc, seen.pid) {
            Ok(process) if process.start_time() == seen.start => {
                self.members.push(Member::new(&self.proc, process));
                true
            }
            _ => false,
        }
    }

    /// What its members have in RAM, shared pages counted for each: an upper bound, but for some 64
    /// pages a thread or CPU that the kernel has not added up yet. 1 us a member, no allocation.
    pub fn rss(&self) -> Bytes {
        self.members.iter().map(Member::rss).fold(Bytes::ZERO, Bytes::plus)
    }

    /// The same with shared pages divided among those that share them. 15 to 27 ms per GiB of small pages, while the
    /// member cannot change its mappings: only when [`Tree::rss`] is too near to a limit.
    pub fn pss(&self) -> Bytes {
        let mut sum = Bytes::ZERO;
        for member in self.members.iter().filter(|m| m.process.is_alive()) {
            match marked::pss_of(&self.proc, member.process.pid()) {
                Ok(pss) => sum = sum.plus(pss),
                // It ended between the two.
                Err(Errno::SRCH | Errno::NOENT) => {}
                // One that hides (not dumpable) counts for the upper bound: it must not switch the limit off.
                Err(_) => sum = sum.plus(member.rss()),
            }
        }
        sum
    }

    /// Sends a signal to every member known; how many got it. No allocation.
    pub fn signal_all(&self, signal: Signal) -> u32 {
        self.members.iter().filter(|m| m.process.is_alive() && m.process.signal(signal).is_ok()).count()
            as u32
    }
    /// SIGSTOP to every member, again until a scan finds no new one: what is stopped cannot fork.
    pub fn freeze_all(&mut self) -> Result<u32> {
        let mut stopped = self.signal_all(Signal::STOP);
        for _ in 0..ROUNDS {
            let before = stopped;
            self.rescan()?;
            stopped = self.signal_all(Signal::STOP);
            if stopped <= before {
                break;
            }
        }
        Ok(stopped)
    }
    /// SIGCONT to every member.
    pub fn thaw_all(&self) -> u32 {
        self.signal_all(Signal::CONT)
    }

    /// Stops, then kills every member, round after round until a scan finds nobody alive or only those that are
    /// dying. Returns before they are gone.
    pub fn kill_all(&mut self) -> Result<TreeKilled> {
        // What cannot be stopped first needs more rounds, that is all.
        let _ = self.freeze_all();
        let mut killed = TreeKilled { rounds: 0, signalled: 0, incomplete: true };
        while killed.incomplete && killed.rounds < ROUNDS {
            killed.rounds += 1;
            for member in &mut self.members {
                killed.signalled += u32::from(member.kill());
            }
            self.rescan()?;
            killed.incomplete = self.members.iter().any(|m| !m.is_killed());
        }
        Ok(killed)
    }

    /// Whether no member lives, as far as the last scan knows. One system call a member, no allocation.
    pub fn is_empty(&self) -> bool {
        !self.members.iter().any(|m| m.process.is_alive())
    }
    /// The members known, dead ones included until the next scan.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.members.iter().map(|m| &m.process)
    }
    /// The member with the most memory: pid, short name, bytes.
    pub fn largest(&self) -> Option<(u32, String, Bytes)> {
        let living = self.members.iter().filter(|m| m.process.is_alive());
        let largest = living.max_by_key(|m| m.rss())?;
        let pid = largest.process.pid();
        Some((pid, self.proc.comm(pid)?, largest.rss()))
    }
}
