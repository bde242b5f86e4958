//! Makes the guard itself able to act when memory is short: locked, last to be killed, first to be run.
//!
//! Touches this process's memory locks, OOM score, scheduling and timer slack; what children would inherit of it is
//! remembered here and taken back by [`super::spawn`]. For the guard's own program: never call these inside
//! somebody else's process.

use std::num::NonZeroU64;
use std::path::Path;
use std::sync::OnceLock;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, getrlimit};

use super::error::{Error, Result};
use super::process::last_errno;

/// What was locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locked {
    /// All memory that is or will be mapped, once touched.
    All,
    /// What is mapped now; later mappings are not, because a small `RLIMIT_MEMLOCK` would make them fail.
    Current,
}

/// The scheduling that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduled {
    /// `SCHED_FIFO` 1: a 1 ms timer is at most 0.1 ms late (p99), whatever else runs.
    Fifo,
    /// This nice value: some 4 ms late under load.
    Nice(i32),
}

/// What children must get back. `None`: never changed.
static ORIGINAL_SCORE: OnceLock<i32> = OnceLock::new();
static ORIGINAL_SLACK: OnceLock<u64> = OnceLock::new();

/// The OOM score that children must get back.
pub(crate) fn original_oom_score() -> Option<i32> {
    ORIGINAL_SCORE.get().copied()
}
/// The timer slack that children must get back, in nanoseconds.
pub(crate) fn original_timer_slack() -> Option<u64> {
    ORIGINAL_SLACK.get().copied()
}

/// Whether this process has a capability, by its number.
fn has_capability(number: u32) -> bool {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    capabilities(&text).is_some_and(|mask| mask & (1 << number) != 0)
}

/// The effective capabilities in the text of a `status` file.
pub(super) fn capabilities(status: &str) -> Option<u64> {
    status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
}

/// Has all threads share one heap: each other arena of glibc maps 64 MiB, which all counts as locked. Before the first
/// thread is started.
pub fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a documented setting of this process's allocator, two integers.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Keeps our memory in RAM. Pages are locked when they are touched, so our resident set does not grow by it.
pub fn lock_memory() -> Result<Locked> {
    let_go_of_code();
    share_one_heap();
    const CAP_IPC_LOCK: u32 = 14;
    let free = has_capability(CAP_IPC_LOCK) || getrlimit(Resource::Memlock).current.is_none();
    let now = MlockAllFlags::CURRENT | MlockAllFlags::ONFAULT;
    let (flags, locked) =
        if free { (now | MlockAllFlags::FUTURE, Locked::All) } else { (now, Locked::Current) };
    mlockall(flags).map(|()| locked).map_err(|errno| Error::Call {
        doing: "mlockall (needs CAP_IPC_LOCK, or a large enough `ulimit -l`)",
        errno,
    })
}

/// Lets go of program code that only start-up needed; what is needed again comes back from the page cache. Halves the
/// resident set of a guard that has read its command line. Before locking, or it would be held.
fn let_go_of_code() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for (from, length) in code(&maps) {
        let start = std::ptr::without_provenance_mut(from);
        // SAFETY: a mapping of ours that is executable, private and not writable: its pages are clean copies of the
        // file, which is where the next access finds them again.
        let _ = unsafe { rustix::mm::madvise(start, length, rustix::mm::Advice::LinuxDontNeed) };
    }
}

/// Where the text of a `maps` file has mappings of files that are executable, private and not writable: start, length.
pub(super) fn code(maps: &str) -> impl Iterator<Item = (usize, usize)> {
    maps.lines().filter_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        if !rest.starts_with("r-xp ") || !rest.contains('/') {
            return None;
        }
        let (from, to) = range.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        let from = number(from)?;
        Some((from, number(to)?.checked_sub(from)?))
    })
}

/// Makes us nearly the last choice of the kernel's OOM killer (`oom_score_adj` -900). Needs `CAP_SYS_RESOURCE`.
/// Children get the old value back.
pub fn lower_oom_score() -> Result<i32> {
    const SCORE: i32 = -900;
    let path = Path::new("/proc/self/oom_score_adj");
    let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, &e))?;
    let before: i32 = text.trim().parse().unwrap_or(0);
    if before <= SCORE {
        return Ok(before);
    }
    std::fs::write(path, SCORE.to_string()).map_err(|e| Error::io("write -900 to", path, &e))?;
    ORIGINAL_SCORE.get_or_init(|| before);
    Ok(SCORE)
}

/// The nice value that children must get back: reset-on-fork makes it 0, whatever it was.
static ORIGINAL_NICE: OnceLock<i32> = OnceLock::new();

/// What children must get back, if it was changed.
pub(crate) fn original_nice() -> Option<i32> {
    ORIGINAL_NICE.get().copied().filter(|nice| *nice != 0)
}

/// Lets us run before others: `SCHED_FIFO` 1, else nice -20, else what `RLIMIT_NICE` allows. Children do not inherit
/// it (reset-on-fork), and get the old nice value back: a job at real-time priority would starve the guard.
pub fn schedule_first() -> Result<Scheduled> {
    if let Ok(nice) = rustix::process::getpriority_process(None) {
        ORIGINAL_NICE.get_or_init(|| nice);
    }
    let fifo = libc::sched_param { sched_priority: 1 };
    // SAFETY: 0 is the calling thread; the parameter is plain data and outlives the call.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &fifo) } == 0 {
        return Ok(Scheduled::Fifo);
    }
    let errno = last_errno();
    let other = libc::sched_param { sched_priority: 0 };
    // SAFETY: as above. Reset-on-fork also takes a negative nice value back in children.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_OTHER | libc::SCHED_RESET_ON_FORK, &other) } != 0 {
        return Err(Error::Call { doing: "sched_setscheduler", errno: last_errno() });
    }
    for nice in [-20, -10, -5, -1] {
        // SAFETY: three integers.
        if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) } == 0 {
            return Ok(Scheduled::Nice(nice));
        }
    }
    Err(Error::Call { doing: "SCHED_FIFO and nice (need CAP_SYS_NICE)", errno })
}

/// Has our timers fire when they are due and not up to 50 us later. For the calling thread; children get the old
/// value back.
pub fn timer_slack() -> Result<()> {
    let call = |errno| Error::Call { doing: "prctl(PR_SET_TIMERSLACK)", errno };
    let before = rustix::thread::current_timer_slack().map_err(call)?;
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1)).map_err(call)?;
    ORIGINAL_SLACK.get_or_init(|| before);
    Ok(())
}

/// Makes orphans among our descendants our children, so that no member of a job escapes by a double fork.
pub fn become_subreaper() -> Result<()> {
    let me = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(me))
        .map_err(|errno| Error::Call { doing: "prctl(PR_SET_CHILD_SUBREAPER)", errno })
}

/// Ends by a signal, as the command did that we ran: a shell goes on with its script after an exit code, and not
/// after Ctrl-C. Returns only where the signal is ignored.
pub fn end_by(signal: rustix::process::Signal) {
    // SAFETY: `sigset_t` is plain data; `sigemptyset` initialises it, `sigaddset` gets a valid number, and the old
    // mask is not asked for.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal.as_raw());
        // Sent first, so that it is there when it is let in.
        let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut());
    }
}

/// The limit on open files that children must get back.
static ORIGINAL_FILES: OnceLock<(u64, u64)> = OnceLock::new();

/// What children must get back, if it was changed: (soft, hard).
pub(crate) fn original_open_files() -> Option<(u64, u64)> {
    ORIGINAL_FILES.get().copied()
}

/// Lets us open as many files as the hard limit allows: a worker costs some 18, a member of a tree without a cgroup 2.
/// Children get the old limit back.
pub fn raise_open_files() -> Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: plain data that outlives the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(Error::Call { doing: "getrlimit(RLIMIT_NOFILE)", errno: last_errno() });
    }
    ORIGINAL_FILES.get_or_init(|| (limit.rlim_cur, limit.rlim_max));
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
        return Err(Error::Call { doing: "setrlimit(RLIMIT_NOFILE)", errno: last_errno() });
    }
    Ok(())
}

/// Whether we are root in our user namespace.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
