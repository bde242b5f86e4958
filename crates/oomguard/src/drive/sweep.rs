//! Shared memory that a job left behind is removed on a thread of its own, for gigabytes take the kernel seconds: at
//! the guard's priority a machine with one core would stand still for that long.
//!
//! Removes only what [`shm::orphans`] says: as long as the dead job's cgroup is charged for it, or what it was seen to use. Runs at ordinary
//! priority, so that it may be late; the engine waits for its word and for the memory, not for the thread.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, SystemTime};

use oomguard_core::{Bytes, JobId};
use oomguard_sys::cgroup::Leaf;
use oomguard_sys::shm::{self, FileId};
use rustix::event::{EventfdFlags, eventfd};

use crate::error::Error;

/// Smaller files are left alone: they are no shortage, and the kernel's counts are not that exact.
const WORTH_REMOVING: Bytes = Bytes::mib(1);
/// The thread's stack; what it finds lies on the heap.
const STACK: usize = 128 * 1024;

/// What was removed.
pub(super) struct Swept {
    pub(super) job: JobId,
    pub(super) files: u32,
    pub(super) bytes: Bytes,
}

/// Starts the threads and hears from them.
pub(super) struct Sweeper {
    tell: Sender<Swept>,
    told: Receiver<Swept>,
    bell: OwnedFd,
}

impl Sweeper {
    pub(super) fn new() -> Result<Sweeper, Error> {
        let (tell, told) = channel();
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| Error::new(format!("could not make an eventfd: {errno}")))?;
        Ok(Sweeper { tell, told, bell })
    }

    /// Readable when [`Sweeper::heard`] has something.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Begins with what was left by a job that was started at `born` and is still charged to its `leaf`. An error if
    /// no thread can be had.
    pub(super) fn sweep_leaf(&self, job: JobId, leaf: Leaf, born: SystemTime) -> std::io::Result<()> {
        self.begin(job, move || remove_charged(&leaf, born))
    }

    /// Begins with those of these files that nobody uses any more; whether there is anything to do. An error as above.
    pub(super) fn sweep_files(&self, job: JobId, files: &[FileId]) -> std::io::Result<bool> {
        if files.is_empty() {
            return Ok(false);
        }
        let files = files.to_vec();
        self.begin(job, move || remove_seen(&files)).map(|()| true)
    }

    fn begin(
        &self,
        job: JobId,
        sweep: impl FnOnce() -> (u32, Bytes) + Send + 'static,
    ) -> std::io::Result<()> {
        let (tell, bell) = (self.tell.clone(), self.bell.try_clone()?);
        let work = move || {
            let (files, bytes) = sweep();
            // Nobody listens any more where the guard has ended.
            let _ = tell.send(Swept { job, files, bytes });
            let _ = rustix::io::write(&bell, &1u64.to_ne_bytes());
        };
        std::thread::Builder::new().name("oomguard-sweep".to_owned()).stack_size(STACK).spawn(work)?;
        Ok(())
    }

    /// The next that is done.
    pub(super) fn heard(&self) -> Option<Swept> {
        let _ = rustix::io::read(&self.bell, &mut [0u8; 8]);
        self.told.try_recv().ok()
    }
}

/// Whether a dead job has left any in its `leaf`.
pub(super) fn is_worth_it(leaf: &Leaf) -> bool {
    charged(leaf) >= WORTH_REMOVING
}

fn charged(leaf: &Leaf) -> Bytes {
    leaf.shmem().unwrap_or(Bytes::ZERO)
}

/// Shared-memory files of our user that are younger than the job and that no living process has open, as long as
/// the dead job's cgroup is still charged for so much: a file of somebody else is charged to somebody else. Largest
/// first, because they are what it died of.
fn remove_charged(leaf: &Leaf, born: SystemTime) -> (u32, Bytes) {
    let mut removed = (0, Bytes::ZERO);
    let uid = rustix::process::getuid().as_raw();
    let mut orphans = shm::orphans(&[], born, uid, true).unwrap_or_default();
    orphans.sort_by_key(|orphan| std::cmp::Reverse(orphan.file.allocated));
    for orphan in orphans.iter().filter(|orphan| orphan.file.allocated >= WORTH_REMOVING) {
        let before = charged(leaf);
        if orphan.file.allocated <= before && shm::remove(orphan).unwrap_or(false) {
            removed = (removed.0 + 1, removed.1.plus(orphan.file.allocated));
            // It was charged to somebody else: so may be the next.
            if charged(leaf) > before.minus(Bytes(orphan.file.allocated.0 / 2)) {
                break;
            }
        }
    }
    removed
}

/// Those of these files that no living process has open, whoever made them and when.
fn remove_seen(files: &[FileId]) -> (u32, Bytes) {
    // No file is changed after the end of time, and none belongs to nobody: what was not seen is no orphan.
    let never = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
    let orphans = shm::orphans(files, never, u32::MAX, true).unwrap_or_default();
    let mut removed = (0, Bytes::ZERO);
    for orphan in orphans.iter().filter(|orphan| orphan.file.allocated >= WORTH_REMOVING) {
        if shm::remove(orphan).unwrap_or(false) {
            removed = (removed.0 + 1, removed.1.plus(orphan.file.allocated));
        }
    }
    removed
}
