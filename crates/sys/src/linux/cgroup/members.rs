//! The processes that a cgroup lists.
//!
//! Touches `cgroup.procs`, opened anew for every listing: cgroup v1 shows a file that stays open the same list
//! for a second, whatever has been forked since. Never allocates after `open`, never signals a bare pid.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};

use crate::os::error::{Error, Result};
use crate::os::kept::{Kept, buffer};
use crate::os::process::{is_running, open_pidfd};
use crate::os::text;

/// Processes that are held by pidfds at the same time.
const AT_ONCE: usize = 64;

/// A cgroup directory.
#[derive(Debug)]
pub(crate) struct Members {
    dir: OwnedFd,
    path: Arc<Path>,
}

impl Members {
    pub(crate) fn open(dir: &Path) -> Result<Members> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(CWD, dir, flags, Mode::empty()).map_err(|errno| Error::file("open", dir, errno))?;
        Ok(Members { dir: fd, path: Arc::from(dir.join("cgroup.procs")) })
    }

    /// A fresh look.
    fn list(&self) -> Result<List> {
        match openat(&self.dir, c"cgroup.procs", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => Ok(List { file: Kept::from_fd(fd, Arc::clone(&self.path)), offset: 0 }),
            Err(errno) => Err(Error::File { doing: "open", path: Arc::clone(&self.path), errno }),
        }
    }

    /// Whether any process is listed; one that is dying is not. Open, read, close: 6 us.
    pub(crate) fn any(&self) -> Result<bool> {
        let mut pids = [0; AT_ONCE];
        Ok(self.list()?.next(&mut pids)? > 0)
    }

    /// Calls `each` with every pid.
    pub(crate) fn each(&self, mut each: impl FnMut(u32)) -> Result<()> {
        let (mut list, mut pids) = (self.list()?, [0; AT_ONCE]);
        loop {
            match list.next(&mut pids)? {
                0 => return Ok(()),
                count => pids[..count].iter().copied().for_each(&mut each),
            }
        }
    }

    /// Signals every process that is listed; how many. 10 us a process.
    ///
    /// A pid may be reused between reading and opening it, so each is opened first and must then still be listed:
    /// what is listed and alive behind our pidfd is the process that we hold.
    pub(crate) fn signal(&self, signal: Signal) -> Result<u32> {
        let (mut list, mut pids, mut signalled) = (self.list()?, [0; AT_ONCE], 0);
        loop {
            let count = list.next(&mut pids)?;
            if count == 0 {
                return Ok(signalled);
            }
            let mut held: [Option<(u32, OwnedFd)>; AT_ONCE] = [const { None }; AT_ONCE];
            for (slot, pid) in held.iter_mut().zip(&pids[..count]) {
                *slot = open_pidfd(*pid).ok().map(|fd| (*pid, fd));
            }
            let mut refused = None;
            self.each(|pid| {
                let slot = held.iter_mut().find(|h| h.as_ref().is_some_and(|(held, _)| *held == pid));
                if let Some((_, fd)) = slot.and_then(Option::take)
                    && is_running(&fd)
                {
                    match pidfd_send_signal(&fd, signal) {
                        Ok(()) => signalled += 1,
                        Err(Errno::SRCH) => {}
                        Err(errno) => refused = Some(errno),
                    }
                }
            })?;
            if let Some(errno) = refused {
                return Err(Error::File { doing: "signal a member of", path: Arc::clone(&self.path), errno });
            }
        }
    }
}

/// One reading of the file.
struct List {
    file: Kept,
    offset: u64,
}

impl List {
    /// The next pids; 0: there are no more. A process outside our pid namespace is shown as 0.
    fn next(&mut self, pids: &mut [u32; AT_ONCE]) -> Result<usize> {
        let mut space = buffer::<1024>();
        let bytes = self.file.read_at(&mut space, self.offset)?;
        let mut count = 0;
        for line in text::lines(bytes).take(AT_ONCE) {
            self.offset += line.len() as u64 + 1;
            if let Some((pid, b"")) = text::leading(line) {
                pids[count] = u32::try_from(pid).unwrap_or(0);
                count += 1;
            }
        }
        Ok(count)
    }
}
