//! Collecting the exit codes of children, adopted orphans among them.
//!
//! Touches every child of this process: for the guard's own program only, never inside somebody else's process.

use oomguard_core::Exit;
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus, wait, waitpid};

use crate::os::error::{Error, Result};

/// Collects every child that has ended, and calls `each` with its pid and how it ended. Never blocks; one system
/// call per child and one more.
pub fn reap(mut each: impl FnMut(u32, Exit)) -> Result<()> {
    while let Some((pid, exit)) = wait_for(None)? {
        each(pid, exit);
    }
    Ok(())
}

/// Collects one child if it has ended.
pub fn reap_one(pid: u32) -> Result<Option<Exit>> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if pid.is_none() {
        return Ok(None);
    }
    Ok(wait_for(pid)?.map(|(_, exit)| exit))
}

/// `None`: nobody has ended, or there is nobody.
fn wait_for(pid: Option<Pid>) -> Result<Option<(u32, Exit)>> {
    loop {
        // `waitpid(None)` would mean our process group only, and workers have sessions of their own.
        let ended = match pid {
            Some(_) => waitpid(pid, WaitOptions::NOHANG),
            None => wait(WaitOptions::NOHANG),
        };
        match ended {
            Ok(None) | Err(Errno::CHILD) => return Ok(None),
            Ok(Some((pid, status))) => {
                if let Some(exit) = exit(status) {
                    return Ok(Some((pid.as_raw_nonzero().get() as u32, exit)));
                }
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::Call { doing: "waitpid", errno }),
        }
    }
}

/// How it ended; `None`: it was only stopped or continued.
fn exit(status: WaitStatus) -> Option<Exit> {
    status.exit_status().map(Exit::Code).or_else(|| status.terminating_signal().map(Exit::Signal))
}
