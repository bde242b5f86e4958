//! Making, listing and removing cgroup directories.
//!
//! Touches the directories it is given. Never removes a cgroup that still has processes: the kernel refuses that.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, Timespec, poll};
use rustix::fs::Mode;
use rustix::io::Errno;

use crate::os::error::{Error, Result};

/// Whether a file of words separated by blanks has this one. A file that cannot be read has none.
pub(crate) fn lists(file: &Path, word: &str) -> bool {
    std::fs::read_to_string(file).is_ok_and(|text| text.split_ascii_whitespace().any(|w| w == word))
}

/// Makes a directory unless it is there; whether it was made.
pub(crate) fn make(dir: &Path) -> rustix::io::Result<bool> {
    match rustix::fs::mkdir(dir, Mode::from_raw_mode(0o755)) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// The names of the cgroups directly under `dir`, sorted; hidden ones (our probes) left out.
pub(crate) fn children(dir: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(dir).map_err(|e| Error::io("list", dir, &e))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    Ok(names)
}

/// Calls `each` with `dir` and every cgroup below it, deepest first.
pub(crate) fn each_deepest_first(dir: &Path, each: &mut impl FnMut(&Path)) {
    if let Ok(entries) = std::fs::read_dir(dir) {
        for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
            each_deepest_first(&entry.path(), each);
        }
    }
    each(dir);
}

/// How long a cgroup whose last process has just been reaped may stay busy.
const BUSY_FOR: u32 = 50;

/// Removes one cgroup; one that is not there is fine. A dead process may hold its cgroup for a moment after it was
/// reaped, so `EBUSY` is tried again for up to 50 ms.
pub(crate) fn remove(dir: &Path) -> rustix::io::Result<()> {
    let mut tries = 0;
    loop {
        match rustix::fs::rmdir(dir) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY) if tries < BUSY_FOR && is_vacant(dir) => {
                tries += 1;
                pause(Duration::from_millis(1));
            }
            Err(errno) => return Err(errno),
        }
    }
}

/// Whether no living process and no other cgroup is in it: otherwise waiting is of no use.
fn is_vacant(dir: &Path) -> bool {
    std::fs::read(dir.join("cgroup.procs")).is_ok_and(|text| text.is_empty())
        && children(dir).is_ok_and(|names| names.is_empty())
}

/// Removes a cgroup and what a job has made below it: mostly nothing.
pub(crate) fn remove_tree(dir: &Path) -> rustix::io::Result<()> {
    if let Ok(()) | Err(Errno::NOENT) = rustix::fs::rmdir(dir) {
        return Ok(());
    }
    let mut result = Ok(());
    each_deepest_first(dir, &mut |dir| result = remove(dir));
    result
}

/// Waits without a timer of our own.
fn pause(length: Duration) {
    let none: &mut [PollFd<'_>] = &mut [];
    let length = Timespec { tv_sec: length.as_secs() as i64, tv_nsec: i64::from(length.subsec_nanos()) };
    // An interrupted pause is only a shorter one.
    let _ = poll(none, Some(&length));
}

/// `path`'s directories from `top` (left out) down to `path` (included).
pub(crate) fn steps(top: &Path, path: &Path) -> Vec<PathBuf> {
    let mut steps: Vec<PathBuf> =
        path.ancestors().take_while(|dir| *dir != top && dir.starts_with(top)).map(Path::to_owned).collect();
    steps.reverse();
    steps
}
