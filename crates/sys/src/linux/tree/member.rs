//! One member of a tree.
//!
//! Touches its pidfd and its `statm`, kept open. Never reaps.

use std::os::fd::OwnedFd;

use oomguard_core::Bytes;

use crate::os::kept::buffer;
use crate::os::process::{Process, Signal};
use crate::os::procfs::{self, Procfs};

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) process: Process,
    statm: Option<OwnedFd>,
    killed: bool,
}

impl Member {
    pub(crate) fn new(proc: &Procfs, process: Process) -> Member {
        // The open file stays with the process: it never speaks of a later one with the same pid.
        let statm = proc.open_file(process.pid(), "statm").ok();
        // Unless it was gone already when the file was opened.
        let statm = statm.filter(|_| process.is_alive());
        Member { process, statm, killed: false }
    }
    /// One read; zero once it has ended.
    pub(crate) fn rss(&self) -> Bytes {
        let page_size = rustix::param::page_size() as u64;
        let mut space = buffer::<128>();
        let read = self.statm.as_ref().and_then(|file| rustix::io::pread(file, &mut space[..], 0).ok());
        Bytes(read.and_then(|(text, _)| procfs::resident(text, page_size)).unwrap_or(0))
    }
    /// SIGKILL, once; whether it was sent now.
    pub(crate) fn kill(&mut self) -> bool {
        let now = !self.killed && self.process.signal(Signal::KILL).is_ok();
        self.killed = true;
        now
    }
    pub(crate) fn is_killed(&self) -> bool {
        self.killed
    }
}
