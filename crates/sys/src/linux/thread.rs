//! One thread of this process: its name to the kernel, and waking it by a signal.
//!
//! Never signals another process.

use rustix::process::Signal;

use super::error::{Error, Result};
use super::process::last_errno;

/// The signal that interrupts a thread: `SIGURG`, which does nothing where no handler is, as Go's runtime found first.
pub const INTERRUPT: Signal = Signal::URG;

/// The calling thread.
pub fn current() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// Sends [`INTERRUPT`] to a thread of this process. An error if it has ended.
pub fn interrupt(thread: i32) -> Result<()> {
    // SAFETY: three integers. The kernel refuses a thread that is not one of this process.
    let sent = unsafe {
        libc::syscall(libc::SYS_tgkill, std::process::id() as libc::pid_t, thread, INTERRUPT.as_raw())
    };
    match sent {
        0 => Ok(()),
        _ => Err(Error::Call { doing: "interrupt a thread", errno: last_errno() }),
    }
}
