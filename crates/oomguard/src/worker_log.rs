//! The output of workers: one file each, which the worker itself writes.
//!
//! Opens the files for the workers, turns them over by size, and keeps the list of their pids. No pipe runs through
//! the guard: a worker's output goes on when the guard dies. A line is never lost in turning over, and never read.

use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

use oomguard_core::Bytes;
use oomguard_sys::folder::{self, Folder};

use crate::sink::{numbered, open_append, shift};

/// Copying goes on while the worker writes until so little is left that it can be stopped for it.
const TAIL: u64 = 1 << 20;
/// A worker that writes faster than we copy is stopped after so many rounds.
const ROUNDS: usize = 8;

/// The log file of one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerLog {
    path: PathBuf,
    max_size: Bytes,
    keep: u32,
}

impl WorkerLog {
    /// `DIR/NAME.log`. Nothing is opened yet.
    pub fn new(dir: &Path, name: &str, max_size: Bytes, keep: u32) -> WorkerLog {
        WorkerLog { path: dir.join(format!("{name}.log")), max_size, keep }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file for a child's stdout and stderr: appending, made if need be, never through a link. Appending is
    /// what makes turning over safe.
    pub fn open(&self) -> io::Result<File> {
        open_append(&self.path)
    }

    /// Writes `--- <text>` on a line of its own, between the lives of a worker.
    pub fn banner(&self, text: &str) -> io::Result<()> {
        let text: String =
            text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
        self.open()?.write_all(format!("--- {text}\n").as_bytes())
    }

    /// Whether the file is full.
    pub fn due(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|meta| meta.len() > self.max_size.0)
    }

    /// Turns the file over: its content goes to `NAME.log.1`, and it starts anew. The worker keeps its open file,
    /// so it is stopped by `freeze` while the last lines are copied and let go by `thaw`, whatever happens in
    /// between. `freeze` says whether the worker (if there is one) really stands still; if not, nothing is done.
    ///
    /// Costs one copy of the file (50 MiB: some 30 ms, more on a slow disk): call it off the guard's own thread.
    pub fn rotate(&self, freeze: impl FnOnce() -> bool, thaw: impl FnOnce()) -> io::Result<()> {
        let (dir, name) = folder::parts(&self.path)?;
        let (dir, aside) = (Folder::open(dir)?, numbered(name, 0));
        let keep_copy = || {
            shift(&dir, name, self.keep);
            dir.rename(&aside, &numbered(name, 1))
        };
        let to = match dir.create(&aside, 0o640) {
            // A guard that died in between left its copy behind: better some lines twice than none.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                keep_copy()?;
                dir.create(&aside, 0o640)
            }
            made => made,
        };
        let copied = to.and_then(|to| self.copy(to, freeze, thaw));
        match (copied, self.keep) {
            (Ok(()), 1..) => keep_copy(),
            (copied, _) => {
                // Of no use: either nothing is kept or the log still has everything.
                let _ = dir.remove(&aside);
                copied
            }
        }
    }

    fn copy(&self, mut to: File, freeze: impl FnOnce() -> bool, thaw: impl FnOnce()) -> io::Result<()> {
        let mut from = folder::open(&self.path)?;
        if self.keep > 0 {
            for _ in 0..ROUNDS {
                if io::copy(&mut from, &mut to)? <= TAIL {
                    break;
                }
            }
        }
        if !freeze() {
            thaw();
            return Err(io::Error::other("the worker could not be stopped for it"));
        }
        let ended = self.copy_tail(&mut from, &mut to);
        thaw();
        ended
    }

    /// While nobody writes.
    fn copy_tail(&self, from: &mut File, to: &mut File) -> io::Result<()> {
        if self.keep > 0 {
            io::copy(from, to)?;
        }
        let log = self.open()?;
        if log.metadata()?.len() != from.stream_position()? && self.keep > 0 {
            return Err(io::Error::other("it was written to meanwhile"));
        }
        log.set_len(0)
    }
}

/// Writes `worker_pids.txt` in the log folder: the main process of every running worker, one pid a line.
pub fn write_pids(dir: &Path, pids: &[u32]) -> io::Result<()> {
    let text: String = pids.iter().map(|pid| format!("{pid}\n")).collect();
    Folder::make(dir, 0o777)?.replace("worker_pids.txt".as_ref(), text.as_bytes(), 0o644)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn numbered(path: &Path, number: u32) -> PathBuf {
        crate::sink::numbered(path.as_os_str(), number).into()
    }

    fn log(keep: u32) -> (tempfile::TempDir, WorkerLog) {
        let dir = tempfile::tempdir().unwrap();
        let log = WorkerLog::new(dir.path(), "worker-1", Bytes(10), keep);
        (dir, log)
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn a_full_file_is_turned_over_under_its_writer() {
        let (_dir, log) = log(2);
        let mut worker = log.open().unwrap();
        assert!(!log.due());
        for round in ["one 0123456789\n", "two 0123456789\n", "three 0123456789\n"] {
            worker.write_all(round.as_bytes()).unwrap();
            assert!(log.due());
            log.rotate(|| true, || {}).unwrap();
            assert!(!log.due());
        }
        worker.write_all(b"four\n").unwrap();
        assert_eq!(read(log.path()), "four\n");
        assert_eq!(read(&numbered(log.path(), 1)), "three 0123456789\n");
        assert_eq!(read(&numbered(log.path(), 2)), "two 0123456789\n");
        assert!(!numbered(log.path(), 3).exists());
    }

    #[test]
    fn no_line_is_lost_while_a_worker_goes_on_writing() {
        let (_dir, log) = log(1000);
        let standing = Arc::new(Mutex::new(()));
        let (mut file, stop) = (log.open().unwrap(), Arc::clone(&standing));
        let writer = std::thread::spawn(move || {
            for number in 0..20_000 {
                let _running = stop.lock().unwrap();
                writeln!(file, "{number}").unwrap();
            }
        });
        let mut turned = 0;
        while !writer.is_finished() {
            let mut frozen = None;
            log.rotate(
                || {
                    frozen = Some(standing.lock().unwrap());
                    true
                },
                || {},
            )
            .unwrap();
            drop(frozen);
            turned += 1;
        }
        writer.join().unwrap();
        let all: String = (0..=turned)
            .rev()
            .map(|age| read(&if age == 0 { log.path().to_owned() } else { numbered(log.path(), age) }))
            .collect();
        let want: String = (0..20_000).map(|number| format!("{number}\n")).collect();
        assert!(all == want, "{} of {} bytes after {turned} rotations", all.len(), want.len());
    }

    #[test]
    fn a_worker_that_cannot_be_stopped_keeps_its_file() {
        let (_dir, log) = log(2);
        log.open().unwrap().write_all(b"0123456789ab\n").unwrap();
        let mut thawed = false;
        assert!(log.rotate(|| false, || thawed = true).is_err());
        assert!(thawed);
        assert_eq!(read(log.path()), "0123456789ab\n");
        assert!(!numbered(log.path(), 0).exists());
    }

    #[test]
    fn the_copy_of_a_guard_that_died_is_kept() {
        let (_dir, log) = log(3);
        fs::write(numbered(log.path(), 0), "from before\n").unwrap();
        log.open().unwrap().write_all(b"0123456789ab\n").unwrap();
        log.rotate(|| true, || {}).unwrap();
        assert_eq!(read(&numbered(log.path(), 1)), "0123456789ab\n");
        assert_eq!(read(&numbered(log.path(), 2)), "from before\n");
    }

    #[test]
    fn nothing_is_kept_when_nothing_is_to_be_kept() {
        let (dir, log) = log(0);
        log.open().unwrap().write_all(b"0123456789ab\n").unwrap();
        log.rotate(|| true, || {}).unwrap();
        assert_eq!(read(log.path()), "");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_banner_is_one_line() {
        let (_dir, log) = log(1);
        log.banner("worker-1 attempt 3 started\nforged").unwrap();
        assert_eq!(read(log.path()), "--- worker-1 attempt 3 started forged\n");
    }

    #[test]
    fn a_link_is_not_followed() {
        let (dir, log) = log(1);
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), log.path()).unwrap();
        assert!(log.open().is_err());
    }

    #[test]
    fn pids_stand_one_a_line() {
        let dir = tempfile::tempdir().unwrap();
        write_pids(&dir.path().join("logs"), &[17650, 17651]).unwrap();
        assert_eq!(read(&dir.path().join("logs/worker_pids.txt")), "17650\n17651\n");
    }
}
