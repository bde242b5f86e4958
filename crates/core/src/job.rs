//! One slot: what is known of its job and where in its life it stands.
//!
//! Only state and questions about it; the engine's rooms (`lifecycle`, `limit`, `brake`) change it.

use std::time::Duration;

use crate::clock::Instant;
use crate::effect::{Exit, JobId, Urgency};
use crate::event::{Cause, Pause};
use crate::forecast::Growth;
use crate::leak::{Leak, LeakWatch};
use crate::policy::{EARLY_DEATH, JobPolicy, Restart};
use crate::pool::Failures;
use crate::timer::{Timer, Timers};
use crate::units::Bytes;
use crate::victim::Candidate;
use crate::vram::{Holding, OnGpus};

/// Where in its life a slot stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// No job; one is to be started when its `Start` timer is due and there is room.
    #[default]
    Waiting,
    /// The start was ordered.
    Starting,
    /// At work.
    Running,
    /// SIGTERM was sent.
    Terminating,
    /// SIGKILL was sent.
    Killing,
    /// Its main process has ended; what is left of the tree is being ended.
    Draining,
    /// No process is left; its memory is awaited.
    Settling,
    /// SIGKILL did not help in time.
    Unkillable,
    /// Given up after failures.
    Parked,
    /// Never again.
    Over,
}

/// How things stood when a job's memory began to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    /// Its latest step: exited, killed, empty.
    pub(crate) since: Instant,
    /// The most it was seen to use since the first.
    pub(crate) usage: Bytes,
    /// What the empty tree still held when it last gave back something worth waiting for.
    pub(crate) left: Bytes,
    /// What was available at the first.
    pub(crate) available: Bytes,
}

/// Where the removal of the shared memory stands that a job left behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sweep {
    /// Nobody was asked.
    #[default]
    NotAsked,
    /// It goes on.
    UnderWay,
    /// It is over.
    Done,
}

/// Less than this is not worth waiting for.
pub(crate) const WORTH_WAITING: Bytes = Bytes::mib(64);
/// What is left of an ended job's memory when it counts as back.
const BACK_PERCENT: u64 = 10;

/// A slot and its job.
#[derive(Debug)]
pub struct Job {
    pub(crate) policy: JobPolicy,
    pub(crate) phase: Phase,
    pub(crate) timers: Timers,
    /// Starts so far.
    pub(crate) attempt: u32,
    pub(crate) started: Instant,
    /// Since when work would be lost: its start, its trial's start, its last checkpoint.
    pub(crate) unsaved_since: Instant,
    /// Reads its page, so that it can be asked.
    pub(crate) checks: bool,
    pub(crate) usage: Option<Bytes>,
    pub(crate) peak: Bytes,
    /// What must be free before a successor starts: its last job had to go for want of it.
    pub(crate) needs: Bytes,
    pub(crate) growth: Growth,
    pub(crate) leak: LeakWatch,
    /// Asked to give back caches for its own limit's sake, and has not fallen since.
    pub(crate) relieved: bool,
    /// Asked to give back caches, and has not said yet what that brought.
    pub(crate) owes_relief: bool,
    /// When it last said that, having been asked.
    pub(crate) gave_back: Option<Instant>,
    /// Asked to stop its present work, and why.
    pub(crate) asked: Option<Cause>,
    /// Why it is being ended; the first cause stands.
    pub(crate) cause: Option<Cause>,
    pub(crate) exit: Option<Exit>,
    /// How things stood when its memory began to come back.
    pub(crate) ending: Option<Ending>,
    /// What it left in shared memory.
    pub(crate) sweep: Sweep,
    /// When the kernel last killed in it, and why.
    pub(crate) kernel_kill: Option<(Instant, Cause)>,
    pub(crate) killed_at: Option<Instant>,
    pub(crate) frozen: bool,
    pub(crate) throttled: bool,
    /// The kernel has let go of it, whatever the policy says.
    pub(crate) unheld: bool,
    /// A planned restart that waits for its turn.
    pub(crate) due: Option<Cause>,
    /// Not to be started again, and how it is to end.
    pub(crate) removed: Option<Urgency>,
    /// Its start failed, and would again.
    pub(crate) hopeless: bool,
    /// Its `Start` timer was due.
    pub(crate) start_due: bool,
    /// It has been said that this slot waits, and for which memory.
    pub(crate) waits_for: Option<Pause>,
    /// What it has to do with GPUs.
    pub(crate) gpus: OnGpus,
    pub(crate) failures: Failures,
}

impl Job {
    pub(crate) fn new(policy: JobPolicy) -> Job {
        Job {
            policy,
            phase: Phase::Waiting,
            timers: Timers::default(),
            attempt: 0,
            started: Instant(0),
            unsaved_since: Instant(0),
            checks: false,
            usage: None,
            peak: Bytes::ZERO,
            needs: Bytes::ZERO,
            growth: Growth::default(),
            leak: LeakWatch::default(),
            relieved: false,
            owes_relief: false,
            gave_back: None,
            asked: None,
            cause: None,
            exit: None,
            ending: None,
            sweep: Sweep::NotAsked,
            kernel_kill: None,
            killed_at: None,
            frozen: false,
            throttled: false,
            unheld: false,
            due: None,
            removed: None,
            hopeless: false,
            start_due: false,
            waits_for: None,
            gpus: OnGpus::default(),
            failures: Failures::default(),
        }
    }

    /// Forgets the job that has ended, keeps the slot and its record.
    pub(crate) fn reset(&mut self) {
        *self = Job {
            attempt: self.attempt,
            removed: self.removed,
            failures: self.failures,
            needs: self.needs,
            gpus: self.gpus.of_the_next(),
            ..Job::new(self.policy)
        };
    }

    /// Processes of it may exist.
    pub fn is_alive(&self) -> bool {
        use Phase::*;
        matches!(self.phase, Running | Terminating | Killing | Draining | Unkillable)
    }

    /// It is on its way out, and its memory with it.
    pub fn is_dying(&self) -> bool {
        matches!(self.phase, Phase::Killing | Phase::Draining | Phase::Settling)
    }

    /// Nothing will happen in this slot any more.
    pub fn is_final(&self) -> bool {
        matches!(self.phase, Phase::Parked | Phase::Over | Phase::Unkillable)
    }

    /// Its own charge says that its memory is back, or nobody has to wait for it: the next worker in its slot
    /// needs it, and so does the next decision after a death of memory.
    pub(crate) fn memory_is_back(&self) -> bool {
        let awaited = self.is_worker() || self.cause.is_some_and(Cause::is_memory);
        let held = self.ending.map_or(Bytes::ZERO, |ending| ending.usage);
        let left = held.percent(BACK_PERCENT);
        !awaited || held < WORTH_WAITING || self.usage.is_none_or(|usage| usage <= left)
    }

    /// What it will still take if it becomes like its predecessor.
    pub(crate) fn will_take(&self, now: Instant) -> Bytes {
        match self.phase {
            Phase::Starting => self.needs,
            Phase::Running if self.age(now) < EARLY_DEATH => self.needs.minus(self.usage.unwrap_or_default()),
            _ => Bytes::ZERO,
        }
    }

    /// Its leak, and until that reaches the limit.
    pub(crate) fn leak(&self) -> Option<(Leak, Duration)> {
        let (leak, limit) = (self.leak.leak()?, self.policy.limit?);
        Some((leak, leak.reaches(limit, self.usage?)))
    }

    /// The kernel itself stops the whole job at its limit.
    pub(crate) fn is_held(&self) -> bool {
        self.policy.enforcement.holds_the_tree() && !self.unheld
    }

    /// A worker, which gets another chance, rather than a single run.
    pub(crate) fn is_worker(&self) -> bool {
        self.policy.restart != Restart::Never
    }

    /// When its planned restart is due. Once apart, equal ages keep the workers of a pool apart.
    pub(crate) fn age_due(&self) -> Instant {
        let stagger = if self.attempt <= 1 { self.policy.stagger } else { Duration::ZERO };
        self.policy.max_age.map_or(Instant::NEVER, |age| self.started.after(age.saturating_add(stagger)))
    }

    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.since(self.started)
    }

    /// Where the gentle stages begin: a tenth below the limit, since the kernel's wall at the limit has no grace.
    pub(crate) fn mark(&self) -> Option<Bytes> {
        self.policy.limit.map(|limit| limit.percent(90))
    }

    /// It was asked for this, and has had its time to answer.
    pub(crate) fn was_asked_in_vain(&self, cause: Cause) -> bool {
        self.asked == Some(cause) && self.timers.get(Timer::Prune) == Instant::NEVER
    }

    /// It was asked for this, and may still answer.
    pub(crate) fn is_given_time(&self, cause: Cause) -> bool {
        self.asked == Some(cause) && self.timers.get(Timer::Prune) != Instant::NEVER
    }

    pub(crate) fn candidate(&self, job: JobId, now: Instant) -> Option<Candidate> {
        let alive = matches!(self.phase, Phase::Running | Phase::Terminating);
        // The work of a job that is ending anyway is lost already.
        let at_work = self.phase == Phase::Running;
        let unsaved = if at_work { now.since(self.unsaved_since) } else { Duration::ZERO };
        self.usage.filter(|_| alive).map(|usage| Candidate {
            job,
            usage,
            rate: self.growth.rate(),
            limit: self.policy.limit,
            unsaved,
        })
    }
}

/// What others may see of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Where it stands.
    pub phase: Phase,
    /// The how-manieth start.
    pub attempt: u32,
    /// Time since its start.
    pub age: Duration,
    /// When its planned restart is due, counted from now.
    pub restart_in: Option<Duration>,
    /// When it is started again, counted from now.
    pub start_in: Option<Duration>,
    /// What it uses.
    pub usage: Option<Bytes>,
    /// The most it was seen to use since its start.
    pub peak: Bytes,
    /// How fast it grows, bytes per second.
    pub rate: Bytes,
    /// What it may use.
    pub limit: Option<Bytes>,
    /// Its leak, and until that reaches the limit.
    pub leak: Option<(Leak, Duration)>,
    /// Failures in a row.
    pub failures: u32,
    /// It was asked to stop its present work.
    pub asked: Option<Cause>,
    /// It listens when asked.
    pub checks: bool,
    /// It was stopped where it is.
    pub frozen: bool,
    /// What it holds of the GPU where that counts most: where it is nearest to its limit.
    pub vram: Option<Holding>,
    /// What it was last braked for, if that was a GPU's memory.
    pub vram_brake: Option<Holding>,
}
