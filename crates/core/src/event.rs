//! Everything that can be said. All output renders these; nothing else decides what people read.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::effect::{Exit, JobId};
use crate::sample::{DeviceId, DeviceMemory, Why};
use crate::trend::Confidence;
use crate::units::Bytes;

/// How short memory is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Above the warning threshold.
    #[default]
    Normal,
    /// Below the warning threshold.
    Warning,
    /// Below the reserve.
    Critical,
}

/// Why a job is ended or has ended. Exactly one for every start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// It ended by itself, with success.
    Finished,
    /// It ended by itself, with failure.
    Crash,
    /// It could not be started.
    StartFailed,
    /// It grew to its own limit.
    Limit,
    /// It leaks, and would have reached its limit before it could have stopped in good order.
    Leak,
    /// The machine's reserve was touched and it was the right one to go.
    Reserve,
    /// GPU memory was short.
    Vram,
    /// It was old enough for a planned restart.
    Age,
    /// It ran longer than it was allowed to.
    Timeout,
    /// Somebody asked.
    Requested,
}

impl Cause {
    /// Whether memory is the reason.
    pub const fn is_memory(self) -> bool {
        matches!(self, Cause::Limit | Cause::Leak | Cause::Reserve | Cause::Vram)
    }
    /// Whether the job itself outgrew what it was allowed (else a neighbour or the calendar ended it).
    pub const fn is_own_footprint(self) -> bool {
        matches!(self, Cause::Limit | Cause::Leak)
    }
    /// Whether it was meant to end: never counted as a failure.
    pub const fn is_planned(self) -> bool {
        matches!(self, Cause::Age | Cause::Requested | Cause::Leak)
    }
    /// The word used in reports, events and file formats.
    pub const fn name(self) -> &'static str {
        match self {
            Cause::Finished => "finished",
            Cause::Crash => "crash",
            Cause::StartFailed => "start-failed",
            Cause::Limit => "limit",
            Cause::Leak => "leak",
            Cause::Reserve => "reserve",
            Cause::Vram => "vram",
            Cause::Age => "age",
            Cause::Timeout => "timeout",
            Cause::Requested => "requested",
        }
    }
}

/// Why this job and not another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// It is over its own limit.
    OverLimit,
    /// It is about to reach its own limit.
    NearLimit,
    /// It grows fastest.
    FastestGrowth,
    /// Ending it loses the least work per byte.
    LeastWorkLost,
    /// It is the largest, and nobody grows.
    Largest,
    /// There is no other.
    OnlyOne,
}

/// Why a slot waits before it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pause {
    /// After a failure.
    Backoff,
    /// Until there is memory for it.
    Memory,
    /// Until there is memory for it on a GPU that it may use.
    Vram,
}

/// Why a slot is not started any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Parked {
    /// It failed too often in a row.
    Failures,
    /// It died of memory right after its start, again and again: its limit is too small for it.
    EarlyMemoryDeaths,
    /// There is nothing that could be started.
    CannotStart,
}

/// What the engine has to say. Plain numbers; names are added where it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The host's level changed.
    Level {
        /// Before.
        from: Level,
        /// Now.
        to: Level,
        /// Memory available now.
        available: Bytes,
    },
    /// A job runs.
    Started {
        /// Which.
        job: JobId,
        /// The how-manieth start in this slot, from 1.
        attempt: u32,
        /// Taken over from an earlier guard.
        adopted: bool,
    },
    /// A slot waits.
    Waiting {
        /// Which.
        job: JobId,
        /// For what.
        pause: Pause,
        /// For how long at least.
        delay: Duration,
        /// Failures in a row.
        failures: u32,
    },
    /// Once a minute, for every running worker.
    Health {
        /// Which.
        job: JobId,
        /// Time since its start.
        age: Duration,
        /// When it is due for its planned restart, counted from its start.
        max_age: Option<Duration>,
        /// What it uses, if known.
        usage: Option<Bytes>,
        /// Memory available on the host.
        available: Bytes,
        /// The fullest GPU that it may use, where GPUs are watched.
        #[serde(default)]
        vram: Option<Vram>,
    },
    /// A job grows steadily.
    Leak {
        /// Which.
        job: JobId,
        /// Bytes per second.
        slope: Bytes,
        /// With 95 % certainty no less than this.
        at_least: Bytes,
        /// That it grows at all.
        confidence: Confidence,
        /// Until it reaches its limit.
        reaches_limit_in: Duration,
    },
    /// A job was asked to give back caches.
    Relieve {
        /// Which.
        job: JobId,
        /// What it uses.
        usage: Bytes,
    },
    /// It has done so.
    Relieved {
        /// Which.
        job: JobId,
        /// Bytes that it gave back, by its own measure.
        freed: Bytes,
    },
    /// The brake chose a job; what it does follows as events of its own.
    Brake {
        /// Which.
        job: JobId,
        /// Why memory is short.
        cause: Cause,
        /// Why this one.
        reason: Reason,
        /// What it uses.
        usage: Bytes,
        /// How fast it grows, bytes per second.
        rate: Bytes,
        /// Its limit.
        limit: Option<Bytes>,
        /// Memory available on the host.
        available: Bytes,
    },
    /// The host is short, and no job of ours could give enough back.
    NoVictim {
        /// Memory available on the host.
        available: Bytes,
    },
    /// A job was asked to stop its present work.
    Prune {
        /// Which.
        job: JobId,
        /// Why.
        cause: Cause,
        /// What it uses.
        usage: Bytes,
    },
    /// It need not stop any more.
    Resume {
        /// Which.
        job: JobId,
        /// What it uses.
        usage: Bytes,
    },
    /// A job was stopped in its tracks.
    Freeze {
        /// Which.
        job: JobId,
    },
    /// It goes on.
    Thaw {
        /// Which.
        job: JobId,
    },
    /// SIGTERM was sent.
    Terminate {
        /// Which.
        job: JobId,
        /// Why.
        cause: Cause,
        /// What it uses.
        usage: Option<Bytes>,
        /// Time until SIGKILL.
        grace: Duration,
    },
    /// SIGKILL was sent to the whole tree.
    Kill {
        /// Which.
        job: JobId,
        /// Why.
        cause: Cause,
        /// What it uses.
        usage: Option<Bytes>,
        /// Memory available on the host.
        available: Bytes,
        /// It had its SIGTERM and did not use it.
        after_grace: bool,
    },
    /// The kernel killed in this job before the guard had to.
    KernelKill {
        /// Which.
        job: JobId,
        /// At its own limit, or because the machine was full.
        cause: Cause,
    },
    /// The memory of an ended job has come back, or the wait for it is over.
    MemoryBack {
        /// Which.
        job: JobId,
        /// Time since the kill.
        after: Duration,
        /// Whether it really came back.
        complete: bool,
    },
    /// A job has ended.
    Ended {
        /// Which.
        job: JobId,
        /// Why.
        cause: Cause,
        /// How its main process ended.
        exit: Exit,
        /// How long it lived.
        age: Duration,
        /// The most it was seen to use.
        peak: Bytes,
    },
    /// A tree did not die of SIGKILL in time (D state?). Its slot stays empty.
    Unkillable {
        /// Which.
        job: JobId,
        /// Time since SIGKILL.
        after: Duration,
    },
    /// A slot is given up.
    Parked {
        /// Which.
        job: JobId,
        /// Why.
        parked: Parked,
        /// Failures in a row.
        failures: u32,
    },
    /// A GPU has less than the reserve left.
    VramShort {
        /// Which.
        device: DeviceId,
        /// What is left of it.
        free: Bytes,
        /// What there is.
        total: Bytes,
        /// What must be left.
        reserve: Bytes,
    },
    /// It has enough again.
    VramEnough {
        /// Which.
        device: DeviceId,
        /// What is left of it.
        free: Bytes,
    },
    /// A job comes near what it may hold of a GPU.
    VramNear {
        /// Which.
        job: JobId,
        /// Of which GPU.
        device: DeviceId,
        /// What it holds.
        used: Bytes,
        /// What it may hold.
        limit: Bytes,
    },
    /// A job was asked to give back what it holds of a GPU without need.
    VramRelieve {
        /// Which.
        job: JobId,
        /// Of which GPU.
        device: DeviceId,
        /// What it holds.
        used: Bytes,
    },
    /// The brake chose a job because of a GPU; what it does follows as events of its own.
    VramBrake {
        /// Which.
        job: JobId,
        /// Which GPU.
        device: DeviceId,
        /// Why this one.
        reason: Reason,
        /// What it holds of it.
        used: Bytes,
        /// What it may hold.
        limit: Option<Bytes>,
        /// What is left of it, if known.
        free: Option<Bytes>,
    },
    /// A GPU is short, and no job of ours could give enough of it back.
    VramNoVictim {
        /// Which.
        device: DeviceId,
        /// What is left of it.
        free: Bytes,
    },
    /// What a GPU holds, or what a job holds of it, is not known; nobody is braked for it.
    VramUnknown {
        /// Which; `None`: all.
        device: Option<DeviceId>,
        /// Whose; `None`: of nobody.
        job: Option<JobId>,
        /// Why.
        why: Why,
    },
    /// It is known again.
    VramKnown {
        /// Which; `None`: all.
        device: Option<DeviceId>,
        /// Whose.
        job: Option<JobId>,
    },
    /// What an ended worker held of GPUs has come back, or cannot be known and is waited for no longer.
    VramBack {
        /// Which.
        job: JobId,
        /// Time since its end.
        after: Duration,
        /// Whether it really came back.
        complete: bool,
    },
    /// A dead job still holds memory of a GPU (D state?). Nothing is started on it until that is back.
    VramStuck {
        /// Which.
        job: JobId,
        /// Which GPU.
        device: DeviceId,
        /// What it still holds.
        held: Bytes,
        /// Time since its end.
        after: Duration,
    },
    /// All ended as asked.
    Done,
}

/// How full a GPU is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vram {
    /// Which.
    pub device: DeviceId,
    /// In use, by whomever.
    pub used: Bytes,
    /// All that there is.
    pub total: Bytes,
}

impl Vram {
    /// All that is not free is in use.
    pub(crate) fn new(device: DeviceId, memory: DeviceMemory) -> Vram {
        Vram { device, used: memory.total.minus(memory.free), total: memory.total }
    }

    /// In use, in percent. For people only.
    pub fn percent(&self) -> f64 {
        100.0 * self.used.0 as f64 / self.total.0.max(1) as f64
    }
}
