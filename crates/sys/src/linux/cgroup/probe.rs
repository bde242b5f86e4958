//! Proves that a parent works by doing what will be done: make a leaf, limit it, put a process into it, remove it.
//!
//! Touches a leaf `.probe-PID` under the parent, and one short-lived child process. Never leaves either behind.

use std::os::fd::{AsRawFd as _, RawFd};

use oomguard_core::Bytes;
use rustix::io::Errno;

use super::leaf::{Dirs, Leaf};
use super::memory::Limits;
use crate::os::error::{Error, Result};
use crate::os::process::last_errno;

/// Some limit that no other leaf has by chance.
const LIMIT: Bytes = Bytes::mib(65);

/// The first thing that does not work, or nothing. Forks once: some 0.3 ms for a small process.
pub(crate) fn leaf(parent: &Dirs) -> Result<()> {
    let name = format!(".probe-{}", std::process::id());
    let result = Leaf::open(parent, &name).and_then(|leaf| {
        let tried = leaf
            .set_limit(&Limits { memory: LIMIT, swap: None, whole_job: false })
            .and_then(|_| join(&leaf))
            .and_then(|()| leaf.freeze())
            .and_then(|()| leaf.thaw());
        let removed = leaf.remove();
        tried.and(removed)
    });
    if result.is_err() {
        // What a half-opened leaf has left.
        for dir in parent.child(&name).each() {
            let _ = super::dirs::remove(dir);
        }
    }
    result
}

/// A child that joins the leaf and ends.
fn join(leaf: &Leaf) -> Result<()> {
    let fds: Vec<RawFd> = leaf.join_fds().map(|fd| fd.as_raw_fd()).collect();
    // SAFETY: the child calls nothing but `write` and `_exit`, which are async-signal-safe, on open descriptors.
    let pid = unsafe {
        let pid = libc::fork();
        if pid == 0 {
            for fd in &fds {
                if libc::write(*fd, c"0".as_ptr().cast(), 1) != 1 {
                    libc::_exit(*libc::__errno_location() & 0xff);
                }
            }
            libc::_exit(0);
        }
        pid
    };
    if pid < 0 {
        return Err(Error::Call { doing: "fork", errno: last_errno() });
    }
    let mut status = 0;
    loop {
        // SAFETY: our own child, reaped here and nowhere else; `status` is a valid place.
        if unsafe { libc::waitpid(pid, &mut status, 0) } == pid {
            break;
        }
        match last_errno() {
            Errno::INTR => continue,
            // Somebody has told the kernel to forget children's ends; then nothing can be learned from it.
            Errno::CHILD => return Ok(()),
            errno => return Err(Error::Call { doing: "waitpid", errno }),
        }
    }
    match libc::WEXITSTATUS(status) {
        0 if libc::WIFEXITED(status) => Ok(()),
        0 => Err(Error::Call { doing: "joining a probe cgroup", errno: Errno::INTR }),
        errno => Err(Error::Call { doing: "joining a probe cgroup", errno: Errno::from_raw_os_error(errno) }),
    }
}
