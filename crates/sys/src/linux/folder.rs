//! Files by way of their folder, found step by step: no link that a stranger has put on the way is followed.
//!
//! Touches the folders on the way (`O_PATH`, one `openat` and one `fstat` a step) and the files that it is asked for.
//! A link counts if it is root's or our own, wherever it lies; the kernel's `fs.protected_symlinks` looks at sticky
//! folders only. Never waits in an `open` (a FIFO in a file's place is refused), never writes through a link in a
//! file's place, and never writes into a file that was there before where a new one is asked for.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, fstat, mkdirat, openat, readlinkat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

/// As the kernel counts.
const MOST_LINKS: u32 = 40;
/// The owner, as we see it, of what belongs to nobody in our user namespace.
const UNMAPPED: u32 = 65_534;

/// An open folder.
#[derive(Debug)]
pub struct Folder {
    dir: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// Opens the folder at `path`. A stranger's link on the way is `PermissionDenied`, and the error names it.
    pub fn open(path: &Path) -> io::Result<Folder> {
        Walk { made: None, private: false }.folder(path)
    }

    /// The same, and makes with `mode` (less the umask) whatever of it is missing.
    pub fn make(path: &Path, mode: u32) -> io::Result<Folder> {
        Walk { made: Some(Mode::from_raw_mode(mode)), private: false }.folder(path)
    }

    /// A folder of ours with mode 0700, made if it is missing, in which nobody else can put another one's place: each
    /// folder on the way is root's or our own, and not writable by everybody unless sticky. What its group may write
    /// counts as safe.
    pub fn make_private(path: &Path) -> io::Result<Folder> {
        let refuse = |why: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        let (parent, name) = parts(path)?;
        let parent = Walk { made: Some(Mode::from_raw_mode(0o755)), private: true }.folder(parent)?;
        match mkdirat(&parent.dir, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = match openat(&parent.dir, name, flags, Mode::empty()) {
            Ok(dir) => dir,
            Err(Errno::LOOP | Errno::NOTDIR) => {
                let stat = statat(&parent.dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                let link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
                return refuse(
                    if link { "it is a symbolic link" } else { "it is not a directory" }.to_owned(),
                );
            }
            Err(Errno::ACCESS) => return refuse("it belongs to another user".to_owned()),
            Err(errno) => return Err(errno.into()),
        };
        let stat = fstat(&dir)?;
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            return refuse(format!("it belongs to user {}", stat.st_uid));
        }
        if stat.st_mode & 0o077 != 0 {
            rustix::fs::fchmod(&dir, Mode::RWXU)?;
        }
        Ok(Folder { dir, path: path.to_owned() })
    }

    /// Opens a regular file for appending, made with `mode` if it is missing.
    pub fn append(&self, name: &OsStr, mode: u32) -> io::Result<File> {
        self.file(name, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE, mode)
    }

    /// Makes a file that was not there before (`AlreadyExists` if something was, a link included).
    pub fn create(&self, name: &OsStr, mode: u32) -> io::Result<File> {
        self.file(name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, mode)
    }

    /// Puts `bytes` in the place of `name`, whole or not at all. Meanwhile they lie beside it, as `.NAME.PID`.
    pub fn replace(&self, name: &OsStr, bytes: &[u8], mode: u32) -> io::Result<()> {
        let beside = self.beside(name, bytes, mode)?;
        let put = renameat(&self.dir, &beside, &self.dir, name);
        if put.is_err() {
            // The name is ours alone; if it cannot be removed the next one does.
            let _ = unlinkat(&self.dir, &beside, AtFlags::empty());
        }
        put.map_err(io::Error::from)
    }

    /// Whether [`Folder::replace`] has a chance: an empty file is made beside `name` and removed.
    pub fn can_replace(&self, name: &OsStr) -> io::Result<()> {
        let beside = self.beside(name, b"", 0o600)?;
        unlinkat(&self.dir, &beside, AtFlags::empty()).map_err(io::Error::from)
    }

    /// A new file with these bytes, under a name of its own.
    fn beside(&self, name: &OsStr, bytes: &[u8], mode: u32) -> io::Result<OsString> {
        let mut beside = OsString::from(".");
        beside.push(name);
        beside.push(format!(".{}", std::process::id()));
        let made = match self.create(&beside, mode) {
            // A dead one of our number left it there, or somebody who can guess names: it is not written to.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                unlinkat(&self.dir, &beside, AtFlags::empty())?;
                self.create(&beside, mode)
            }
            made => made,
        };
        if let Err(error) = made.and_then(|mut file| file.write_all(bytes)) {
            let _ = unlinkat(&self.dir, &beside, AtFlags::empty());
            return Err(error);
        }
        Ok(beside)
    }

    /// Gives a file of this folder another name in it.
    pub fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        renameat(&self.dir, from, &self.dir, to).map_err(io::Error::from)
    }

    /// Removes a file.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        unlinkat(&self.dir, name, AtFlags::empty()).map_err(io::Error::from)
    }

    fn file(&self, name: &OsStr, flags: OFlags, mode: u32) -> io::Result<File> {
        // Without `NONBLOCK` a FIFO would keep us until somebody reads it. Regular files do not know the flag.
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let strange = |why: &str| {
            let path = self.path.join(name);
            io::Error::new(io::ErrorKind::PermissionDenied, format!("`{}` is {why}", path.display()))
        };
        let file = match openat(&self.dir, name, flags, Mode::from_raw_mode(mode)) {
            Ok(file) => File::from(file),
            Err(Errno::LOOP) => return Err(strange("a symbolic link")),
            // A FIFO that nobody reads, a socket.
            Err(Errno::NXIO) => return Err(strange("not a regular file")),
            Err(errno) => return Err(errno.into()),
        };
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(strange("not a regular file")),
        }
    }
}

/// Opens a regular file for reading; a link in its place counts as on the way.
pub fn open(path: &Path) -> io::Result<File> {
    let (folder, name) = Walk { made: None, private: false }.last(path)?;
    folder.file(&name, OFlags::RDONLY, 0)
}

/// Reads a file of at most `most` bytes; a longer one is `FileTooLarge`, whatever it grows to meanwhile.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        false => Ok(bytes),
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {most} bytes"))),
    }
}

/// A path's folder and the name in it.
pub fn parts(path: &Path) -> io::Result<(&Path, &OsStr)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok((parent.unwrap_or(Path::new(".")), name))
}

/// Whether only root and we ourselves can change the file at `path` or put another one in its place. The error says
/// who else can.
pub fn is_safe(path: &Path) -> io::Result<()> {
    let (folder, name) = Walk { made: None, private: true }.last(path)?;
    let stat = statat(&folder.dir, &name, AtFlags::SYMLINK_NOFOLLOW)?;
    check_hands(&stat, &folder.path.join(&name), 0o022)
}

/// How a path is walked.
struct Walk {
    /// Missing folders are made, with this mode.
    made: Option<Mode>,
    /// Folders that others could change are refused, not only their links.
    private: bool,
}

impl Walk {
    fn folder(&self, path: &Path) -> io::Result<Folder> {
        self.walk(path, false).map(|(folder, _)| folder)
    }

    /// The folder of what is at the end of `path`, and its name there, once no link is left.
    fn last(&self, path: &Path) -> io::Result<(Folder, OsString)> {
        let (folder, name) = self.walk(path, true)?;
        name.map(|name| (folder, name)).ok_or_else(|| io::ErrorKind::IsADirectory.into())
    }

    fn walk(&self, path: &Path, keep_last: bool) -> io::Result<(Folder, Option<OsString>)> {
        let absolute = std::path::absolute(path)?;
        let mut steps = steps(&absolute);
        let mut at = root()?;
        self.check(&at)?;
        let mut links = 0;
        while let Some(step) = steps.pop() {
            let next = match self.step(&at, &step) {
                Err(Errno::NOENT) if keep_last && steps.is_empty() => return Ok((at, Some(step))),
                next => next?,
            };
            let stat = fstat(&next)?;
            let path = at.path.join(&step);
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => at = Folder { dir: next, path },
                FileType::Symlink => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    if !is_trusted(stat.st_uid) {
                        let why = format!("`{}` is a link of user {}", path.display(), stat.st_uid);
                        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
                    }
                    let target = readlinkat(&next, "", Vec::new())?;
                    let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                    if target.is_absolute() {
                        at = root()?;
                    }
                    steps.extend(self::steps(&target));
                    continue;
                }
                _ if keep_last && steps.is_empty() => return Ok((at, Some(step))),
                _ => return Err(Errno::NOTDIR.into()),
            }
            self.check(&at)?;
        }
        Ok((at, None))
    }

    fn step(&self, at: &Folder, step: &OsStr) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match (openat(&at.dir, step, flags, Mode::empty()), self.made) {
            (Err(Errno::NOENT), Some(mode)) => {
                match mkdirat(&at.dir, step, mode) {
                    // Somebody else was quicker: that is as good.
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno),
                }
                openat(&at.dir, step, flags, Mode::empty())
            }
            (opened, _) => opened,
        }
    }

    fn check(&self, at: &Folder) -> io::Result<()> {
        if !self.private {
            return Ok(());
        }
        let stat = fstat(&at.dir)?;
        let sticky = stat.st_mode & Mode::SVTX.bits() != 0;
        check_hands(&stat, &at.path, if sticky { 0 } else { 0o002 })
    }
}

/// Refuses what is a stranger's, or what others can write by any bit of `writable`.
fn check_hands(stat: &Stat, path: &Path, writable: u32) -> io::Result<()> {
    let shown = path.display();
    let why = match stat {
        stat if !is_trusted(stat.st_uid) => format!("`{shown}` belongs to user {}", stat.st_uid),
        stat if stat.st_mode & writable != 0 => format!("others can write to `{shown}`"),
        _ => return Ok(()),
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

/// Root's, our own, or of nobody who could act here: in a user namespace of its own (`unshare -r`) root's files are.
fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw() || (uid == UNMAPPED && !is_somebody(UNMAPPED))
}

/// Whether our user namespace has that user. Where it cannot be asked, it has.
fn is_somebody(uid: u32) -> bool {
    let Ok(map) = std::fs::read_to_string("/proc/self/uid_map") else { return true };
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map_while(|word| word.parse::<u64>().ok());
        let (first, count) = (numbers.next(), numbers.nth(1));
        let of = |first: u64, count| (first..first.saturating_add(count)).contains(&u64::from(uid));
        first.zip(count).is_some_and(|(first, count)| of(first, count))
    })
}

fn root() -> io::Result<Folder> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(Folder { dir: rustix::fs::open("/", flags, Mode::empty())?, path: PathBuf::from("/") })
}

/// The steps of a path, the first one last.
fn steps(path: &Path) -> Vec<OsString> {
    let named = path.components().filter(|step| matches!(step, Component::Normal(_) | Component::ParentDir));
    let mut steps: Vec<_> = named.map(|step| step.as_os_str().to_owned()).collect();
    steps.reverse();
    steps
}
