//! Processes known by what they say about themselves: a mark in their environment, their memory, their command line.
//!
//! Touches `/proc/PID/{environ,statm,smaps_rollup,comm,cmdline}` of whoever is asked about. Never signals anybody.

use std::path::Path;

use oomguard_core::Bytes;

use crate::os::error::Result;
use crate::os::kept::buffer;
use crate::os::process::Process;
use crate::os::procfs::{self, Procfs};
use crate::os::text;

/// A process in words, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its id.
    pub pid: u32,
    /// Its short name.
    pub comm: String,
    /// The first 80 characters of its command line.
    pub cmdline: String,
    /// What it has in RAM.
    pub rss: Bytes,
}

/// Every process that was started with `key=value` in its environment and that we may ask, ourselves left out. Opens
/// a file of every process: 10 us each.
pub fn find_marked(proc_root: &Path, key: &str, value: &str) -> Result<Vec<Process>> {
    let proc = Procfs::open(proc_root)?;
    let mut pids = Vec::new();
    proc.each_pid(|pid| pids.push(pid))?;
    let me = std::process::id();
    let marked = pids.into_iter().filter(|pid| *pid != me && carries(&proc, *pid, key, value) == Some(true));
    // Held first and asked once more: the pid may have changed hands in between.
    let held = marked.filter_map(|pid| Process::open_in(&proc, pid).ok());
    Ok(held.filter(|p| p.is_alive() && carries(&proc, p.pid(), key, value) == Some(true)).collect())
}

/// Whether a process was started with `key=value`; `None`: it does not say (not ours, gone, a kernel thread, or
/// between fork and exec).
pub(super) fn carries(proc: &Procfs, pid: u32, key: &str, value: &str) -> Option<bool> {
    let mut environ = Vec::new();
    proc.read_all(pid, "environ", &mut environ).ok().filter(|()| !environ.is_empty())?;
    let same = |line: &[u8]| {
        line.strip_prefix(key.as_bytes()).and_then(|l| l.strip_prefix(b"=")) == Some(value.as_bytes())
    };
    Some(environ.split(|b| *b == 0).any(same))
}

/// Proportional set size of one process.
pub(super) fn pss_of(proc: &Procfs, pid: u32) -> rustix::io::Result<Bytes> {
    let mut space = buffer::<4096>();
    let [pss] = text::fields(proc.read(pid, "smaps_rollup", &mut space)?, ["Pss"]);
    // Empty once its memory is gone.
    Ok(Bytes::kib(pss.unwrap_or(0)))
}

/// What these processes have in RAM together, shared pages counted for each. 12 us a process; who has ended has nothing.
pub fn rss(pids: &[u32]) -> Result<Bytes> {
    let proc = Procfs::open(Path::new("/proc"))?;
    Ok(pids.iter().map(|pid| rss_of(&proc, *pid)).fold(Bytes::ZERO, Bytes::plus))
}

/// The same with shared pages counted once. 15 to 27 ms per GiB of small pages.
pub fn pss(pids: &[u32]) -> Result<Bytes> {
    let proc = Procfs::open(Path::new("/proc"))?;
    // One that hides (not dumpable) counts for the upper bound, as in a tree.
    let pss = |pid: &u32| pss_of(&proc, *pid).unwrap_or_else(|_| rss_of(&proc, *pid));
    Ok(pids.iter().map(pss).fold(Bytes::ZERO, Bytes::plus))
}

fn rss_of(proc: &Procfs, pid: u32) -> Bytes {
    let mut space = buffer::<128>();
    let statm = proc.read(pid, "statm", &mut space).ok();
    let page_size = rustix::param::page_size() as u64;
    Bytes(statm.and_then(|text| procfs::resident(text, page_size)).unwrap_or(0))
}

/// The largest of these processes in words. Reads three files of it and one of each.
pub fn describe_largest(proc_root: &Path, pids: &[u32]) -> Option<Described> {
    let proc = Procfs::open(proc_root).ok()?;
    let (rss, pid) =
        pids.iter().map(|pid| (rss_of(&proc, *pid), *pid)).filter(|(rss, _)| *rss > Bytes::ZERO).max()?;
    let mut space = buffer::<512>();
    let cmdline = proc.read(pid, "cmdline", &mut space).unwrap_or_default();
    let cmdline = String::from_utf8_lossy(cmdline.trim_ascii_end()).replace('\0', " ");
    Some(Described {
        pid,
        comm: proc.comm(pid)?,
        cmdline: cmdline.trim_end().chars().take(80).collect(),
        rss,
    })
}
