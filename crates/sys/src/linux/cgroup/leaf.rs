//! The cgroup of one job.
//!
//! Touches the directories of that one leaf: memory, and beside it (on hybrid machines) v2 or the v1 freezer. Reads,
//! kills and freezes allocate nothing. Never removes a leaf that still has processes.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use oomguard_core::{Bytes, Reading};
use rustix::process::Signal;

use super::dirs;
use super::members::Members;
use super::memory::{Counters, Limits, Memory};
use super::memory1::Memory1;
use super::memory2::Memory2;
use super::stop::{Killed, Stop};
use crate::os::error::{Error, Result, reading};
use crate::os::kept::Kept;
use crate::os::wait::Interest;

/// Descriptors to poll, and for what. See [`Leaf::event_fds`].
pub type EventFds<'f> = [Option<(BorrowedFd<'f>, Interest)>; 2];

/// Where a leaf's directories are.
#[derive(Clone, Debug)]
pub(crate) struct Dirs {
    pub(crate) memory: PathBuf,
    pub(crate) v2: bool,
    /// The v2 directory of a hybrid machine.
    pub(crate) side: Option<PathBuf>,
    pub(crate) freezer: Option<PathBuf>,
}

impl Dirs {
    /// All of them, the memory hierarchy's first.
    pub(crate) fn each(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.memory), self.side.as_ref(), self.freezer.as_ref()]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
    }
    /// The same directories one level down.
    pub(crate) fn child(&self, name: &str) -> Dirs {
        let join = |dir: &Option<PathBuf>| dir.as_ref().map(|dir| dir.join(name));
        Dirs {
            memory: self.memory.join(name),
            v2: self.v2,
            side: join(&self.side),
            freezer: join(&self.freezer),
        }
    }
}

/// An open leaf. Dropping it leaves the cgroup in place, with its limits in force.
#[derive(Debug)]
pub struct Leaf {
    name: String,
    dirs: Dirs,
    memory: Memory,
    members: Members,
    stop: Stop,
    join: Vec<Kept>,
}

impl Leaf {
    /// Makes the directories that are missing and opens every file.
    pub(crate) fn open(parent: &Dirs, name: &str) -> Result<Leaf> {
        let dirs = parent.child(name);
        for dir in dirs.each() {
            dirs::make(dir).map_err(|errno| Error::file("make", dir, errno))?;
        }
        let memory = match dirs.v2 {
            true => Memory::V2(Memory2::open(&dirs.memory)?),
            false => Memory::V1(Memory1::open(&dirs.memory)?),
        };
        let stop = match (&dirs.side, &dirs.freezer) {
            _ if dirs.v2 => Stop::open_v2(&dirs.memory)?,
            (Some(side), _) => Stop::open_v2(side)?,
            (None, Some(freezer)) => Stop::open_freezer(freezer)?,
            (None, None) => Stop::Signals,
        };
        let join =
            dirs.each().map(|dir| Kept::write_only(&dir.join("cgroup.procs"))).collect::<Result<_>>()?;
        let members = Members::open(&dirs.memory)?;
        Ok(Leaf { name: name.to_owned(), dirs, memory, members, stop, join })
    }

    /// Its name under the parent.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Its directory in the memory hierarchy.
    pub fn dir(&self) -> &Path {
        &self.dirs.memory
    }
    /// Sets what it may use and reads it back: what the kernel really holds (rounded down to pages). An error if the
    /// kernel set something else, or (v1, `EBUSY`) if more is in use that cannot be reclaimed.
    pub fn set_limit(&self, limits: &Limits) -> Result<Bytes> {
        self.memory.set(limits)
    }
    /// Sets or takes back the soft mark. v2 (`memory.high`): the job is throttled beyond it until it is taken back,
    /// so never leave it without a deadline. v1: nothing is throttled, [`Leaf::event_fds`] just becomes ready when
    /// usage crosses it. May block while the kernel reclaims (before Linux 6.16).
    pub fn set_soft(&mut self, soft: Option<Bytes>) -> Result<()> {
        self.memory.set_soft(soft)
    }
    /// Descriptors that become ready when [`Leaf::events`] has something new. Call that once before the first wait.
    pub fn event_fds(&self) -> EventFds<'_> {
        self.memory.event_fds()
    }
    /// Reads the kernel's counters and makes the descriptors quiet again. Two to four reads, 2 to 5 us.
    ///
    /// v1 tells that memory is out before it kills, and does not tell again: `oom` is counted first and `oom_kill` a
    /// moment later, so read once more when a process of the job has ended.
    pub fn events(&mut self) -> Result<Counters> {
        self.memory.events()
    }
    /// Everything it is charged, file cache included. One read, 0.7 us.
    pub fn charged(&self) -> Result<Bytes> {
        self.memory.charged()
    }
    /// Pages of files (and v2: kernel caches) in the charge, which come back when memory is needed. One read of
    /// `memory.stat`: 4 us on v1, more on v2. The kernel sums it up with some delay.
    pub fn cache(&self) -> Result<Bytes> {
        self.memory.cache()
    }
    /// Anonymous + shared + kernel memory: the charge without cache. The charge is exact at once and the cache lags
    /// behind, so that growth is never seen late; the other way round (summing up what `memory.stat` says is used) a
    /// spike would be.
    pub fn usage(&self) -> Result<Bytes> {
        let charged = self.charged()?;
        Ok(charged.minus(self.cache()?))
    }
    /// Shared memory (tmpfs, `/dev/shm`) charged to it; killing its processes does not give that back.
    pub fn shmem(&self) -> Result<Bytes> {
        self.memory.shmem()
    }
    /// The most it was ever charged, file cache included. v2 since Linux 5.19.
    pub fn peak(&self) -> Reading<Bytes> {
        reading(self.memory.peak())
    }
    /// Stops every process of it. v2 and the v1 freezer return before all have stopped.
    pub fn freeze(&self) -> Result<()> {
        self.stop.freeze(&self.members, true)
    }
    /// Lets them go on.
    pub fn thaw(&self) -> Result<()> {
        self.stop.freeze(&self.members, false)
    }
    /// Waits after [`Leaf::freeze`] until all have stopped; whether they have.
    pub fn wait_frozen(&self, limit: std::time::Duration) -> Result<bool> {
        self.stop.wait_frozen(crate::os::clock::now().after(limit))
    }
    /// SIGKILL to every process in it, frozen or not. Returns before they are gone.
    pub fn kill(&self) -> Result<Killed> {
        self.stop.kill(&self.members, !self.dirs.v2)
    }
    /// Whether a living process is in it. One or two reads.
    pub fn is_populated(&self) -> Result<bool> {
        match self.stop.is_populated()? {
            Some(true) => Ok(true),
            Some(false) if self.dirs.v2 => Ok(false),
            // On hybrid machines a process may have been moved out of one of the two.
            _ => self.members.any(),
        }
    }
    /// Ready (`POLLPRI`) when it has become empty, or is not any more. `None`: only v1 here; wait for the processes.
    pub fn populated_fd(&self) -> Option<BorrowedFd<'_>> {
        self.stop.populated_fd()
    }
    /// Adds the pids of its processes, also of those in cgroups that the job made below it.
    pub fn pids(&self, pids: &mut Vec<u32>) -> Result<()> {
        let mut result = self.members.each(|pid| pids.push(pid));
        for child in dirs::children(&self.dirs.memory)? {
            dirs::each_deepest_first(&self.dirs.memory.join(child), &mut |dir| {
                // One that vanishes meanwhile has no processes.
                if let Ok(members) = Members::open(dir)
                    && let Err(error) = members.each(|pid| pids.push(pid))
                {
                    result = Err(error);
                }
            });
        }
        result
    }
    /// Sends a signal to every process of it, also of those in cgroups below it; how many got it.
    pub fn signal(&self, signal: Signal) -> Result<u32> {
        let mut signalled = self.members.signal(signal);
        for child in dirs::children(&self.dirs.memory)? {
            dirs::each_deepest_first(&self.dirs.memory.join(child), &mut |dir| {
                // One that vanishes meanwhile has no processes.
                if let (Ok(members), Ok(before)) = (Members::open(dir), &signalled) {
                    signalled = members.signal(signal).map(|more| before + more);
                }
            });
        }
        signalled
    }
    /// A process that writes `0` into each of these is in the leaf: for the child, between fork and exec.
    pub fn join_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.join.iter().map(Kept::as_fd)
    }
    /// Moves a process that runs already; what it is charged elsewhere stays there. Not for jobs: they join
    /// before exec.
    pub fn add(&self, pid: u32) -> Result<()> {
        self.join.iter().try_for_each(|file| file.write_number(u64::from(pid)))
    }
    /// Asks the kernel to reclaim so much (v2, Linux 5.19). `EAGAIN`: it reclaimed less. Blocks meanwhile.
    pub fn reclaim(&self, amount: Bytes) -> Result<()> {
        self.memory.reclaim(amount)
    }
    /// Removes it and what the job has made below it. `EBUSY` if a process still lives in it.
    pub fn remove(self) -> Result<()> {
        let mut result = Ok(());
        for dir in self.dirs.each() {
            if let Err(errno) = dirs::remove_tree(dir) {
                result = Err(Error::file("remove", dir, errno));
            }
        }
        result
    }
}

/// Whether a name can be a leaf's: letters, digits, `.`, `_`, `-`, not beginning with a dot, at most 128 bytes.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    // The kernel's own files begin with the controller's name and a dot.
    let kernels = ["cgroup.", "memory.", "cpu.", "io.", "pids."].iter().any(|p| name.starts_with(p));
    if name.is_empty() || name.len() > 128 || name.starts_with('.') || kernels || !name.chars().all(good) {
        return Err(Error::Refused(format!(
            "`{name}` cannot be a cgroup's name (letters, digits, `.`, `_`, `-`; no dot in front)"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check_name;

    #[test]
    fn names_that_leave_the_parent_are_refused() {
        for bad in ["", ".", "..", ".probe", "a/b", "a b", "ü", "memory.max", &"x".repeat(129)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        for good in ["worker-1", "a.b_c", "0"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
    }
}
