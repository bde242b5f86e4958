//! Files in `/dev/shm` that a process has open or mapped: memory that no resident set shows where it is only written.
//!
//! Touches the directory's `statfs` and `/proc/PID/{fd,maps}`. Never opens such a file, never allocates after `open`.

use std::os::fd::OwnedFd;
use std::path::Path;

use oomguard_core::Bytes;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, Stat, fstat, fstatfs, openat, statat};

use super::error::{Error, Result};
use super::kept::buffer;
use super::procfs::Procfs;
use super::shm::{FileId, mapped_file};

/// Files of one process that are told apart; beyond, one that is open twice may count twice.
const MOST: usize = 64;

/// An open `/dev/shm`.
#[derive(Debug)]
pub(crate) struct OpenShm {
    dir: OwnedFd,
    device: u64,
}

impl OpenShm {
    /// Opens the directory. An error if there is none, or none in memory of its own (then nothing can be told apart).
    pub(crate) fn open(path: &Path) -> Result<OpenShm> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let failed = |errno| Error::file("open", path, errno);
        let dir = openat(CWD, path, flags, Mode::empty()).map_err(failed)?;
        let device = fstat(&dir).map_err(failed)?.st_dev;
        Ok(OpenShm { dir, device })
    }

    /// All that lies in it. One system call.
    pub(crate) fn used(&self) -> Bytes {
        fstatfs(&self.dir).map_or(Bytes::ZERO, |fs| {
            let used = fs.f_blocks.saturating_sub(fs.f_bfree);
            Bytes(used.saturating_mul(fs.f_bsize as u64))
        })
    }

    /// What the files hold that a process has open: two system calls a descriptor.
    pub(crate) fn held_open(&self, proc: &Procfs, pid: u32) -> Bytes {
        let (mut seen, mut count, mut held) = ([0u64; MOST], 0usize, Bytes::ZERO);
        self.each_open(proc, pid, |stat| {
            if !seen[..count.min(MOST)].contains(&stat.st_ino) {
                seen[count % MOST] = stat.st_ino;
                count += 1;
                held = held.plus(Bytes((stat.st_blocks as u64).saturating_mul(512)));
            }
        });
        held
    }

    /// Adds the files that a process has open or mapped, each once. Reads its whole `maps`: 50 us and more.
    pub(crate) fn used_by(&self, proc: &Procfs, pid: u32, used: &mut Vec<FileId>) {
        let mut add = |id: FileId| {
            if id.dev == self.device && used.len() < used.capacity() && !used.contains(&id) {
                used.push(id);
            }
        };
        self.each_open(proc, pid, |stat| add(FileId { dev: stat.st_dev, ino: stat.st_ino }));
        proc.each_line(pid, "maps", |line| {
            if let Some(id) = mapped_file(line) {
                add(id);
            }
        });
    }

    fn each_open(&self, proc: &Procfs, pid: u32, mut each: impl FnMut(&Stat)) {
        let Ok(dir) = proc.open_dir(pid, "fd") else { return };
        let mut space = buffer::<2048>();
        let mut entries = RawDir::new(&dir, &mut space);
        while let Some(Ok(entry)) = entries.next() {
            if let Ok(stat) = statat(&dir, entry.file_name(), AtFlags::empty())
                && stat.st_dev == self.device
                && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            {
                each(&stat);
            }
        }
    }
}
