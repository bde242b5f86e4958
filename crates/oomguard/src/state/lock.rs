//! One guard for one state directory: a lock that dies with its holder, with the holder's name in it.
//!
//! Holds `flock` on the file `lock` until dropped. Never breaks somebody else's lock, and workers never inherit it.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use oomguard_sys::folder;

use super::StateDir;
use crate::error::Error;

/// Who only looks whether there is a guard holds the lock for a moment; a guard holds it for longer than this.
const TRIES: u32 = 5;
/// A number and a path are never longer.
const LONGEST: u64 = 8192;

/// The guard that holds a state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Its process.
    pub pid: u32,
    /// Where it listens.
    pub socket: PathBuf,
}

/// Held for as long as the guard runs.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, or says who has it. `socket` is written down, so that others find it whatever their
    /// environment is.
    pub fn take(dir: &StateDir, socket: &Path) -> Result<Lock, Error> {
        let path = dir.file("lock");
        let failed = |error: &io::Error| Error::io("lock", &path, error);
        let mut file = open(&path).map_err(|error| failed(&error))?;
        let mut tries = TRIES;
        while !try_lock(&file).map_err(|error| failed(&error))? {
            tries -= 1;
            if tries == 0 {
                return Err(taken(&mut file, dir));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let text = format!("{}\n{}\n", std::process::id(), socket.display());
        let written =
            file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
        written.map_err(|error| failed(&error))?;
        Ok(Lock { _file: file })
    }

    /// The living guard of `dir`, if there is one.
    pub fn holder(dir: &Path) -> Option<Guard> {
        let mut file = folder::open(&dir.join("lock")).ok()?;
        if try_lock(&file).ok()? {
            return None;
        }
        read(&mut file)
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
    }
    options.open(path)
}

#[cfg(unix)]
fn try_lock(file: &File) -> io::Result<bool> {
    use rustix::fs::{FlockOperation, flock};
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(not(unix))]
fn try_lock(_: &File) -> io::Result<bool> {
    Ok(true)
}

fn read(file: &mut File) -> Option<Guard> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(LONGEST).read_to_string(&mut text).ok()?;
    let (pid, rest) = text.split_once('\n')?;
    let socket = rest.strip_suffix('\n').unwrap_or(rest);
    Some(Guard { pid: pid.parse().ok()?, socket: PathBuf::from(socket) })
}

fn taken(file: &mut File, dir: &StateDir) -> Error {
    let who =
        read(file).map_or("another guard".to_owned(), |guard| format!("another guard (PID {})", guard.pid));
    Error::new(format!("{who} already works on `{}`", dir.path().display()))
        .hint("ask it with `oomguard status`, or end it with `oomguard stop`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_guard_is_refused_with_the_pid_of_the_first() {
        let temp = tempfile::tempdir().unwrap();
        let dir = StateDir::open(&temp.path().join("state")).unwrap();
        let lock = Lock::take(&dir, Path::new("/run/x.sock")).unwrap();
        let error = Lock::take(&dir, Path::new("/run/y.sock")).unwrap_err();
        let pid = std::process::id();
        assert!(
            error.message.starts_with(&format!("another guard (PID {pid}) already works on `")),
            "{error}"
        );
        assert_eq!(Lock::holder(dir.path()), Some(Guard { pid, socket: PathBuf::from("/run/x.sock") }));
        drop(lock);
        assert_eq!(Lock::holder(dir.path()), None);
        Lock::take(&dir, Path::new("/run/y.sock")).unwrap();
    }

    #[test]
    fn a_lock_that_is_being_written_names_nobody() {
        let temp = tempfile::tempdir().unwrap();
        let dir = StateDir::open(&temp.path().join("state")).unwrap();
        let _lock = Lock::take(&dir, Path::new("/run/x.sock")).unwrap();
        std::fs::write(dir.file("lock"), "").unwrap();
        let error = Lock::take(&dir, Path::new("/run/y.sock")).unwrap_err();
        assert!(error.message.starts_with("another guard already works on"), "{error}");
    }
}
