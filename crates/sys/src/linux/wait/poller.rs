//! A set of descriptors with a token each, and `ppoll` over it.
//!
//! Touches nothing but the descriptors it was given; it does not own them. Never reads from them.

use std::os::fd::{AsRawFd, BorrowedFd};

use oomguard_core::Instant;
use rustix::io::Errno;

use crate::os::clock;
use crate::os::error::{Error, Result};
use crate::os::process::last_errno;

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// `POLLIN`: sockets, signals, eventfds, pidfds.
    Read,
    /// `POLLPRI`: `memory.events`, `cgroup.events`, pressure triggers.
    Priority,
    /// `POLLOUT`.
    Write,
}

/// A descriptor that has something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The token it was registered with.
    pub token: u64,
    /// It hung up, failed or was closed (with `POLLPRI` files `POLLERR` is usual and means nothing).
    pub broken: bool,
}

/// The set.
#[derive(Default)]
pub struct Poller {
    fds: Vec<libc::pollfd>,
    tokens: Vec<u64>,
    ready: Vec<Ready>,
}

impl Poller {
    /// An empty set.
    pub fn new() -> Poller {
        Poller::default()
    }
    /// Adds a descriptor. It must stay open until [`Poller::remove`]; if it does not, it is reported as broken.
    pub fn add(&mut self, fd: BorrowedFd<'_>, interest: Interest, token: u64) {
        let events = match interest {
            Interest::Read => libc::POLLIN,
            Interest::Priority => libc::POLLPRI,
            Interest::Write => libc::POLLOUT,
        };
        self.fds.push(libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 });
        self.tokens.push(token);
        self.ready.clear();
        self.ready.reserve(self.fds.len());
    }
    /// Removes every descriptor with this token; whether there was one. No allocation.
    pub fn remove(&mut self, token: u64) -> bool {
        let before = self.tokens.len();
        let mut at = 0;
        while at < self.tokens.len() {
            if self.tokens[at] == token {
                self.tokens.swap_remove(at);
                self.fds.swap_remove(at);
            } else {
                at += 1;
            }
        }
        self.tokens.len() < before
    }
    /// How many descriptors are in it.
    pub fn len(&self) -> usize {
        self.fds.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.fds.is_empty()
    }
    /// Waits until a descriptor is ready or the deadline (`Instant::NEVER`: none) has come; then the result is
    /// empty. One system call, no allocation; a signal that interrupts it does not end it.
    pub fn wait(&mut self, until: Instant) -> Result<&[Ready]> {
        self.ready.clear();
        let mut count = ppoll(&mut self.fds, until)?;
        for (fd, token) in self.fds.iter().zip(&self.tokens) {
            if count == 0 {
                break;
            }
            if fd.revents != 0 {
                let bad = libc::POLLERR | libc::POLLHUP | libc::POLLNVAL;
                self.ready.push(Ready { token: *token, broken: fd.revents & bad != 0 });
                count -= 1;
            }
        }
        Ok(&self.ready)
    }
}

/// Waits for one descriptor; whether it became ready before the deadline.
pub(crate) fn until_ready(fd: BorrowedFd<'_>, interest: Interest, until: Instant) -> Result<bool> {
    let events = match interest {
        Interest::Read => libc::POLLIN,
        Interest::Priority => libc::POLLPRI,
        Interest::Write => libc::POLLOUT,
    };
    Ok(ppoll(&mut [libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 }], until)? > 0)
}

/// `ppoll` until the deadline, whatever interrupts it.
fn ppoll(fds: &mut [libc::pollfd], until: Instant) -> Result<usize> {
    loop {
        let left = until.since(clock::now());
        let left = libc::timespec {
            tv_sec: libc::time_t::try_from(left.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(left.subsec_nanos() as i32),
        };
        let left = if until == Instant::NEVER { std::ptr::null() } else { &raw const left };
        // SAFETY: `fds` is a valid array of that length, `left` is null or outlives the call, no mask is given.
        let rc = unsafe { libc::ppoll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, left, std::ptr::null()) };
        if rc >= 0 {
            return Ok(rc as usize);
        }
        match last_errno() {
            Errno::INTR => continue,
            errno => return Err(Error::Call { doing: "ppoll", errno }),
        }
    }
}
