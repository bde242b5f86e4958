//! Everything that is known at one moment, as Python sees it.

use pyo3::prelude::*;

use oomguard_core::{Cause, Level};

use crate::monitor::{self, Stop};
use crate::sampler::Sources;

/// What is known at one moment. Sizes in bytes.
#[pyclass(frozen, get_all, module = "oomguard._core")]
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Memory that can still be given without swapping.
    available: Option<u64>,
    /// What `available` is out of.
    total: Option<u64>,
    /// `normal`, `warning` or `critical`: the guard's word, or against `reserve` and `warning`; `unknown` where
    /// `available` is None.
    level: &'static str,
    /// A living guard watches this process.
    guarded: bool,
    /// `prune`, `terminate` or None.
    stop: Option<&'static str>,
    /// Why the guard wants that, in its words.
    cause: Option<&'static str>,
    /// Which GPU that is about, if it is about one; what this job held of it, and what it may hold.
    gpu: Option<String>,
    gpu_usage: Option<u64>,
    gpu_limit: Option<u64>,
    /// The guard's process.
    guard_pid: Option<u32>,
    /// What this job may use.
    limit: Option<u64>,
    /// What this job uses.
    usage: Option<u64>,
    /// Below it level is critical.
    reserve: u64,
    /// Below it level is warning.
    warning: u64,
    /// The lowest limit of any guard of this process that is entered.
    own_limit: Option<u64>,
    /// What this process holds, where such a limit is watched.
    own_usage: Option<u64>,
    /// How often the sampling thread has looked.
    samples: u64,
    /// Seconds until its next look.
    interval: f64,
    /// Why `available` and `total` are None.
    unknown: Option<String>,
}

/// What Python calls a level.
fn name(level: Level) -> &'static str {
    match level {
        Level::Normal => "normal",
        Level::Warning => "warning",
        Level::Critical => "critical",
    }
}

/// The present level, or that it is not known.
pub(crate) fn word() -> &'static str {
    monitor::available().map_or("unknown", |_| name(monitor::level()))
}

impl Snapshot {
    /// Reads memory afresh where no guard does: some 0.1 ms.
    pub(crate) fn take() -> Snapshot {
        let guard = monitor::guard();
        let unknown = match guard {
            Some(_) => None,
            None => {
                let reading = Sources::open().read();
                monitor::saw(reading.as_ref().ok().copied());
                reading.err()
            }
        };
        let (samples, interval_ns) = monitor::looks();
        let stop = monitor::stop();
        let cause = guard.filter(|_| stop.is_some()).and_then(|page| page.cause());
        let gpu = guard.filter(|_| cause == Some(Cause::Vram)).map(|page| page.gpu());
        Snapshot {
            available: monitor::available(),
            total: monitor::total(),
            level: word(),
            guarded: guard.is_some(),
            stop: stop.map(|stop| match stop {
                Stop::Prune => "prune",
                Stop::Terminate => "terminate",
            }),
            cause: cause.map(Cause::name),
            gpu_usage: gpu.as_ref().map(|(_, usage, _)| usage.0),
            gpu_limit: gpu.as_ref().and_then(|(_, _, limit)| limit.map(|bytes| bytes.0)),
            gpu: gpu.map(|(name, _, _)| name),
            guard_pid: guard.map(|page| page.guard_pid()),
            limit: guard.and_then(|page| page.limit().map(|bytes| bytes.0)),
            usage: guard.map(|page| page.usage().0),
            reserve: guard.map_or_else(monitor::reserve, |page| page.reserve().0),
            warning: guard.map_or_else(monitor::warning, |page| page.warning().0),
            own_limit: monitor::limit(),
            own_usage: monitor::limit().map(|_| monitor::usage()),
            samples,
            interval: interval_ns as f64 / 1e9,
            unknown,
        }
    }
}
