//! A run, kept as what came in: the same engine given the same inputs decides the same again.
//!
//! Only the lines of a recording, as data: a [`Header`], then one [`Entry`] a line. Who writes them as JSON, and when,
//! is the driver's business; nothing here knows a file. Times are the engine's own, sizes whole bytes.

use serde::{Deserialize, Serialize};

use crate::clock::Instant;
use crate::effect::{Exit, Input, JobId, LimitEvent, Urgency, Word};
use crate::policy::{HostPolicy, JobPolicy};
use crate::sample::{DeviceSample, HeldSample, HostSample, JobSample, Why};
use crate::watch;

/// The form of a recording that this version writes and reads.
pub const VERSION: u32 = 1;

/// The first line: what the engine was made of, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`VERSION`] of whoever wrote it.
    pub recording: u32,
    /// oomguard's version, processor and system.
    pub build: String,
    /// `run`, `up`, `watch`; `simulate` for a world of the tests.
    pub verb: String,
    /// The engine's time when the recording began.
    pub mono: Instant,
    /// The wall clock at that moment, nanoseconds since 1970.
    pub unix_ns: u64,
    /// The machine.
    pub machine: Machine,
    /// Which engine, and what it was made of.
    pub engine: Made,
}

/// The machine that was guarded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its kernel, as `uname` has it.
    pub kernel: String,
    /// Cores that may run jobs.
    pub cores: u64,
    /// RAM, or the smallest cgroup limit above the guard, in bytes.
    pub total: crate::Bytes,
}

/// What an engine is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Made {
    /// [`crate::Engine`], of `run` and `up`.
    Jobs {
        /// The host's thresholds.
        policy: HostPolicy,
        /// What spreads restarts after failures.
        seed: u64,
    },
    /// [`watch::Watch`].
    Watch(watch::Policy),
}

/// One line after the header. `I` is the input of the engine, borrowed when written and [`Kept`] when read; `T` what
/// was told and known beside, which only the driver understands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry<I, T> {
    /// The engine was given this.
    In(Instant, I),
    /// [`crate::Engine::set_host_policy`].
    Policy(HostPolicy),
    /// [`crate::Engine::recall`].
    Recall(JobId, u32),
    /// The driver's own.
    Told(T),
    /// So many lines are missing here: the disk did not take them in time.
    Lost(u64),
}

/// An [`Input`] that owns what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the same as those of `Input`")]
pub enum Kept {
    Add(JobId, JobPolicy),
    Change(JobId, JobPolicy),
    Adopt(JobId, JobPolicy, std::time::Duration, u32),
    Started(JobId),
    StartFailed(JobId),
    CannotStart(JobId),
    Sample(HostSample, Vec<JobSample>),
    Vram(Instant, Vec<DeviceSample>, Vec<HeldSample>),
    VramUnknown(Why),
    Limit(JobId, LimitEvent),
    Exited(JobId, Exit),
    Emptied(JobId),
    Swept(JobId),
    Unheld(JobId),
    Heard(JobId, Word),
    Restart(JobId),
    Remove(JobId, Urgency),
    Shutdown(Urgency),
    Tick,
}

impl Kept {
    /// As the engine takes it.
    pub fn input(&self) -> Input<'_> {
        match *self {
            Kept::Add(job, policy) => Input::Add(job, policy),
            Kept::Change(job, policy) => Input::Change(job, policy),
            Kept::Adopt(job, policy, age, attempt) => Input::Adopt(job, policy, age, attempt),
            Kept::Started(job) => Input::Started(job),
            Kept::StartFailed(job) => Input::StartFailed(job),
            Kept::CannotStart(job) => Input::CannotStart(job),
            Kept::Sample(ref host, ref jobs) => Input::Sample(host, jobs),
            Kept::Vram(at, ref devices, ref held) => Input::Vram(at, devices, held),
            Kept::VramUnknown(why) => Input::VramUnknown(why),
            Kept::Limit(job, event) => Input::Limit(job, event),
            Kept::Exited(job, exit) => Input::Exited(job, exit),
            Kept::Emptied(job) => Input::Emptied(job),
            Kept::Swept(job) => Input::Swept(job),
            Kept::Unheld(job) => Input::Unheld(job),
            Kept::Heard(job, word) => Input::Heard(job, word),
            Kept::Restart(job) => Input::Restart(job),
            Kept::Remove(job, urgency) => Input::Remove(job, urgency),
            Kept::Shutdown(urgency) => Input::Shutdown(urgency),
            Kept::Tick => Input::Tick,
        }
    }

    /// The rules for a job that it brings, if any: what is asked "what if" of.
    pub fn policy_mut(&mut self) -> Option<&mut JobPolicy> {
        match self {
            Kept::Add(_, policy) | Kept::Change(_, policy) | Kept::Adopt(_, policy, ..) => Some(policy),
            _ => None,
        }
    }
}
