//! Shared-memory files in `/dev/shm` that outlive the job that made them: they hold memory that no kill gives back.
//!
//! Touches the directory, and `/proc/PID/{fd,maps}` of every process when orphans are looked for. Never removes a
//! file that a living process has open or mapped, that may be in use by somebody we cannot see, or that is not the
//! file (device and inode) that was found to be an orphan.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use oomguard_core::Bytes;
use rustix::fs::{AtFlags, CWD, FileType, Stat, statat};

use super::error::{Error, Result};
use super::procfs::Procfs;
use super::text;

/// A file, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
}

/// One file of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShmFile {
    /// Its name in the directory.
    pub name: OsString,
    /// Device and inode.
    pub id: FileId,
    /// Memory that it holds.
    pub allocated: Bytes,
    /// Its owner.
    pub uid: u32,
    /// Last change of its inode; tmpfs keeps no time of birth.
    pub ctime: SystemTime,
    /// Whether others than its owner (and root) may open it.
    pub open_to_others: bool,
}

/// The files in a directory at one moment.
#[derive(Clone, Debug)]
pub struct Scan {
    dir: PathBuf,
    files: Vec<ShmFile>,
}

/// Why a file is taken for the job's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The job was seen to have it open or mapped.
    Seen,
    /// It belongs to the job's user and was changed since the job's start; somebody else of the same user may have
    /// put it there, to be used later.
    CreatedSince,
}

/// A file whose job is gone and that nobody uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// Its path.
    pub path: PathBuf,
    /// The file.
    pub file: ShmFile,
    /// Why it is taken for the job's.
    pub evidence: Evidence,
}

impl Scan {
    /// Lists `/dev/shm`: one `stat` a file.
    pub fn new() -> Result<Scan> {
        Scan::of(Path::new("/dev/shm"))
    }
    /// Lists the regular files directly in a directory.
    pub fn of(dir: &Path) -> Result<Scan> {
        let entries = std::fs::read_dir(dir).map_err(|e| Error::io("list", dir, &e))?;
        let mut files: Vec<ShmFile> = entries
            .flatten()
            .filter_map(|entry| {
                let stat = statat(CWD, entry.path(), AtFlags::SYMLINK_NOFOLLOW).ok()?;
                let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
                regular.then(|| ShmFile::new(entry.file_name(), &stat))
            })
            .collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Scan { dir: dir.to_owned(), files })
    }
    /// The files.
    pub fn files(&self) -> &[ShmFile] {
        &self.files
    }
    /// Memory that all of them hold.
    pub fn allocated(&self) -> Bytes {
        self.files.iter().map(|f| f.allocated).fold(Bytes::ZERO, Bytes::plus)
    }
    /// Which of them these processes have open or mapped now. Reads the descriptors and mappings of each: 50 us and
    /// more a process. Those that are gone or not ours to ask add nothing.
    pub fn used_by(&self, pids: &[u32]) -> Result<Vec<FileId>> {
        let mut used = BTreeSet::new();
        for pid in pids {
            self.add_used(Path::new("/proc"), *pid, &mut used);
        }
        Ok(used.into_iter().collect())
    }

    /// Adds what one process uses; whether it could be asked.
    fn add_used(&self, proc_root: &Path, pid: u32, used: &mut BTreeSet<FileId>) -> bool {
        let here = |id: &FileId| self.files.iter().any(|file| file.id == *id);
        let process = proc_root.join(pid.to_string());
        let Ok(fds) = std::fs::read_dir(process.join("fd")) else { return false };
        for fd in fds.flatten() {
            if let Ok(stat) = statat(CWD, fd.path(), AtFlags::empty()) {
                used.extend(Some(FileId::of(&stat)).filter(here));
            }
        }
        let Ok(maps) = std::fs::read(process.join("maps")) else { return false };
        used.extend(text::lines(&maps).filter_map(mapped_file).filter(here));
        true
    }
}

/// `from-to perms offset major:minor inode path`.
pub(super) fn mapped_file(line: &[u8]) -> Option<FileId> {
    let mut words = line.split(|b| *b == b' ').skip(3);
    let device = std::str::from_utf8(words.next()?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let number = |text| u32::from_str_radix(text, 16).ok();
    let dev = rustix::fs::makedev(number(major)?, number(minor)?);
    let (ino, _) = text::leading(words.next()?)?;
    (ino != 0).then_some(FileId { dev, ino })
}

impl FileId {
    fn of(stat: &Stat) -> FileId {
        FileId { dev: stat.st_dev, ino: stat.st_ino }
    }
}

impl ShmFile {
    fn new(name: OsString, stat: &Stat) -> ShmFile {
        let seconds = Duration::from_secs(u64::try_from(stat.st_ctime).unwrap_or(0));
        let ctime = SystemTime::UNIX_EPOCH + seconds + Duration::from_nanos(stat.st_ctime_nsec);
        ShmFile {
            name,
            id: FileId::of(stat),
            allocated: Bytes((stat.st_blocks as u64).saturating_mul(512)),
            uid: stat.st_uid,
            ctime,
            open_to_others: stat.st_mode & 0o066 != 0,
        }
    }
}

/// The job's files that nobody uses any more: those that it was `seen` to use, and those of `uid` that were changed
/// since `started` (see [`Evidence`]). Nothing at all until the job is gone.
///
/// Looks at the descriptors and mappings of every process: a millisecond or more; not for the critical moment.
/// Where a living process cannot be asked, files that it could open are left alone: without privileges only files
/// with mode 0600 are ever orphans.
pub fn orphans(seen: &[FileId], started: SystemTime, uid: u32, job_gone: bool) -> Result<Vec<Orphan>> {
    if !job_gone {
        return Ok(Vec::new());
    }
    orphans_in(&Scan::new()?, Path::new("/proc"), seen, started, uid)
}

/// The same for another directory and procfs.
pub fn orphans_in(
    scan: &Scan,
    proc_root: &Path,
    seen: &[FileId],
    started: SystemTime,
    uid: u32,
) -> Result<Vec<Orphan>> {
    let evidence = |file: &ShmFile| match file {
        file if seen.contains(&file.id) => Some(Evidence::Seen),
        file if file.uid == uid && file.ctime >= started => Some(Evidence::CreatedSince),
        _ => None,
    };
    let mut found: Vec<Orphan> = scan
        .files
        .iter()
        .filter_map(|file| {
            let evidence = evidence(file)?;
            Some(Orphan { path: scan.dir.join(&file.name), file: file.clone(), evidence })
        })
        .collect();
    if found.is_empty() {
        return Ok(found);
    }
    let (mut used, mut unseen) = (BTreeSet::new(), BTreeSet::new());
    let proc = Procfs::open(proc_root)?;
    let mut pids = Vec::new();
    // The machine's init holds no shared memory of others, and may not be asked even by root.
    proc.each_pid(|pid| {
        if pid != 1 {
            pids.push(pid)
        }
    })?;
    for pid in pids {
        if !scan.add_used(proc_root, pid, &mut used)
            && proc.stat(pid).is_some_and(|stat| !stat.is_dead())
            && let Ok(stat) = statat(CWD, proc_root.join(pid.to_string()), AtFlags::empty())
        {
            unseen.insert(stat.st_uid);
        }
    }
    // Root can open everything, but root's own daemons do not use other people's files by name; a process of the
    // file's owner that hides (not dumpable) might.
    let hidden = |file: &ShmFile| unseen.contains(&file.uid) || (file.open_to_others && !unseen.is_empty());
    found.retain(|orphan| !used.contains(&orphan.file.id) && !hidden(&orphan.file));
    Ok(found)
}

/// Removes an orphan, if its name still is that file's; whether it was removed.
pub fn remove(orphan: &Orphan) -> Result<bool> {
    let path = &orphan.path;
    match statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileId::of(&stat) == orphan.file.id => {}
        Ok(_) | Err(rustix::io::Errno::NOENT) => return Ok(false),
        Err(errno) => return Err(Error::file("look at", path, errno)),
    }
    match rustix::fs::unlink(path) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(errno) => Err(Error::file("remove", path, errno)),
    }
}
