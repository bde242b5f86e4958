//! A family that has been chosen, held by pidfds: a signal reaches it and nobody else.
//!
//! Touches the pidfds and `statm` of its members, kept open, and asks once which files of `/dev/shm` they use. Never looks
//! for further members by itself, never reaps, never allocates for less than a thousand members.

use std::path::Path;

use oomguard_core::Bytes;
use oomguard_core::watch::{Remains, Who};

use super::error::Result;
use super::open_shm::OpenShm;
use super::process::{Process, Signal};
use super::procfs::Procfs;
use super::reaper::Reaper;
use super::shm::FileId;
use super::tree::member::Member;

/// The family.
#[derive(Debug)]
pub struct Held {
    proc: Procfs,
    members: Vec<Member>,
    shm: Option<OpenShm>,
    files: Vec<FileId>,
}

/// Files in `/dev/shm` of one family that are remembered.
const MOST_FILES: usize = 256;

impl Held {
    /// Nobody yet, with room for a large family.
    pub fn new() -> Result<Held> {
        Ok(Held {
            proc: Procfs::open(Path::new("/proc"))?,
            members: Vec::with_capacity(1024),
            shm: OpenShm::open(Path::new("/dev/shm")).ok(),
            files: Vec::with_capacity(MOST_FILES),
        })
    }

    /// Takes hold of one process: 15 us. An error if it is gone, or its number is another one's now.
    pub fn add(&mut self, who: Who) -> Result<()> {
        let process = Process::adopt_in(&self.proc, who.pid, who.start)?;
        self.members.push(Member::new(&self.proc, process));
        Ok(())
    }

    /// Remembers which files of `/dev/shm` this member uses; once it is dead nobody can tell. 50 us and more.
    pub fn remember_shm(&mut self, who: Who) {
        if let Some(shm) = &self.shm {
            shm.used_by(&self.proc, who.pid, &mut self.files);
        }
    }

    /// The files that were remembered.
    pub fn files(&self) -> &[FileId] {
        &self.files
    }

    /// Whether this process is held.
    pub fn has(&self, who: Who) -> bool {
        self.members.iter().any(|m| m.process.pid() == who.pid && m.process.start_time() == who.start)
    }

    /// Whether a living or dead member has this number.
    pub fn has_pid(&self, pid: u32) -> bool {
        self.members.iter().any(|m| m.process.pid() == pid)
    }

    /// Lets all go.
    pub fn clear(&mut self) {
        self.members.clear();
        self.files.clear();
    }

    /// Who still lives, and what is resident of them. Two system calls a member, no allocation.
    pub fn remains(&self) -> Remains {
        let mut remains = Remains { processes: 0, usage: Bytes::ZERO };
        for member in self.members.iter().filter(|member| member.process.is_alive()) {
            remains.processes += 1;
            remains.usage = remains.usage.plus(member.rss());
        }
        remains
    }

    /// SIGTERM to all; how many have it, and the last refusal.
    pub fn terminate(&self) -> (u32, Option<super::Error>) {
        let mut outcome = (0, None);
        for member in self.members.iter().filter(|member| member.process.is_alive()) {
            match member.process.signal(Signal::TERM) {
                Ok(()) => outcome.0 += 1,
                Err(error) => outcome.1 = Some(error),
            }
        }
        outcome
    }

    /// SIGKILL to all that have not had it, their memory handed to `reaper`; how many, and the last refusal.
    pub fn kill(&mut self, reaper: &Reaper) -> (u32, Option<super::Error>) {
        let mut outcome = (0, None);
        for member in self.members.iter_mut().filter(|m| !m.is_killed() && m.process.is_alive()) {
            if member.kill() {
                outcome.0 += 1;
                // Its memory comes back without this too, only later.
                let _ = reaper.release(member.process.fd());
            } else if let Err(error) = member.process.signal(Signal::KILL) {
                outcome.1 = Some(error);
            }
        }
        outcome
    }
}
