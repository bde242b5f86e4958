//! `deaths.jsonl`: how every job ended, for the workers' own libraries and for reports.
//!
//! One object a line, appended whole. Never grows beyond [`KEPT`] lines for longer than one run, and a line that
//! cannot be read (a crash while it was written) only costs itself.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Write};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fs;

use super::{StateDir, write_whole};
use crate::error::Error;
use crate::sink::open_append;

/// Lines kept when a guard starts.
pub(crate) const KEPT: usize = 10_000;

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
    /// When.
    pub ts: Timestamp,
}

/// The open file.
#[derive(Debug)]
pub struct Deaths {
    file: std::fs::File,
    unreadable: usize,
}

impl Deaths {
    /// Opens the file for appending, trimmed to its last 10,000 lines.
    pub fn open(dir: &StateDir) -> Result<Deaths, Error> {
        let path = dir.file("deaths.jsonl");
        let failed = |error: io::Error| Error::io("open", &path, &error);
        let unreadable = trim(&path).map_err(failed)?;
        Ok(Deaths { file: open_append(&path).map_err(failed)?, unreadable })
    }

    /// How many lines could not be read when the file was opened. They stay in it.
    pub fn unreadable(&self) -> usize {
        self.unreadable
    }

    /// Adds one line.
    pub fn append(&mut self, death: &Death) -> io::Result<()> {
        let mut line = serde_json::to_vec(death)?;
        line.push(b'\n');
        self.file.write_all(&line)
    }

    /// All that can be read, oldest first, and how many lines could not.
    pub fn read(dir: &StateDir) -> Result<(Vec<Death>, usize), Error> {
        let path = dir.file("deaths.jsonl");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
            Err(error) => return Err(Error::io("read", &path, &error)),
        };
        let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        let deaths: Vec<Death> = lines.iter().filter_map(|line| serde_json::from_slice(line).ok()).collect();
        let unreadable = lines.len() - deaths.len();
        Ok((deaths, unreadable))
    }
}

/// Keeps the last lines, and ends the last one if a crash cut it short. How many of them cannot be read.
fn trim(path: &std::path::Path) -> io::Result<usize> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut kept: VecDeque<Vec<u8>> = VecDeque::new();
    let mut changed = false;
    let mut reader = BufReader::new(file);
    loop {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
            changed = true;
        }
        kept.push_back(line);
        if kept.len() > KEPT {
            kept.pop_front();
            changed = true;
        }
    }
    let torn = |line: &&Vec<u8>| line.len() > 1 && serde_json::from_slice::<Death>(line).is_err();
    let unreadable = kept.iter().filter(torn).count();
    if changed {
        let bytes: Vec<u8> = kept.into_iter().flatten().collect();
        write_whole(path, &bytes, 0o600)?;
    }
    Ok(unreadable)
}
