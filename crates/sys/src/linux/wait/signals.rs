//! Signals as messages: blocked, and read from a descriptor with who sent them and how.
//!
//! Touches the calling thread's signal mask, which threads started later inherit: call it before starting any.
//! Never installs a handler.

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;

use rustix::io::Errno;

use crate::os::error::{Error, Result};
use crate::os::process::last_errno;

/// The mask before the first [`Signals::block`]: what children must get back.
static ORIGINAL: OnceLock<libc::sigset_t> = OnceLock::new();

/// The signal mask that children get, if ours was changed.
pub(crate) fn original_mask() -> Option<libc::sigset_t> {
    ORIGINAL.get().copied()
}

/// Child ended, the ways of asking a program to end or to look again, and what it may mean for itself.
const WANTED: [i32; 7] =
    [libc::SIGCHLD, libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2];

/// One signal that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its number.
    pub signal: i32,
    /// Who sent it: 0 if the kernel did, or somebody outside our pid namespace.
    pub sender: u32,
    /// `si_code`: `SI_USER` (0) for `kill`, `SI_KERNEL` (0x80) for the terminal's keys.
    pub code: i32,
}

impl Received {
    /// Whether a key on the terminal caused it: then everybody in the foreground group has it too, and it need not
    /// be forwarded to them.
    pub fn is_from_terminal(&self) -> bool {
        self.code == libc::SI_KERNEL
    }
}

/// The descriptor that signals are read from.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

impl Signals {
    /// Blocks SIGCHLD, SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 in this thread and opens the descriptor. They
    /// stay blocked until the process ends; children get the original mask back.
    pub fn block() -> Result<Signals> {
        // SAFETY: `sigset_t` is plain data; `sigemptyset` initialises it and `sigaddset` gets valid numbers.
        let (wanted, before, rc) = unsafe {
            let mut wanted: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut wanted);
            for signal in WANTED {
                libc::sigaddset(&mut wanted, signal);
            }
            let rc = libc::pthread_sigmask(libc::SIG_BLOCK, &wanted, &mut before);
            (wanted, before, rc)
        };
        if rc != 0 {
            return Err(Error::Call { doing: "pthread_sigmask", errno: Errno::from_raw_os_error(rc) });
        }
        ORIGINAL.get_or_init(|| before);
        // SAFETY: `wanted` is a valid set; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &wanted, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(Error::Call { doing: "signalfd", errno: last_errno() });
        }
        // SAFETY: the kernel has just given us this descriptor; nobody else has it.
        Ok(Signals { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Ready for reading when a signal has come.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether we were started with this one ignored (`nohup`, a script's background job). Such a one is read from the
    /// descriptor all the same, because the kernel keeps what is blocked. One call.
    pub fn was_ignored(&self, signal: i32) -> bool {
        // SAFETY: `sigaction` is plain data; without a new action the call only fills in the present one, which is what we were
        // started with, as nothing here installs any.
        unsafe {
            let mut present: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, std::ptr::null(), &raw mut present) == 0
                && present.sa_sigaction == libc::SIG_IGN
        }
    }

    /// The next signal; `None` if there is no more. Never blocks, never allocates.
    pub fn receive(&mut self) -> Result<Option<Received>> {
        const SIZE: usize = size_of::<libc::signalfd_siginfo>();
        let mut space = [0u8; SIZE];
        loop {
            match rustix::io::read(&self.fd, &mut space[..]) {
                Ok(SIZE) => break,
                Ok(_) | Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(Error::Call { doing: "reading signals", errno }),
            }
        }
        // SAFETY: plain data of exactly this size, filled by the kernel; read without assuming alignment.
        let info: libc::signalfd_siginfo = unsafe { std::ptr::read_unaligned(space.as_ptr().cast()) };
        Ok(Some(Received { signal: info.ssi_signo as i32, sender: info.ssi_pid, code: info.ssi_code }))
    }
}
