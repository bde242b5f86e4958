//! A log file: appended to, rotated by size, opened again on request.
//!
//! Lines are written whole or counted as lost. It never waits for space on the disk and never follows a link
//! that somebody put in its place.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use oomguard_core::Bytes;
use oomguard_sys::folder::{self, Folder};

use crate::error::in_words;
use crate::record::Notice;

/// A log file that one guard writes.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    max_size: Bytes,
    keep: u32,
    file: Option<File>,
    size: u64,
    /// It has been said that this file cannot be written.
    failing: bool,
    /// It has been said that it cannot be moved aside.
    stuck: bool,
    /// Lines lost since then.
    lost: u64,
    news: VecDeque<Notice>,
}

impl LogFile {
    /// Opens or creates `path`. A file that cannot be opened now is tried again with every line.
    pub fn open(path: &Path, max_size: Bytes, keep: u32) -> LogFile {
        let mut log = LogFile {
            path: path.to_owned(),
            max_size,
            keep,
            file: None,
            size: 0,
            failing: false,
            stuck: false,
            lost: 0,
            news: VecDeque::new(),
        };
        log.reopen();
        log
    }

    /// Opens the path again.
    pub fn reopen(&mut self) {
        self.file = None;
        match open_append(&self.path) {
            Ok(file) => {
                self.size = file.metadata().map_or(0, |meta| meta.len());
                self.file = Some(file);
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Writes `text`, which ends in a line feed.
    pub fn write(&mut self, text: &str) {
        if self.size > 0 && self.size.saturating_add(text.len() as u64) > self.max_size.0 {
            self.rotate();
        }
        if self.file.as_ref().is_some_and(is_removed) {
            self.failed(&io::Error::other("it was removed"));
            self.file = None;
        }
        if self.file.is_none() {
            self.reopen();
        }
        let Some(file) = &mut self.file else {
            self.lost += 1;
            return;
        };
        let written = file.write_all(text.as_bytes());
        match written {
            Ok(()) => {
                self.size += text.len() as u64;
                if std::mem::take(&mut self.failing) {
                    let lost = std::mem::take(&mut self.lost);
                    self.news.push_back(Notice::SinkResumed { path: self.path.clone(), lost });
                }
            }
            Err(error) => {
                self.failed(&error);
                self.lost += 1;
                // Half a line must not be glued to the next one.
                if file_grew(self.file.as_ref(), self.size) {
                    self.cut();
                }
            }
        }
    }

    /// What there is to say about this file, once; the oldest first.
    pub fn trouble(&mut self) -> Option<Notice> {
        self.news.pop_front()
    }

    fn failed(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.failing, true) {
            self.news.push_back(Notice::SinkFailed { path: self.path.clone(), error: in_words(error) });
        }
    }

    fn cut(&mut self) {
        if let Some(file) = &self.file
            && file.set_len(self.size).is_err()
        {
            self.file = None;
        }
    }

    /// A file that cannot be moved aside goes on growing.
    fn rotate(&mut self) {
        match turn_over(&self.path, self.keep) {
            Ok(()) => {
                self.stuck = false;
                self.news.push_back(Notice::LogRotated { path: self.path.clone() });
                self.reopen();
            }
            Err(error) => {
                if !std::mem::replace(&mut self.stuck, true) {
                    let error = format!("it is full and cannot be moved aside ({})", in_words(&error));
                    self.news.push_back(Notice::SinkFailed { path: self.path.clone(), error });
                }
            }
        }
    }
}

fn file_grew(file: Option<&File>, size: u64) -> bool {
    file.and_then(|file| file.metadata().ok()).is_some_and(|meta| meta.len() > size)
}

/// What is written to a file without a name is lost: one `fstat` a line.
fn is_removed(file: &File) -> bool {
    file.metadata().is_ok_and(|meta| meta.nlink() == 0)
}

fn turn_over(path: &Path, keep: u32) -> io::Result<()> {
    let (dir, name) = folder::parts(path)?;
    let folder = Folder::open(dir)?;
    if keep == 0 {
        return folder.remove(name);
    }
    shift(&folder, name, keep);
    folder.rename(name, &numbered(name, 1))
}

/// Moves `log.1` to `log.2` and so on; the oldest beyond `keep` goes.
pub(crate) fn shift(folder: &Folder, name: &OsStr, keep: u32) {
    for number in (1..keep).rev() {
        // A number that was never used is no failure.
        let _ = folder.rename(&numbered(name, number), &numbered(name, number + 1));
    }
}

/// `watchdog.log.1`.
pub(crate) fn numbered(name: &OsStr, number: u32) -> OsString {
    let mut name = name.to_owned();
    name.push(format!(".{number}"));
    name
}

/// Opens for appending only, creating it (0640) with its folder. Anything but a regular file in its place is refused,
/// and so is a stranger's link on the way.
pub(crate) fn open_append(path: &Path) -> io::Result<File> {
    let (dir, name) = folder::parts(path)?;
    Folder::make(dir, 0o777)?.append(name, 0o640)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn numbered(path: &Path, number: u32) -> PathBuf {
        super::numbered(path.as_os_str(), number).into()
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn a_full_file_is_moved_aside_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/watchdog.log");
        let mut log = LogFile::open(&path, Bytes(10), 2);
        for line in ["first..\n", "second.\n", "third..\n", "fourth.\n"] {
            log.write(line);
        }
        assert_eq!(read(&path), "fourth.\n");
        assert_eq!(read(&numbered(&path, 1)), "third..\n");
        assert_eq!(read(&numbered(&path, 2)), "second.\n");
        assert!(!numbered(&path, 3).exists());
        assert!(matches!(log.trouble(), Some(Notice::LogRotated { .. })));
    }

    #[test]
    fn nothing_is_kept_when_nothing_is_to_be_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watchdog.log");
        let mut log = LogFile::open(&path, Bytes(10), 0);
        log.write("first..\n");
        log.write("second.\n");
        assert_eq!(read(&path), "second.\n");
        assert!(!numbered(&path, 1).exists());
    }

    #[test]
    fn a_full_disk_is_said_once_and_counted_until_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watchdog.log");
        let mut log = LogFile::open(&path, Bytes::mib(1), 1);
        log.file = Some(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
        log.write("lost\n");
        log.write("lost as well\n");
        assert!(matches!(
            log.trouble(),
            Some(Notice::SinkFailed { error, .. }) if error == "no space left on device"
        ));
        assert_eq!(log.trouble(), None);
        log.reopen();
        log.write("kept\n");
        assert!(matches!(log.trouble(), Some(Notice::SinkResumed { lost: 2, .. })));
        assert_eq!(read(&path), "kept\n");
    }

    #[test]
    fn a_folder_that_is_removed_is_made_again_and_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/watchdog.log");
        let mut log = LogFile::open(&path, Bytes::mib(1), 1);
        log.write("gone\n");
        fs::remove_dir_all(dir.path().join("logs")).unwrap();
        log.write("first\n");
        log.write("second\n");
        assert_eq!(read(&path), "first\nsecond\n");
        assert!(matches!(log.trouble(), Some(Notice::SinkFailed { error, .. }) if error == "it was removed"));
        assert!(matches!(log.trouble(), Some(Notice::SinkResumed { lost: 0, .. })));
        assert_eq!(log.trouble(), None);
    }

    #[test]
    fn a_full_file_that_cannot_be_moved_aside_goes_on_and_that_is_said_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watchdog.log");
        // A folder of that name with something in it cannot be replaced, whoever one is.
        fs::create_dir_all(dir.path().join("watchdog.log.1/inside")).unwrap();
        let mut log = LogFile::open(&path, Bytes(10), 1);
        for line in ["first..\n", "second.\n", "third..\n"] {
            log.write(line);
        }
        assert_eq!(read(&path), "first..\nsecond.\nthird..\n");
        let said = log.trouble();
        assert!(
            matches!(said, Some(Notice::SinkFailed { error, .. }) if error.starts_with("it is full and"))
        );
        assert_eq!(log.trouble(), None);
        fs::remove_dir_all(dir.path().join("watchdog.log.1")).unwrap();
        log.write("fourth.\n");
        assert_eq!(read(&path), "fourth.\n");
        assert!(matches!(log.trouble(), Some(Notice::LogRotated { .. })));
    }

    #[test]
    fn a_fifo_in_its_place_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watchdog.log");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        let mut log = LogFile::open(&path, Bytes::mib(1), 1);
        log.write("x\n");
        assert!(matches!(log.trouble(), Some(Notice::SinkFailed { .. })));
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watchdog.log");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).unwrap();
        let mut log = LogFile::open(&path, Bytes::mib(1), 1);
        log.write("x\n");
        assert!(matches!(log.trouble(), Some(Notice::SinkFailed { .. })));
        assert!(!dir.path().join("elsewhere").exists());
    }

    #[test]
    fn a_file_that_was_moved_by_somebody_else_is_begun_anew_on_request() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watchdog.log");
        let mut log = LogFile::open(&path, Bytes::mib(1), 1);
        log.write("old\n");
        fs::rename(&path, dir.path().join("moved")).unwrap();
        log.reopen();
        log.write("new\n");
        assert_eq!(read(&path), "new\n");
    }
}
