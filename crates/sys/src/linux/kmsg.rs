//! What the kernel wrote about processes that it killed for memory: who they were, after they are gone.
//!
//! Touches `/dev/kmsg`, which needs root where `kernel.dmesg_restrict` is set. Never writes to it, never waits.

use std::os::fd::OwnedFd;

use oomguard_core::Bytes;
use rustix::fs::{Mode, OFlags, SeekFrom, open, seek};

use super::error::{Error, Result};

/// A record is never longer (`CONSOLE_EXT_LOG_MAX`).
const LONGEST: usize = 8192;

/// A process that the kernel killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Killed {
    /// Its pid, in the first pid namespace.
    pub pid: u32,
    /// Its short name.
    pub comm: String,
    /// Anonymous and shared pages that it had in RAM; pages of files count towards no limit for long.
    pub rss: Bytes,
}

/// The kernel's log, from where it was opened on.
#[derive(Debug)]
pub struct Kmsg {
    log: OwnedFd,
}

impl Kmsg {
    /// Opens the log at its end.
    pub fn open() -> Result<Kmsg> {
        let path = std::path::Path::new("/dev/kmsg");
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let log = open(path, flags, Mode::empty()).map_err(|errno| Error::file("open", path, errno))?;
        seek(&log, SeekFrom::End(0)).map_err(|errno| Error::file("seek in", path, errno))?;
        Ok(Kmsg { log })
    }

    /// The largest process killed since this was last asked, in a cgroup whose path ends with `leaf`.
    pub fn largest_killed_in(&mut self, leaf: &str) -> Option<Killed> {
        let mut search = Search::new(leaf);
        let mut record = [0u8; LONGEST];
        loop {
            match rustix::io::read(&self.log, &mut record) {
                Ok(length) => search.line(&String::from_utf8_lossy(&record[..length])),
                // Records were overwritten before we came: go on with the oldest that is left.
                Err(rustix::io::Errno::PIPE | rustix::io::Errno::INTR) => {}
                Err(_) => return search.largest,
            }
        }
    }
}

/// Goes through the log: `oom-kill:` names cgroup and pid, `Killed process` what it had. With a whole cgroup killed
/// at once only the first of its processes has an `oom-kill:` line.
pub(super) struct Search<'a> {
    leaf: &'a str,
    ours: bool,
    pub(super) largest: Option<Killed>,
}

impl<'a> Search<'a> {
    pub(super) fn new(leaf: &'a str) -> Search<'a> {
        Search { leaf, ours: false, largest: None }
    }

    pub(super) fn line(&mut self, line: &str) {
        // `priority,number,time,flags;text`: a process may be called `oom-kill:`, and is then no such line.
        let text = line.split_once(';').map_or(line, |(_, text)| text);
        if let Some(facts) = text.strip_prefix("oom-kill:") {
            let of = facts.split(',').find_map(|fact| fact.strip_prefix("task_memcg="));
            self.ours = of.is_some_and(|path| path.split('/').any(|part| part == self.leaf));
        } else if self.ours
            && let Some(killed) = line.split_once("Killed process ").and_then(|(_, rest)| parse(rest))
            && self.largest.as_ref().is_none_or(|largest| largest.rss < killed.rss)
        {
            self.largest = Some(killed);
        }
    }
}

/// `123 (python3) total-vm:1kB, anon-rss:2kB, file-rss:3kB, shmem-rss:4kB, UID:0 ...`.
fn parse(text: &str) -> Option<Killed> {
    let (pid, rest) = text.split_once(" (")?;
    // A name may hold anything, brackets included.
    let (comm, facts) = rest.split_once(") total-vm:")?;
    let size = |key: &str| {
        let (_, after) = facts.split_once(key)?;
        after.split_once("kB")?.0.parse().ok().map(Bytes::kib)
    };
    let rss = size("anon-rss:")?.plus(size("shmem-rss:")?);
    Some(Killed { pid: pid.parse().ok()?, comm: comm.to_owned(), rss })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OOM: &str = "6,1,1,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,\
                       oom_memcg=/oomguard/run-7,task_memcg=/oomguard/run-7,task=python3,pid=123,uid=0";
    const KILLED: &str = "3,2,2,-;Memory cgroup out of memory: Killed process 123 (py) (thon3) total-vm:1016180kB, \
                          anon-rss:204800kB, file-rss:8kB, shmem-rss:0kB, UID:0 pgtables:500kB oom_score_adj:500";

    fn largest(lines: &[&str]) -> Option<Killed> {
        let mut search = Search::new("run-7");
        lines.iter().for_each(|line| search.line(line));
        search.largest
    }

    #[test]
    fn the_largest_process_of_the_leaf_is_named() {
        let small = KILLED.replace("123", "124").replace("204800", "100");
        let killed = largest(&[OOM, &small, KILLED]).unwrap();
        assert_eq!((killed.pid, killed.comm.as_str()), (123, "py) (thon3"));
        assert_eq!(killed.rss, Bytes::kib(204800));
    }

    #[test]
    fn a_name_that_looks_like_the_kernels_words_hides_nobody() {
        let named = KILLED.replace("(py) (thon3)", "(oom-kill:a=b)");
        assert_eq!(largest(&[OOM, &named]).unwrap().comm, "oom-kill:a=b");
    }

    #[test]
    fn others_and_nonsense_are_nobody() {
        let elsewhere = OOM.replace("task_memcg=/oomguard/run-7", "task_memcg=/oomguard/run-77");
        assert_eq!(largest(&[&elsewhere, KILLED]), None);
        assert_eq!(largest(&[KILLED]), None, "whose was it?");
        assert_eq!(largest(&[OOM, "Killed process 1", "Killed process x (y) total-vm:"]), None);
    }
}
