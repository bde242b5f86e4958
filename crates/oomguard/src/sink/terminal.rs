//! Lines for a terminal or a pipe that somebody reads at their own pace.
//!
//! Writes only what is taken at once and keeps a bounded rest: a stopped terminal (Ctrl-S) or a reader that has
//! gone to sleep never stops the guard. It never changes the stream's flags, which others share.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// What is kept for a reader that does not read; more is dropped and counted.
const KEPT: usize = 1 << 20;
/// A pipe that says it is ready takes this much without blocking (`PIPE_BUF`).
const AT_ONCE: usize = 4096;

/// What passes.
const FOR_LATER: [io::ErrorKind; 3] =
    [io::ErrorKind::WouldBlock, io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];

/// A stream with the text that it has not taken yet.
#[derive(Debug)]
pub struct Terminal {
    stream: Option<File>,
    waiting: VecDeque<u8>,
    lost: u64,
}

impl Terminal {
    /// Standard output.
    pub fn out() -> Terminal {
        Terminal::over(duplicate(&io::stdout()))
    }

    /// Standard error.
    pub fn err() -> Terminal {
        Terminal::over(duplicate(&io::stderr()))
    }

    /// Any stream; `None` throws everything away.
    pub fn over(stream: Option<File>) -> Terminal {
        Terminal { stream, waiting: VecDeque::new(), lost: 0 }
    }

    /// Writes `text`, which ends in a line feed, or keeps it for later.
    pub fn write(&mut self, text: &str) {
        self.flush(Duration::ZERO);
        if self.waiting.len().saturating_add(text.len()) > KEPT {
            self.lost += 1;
            return;
        }
        if self.lost > 0 {
            let lost = std::mem::take(&mut self.lost);
            self.waiting.extend(format!("({lost} lines were lost here)\n").bytes());
        }
        self.waiting.extend(text.bytes());
        self.flush(Duration::ZERO);
    }

    /// Writes what is waiting, for `patience` at most.
    pub fn flush(&mut self, patience: Duration) {
        let Some(stream) = &mut self.stream else { return self.waiting.clear() };
        let end = Instant::now() + patience;
        while !self.waiting.is_empty() && ready(stream, end.saturating_duration_since(Instant::now())) {
            let (front, _) = self.waiting.as_slices();
            match stream.write(&front[..front.len().min(AT_ONCE)]) {
                Ok(0) => return,
                Ok(count) => drop(self.waiting.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A file whose disk is full may have room again: kept like what a sleeping reader does not take.
                Err(error) if FOR_LATER.contains(&error.kind()) => return,
                // Nobody reads any more.
                Err(_) => return self.waiting.clear(),
            }
        }
    }
}

#[cfg(unix)]
fn duplicate(stream: &impl std::os::fd::AsFd) -> Option<File> {
    stream.as_fd().try_clone_to_owned().ok().map(File::from)
}

#[cfg(windows)]
fn duplicate(stream: &impl std::os::windows::io::AsHandle) -> Option<File> {
    stream.as_handle().try_clone_to_owned().ok().map(File::from)
}

#[cfg(unix)]
fn ready(stream: &File, patience: Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let patience =
        Timespec { tv_sec: patience.as_secs().cast_signed(), tv_nsec: patience.subsec_nanos().into() };
    matches!(poll(&mut [PollFd::new(stream, PollFlags::OUT)], Some(&patience)), Ok(1..))
}

#[cfg(not(unix))]
fn ready(_: &File, _: Duration) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn pipe() -> (Terminal, io::PipeReader) {
        let (read, write) = io::pipe().unwrap();
        (Terminal::over(Some(File::from(std::os::fd::OwnedFd::from(write)))), read)
    }

    #[test]
    fn a_sleeping_reader_costs_lines_and_no_time() {
        let (mut terminal, mut reader) = pipe();
        let line = format!("{}\n", "x".repeat(999));
        for _ in 0..2000 {
            terminal.write(&line);
        }
        assert!(terminal.waiting.len() <= KEPT);
        assert!(terminal.lost > 0);

        let wanted = std::thread::spawn(move || {
            let mut all = String::new();
            reader.read_to_string(&mut all).map(|_| all)
        });
        terminal.flush(Duration::from_secs(10));
        terminal.write("last\n");
        terminal.flush(Duration::from_secs(10));
        drop(terminal);
        let all = wanted.join().unwrap().unwrap();
        assert!(
            all.lines()
                .all(|line| line.len() == 999 || line == "last" || line.contains("lines were lost here"))
        );
        assert!(all.ends_with("last\n"));
    }

    #[test]
    fn a_full_disk_keeps_the_lines_until_there_is_room() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut terminal = Terminal::over(Some(full));
        terminal.write("one\n");
        terminal.write("two\n");
        let room = tempfile::NamedTempFile::new().unwrap();
        terminal.stream = Some(room.reopen().unwrap());
        terminal.write("three\n");
        assert_eq!(std::fs::read_to_string(room.path()).unwrap(), "one\ntwo\nthree\n");
    }

    #[test]
    fn a_reader_that_is_gone_does_not_matter() {
        let (mut terminal, reader) = pipe();
        drop(reader);
        terminal.write("x\n");
        assert!(terminal.waiting.is_empty());
    }
}
