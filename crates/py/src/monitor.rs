//! What a check decides, from atomics alone: no lock, no system call, safe in a forked child and in a signal handler.
//!
//! Never reads memory itself: that is the sampling thread's work, or the guard's.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use oomguard_core::Level;
use oomguard_sys::page::{Reader, Stop as Wish};

/// `FLAGS`: nothing reads memory for this process yet.
const UNSTARTED: u32 = 1;
/// `FLAGS`: SIGTERM came.
const TERMINATE: u32 = 2;
/// `FLAGS`: a check should give memory back first.
const RELIEF: u32 = 4;
/// `FLAGS`: a check should tell the guard what this process holds of GPUs.
const REPORT: u32 = 8;

static FLAGS: AtomicU32 = AtomicU32::new(UNSTARTED);
/// A living guard watches us: its page is what counts.
static GUARDED: AtomicBool = AtomicBool::new(false);
static PAGE: OnceLock<Reader> = OnceLock::new();
/// Unknown is `u64::MAX`: never below a threshold.
static AVAILABLE: AtomicU64 = AtomicU64::new(u64::MAX);
static TOTAL: AtomicU64 = AtomicU64::new(u64::MAX);
static RESERVE: AtomicU64 = AtomicU64::new(0);
static WARNING: AtomicU64 = AtomicU64::new(0);
/// The highest threshold that any check uses: decides how often to sample.
static WATCHED: AtomicU64 = AtomicU64::new(0);
/// The lowest limit of any guard that is entered, bytes; `u64::MAX`: none, and `USAGE` is not read.
static LIMIT: AtomicU64 = AtomicU64::new(u64::MAX);
/// Guards with a limit.
static LIMITED: AtomicU32 = AtomicU32::new(0);
/// What this process holds (its resident set), bytes.
static USAGE: AtomicU64 = AtomicU64::new(0);
/// Relief: 0 nobody asked, 1 asked.
static RELIEF_ASKED: AtomicBool = AtomicBool::new(false);
/// Goes up by one with every fork: what was set up in the parent does not count in the child.
static GENERATION: AtomicU64 = AtomicU64::new(0);
static SAMPLES: AtomicU64 = AtomicU64::new(0);
static INTERVAL_NS: AtomicU64 = AtomicU64::new(0);

/// What this process is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Give up the present work.
    Prune,
    /// End.
    Terminate,
}

/// Whether a check against `threshold` bytes has to look closer: two to four loads.
#[inline]
pub(crate) fn must_look(threshold: u64) -> bool {
    if FLAGS.load(Relaxed) != 0 {
        return true;
    }
    match PAGE.get() {
        Some(page) if GUARDED.load(Relaxed) => page.stop() != Wish::GoOn,
        _ => AVAILABLE.load(Relaxed) < threshold || WATCHED.load(Relaxed) < threshold,
    }
}

/// Whether less than `threshold` bytes are known to be available; under a living guard, whether it says so.
#[inline]
pub(crate) fn is_below(threshold: u64) -> bool {
    match PAGE.get() {
        Some(page) if GUARDED.load(Relaxed) => page.level() != Level::Normal,
        _ => AVAILABLE.load(Relaxed) < threshold,
    }
}

/// Whether a thread whose guard has these thresholds should be interrupted now.
pub(crate) fn should_interrupt(critical: u64, limit: u64) -> bool {
    let short = match guard() {
        Some(page) => page.stop() != Wish::GoOn,
        None => AVAILABLE.load(Relaxed) < critical,
    };
    short || usage() >= limit
}

/// A guard with a limit is entered.
pub(crate) fn add_limit(limit: u64) {
    if limit != u64::MAX {
        LIMITED.fetch_add(1, Relaxed);
        LIMIT.fetch_min(limit, Relaxed);
    }
}

/// It is left. The lowest one is followed until the last has left: looking too often is no harm.
pub(crate) fn remove_limit(limit: u64) {
    if limit != u64::MAX && LIMITED.fetch_sub(1, Relaxed) == 1 {
        LIMIT.store(u64::MAX, Relaxed);
        USAGE.store(0, Relaxed);
    }
}

/// The lowest limit of any guard, if one has any.
pub(crate) fn limit() -> Option<u64> {
    Some(LIMIT.load(Relaxed)).filter(|limit| *limit != u64::MAX)
}

/// What this process holds, bytes; 0 while no guard has a limit.
#[inline]
pub(crate) fn usage() -> u64 {
    USAGE.load(Relaxed)
}

/// Takes a reading of what this process holds.
pub(crate) fn used(bytes: u64) {
    USAGE.store(bytes, Relaxed);
}

/// Asks for relief; whether nobody had asked already.
pub(crate) fn ask_relief() -> bool {
    !RELIEF_ASKED.swap(true, Relaxed)
}

/// Whether relief was asked for and is not done.
pub(crate) fn relief_is_due() -> bool {
    RELIEF_ASKED.load(Relaxed)
}

/// The next check relieves.
pub(crate) fn let_checks_relieve() {
    FLAGS.fetch_or(RELIEF, Relaxed);
}

/// Takes the request: whoever gets `true` does it.
pub(crate) fn take_relief() -> bool {
    FLAGS.fetch_and(!RELIEF, Relaxed);
    RELIEF_ASKED.swap(false, Relaxed)
}

/// The next check, or the main thread, tells what this process holds of GPUs.
pub(crate) fn ask_report() {
    FLAGS.fetch_or(REPORT, Relaxed);
}

/// Whether that was asked for and is not done.
pub(crate) fn report_is_due() -> bool {
    FLAGS.load(Relaxed) & REPORT != 0
}

/// Takes the request: whoever gets `true` does it.
pub(crate) fn take_report() -> bool {
    FLAGS.fetch_and(!REPORT, Relaxed) & REPORT != 0
}

/// Which process this is, counted in forks.
pub(crate) fn generation() -> u64 {
    GENERATION.load(Relaxed)
}

/// What is asked of this process now. A page whose guard is dead asks nothing.
pub(crate) fn stop() -> Option<Stop> {
    if FLAGS.load(Relaxed) & TERMINATE != 0 {
        return Some(Stop::Terminate);
    }
    match guard()?.stop() {
        Wish::GoOn => None,
        Wish::Prune => Some(Stop::Prune),
        Wish::Terminate => Some(Stop::Terminate),
    }
}

/// The page of the living guard.
pub(crate) fn guard() -> Option<&'static Reader> {
    PAGE.get().filter(|_| GUARDED.load(Relaxed))
}

/// The page, whether or not its guard lives.
pub(crate) fn page() -> Option<&'static Reader> {
    PAGE.get()
}

/// Keeps the page for the life of the process.
pub(crate) fn keep_page(page: Reader) {
    // A second one would be the same file: a forked child has it from its parent.
    let _ = PAGE.set(page);
}

/// Whether the guard lives.
pub(crate) fn set_guarded(alive: bool) {
    GUARDED.store(alive, Relaxed);
}

/// Available memory in bytes as last seen.
pub(crate) fn available() -> Option<u64> {
    let bytes = guard().map_or_else(|| AVAILABLE.load(Relaxed), |page| page.available().0);
    (bytes != u64::MAX).then_some(bytes)
}

/// Total memory in bytes as last seen.
pub(crate) fn total() -> Option<u64> {
    let bytes = guard().map_or_else(|| TOTAL.load(Relaxed), |page| page.total().0);
    (bytes != u64::MAX).then_some(bytes)
}

/// Takes a reading of our own.
pub(crate) fn saw(reading: Option<(u64, u64)>) {
    let (available, total) = reading.unwrap_or((u64::MAX, u64::MAX));
    AVAILABLE.store(available, Relaxed);
    TOTAL.store(total, Relaxed);
}

/// One more look, and the next one comes after `interval_ns`.
pub(crate) fn looked(interval_ns: u64) {
    SAMPLES.fetch_add(1, Relaxed);
    INTERVAL_NS.store(interval_ns, Relaxed);
}

/// How often the sampling thread has looked, and its present interval in nanoseconds.
pub(crate) fn looks() -> (u64, u64) {
    (SAMPLES.load(Relaxed), INTERVAL_NS.load(Relaxed))
}

/// The threshold of `check()`, bytes: the guard's where there is one.
#[inline]
pub(crate) fn reserve() -> u64 {
    RESERVE.load(Relaxed)
}

/// The threshold of level warning, bytes.
pub(crate) fn warning() -> u64 {
    WARNING.load(Relaxed)
}

/// Sets the thresholds of `check()`.
pub(crate) fn set_thresholds(reserve: u64, warning: u64) {
    RESERVE.store(reserve, Relaxed);
    WARNING.store(warning, Relaxed);
    WATCHED.fetch_max(reserve, Relaxed);
}

/// From now on sampling is fast enough for this threshold too.
pub(crate) fn watch(threshold: u64) {
    if WATCHED.fetch_max(threshold, Relaxed) < threshold {
        crate::sampler::hurry();
    }
}

/// The highest threshold that any check uses.
pub(crate) fn watched() -> u64 {
    WATCHED.load(Relaxed)
}

/// The level of `available` bytes against the thresholds of `check()`, or the guard's word.
pub(crate) fn level() -> Level {
    if let Some(page) = guard() {
        return page.level();
    }
    match available() {
        Some(bytes) if bytes < reserve() => Level::Critical,
        Some(bytes) if bytes < warning() => Level::Warning,
        _ => Level::Normal,
    }
}

/// Every later check asks this process to end.
pub(crate) fn terminate() {
    FLAGS.fetch_or(TERMINATE, Relaxed);
}

/// Whether somebody reads memory for this process.
#[inline]
pub(crate) fn is_started() -> bool {
    FLAGS.load(Relaxed) & UNSTARTED == 0
}

/// Memory is read for this process from now on.
pub(crate) fn set_started() {
    FLAGS.fetch_and(!UNSTARTED, Relaxed);
}

/// The child has no sampling thread, and was not the one asked to end.
pub(crate) fn after_fork_in_child() {
    FLAGS.store(UNSTARTED, Relaxed);
    GENERATION.fetch_add(1, Relaxed);
    RELIEF_ASKED.store(false, Relaxed);
    LIMITED.store(0, Relaxed);
    LIMIT.store(u64::MAX, Relaxed);
    USAGE.store(0, Relaxed);
}
