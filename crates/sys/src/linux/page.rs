//! The page that a guard shares with a worker: what the worker should do, and how memory stands.
//!
//! A file of 4096 bytes, mode 0600, made with `O_EXCL` in a private directory, mapped by the guard for writing and
//! by the worker for reading. Every field is one naturally aligned atomic in native byte order; a reader needs one
//! load per field and no system call. Never removed by the reader, never grown, never reused.
//!
//! | offset | type | field |
//! | --- | --- | --- |
//! | 0 | u64 | magic `OOMGUARD` |
//! | 8 | u32 | version, 1 |
//! | 12 | u32 | stop: 0 go on, 1 prune at the next check, 2 stop and exit |
//! | 16 | u32 | level: 0 normal, 1 warning, 2 critical |
//! | 20 | u32 | relieve: goes up by one with every request to give back caches |
//! | 24 | u64 | available bytes on the host |
//! | 32 | u64 | beat: `CLOCK_MONOTONIC` ns of the last update |
//! | 40 | u32 | cause of the stop, see [`cause_code`]; 0 none |
//! | 44 | u32 | the guard's pid |
//! | 48 | u64 | the job's limit in bytes; `u64::MAX` none |
//! | 56 | u64 | the job's usage in bytes |
//! | 64 | u64 | reserve in bytes |
//! | 72 | u64 | warning threshold in bytes |
//! | 80 | u64 | total memory in bytes |
//! | 88 | u32 | bell: goes up by one when stop, relieve, level or vram has changed; a futex, so that a reader can wait for it |
//! | 92 | u32 | vram: 1 no driver tells what the job holds of GPUs, so it should; 0 no need |
//! | 96 | u64 | with cause vram: bytes that the job held of the GPU |
//! | 104 | u64 | ... and its limit there; `u64::MAX` none |
//! | 112 | 64 bytes | ... and the GPU's name, UTF-8, ends with the first zero |

use std::os::fd::OwnedFd;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use oomguard_core::{Bytes, Cause, Instant, Level};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::thread::futex;

use super::error::{Error, Result};

/// The size of the file.
pub const SIZE: usize = 4096;
/// The first eight bytes.
pub const MAGIC: u64 = u64::from_ne_bytes(*b"OOMGUARD");
/// The layout above.
pub const VERSION: u32 = 1;

/// The fields. All of them atomics, so that sharing them between processes is sound.
#[repr(C)]
struct Fields {
    magic: AtomicU64,
    version: AtomicU32,
    stop: AtomicU32,
    level: AtomicU32,
    relieve: AtomicU32,
    available: AtomicU64,
    beat: AtomicU64,
    cause: AtomicU32,
    guard: AtomicU32,
    limit: AtomicU64,
    usage: AtomicU64,
    reserve: AtomicU64,
    warning: AtomicU64,
    total: AtomicU64,
    bell: AtomicU32,
    vram: AtomicU32,
    gpu_usage: AtomicU64,
    gpu_limit: AtomicU64,
    gpu: [AtomicU64; 8],
}

const _: () = {
    assert!(std::mem::offset_of!(Fields, stop) == 12);
    assert!(std::mem::offset_of!(Fields, beat) == 32);
    assert!(std::mem::offset_of!(Fields, guard) == 44);
    assert!(std::mem::offset_of!(Fields, total) == 80);
    assert!(std::mem::offset_of!(Fields, bell) == 88);
    assert!(std::mem::offset_of!(Fields, vram) == 92);
    assert!(std::mem::offset_of!(Fields, gpu) == 112 && size_of::<Fields>() <= SIZE);
};

/// What the worker is asked to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Stop {
    /// Go on.
    #[default]
    GoOn = 0,
    /// Stop the present work at the next check.
    Prune = 1,
    /// Stop and exit.
    Terminate = 2,
}

/// The number that stands for a cause; 0 is none.
pub const fn cause_code(cause: Option<Cause>) -> u32 {
    match cause {
        None => 0,
        Some(Cause::Finished) => 1,
        Some(Cause::Crash) => 2,
        Some(Cause::StartFailed) => 3,
        Some(Cause::Limit) => 4,
        Some(Cause::Leak) => 5,
        Some(Cause::Reserve) => 6,
        Some(Cause::Vram) => 7,
        Some(Cause::Age) => 8,
        Some(Cause::Timeout) => 9,
        Some(Cause::Requested) => 10,
    }
}

/// The cause that a number stands for; `None` also for numbers of newer versions.
pub const fn from_code(code: u32) -> Option<Cause> {
    Some(match code {
        1 => Cause::Finished,
        2 => Cause::Crash,
        3 => Cause::StartFailed,
        4 => Cause::Limit,
        5 => Cause::Leak,
        6 => Cause::Reserve,
        7 => Cause::Vram,
        8 => Cause::Age,
        9 => Cause::Timeout,
        10 => Cause::Requested,
        _ => return None,
    })
}

/// A mapping of the file.
#[derive(Debug)]
struct Mapping(NonNull<Fields>);

// SAFETY: the fields are only ever accessed through atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(fd: &OwnedFd, protection: ProtFlags, path: &Path) -> Result<Mapping> {
        // SAFETY: a new mapping wherever the kernel likes, of a file that was checked to be that long.
        let page = unsafe { mmap(std::ptr::null_mut(), SIZE, protection, MapFlags::SHARED, fd, 0) }
            .map_err(|errno| Error::file("map", path, errno))?;
        NonNull::new(page.cast()).map(Mapping).ok_or_else(|| Error::file("map", path, Errno::NOMEM))
    }
    fn fields(&self) -> &Fields {
        // SAFETY: mapped and page-aligned as long as `self` lives; every bit pattern is a valid atomic.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this mapping is ours, and references to it cannot outlive it.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), SIZE) };
    }
}

/// The guard's side. Setters are single stores.
#[derive(Debug)]
pub struct Writer {
    map: Mapping,
}

impl Writer {
    /// Makes the file; an error with `EEXIST` if there is one, a link included.
    pub fn create(path: &Path) -> Result<Writer> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| Error::file("make", path, errno))?;
        // Really allocated, so that a full file system is an error now and not a SIGBUS later.
        match rustix::fs::fallocate(&fd, rustix::fs::FallocateFlags::empty(), 0, SIZE as u64) {
            Err(Errno::OPNOTSUPP) => rustix::fs::ftruncate(&fd, SIZE as u64),
            result => result,
        }
        .map_err(|errno| Error::file("enlarge", path, errno))?;
        let writer = Writer { map: Mapping::new(&fd, ProtFlags::READ | ProtFlags::WRITE, path)? };
        let fields = writer.map.fields();
        fields.guard.store(std::process::id(), Ordering::Relaxed);
        fields.limit.store(u64::MAX, Ordering::Relaxed);
        fields.version.store(VERSION, Ordering::Relaxed);
        fields.magic.store(MAGIC, Ordering::Release);
        Ok(writer)
    }
    /// Takes a page over that an earlier guard made and a worker still reads.
    pub fn reopen(path: &Path) -> Result<Writer> {
        let reader = Reader::open(path)?;
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| Error::file("open", path, errno))?;
        let writer = Writer { map: Mapping::new(&fd, ProtFlags::READ | ProtFlags::WRITE, path)? };
        drop(reader);
        writer.map.fields().guard.store(std::process::id(), Ordering::Relaxed);
        Ok(writer)
    }
    /// Asks the worker to stop, or takes that back. The cause is there before the request is seen.
    pub fn stop(&self, stop: Stop, cause: Option<Cause>) {
        self.map.fields().cause.store(cause_code(cause), Ordering::Relaxed);
        self.map.fields().stop.store(stop as u32, Ordering::Release);
        self.ring();
    }
    /// Which GPU the next request to stop is about, and what the job held and may hold of it.
    pub fn gpu(&self, name: &str, usage: Bytes, limit: Option<Bytes>) {
        let fields = self.map.fields();
        let mut bytes = [0; 64];
        let end = name.floor_char_boundary(bytes.len());
        bytes[..end].copy_from_slice(&name.as_bytes()[..end]);
        for (field, word) in fields.gpu.iter().zip(bytes.chunks_exact(8)) {
            field.store(u64::from_ne_bytes(word.try_into().unwrap_or_default()), Ordering::Relaxed);
        }
        fields.gpu_usage.store(usage.0, Ordering::Relaxed);
        fields.gpu_limit.store(limit.map_or(u64::MAX, |bytes| bytes.0), Ordering::Relaxed);
    }
    /// Asks the worker to give back caches.
    pub fn relieve(&self) {
        self.map.fields().relieve.fetch_add(1, Ordering::Release);
        self.ring();
    }
    /// Asks the worker to tell again and again what it holds of GPUs, or to be silent about it.
    pub fn ask_for_vram(&self, wanted: bool) {
        if self.map.fields().vram.swap(wanted.into(), Ordering::Relaxed) != u32::from(wanted) {
            self.ring();
        }
    }
    /// Wakes a reader that waits: one system call. A reader that cannot be woken looks once a second.
    fn ring(&self) {
        let bell = &self.map.fields().bell;
        bell.fetch_add(1, Ordering::Release);
        let _ = futex::wake(bell, futex::Flags::empty(), i32::MAX as u32);
    }
    /// How the host stands.
    pub fn host(&self, level: Level, available: Bytes, total: Bytes) {
        let fields = self.map.fields();
        let level = match level {
            Level::Normal => 0,
            Level::Warning => 1,
            Level::Critical => 2,
        };
        fields.available.store(available.0, Ordering::Relaxed);
        fields.total.store(total.0, Ordering::Relaxed);
        if fields.level.swap(level, Ordering::Relaxed) != level {
            self.ring();
        }
    }
    /// The thresholds.
    pub fn thresholds(&self, reserve: Bytes, warning: Bytes) {
        self.map.fields().reserve.store(reserve.0, Ordering::Relaxed);
        self.map.fields().warning.store(warning.0, Ordering::Relaxed);
    }
    /// What the job may use and does use.
    pub fn job(&self, limit: Option<Bytes>, usage: Bytes) {
        self.map.fields().limit.store(limit.map_or(u64::MAX, |bytes| bytes.0), Ordering::Relaxed);
        self.map.fields().usage.store(usage.0, Ordering::Relaxed);
    }
    /// Says that the guard lives, after everything else was stored.
    pub fn beat(&self, now: Instant) {
        self.map.fields().beat.store(now.0, Ordering::Release);
    }
}

/// The worker's side. Getters are single loads.
#[derive(Debug)]
pub struct Reader {
    map: Mapping,
}

impl Reader {
    /// Maps the file for reading, and refuses anything but a page of this version that belongs to us or to root.
    pub fn open(path: &Path) -> Result<Reader> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| Error::file("open", path, errno))?;
        let stat = rustix::fs::fstat(&fd).map_err(|errno| Error::file("look at", path, errno))?;
        let wrong = |what| Error::Malformed { path: path.into(), what };
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_size != SIZE as i64 {
            return Err(wrong("a page of 4096 bytes expected"));
        }
        if stat.st_uid != 0 && stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(wrong("it belongs to another user"));
        }
        let reader = Reader { map: Mapping::new(&fd, ProtFlags::READ, path)? };
        if reader.map.fields().magic.load(Ordering::Acquire) != MAGIC {
            return Err(wrong("it is not a page of oomguard"));
        }
        if reader.map.fields().version.load(Ordering::Relaxed) != VERSION {
            return Err(wrong("it is a page of another version of oomguard"));
        }
        Ok(reader)
    }
    /// What the worker is asked to do.
    pub fn stop(&self) -> Stop {
        match self.map.fields().stop.load(Ordering::Acquire) {
            0 => Stop::GoOn,
            1 => Stop::Prune,
            // Whatever a newer guard may mean by it, it is more than 1.
            _ => Stop::Terminate,
        }
    }
    /// How often the guard has changed its mind: for [`Reader::wait`].
    pub fn bell(&self) -> u32 {
        self.map.fields().bell.load(Ordering::Acquire)
    }
    /// Waits until the bell is not `seen` any more, at most so long. Returns early now and then.
    pub fn wait(&self, seen: u32, limit: std::time::Duration) -> Result<()> {
        let limit = rustix::time::Timespec {
            tv_sec: limit.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        };
        match futex::wait(&self.map.fields().bell, futex::Flags::empty(), seen, Some(&limit)) {
            Ok(()) | Err(Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => Ok(()),
            Err(errno) => Err(Error::Call { doing: "wait for the guard's page", errno }),
        }
    }
    /// Ends every [`Reader::wait`] of this page early.
    pub fn wake(&self) {
        let _ = futex::wake(&self.map.fields().bell, futex::Flags::empty(), i32::MAX as u32);
    }
    /// Why it is asked to stop.
    pub fn cause(&self) -> Option<Cause> {
        from_code(self.map.fields().cause.load(Ordering::Relaxed))
    }
    /// With cause `vram`: which GPU, what the job held of it, and what it may hold.
    pub fn gpu(&self) -> (String, Bytes, Option<Bytes>) {
        let fields = self.map.fields();
        let words = fields.gpu.iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes());
        let name: Vec<u8> = words.take_while(|byte| *byte != 0).collect();
        let limit = Some(Bytes(fields.gpu_limit.load(Ordering::Relaxed))).filter(|it| *it != Bytes::MAX);
        let usage = Bytes(fields.gpu_usage.load(Ordering::Relaxed));
        (String::from_utf8_lossy(&name).into_owned(), usage, limit)
    }
    /// How short memory is.
    pub fn level(&self) -> Level {
        match self.map.fields().level.load(Ordering::Relaxed) {
            0 => Level::Normal,
            1 => Level::Warning,
            _ => Level::Critical,
        }
    }
    /// How often caches were asked for.
    pub fn relieve(&self) -> u32 {
        self.map.fields().relieve.load(Ordering::Acquire)
    }
    /// Whether the worker should tell what it holds of GPUs.
    pub fn asks_for_vram(&self) -> bool {
        self.map.fields().vram.load(Ordering::Relaxed) == 1
    }
    /// Memory available on the host.
    pub fn available(&self) -> Bytes {
        Bytes(self.map.fields().available.load(Ordering::Relaxed))
    }
    /// When the guard has last said that it lives; zero: never yet.
    pub fn beat(&self) -> Instant {
        Instant(self.map.fields().beat.load(Ordering::Acquire))
    }
    /// The guard's process id.
    pub fn guard_pid(&self) -> u32 {
        self.map.fields().guard.load(Ordering::Relaxed)
    }
    /// What the job may use.
    pub fn limit(&self) -> Option<Bytes> {
        Some(Bytes(self.map.fields().limit.load(Ordering::Relaxed))).filter(|bytes| *bytes != Bytes::MAX)
    }
    /// What the job used at the last beat.
    pub fn usage(&self) -> Bytes {
        Bytes(self.map.fields().usage.load(Ordering::Relaxed))
    }
    /// The reserve.
    pub fn reserve(&self) -> Bytes {
        Bytes(self.map.fields().reserve.load(Ordering::Relaxed))
    }
    /// The warning threshold.
    pub fn warning(&self) -> Bytes {
        Bytes(self.map.fields().warning.load(Ordering::Relaxed))
    }
    /// The host's total memory, or the limit above it.
    pub fn total(&self) -> Bytes {
        Bytes(self.map.fields().total.load(Ordering::Relaxed))
    }
}
