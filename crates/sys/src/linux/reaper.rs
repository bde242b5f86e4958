//! A helper thread that takes the memory of killed processes back: `process_mrelease` blocks, the guard must not.
//!
//! Touches only the pidfds it is sent. The sender never allocates, never waits and never locks.

use std::fs::File;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::pipe::{PipeFlags, pipe_with};

use super::error::{Error, Result};
use super::process::{Released, release_memory};

/// The thread's stack: it calls one system call in a loop.
const STACK: usize = 64 * 1024;

/// What the thread has done.
#[derive(Debug, Default)]
struct Counts {
    freed: AtomicU32,
    gone: AtomicU32,
    failed: AtomicU32,
}

/// What the thread has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reaped {
    /// Calls that freed memory.
    pub freed: u32,
    /// Victims that had nothing left.
    pub gone: u32,
    /// Calls that failed (not dying yet, not supported).
    pub failed: u32,
}

/// The thread, and the pipe that feeds it. Dropping it lets the thread finish by itself.
#[derive(Debug)]
pub struct Reaper {
    feed: OwnedFd,
    thread: JoinHandle<()>,
    counts: Arc<Counts>,
}

impl Reaper {
    /// Starts the thread (16 KiB resident). Signals must be blocked before, so that it inherits that.
    pub fn start() -> Result<Reaper> {
        let (from, feed) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|errno| Error::Call { doing: "pipe", errno })?;
        rustix::fs::fcntl_setfl(&feed, rustix::fs::OFlags::NONBLOCK)
            .map_err(|errno| Error::Call { doing: "fcntl", errno })?;
        let counts = Arc::new(Counts::default());
        let told = Arc::clone(&counts);
        let thread = std::thread::Builder::new()
            .name("oomguard-reaper".to_owned())
            .stack_size(STACK)
            .spawn(move || run(&File::from(from), &told))
            .map_err(|e| Error::io("start the thread of", std::path::Path::new("oomguard-reaper"), &e))?;
        Ok(Reaper { feed, thread, counts })
    }

    /// Has the memory of a process taken back that was sent SIGKILL. The descriptor is duplicated; the call returns
    /// at once. `EAGAIN`: thousands are waiting already.
    pub fn release(&self, pidfd: BorrowedFd<'_>) -> Result<()> {
        let call = |errno| Error::Call { doing: "handing a process to the reaper", errno };
        let copy = fcntl_dupfd_cloexec(pidfd, 0).map_err(call)?;
        // Less than PIPE_BUF: written as a whole or not at all.
        rustix::io::write(&self.feed, &copy.as_raw_fd().to_ne_bytes()).map_err(call)?;
        // The thread owns it now.
        std::mem::forget(copy);
        Ok(())
    }

    /// What it has done so far.
    pub fn reaped(&self) -> Reaped {
        let of = |count: &AtomicU32| count.load(Ordering::Relaxed);
        Reaped { freed: of(&self.counts.freed), gone: of(&self.counts.gone), failed: of(&self.counts.failed) }
    }

    /// Waits until everything that was sent is done.
    pub fn finish(self) -> Reaped {
        let Reaper { feed, thread, counts } = self;
        drop(feed);
        // A panic in the thread is nothing that the caller could act on; the counts tell what was done.
        let _ = thread.join();
        let of = |count: &AtomicU32| count.load(Ordering::Relaxed);
        Reaped { freed: of(&counts.freed), gone: of(&counts.gone), failed: of(&counts.failed) }
    }
}

/// Until the pipe is closed.
fn run(from: &File, counts: &Counts) {
    use std::io::Read as _;
    let mut number = [0u8; size_of::<RawFd>()];
    let mut from = from;
    while from.read_exact(&mut number).is_ok() {
        // SAFETY: the sender has made this descriptor for us and forgotten it.
        let fd = unsafe { OwnedFd::from_raw_fd(RawFd::from_ne_bytes(number)) };
        let count = match release_memory(std::os::fd::AsFd::as_fd(&fd)) {
            Ok(Released::Freed) => &counts.freed,
            Ok(Released::AlreadyGone) => &counts.gone,
            Err(_) => &counts.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}
