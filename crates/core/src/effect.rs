//! Everything that can come in and everything that can go out. These two lists are the whole surface of the
//! engine: whoever drives it matches them exhaustively.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Instant;
use crate::event::Cause;
use crate::policy::JobPolicy;
use crate::sample::{DeviceSample, HeldSample, HostSample, JobSample, Why};
use crate::units::Bytes;

/// A slot for one guarded process tree. A worker keeps its slot over restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub u16);

impl JobId {
    /// Its place in tables that hold one row a job.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// How the main process of a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It was adopted, so the kernel tells its end to somebody else.
    Unknown,
}

/// What a worker told us on its notify socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Word {
    /// `READY=1`.
    Ready,
    /// `STOPPING=1`: it is ending by itself.
    Stopping,
    /// `WATCHDOG=1`: still alive.
    Alive,
    /// `X_OOMGUARD_CHECKS=1`: it reads its page, so asking it to prune is worth while.
    Checks,
    /// `X_OOMGUARD_TRIAL=`: work begins that would be lost from here on; `None` when it is over.
    Trial(Option<u32>),
    /// `X_OOMGUARD_CHECKPOINT=1`: what was done until now is safe.
    Checkpoint,
    /// `X_OOMGUARD_RELIEVED=`: it has given back so many bytes.
    Relieved(Bytes),
}

/// What the kernel said about a job's cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitEvent {
    /// It crossed the soft mark under its limit (v2 `memory.high`, v1 threshold).
    Soft,
    /// The kernel killed in it because it was at its own limit.
    KilledAtLimit,
    /// The kernel killed in it because a cgroup above it, or the host, was full.
    KilledAbove,
}

/// Who asks for an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Urgency {
    /// SIGTERM first.
    Graceful,
    /// SIGKILL now.
    Now,
}

/// What comes in.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Input<'a> {
    /// A new slot; it is started as soon as there is room. Answers come as [`Effect::Start`].
    Add(JobId, JobPolicy),
    /// New rules for a slot, from a re-read configuration.
    Change(JobId, JobPolicy),
    /// A living job of an earlier guard: how long it has been running, and the how-manieth start it was.
    Adopt(JobId, JobPolicy, Duration, u32),
    /// It runs.
    Started(JobId),
    /// It could not be started.
    StartFailed(JobId),
    /// It could not be started, and trying again will not help: there is no such program.
    CannotStart(JobId),
    /// The sensors were read.
    Sample(&'a HostSample, &'a [JobSample]),
    /// The GPUs were read; the reading began at this moment.
    Vram(Instant, &'a [DeviceSample], &'a [HeldSample]),
    /// Nothing is known of any GPU, because.
    VramUnknown(Why),
    /// The kernel spoke about a job.
    Limit(JobId, LimitEvent),
    /// The kernel counts the job's memory no longer, nor holds it to its limit: from here on we do.
    Unheld(JobId),
    /// The main process ended.
    Exited(JobId, Exit),
    /// No process of the job is left.
    Emptied(JobId),
    /// The shared-memory files that the job left behind are gone, as far as they could be removed.
    Swept(JobId),
    /// A worker spoke.
    Heard(JobId, Word),
    /// Somebody wants this slot restarted.
    Restart(JobId),
    /// Somebody wants this slot ended for good.
    Remove(JobId, Urgency),
    /// Everything is to end.
    Shutdown(Urgency),
    /// Nothing but time has passed.
    Tick,
}

/// What is to be done. The driver has one arm for each and decides nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Start a job in this slot.
    Start(JobId),
    /// Ask it to give back caches; it may ignore this.
    Relieve(JobId),
    /// Ask it to stop its present work at its next check.
    Prune(JobId, Cause),
    /// Take the request to prune back: the memory has come back.
    Resume(JobId),
    /// Stop all its processes where they are.
    Freeze(JobId),
    /// Let them go on.
    Thaw(JobId),
    /// SIGTERM to its main process.
    Terminate(JobId, Cause),
    /// SIGTERM to what is left of its tree.
    TerminateTree(JobId),
    /// SIGKILL to the whole tree, and take its memory back.
    Kill(JobId, Cause),
    /// A new limit for a job that runs.
    SetLimit(JobId, Bytes),
    /// Throttle it from here on (`None`: no longer). Never left in force without a deadline.
    SetSoft(JobId, Option<Bytes>),
    /// The most that all jobs together may be charged.
    SetCeiling(Bytes),
    /// Remove the shared-memory files that a job left behind which memory ended, beside everything else: they may be
    /// gigabytes. [`Input::Swept`] is the answer.
    Sweep(JobId),
    /// Remove the cgroup of an ended job.
    Clean(JobId),
}
