//! `/proc/PID/*`: which processes there are and what they say about themselves.
//!
//! Touches the procfs it was opened on. Never allocates except where a `Vec` is passed in, and never assumes that
//! a pid still names the process it named a moment ago: see [`super::process`] for that.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, RawDir, openat};
use rustix::io::Errno;

use super::error::{Error, Result};
use super::kept::buffer;
use super::text::{self, Line};

/// An open procfs.
#[derive(Debug)]
pub(crate) struct Procfs {
    dir: OwnedFd,
    path: Arc<Path>,
}

/// What `/proc/PID/stat` says that we need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) state: u8,
    pub(crate) parent: u32,
    /// Clock ticks since boot.
    pub(crate) start: u64,
}

impl Stat {
    /// Dead, even if nobody has asked for its exit code yet.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }

    /// Parses the line. The name in it may hold blanks, parentheses and newlines.
    pub(crate) fn parse(line: &[u8]) -> Option<Stat> {
        let after_name = line.iter().rposition(|b| *b == b')')? + 1;
        let mut words = line.get(after_name..)?.trim_ascii_start().split(|b| *b == b' ');
        let state = *words.next()?.first()?;
        let (parent, _) = text::leading(words.next()?)?;
        // Field 22 of the line; fields 3 (state) and 4 (parent) are gone already. The last word of a line that
        // was cut short could be a shorter number, so another one must follow.
        let (start, _) = text::leading(words.nth(17)?)?;
        words.next()?;
        Some(Stat { state, parent: u32::try_from(parent).ok()?, start })
    }
}

impl Procfs {
    /// Opens the procfs at `root`.
    pub(crate) fn open(root: &Path) -> Result<Procfs> {
        let dir = openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| Error::file("open", root, errno))?;
        Ok(Procfs { dir, path: Arc::from(root) })
    }

    /// An error about the directory as a whole.
    fn error(&self, doing: &'static str, errno: Errno) -> Error {
        Error::File { doing, path: Arc::clone(&self.path), errno }
    }

    /// Calls `each` with every process id. One `getdents` per 100 or so processes, no allocation.
    pub(crate) fn each_pid(&self, mut each: impl FnMut(u32)) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(&self.dir, c".", flags, Mode::empty()).map_err(|errno| self.error("list", errno))?;
        let mut space = buffer::<8192>();
        let mut entries = RawDir::new(dir, &mut space);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(|errno| self.error("list", errno))?;
            if let Some((pid, b"")) = text::leading(entry.file_name().to_bytes())
                && let Ok(pid) = u32::try_from(pid)
            {
                each(pid);
            }
        }
        Ok(())
    }

    /// Opens one file of one process.
    pub(crate) fn open_file(&self, pid: u32, file: &str) -> rustix::io::Result<OwnedFd> {
        self.open_with(pid, file, OFlags::RDONLY | OFlags::CLOEXEC)
    }

    fn open_with(&self, pid: u32, file: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let name = Line::<48>::new().number(u64::from(pid)).text(b"/").text(file.as_bytes()).text(b"\0");
        let name = name.bytes().and_then(|b| std::ffi::CStr::from_bytes_with_nul(b).ok());
        openat(&self.dir, name.ok_or(Errno::NAMETOOLONG)?, flags, Mode::empty())
    }

    /// Opens one folder of one process.
    pub(crate) fn open_dir(&self, pid: u32, folder: &str) -> rustix::io::Result<OwnedFd> {
        self.open_with(pid, folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC)
    }

    /// Calls `each` with every line of one file of one process; one that is longer than 4 KiB in pieces. No allocation.
    pub(crate) fn each_line(&self, pid: u32, file: &str, mut each: impl FnMut(&[u8])) {
        let Ok(fd) = self.open_file(pid, file) else { return };
        let (mut space, mut kept) = ([0u8; 4096], 0);
        while let Ok(read) = rustix::io::read(&fd, &mut space[kept..]) {
            let full = kept + read;
            let whole = match space[..full].iter().rposition(|b| *b == b'\n') {
                Some(end) if read > 0 => end + 1,
                _ => full,
            };
            text::lines(&space[..whole]).for_each(&mut each);
            if read == 0 {
                return;
            }
            space.copy_within(whole..full, 0);
            kept = full - whole;
        }
    }

    /// Reads the beginning of one file of one process into `space`: open, one read, close.
    pub(crate) fn read<'b>(
        &self,
        pid: u32,
        file: &str,
        space: &'b mut [std::mem::MaybeUninit<u8>],
    ) -> rustix::io::Result<&'b [u8]> {
        let fd = self.open_file(pid, file)?;
        let (bytes, _) = rustix::io::read(&fd, space)?;
        Ok(bytes)
    }

    /// Adds all of one file of one process to `text`.
    pub(crate) fn read_all(&self, pid: u32, file: &str, text: &mut Vec<u8>) -> std::io::Result<()> {
        use std::io::Read as _;
        std::fs::File::from(self.open_file(pid, file)?).read_to_end(text)?;
        Ok(())
    }

    /// `/proc/PID/stat`: open, read, close; 5 us. `None`: there is no such process (any more).
    pub(crate) fn stat(&self, pid: u32) -> Option<Stat> {
        Stat::parse(self.read(pid, "stat", &mut buffer::<1024>()).ok()?)
    }

    /// The short name of a process, without allocating for its bytes beyond the string itself.
    pub(crate) fn comm(&self, pid: u32) -> Option<String> {
        let mut space = buffer::<64>();
        let bytes = self.read(pid, "comm", &mut space).ok()?;
        Some(String::from_utf8_lossy(bytes.trim_ascii_end()).into_owned())
    }

    /// The parent, its parent and so on up to 1; `pid` itself first.
    pub(crate) fn lineage(&self, pid: u32) -> Vec<u32> {
        let mut line = vec![pid];
        while let Some(stat) = line.last().and_then(|pid| self.stat(*pid)) {
            if stat.parent == 0 || line.contains(&stat.parent) {
                break;
            }
            line.push(stat.parent);
        }
        line
    }
}

/// Bytes in RAM that `statm` speaks of (its second number, in pages).
pub(crate) fn resident(statm: &[u8], page_size: u64) -> Option<u64> {
    let (_, rest) = text::leading(statm)?;
    let (pages, rest) = text::leading(rest)?;
    rest.starts_with(b" ").then(|| pages.saturating_mul(page_size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_process_name_does_not_confuse_the_parser() {
        let line = b"42 (a) R 1 (b\n) S 7 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 5150 1000 2 1844\n";
        assert_eq!(Stat::parse(line), Some(Stat { state: b'S', parent: 7, start: 5150 }));
    }

    #[test]
    fn a_line_cut_short_is_not_believed() {
        assert_eq!(Stat::parse(b"42 (a) S 7 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 51"), None);
        assert_eq!(Stat::parse(b"42 (a) S"), None);
        assert_eq!(Stat::parse(b"garbage"), None);
        assert_eq!(Stat::parse(b""), None);
        assert_eq!(resident(b"100 20", 4096), None);
        assert_eq!(resident(b"100 20 3 1 0 40 0\n", 4096), Some(81920));
    }

    #[test]
    fn our_own_lineage_ends_at_the_first_process() {
        let proc = Procfs::open(Path::new("/proc")).unwrap();
        let line = proc.lineage(std::process::id());
        assert_eq!(line[0], std::process::id());
        assert_eq!(line[1], rustix::process::getppid().unwrap().as_raw_nonzero().get() as u32);
    }
}
