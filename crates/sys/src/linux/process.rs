//! One process, held by a pidfd: its identity is (pid, start time), and a signal can never reach another one.
//!
//! Touches `/proc/PID/stat` and the pidfd calls (Linux 5.3; `process_mrelease` 5.15). Never signals a bare pid and
//! never reaps.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

pub use rustix::process::Signal;

use super::error::{Error, Result};
use super::procfs::Procfs;

/// A process that was there when it was opened.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    start: u64,
    fd: OwnedFd,
}

/// What became of a request to take a dying process's memory back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// Its memory was freed by this call.
    Freed,
    /// There was nothing left to free.
    AlreadyGone,
}

/// How often `process_mrelease` is tried again when it says `EAGAIN` (the victim holds its mmap lock).
const RELEASE_TRIES: u32 = 16;

impl Process {
    /// Opens a living or unreaped process: `pidfd_open`, one read of `/proc/PID/stat`, one null signal; 10 us.
    ///
    /// An error with `ESRCH` if there is none.
    pub fn open(pid: u32) -> Result<Process> {
        let proc = Procfs::open(Path::new("/proc"))?;
        Process::open_in(&proc, pid)
    }

    /// The same with an open procfs.
    pub(crate) fn open_in(proc: &Procfs, pid: u32) -> Result<Process> {
        let gone = |errno| Error::Call { doing: "opening a process by its pid", errno };
        let fd = open_pidfd(pid).map_err(gone)?;
        let stat = proc.stat(pid).ok_or_else(|| gone(Errno::SRCH))?;
        // Not reaped yet, so the number was not given away between the two: what was read is about our process.
        match null_signal(&fd) {
            Ok(()) | Err(Errno::PERM) => Ok(Process { pid, start: stat.start, fd }),
            Err(errno) => Err(gone(errno)),
        }
    }

    /// A process whose pidfd somebody else has opened, its parent for one. It may have ended, and have been reaped,
    /// already; then its start time is 0, which is nobody's.
    pub fn held(pid: u32, fd: OwnedFd) -> Process {
        let stat = Procfs::open(Path::new("/proc")).ok().and_then(|proc| proc.stat(pid));
        // Only if it is there still was that its own line.
        let start = stat.filter(|_| null_signal(&fd) != Err(Errno::SRCH)).map_or(0, |stat| stat.start);
        Process { pid, start, fd }
    }

    /// Opens the process that had this pid and start time, and refuses any other that has the pid now.
    pub fn adopt(pid: u32, start: u64) -> Result<Process> {
        Process::adopt_in(&Procfs::open(Path::new("/proc"))?, pid, start)
    }

    /// The same with an open procfs; no allocation.
    pub(crate) fn adopt_in(proc: &Procfs, pid: u32, start: u64) -> Result<Process> {
        let process = Process::open_in(proc, pid)?;
        if process.start == start { Ok(process) } else { Err(other_process(pid)) }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }
    /// Its start time in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub fn start_time(&self) -> u64 {
        self.start
    }
    /// The pidfd: ready for reading once it has exited.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
    /// Sends a signal. `ESRCH` if it was reaped. One system call, 1 us, no allocation.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        pidfd_send_signal(&self.fd, signal)
            .map_err(|errno| Error::Call { doing: "signalling a process", errno })
    }
    /// Sends a signal by its number; `EINVAL` if there is none of that number.
    pub fn signal_number(&self, number: i32) -> Result<()> {
        send(&self.fd, number).map_err(|errno| Error::Call { doing: "signalling a process", errno })
    }
    /// Whether it still runs; one that waits to be reaped does not. One system call, no allocation.
    pub fn is_alive(&self) -> bool {
        is_running(&self.fd)
    }
    /// Waits until it has exited or `limit` has passed; whether it has exited.
    pub fn wait_exit(&self, limit: std::time::Duration) -> Result<bool> {
        let end = super::clock::now().after(limit);
        super::wait::until_ready(self.fd(), super::wait::Interest::Read, end)
    }
    /// Takes the memory of a process that was sent SIGKILL back without waiting for it to die. Blocks for 50 to
    /// 240 ms per GiB of small pages: for a helper thread ([`super::reaper`]).
    ///
    /// `EINVAL` if it is not dying; `ENOSYS` before Linux 5.15.
    pub fn release_memory(&self) -> Result<Released> {
        release_memory(self.fd())
    }
}

/// See [`Process::release_memory`].
pub(crate) fn release_memory(fd: BorrowedFd<'_>) -> Result<Released> {
    use std::os::fd::AsRawFd as _;
    let mut tries = 0;
    loop {
        // SAFETY: two plain integers; the descriptor is open for the length of the borrow.
        let rc = unsafe { libc::syscall(libc::SYS_process_mrelease, fd.as_raw_fd(), 0) };
        if rc == 0 {
            return Ok(Released::Freed);
        }
        match last_errno() {
            Errno::SRCH => return Ok(Released::AlreadyGone),
            Errno::AGAIN | Errno::INTR if tries < RELEASE_TRIES => tries += 1,
            errno => return Err(Error::Call { doing: "process_mrelease", errno }),
        }
    }
}

/// What the last libc call of this thread said.
pub(crate) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// A pidfd for a process id.
pub(crate) fn open_pidfd(pid: u32) -> rustix::io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    pidfd_open(pid, PidfdFlags::empty())
}

/// Whether the process behind a pidfd has not exited.
pub(crate) fn is_running(fd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    loop {
        match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Err(Errno::INTR) => continue,
            ready => return ready == Ok(0),
        }
    }
}

/// `pidfd_send_signal` with any number, also 0 ("may I, and is it there?").
fn send(fd: &OwnedFd, number: i32) -> rustix::io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open, a null siginfo is allowed, the flags are zero.
    let rc = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), number, none, 0) };
    if rc == 0 { Ok(()) } else { Err(last_errno()) }
}

/// `Ok` or `EPERM` while the process has not been reaped.
fn null_signal(fd: &OwnedFd) -> rustix::io::Result<()> {
    send(fd, 0)
}

/// The pid is somebody else's now.
fn other_process(pid: u32) -> Error {
    Error::Refused(format!("process {pid} is not the one that was meant: it was started at another time"))
}
