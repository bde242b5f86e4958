//! Shared memory that a job left behind is removed on a thread of its own, for gigabytes take the kernel seconds: at
//! the guard's priority a machine with one core would stand still for that long.
//!
//! Removes only what [`shm::orphans`] says, as long as the dead job's cgroup is charged for it. Runs at ordinary
//! priority, so that it may be late; the engine waits for its word and for the memory, not for the thread.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::SystemTime;

use oomguard_core::{Bytes, JobId};
use oomguard_sys::cgroup::Leaf;
use oomguard_sys::shm;
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

    /// Begins with what was left by a job that was started at `born` and is still charged to its `leaf`; whether
    /// there is anything to do. An error if no thread can be had.
    pub(super) fn begin(&self, job: JobId, leaf: Leaf, born: SystemTime) -> std::io::Result<bool> {
        if charged(&leaf) < WORTH_REMOVING {
            return Ok(false);
        }
        let (tell, bell) = (self.tell.clone(), self.bell.try_clone()?);
        let sweep = move || {
            let (files, bytes) = remove_orphans(&leaf, born);
            // Nobody listens any more where the guard has ended.
            let _ = tell.send(Swept { job, files, bytes });
            let _ = rustix::io::write(&bell, &1u64.to_ne_bytes());
        };
        std::thread::Builder::new().name("oomguard-sweep".to_owned()).stack_size(STACK).spawn(sweep)?;
        Ok(true)
    }

    /// The next that is done.
    pub(super) fn heard(&self) -> Option<Swept> {
        let _ = rustix::io::read(&self.bell, &mut [0u8; 8]);
        self.told.try_recv().ok()
    }
}

fn charged(leaf: &Leaf) -> Bytes {
    leaf.shmem().unwrap_or(Bytes::ZERO)
}

/// Shared-memory files of our user that are younger than the job and that no living process has open, as long as
/// the dead job's cgroup is still charged for so much: a file of somebody else is charged to somebody else. Largest
/// first, because they are what it died of.
fn remove_orphans(leaf: &Leaf, born: SystemTime) -> (u32, Bytes) {
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
