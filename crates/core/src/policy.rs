//! What was asked for: thresholds, limits and patience, with the defaults people rely on.
//!
//! Only data. Nothing here knows how a limit is enforced or where the numbers came from.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::{Amount, Bytes};

/// What really holds a job to its limit on this machine, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enforcement {
    /// cgroup v2 `memory.max`: the kernel ends the whole job at its limit.
    Cgroup2,
    /// cgroup v1 `memory.limit_in_bytes`: the kernel ends a process at the limit, the guard the rest of the job.
    Cgroup1,
    /// A Windows Job Object: allocations fail at the limit.
    JobObject,
    /// `RLIMIT_DATA` per process, and the guard watches the sum.
    Rlimit,
    /// Nothing but the guard's own looking.
    WatchOnly,
}

impl Enforcement {
    /// Whether the kernel itself stops the whole job at its limit, so that looking late costs nothing.
    pub const fn holds_the_tree(self) -> bool {
        matches!(self, Enforcement::Cgroup2 | Enforcement::Cgroup1 | Enforcement::JobObject)
    }

    /// The word used in flags, reports and events.
    pub const fn name(self) -> &'static str {
        match self {
            Enforcement::Cgroup2 => "cgroup2",
            Enforcement::Cgroup1 => "cgroup1",
            Enforcement::JobObject => "job-object",
            Enforcement::Rlimit => "rlimit",
            Enforcement::WatchOnly => "watch-only",
        }
    }
}

/// The host's thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPolicy {
    /// Available memory that must never be used: below it the brake acts.
    pub reserve: Bytes,
    /// Below it people are warned and jobs are asked to give back caches.
    pub warning: Bytes,
    /// The fastest that memory can vanish, in bytes per second: decides how soon to look again.
    pub worst_rate: Bytes,
    /// Free memory of each GPU that jobs use and that must never be used up: below it the brake acts on those who hold
    /// some of it.
    #[serde(default)]
    pub vram_reserve: Option<Amount>,
}

/// A NumPy spike dirties 6-8 GB/s per core on huge pages (measured; NumPy asks for them from 4 MiB on).
pub const WORST_RATE_PER_CORE: Bytes = Bytes::gib(8);

impl HostPolicy {
    /// The defaults: a reserve of 2 GiB and a warning at 4 GiB, on machines under 16 GiB an eighth and a
    /// quarter of the memory instead.
    pub fn for_machine(total: Bytes, cores: u64) -> HostPolicy {
        HostPolicy {
            reserve: Bytes::gib(2).min(Bytes(total.0 / 8)),
            warning: Bytes::gib(4).min(Bytes(total.0 / 4)),
            // Memory bandwidth stops the growth of this beyond a handful of cores.
            worst_rate: Bytes(WORST_RATE_PER_CORE.0 * cores.clamp(1, 8)),
            vram_reserve: None,
        }
    }
}

/// What happens to a slot after its job has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Restart {
    /// It is over (`oomguard run`, a test file).
    Never,
    /// A worker of a pool: a new one takes its place unless it ended by itself with success.
    OnFailure,
    /// A new one takes its place, whatever its end was.
    Always,
}

/// What the kernel's kill of one process at the limit means for its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnLimit {
    /// The whole job ends: half a job is worth nothing.
    Job,
    /// The job outlives the loss of a child.
    Process,
}

/// How one job is held and ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobPolicy {
    /// What it may use.
    pub limit: Option<Bytes>,
    /// What it may hold of any one GPU.
    #[serde(default)]
    pub vram_limit: Option<Amount>,
    /// What holds it to that.
    pub enforcement: Enforcement,
    /// From SIGTERM to SIGKILL.
    pub grace: Duration,
    /// How long a job may take to stop by itself at its next check before it gets SIGTERM.
    pub prune_patience: Duration,
    /// Wall-clock limit of the whole job.
    pub timeout: Option<Duration>,
    /// A worker is restarted when it is this old.
    pub max_age: Option<Duration>,
    /// Added to `max_age` in the first life of a slot, so that the workers of a pool stay apart for ever.
    pub stagger: Duration,
    /// What follows when the kernel kills one of its processes at the limit.
    pub on_limit: OnLimit,
    /// What follows its end.
    pub restart: Restart,
    /// Shared memory that nobody has open goes with it, whatever ended it; else only if memory did.
    #[serde(default)]
    pub leaves_nothing: bool,
}

impl JobPolicy {
    /// The defaults of a worker: 8 GiB, 60 minutes, 2 minutes of grace.
    pub fn worker(enforcement: Enforcement) -> JobPolicy {
        JobPolicy {
            limit: Some(Bytes::gib(8)),
            vram_limit: None,
            enforcement,
            grace: Duration::from_secs(120),
            prune_patience: Duration::from_secs(5),
            timeout: None,
            max_age: Some(Duration::from_secs(3600)),
            stagger: Duration::ZERO,
            on_limit: OnLimit::Job,
            restart: Restart::OnFailure,
            leaves_nothing: false,
        }
    }

    /// The defaults of `oomguard run`: no limit of its own unless asked, ten seconds of grace.
    pub fn once(enforcement: Enforcement) -> JobPolicy {
        JobPolicy {
            limit: None,
            grace: Duration::from_secs(10),
            max_age: None,
            restart: Restart::Never,
            ..JobPolicy::worker(enforcement)
        }
    }
}

/// The first pause after a failure; it doubles up to [`BACKOFF_MAX`].
pub const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// The longest pause between restarts.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// A worker that lived this long has recovered: its failures are forgotten.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(300);
/// Failures in a row after which a slot is parked.
pub const PARK_AFTER_FAILURES: u32 = 10;
/// Memory deaths in a row, each within [`EARLY_DEATH`] of the start, after which a slot is parked.
pub const PARK_AFTER_EARLY_MEMORY_DEATHS: u32 = 3;
/// A memory death this soon after the start says that the limit is wrong, not that the worker leaks.
pub const EARLY_DEATH: Duration = Duration::from_secs(60);
/// After SIGKILL a tree that is not gone by then is reported as unkillable.
pub const KILL_WAIT: Duration = Duration::from_secs(10);
/// After a death its memory must be back by then, or the next decision is taken without it.
pub const MEMORY_BACK_WAIT: Duration = Duration::from_secs(3);
/// A GPU that was read longer ago than this is not known: twice what a driver that wakes its cards may take.
pub const VRAM_FRESH: Duration = Duration::from_secs(15);
/// After relief was asked for, it is waited so long for before a job is braked for VRAM.
pub const VRAM_RELIEF_WAIT: Duration = Duration::from_secs(2);
/// After the end of a worker its VRAM must be back by then, or it is said that it is not.
pub const VRAM_BACK_WAIT: Duration = Duration::from_secs(10);
/// What is left of a tree whose main process has ended by itself gets this long after SIGTERM.
pub const LEFTOVER_GRACE: Duration = Duration::from_secs(2);
/// Health is told this often.
pub const HEALTH_EVERY: Duration = Duration::from_secs(60);
