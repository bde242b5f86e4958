//! One running test file: where its output goes, how it talks to us, what is known of it so far.
//!
//! Opens and reads; starts nothing and decides nothing.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use oomguard_core::{Bytes, Instant};
use rustix::pipe::{PipeFlags, pipe_with};

use super::beats::Beats;
use super::gpu::Held;

/// A file of tests that runs, or is about to.
pub struct Slot {
    /// Which.
    pub case: usize,
    /// The how-manieth run of it.
    pub attempt: u32,
    /// Its number in the zygote's answers.
    pub id: u64,
    /// Who waits for it in its cgroup.
    pub standby: Option<u64>,
    /// When it was ordered.
    pub began: Instant,
    /// What it may use.
    pub limit: Option<Bytes>,
    /// What it has told.
    pub beats: Beats,
    /// How it is kept apart.
    pub isolation: &'static str,
    /// Where its output goes.
    pub log: PathBuf,
    /// What was available when it was chosen.
    pub available: Option<Bytes>,
    /// What it left behind.
    pub left: Vec<String>,
    /// What it has to do with GPUs; `None`: nothing that we know of.
    pub gpu: Option<Held>,
    /// Why it could not be started.
    pub error: Option<String>,
    details: File,
    pipe: OwnedFd,
    /// Until it has been started.
    streams: Option<Streams>,
}

/// What the child is given.
pub struct Streams {
    /// Standard output and error.
    pub output: File,
    /// For the whole text of failures.
    pub details: File,
    /// For what happens.
    pub beats: OwnedFd,
}

impl Slot {
    /// Opens everything. Files lie in `dir` and are named after `number` and `name`.
    pub fn open(
        dir: &Path,
        number: u64,
        name: &str,
        case: usize,
        attempt: u32,
        now: Instant,
    ) -> io::Result<Slot> {
        let stem = format!("{number:04}-{}", readable(name));
        let log = dir.join(format!("{stem}.log"));
        let details = nameless(&dir.join(format!("{stem}.details")))?;
        let (pipe, beats) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&pipe, true)?;
        let streams = Streams { output: create(&log)?, details: details.try_clone()?, beats };
        Ok(Slot {
            case,
            attempt,
            id: number,
            standby: None,
            began: now,
            limit: None,
            beats: Beats::default(),
            isolation: "spawn",
            log,
            available: None,
            left: Vec::new(),
            gpu: None,
            error: None,
            details,
            pipe,
            streams: Some(streams),
        })
    }

    /// What the child is to be given; only once.
    pub fn take_streams(&mut self) -> Option<Streams> {
        self.streams.take()
    }

    /// The child could not be started with them.
    pub fn put_back(&mut self, streams: Streams) {
        self.streams = Some(streams);
    }

    /// Reads what has come; whether more can come.
    pub fn listen(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        loop {
            match rustix::io::read(&self.pipe, &mut buffer) {
                Ok(0) => return false,
                Ok(count) => self.beats.take(&buffer[..count]),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
    }

    /// The texts of failures.
    pub fn details(&self) -> String {
        let mut text = vec![0; self.details.metadata().map_or(0, |file| file.len() as usize)];
        let whole = self.details.read_exact_at(&mut text, 0).is_ok();
        if whole { String::from_utf8_lossy(&text).into_owned() } else { String::new() }
    }
}

impl AsFd for Slot {
    /// Readable when it has told something.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

/// A file that nobody else finds, and that is gone with us.
fn nameless(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).append(true).create_new(true).mode(0o600);
    options.open(path)
}

/// Letters, digits, `.`, `-` and `_`, from its end: the file's own name says more than its folders.
fn readable(name: &str) -> String {
    let safe =
        |letter: char| if letter.is_ascii_alphanumeric() || "._-".contains(letter) { letter } else { '-' };
    let skip = name.chars().count().saturating_sub(80);
    name.chars().skip(skip).map(safe).collect()
}
