//! `deaths.jsonl`: how every job ended, for the workers' own libraries and for reports.
//!
//! One object a line, appended whole. Never grows beyond [`KEPT`] lines for longer than one run, and a line that
//! cannot be read (a crash while it was written) only costs itself.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::tail::{MOST, Tail};
use super::{StateDir, write_whole};
use crate::error::Error;
use crate::sink::open_append;

/// Lines kept when a guard starts.
pub(crate) const KEPT: usize = 10_000;
/// Lines kept for a disk that is full.
const MOST_WAITING: usize = 1000;

/// One job's end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Death {
    /// `RUN/worker-1#3`: the run, the name, the attempt.
    pub job: String,
    /// The boot in which the pid means something.
    pub boot_id: String,
    /// Its main process.
    pub pid: u32,
    /// That process's start time, in clock ticks since boot.
    pub start_time: u64,
    /// Why it ended: `Cause::name`.
    pub cause: String,
    /// It outgrew its own limit (else a neighbour or the calendar ended it).
    pub own: bool,
    /// Memory available on the host then, GiB.
    pub available_gb: Option<f64>,
    /// What it used, GiB.
    pub usage_gb: Option<f64>,
    /// Its limit, GiB.
    pub limit_gb: Option<f64>,
    /// The GPU that it was ended for, where it was.
    #[serde(default)]
    pub gpu: Option<String>,
    /// What it held of that, GiB.
    #[serde(default)]
    pub vram_gb: Option<f64>,
    /// What it might hold of that, GiB.
    #[serde(default)]
    pub vram_limit_gb: Option<f64>,
    /// When.
    pub ts: Timestamp,
}

/// The open file.
#[derive(Debug)]
pub struct Deaths {
    file: File,
    path: PathBuf,
    unreadable: usize,
    /// Lines that the disk had no room for; the oldest go first.
    waiting: VecDeque<Vec<u8>>,
}

impl Deaths {
    /// Opens the file for appending, trimmed to its last 10,000 lines.
    pub fn open(dir: &StateDir) -> Result<Deaths, Error> {
        let path = dir.file("deaths.jsonl");
        let failed = |error: io::Error| Error::io("open", &path, &error);
        let unreadable = trim(&path).map_err(failed)?;
        let file = open_append(&path).map_err(failed)?;
        Ok(Deaths { file, path, unreadable, waiting: VecDeque::new() })
    }

    /// How many lines could not be read when the file was opened. They stay in it.
    pub fn unreadable(&self) -> usize {
        self.unreadable
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds one line, after those that could not be written before. What cannot be written now is kept for the next
    /// time.
    pub fn append(&mut self, death: &Death) -> io::Result<()> {
        let mut line = serde_json::to_vec(death)?;
        line.push(b'\n');
        if self.waiting.len() == MOST_WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(line);
        self.flush()
    }

    /// Writes the lines that wait.
    pub fn flush(&mut self) -> io::Result<()> {
        while let Some(line) = self.waiting.front() {
            let size = self.file.metadata()?.len();
            if let Err(error) = self.file.write_all(line) {
                // Half a line must not be glued to the next one.
                let _ = self.file.set_len(size);
                return Err(error);
            }
            self.waiting.pop_front();
        }
        Ok(())
    }

    /// All that can be read, oldest first, and how many lines could not.
    pub fn read(dir: &StateDir) -> Result<(Vec<Death>, usize), Error> {
        let path = dir.file("deaths.jsonl");
        let tail = Tail::of(&path, MOST).map_err(|error| Error::io("read", &path, &error))?;
        let deaths: Vec<Death> = tail.lines().filter_map(|line| serde_json::from_slice(line).ok()).collect();
        let unreadable = tail.lines().count() - deaths.len();
        Ok((deaths, unreadable))
    }
}

/// Keeps the last lines, and ends the last one if a crash cut it short. How many of them cannot be read.
fn trim(path: &Path) -> io::Result<usize> {
    let tail = Tail::of(path, MOST)?;
    let lines: Vec<&[u8]> = tail.lines().collect();
    let kept = &lines[lines.len().saturating_sub(KEPT)..];
    let cut_short = tail.bytes.last().is_some_and(|last| *last != b'\n');
    if tail.left_out || cut_short || kept.len() < lines.len() {
        let bytes: Vec<u8> = kept.iter().flat_map(|line| line.iter().chain(b"\n")).copied().collect();
        write_whole(path, &bytes, 0o600)?;
    }
    Ok(kept.iter().filter(|line| serde_json::from_slice::<Death>(line).is_err()).count())
}
