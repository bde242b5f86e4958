//! How a job starts and ends: start when there is room, SIGTERM, grace, SIGKILL, empty tree, memory back, next.
//!
//! Every started job comes through `end` exactly once, with one cause.

use std::time::Duration;

use crate::clock::{Instant, nanos};
use crate::effect::{Effect, Exit, JobId, Urgency};
use crate::engine::Engine;
use crate::event::{Cause, Event, Level, Parked, Pause};
use crate::job::{Ending, Phase, Sweep, WORTH_WAITING};
use crate::policy::{HEALTH_EVERY, JobPolicy, KILL_WAIT, LEFTOVER_GRACE, Restart};
use crate::pool::{Failures, Next};
use crate::timer::Timer;
use crate::units::Bytes;

/// An empty tree gets this long for its exit code to be read and, as long as it goes on falling, for its charge to
/// go.
const EMPTY_WAIT: Duration = Duration::from_millis(500);
/// Removing its shared memory may take this long without anything to show for it: whoever does it has no privilege, and
/// the machine is busy.
const SWEEP_WAIT: Duration = Duration::from_secs(10);
/// A main process that dies of SIGKILL this soon after the kernel killed in its job was the kernel's victim.
const KERNELS_VICTIM: Duration = Duration::from_secs(1);

impl Engine {
    /// Does what is due. Called after every input.
    pub(crate) fn advance(&mut self, now: Instant) {
        self.watch_gpus(now);
        for id in self.ids() {
            while let Some(timer) = self.job(id).timers.take_due(now) {
                self.due(now, id, timer);
            }
            self.try_start(now, id);
            self.try_settle(now, id);
        }
        self.next_planned(now);
    }

    fn due(&mut self, now: Instant, id: JobId, timer: Timer) {
        match timer {
            Timer::Start => self.job(id).start_due = true,
            Timer::Age => self.plan(id, Cause::Age),
            Timer::Timeout => self.stop(now, id, Cause::Timeout),
            // It did not answer in time, or its answer did not help: the look that follows decides.
            Timer::Prune => self.look_at = now,
            Timer::Grace => self.grace_is_over(now, id),
            Timer::KillWait => self.did_not_die(now, id),
            Timer::MemoryBack if self.sweep(now, id) => {}
            Timer::MemoryBack => self.end(now, id),
            Timer::Soft => self.soft_is_over(now, id),
            Timer::Health => self.tell_health(now, id),
            Timer::VramBack => self.vram_is_late(now, id),
        }
    }

    // --- start ---------------------------------------------------------------------------------------------

    pub(crate) fn add(&mut self, now: Instant, id: JobId, policy: JobPolicy) {
        self.make_slot(id, policy);
        self.job(id).timers.set(Timer::Start, now);
        if let Some(urgency) = self.shutdown {
            self.remove(now, id, urgency);
        }
    }

    fn try_start(&mut self, now: Instant, id: JobId) {
        let job = &self.jobs[id.index()];
        if job.phase != Phase::Waiting || !job.start_due {
            return;
        }
        // Asked only for a job that wants to start: the answer takes a look at all the others.
        if job.is_worker() && !self.has_room(now, id) {
            // Before the first look there is nothing to wait for but that look.
            if self.host.is_some() {
                self.wait_for_memory(now, id, Pause::Memory);
            }
        } else if job.is_worker() && !self.has_vram(id) {
            self.wait_for_memory(now, id, Pause::Vram);
        } else {
            let job = self.job(id);
            job.reset();
            job.phase = Phase::Starting;
            self.act(Effect::Start(id));
        }
    }

    /// Nothing is started into a shortage, nor while the memory of a dead job is still on its way back. Where a
    /// shortage ended the last job, its successor waits until there is room for it, and they start one by one.
    fn has_room(&self, now: Instant, id: JobId) -> bool {
        let others = self.ids().filter(|other| *other != id);
        let taken = others.map(|other| self.jobs[other.index()].will_take(now));
        let needs = taken.fold(self.jobs[id.index()].needs, Bytes::plus);
        let fits = needs == Bytes::ZERO || self.available() >= self.policy.reserve.plus(needs);
        self.host.is_some() && fits && self.levels.level() < Level::Critical && !self.brake.is_busy()
    }

    fn wait_for_memory(&mut self, now: Instant, id: JobId, pause: Pause) {
        let job = self.job(id);
        let delay = Duration::from_millis(500);
        job.start_due = false;
        job.timers.set(Timer::Start, now.after(delay));
        if job.waits_for.replace(pause) != Some(pause) {
            let failures = job.failures.in_row;
            self.say(Event::Waiting { job: id, pause, delay, failures });
        }
    }

    pub(crate) fn started(&mut self, now: Instant, id: JobId) {
        if self.job(id).phase != Phase::Starting {
            return;
        }
        self.job(id).attempt = self.job(id).attempt.saturating_add(1);
        self.run(now, id);
        let attempt = self.job(id).attempt;
        self.say(Event::Started { job: id, attempt, adopted: false });
        // It was called off while it started.
        if let Some(urgency) = self.job(id).removed {
            self.remove(now, id, urgency);
        }
    }

    pub(crate) fn adopt(&mut self, now: Instant, id: JobId, policy: JobPolicy, age: Duration, attempt: u32) {
        self.make_slot(id, policy);
        self.job(id).attempt = attempt;
        self.run(Instant(now.0.saturating_sub(nanos(age))), id);
        let job = self.job(id);
        job.timers.set(Timer::Health, now.after(HEALTH_EVERY));
        self.say(Event::Started { job: id, attempt, adopted: true });
    }

    /// Puts the slot at work as of `born`.
    fn run(&mut self, born: Instant, id: JobId) {
        let job = self.job(id);
        job.phase = Phase::Running;
        job.started = born;
        job.unsaved_since = born;
        let policy = job.policy;
        let age_due = job.age_due();
        job.timers.set(Timer::Age, age_due);
        let mut set = |timer, after: Option<Duration>| {
            job.timers.set(timer, after.map_or(Instant::NEVER, |d| born.after(d)));
        };
        set(Timer::Timeout, policy.timeout);
        set(Timer::Health, (policy.restart != Restart::Never).then_some(HEALTH_EVERY));
        if self.planned == Some(id) {
            self.planned = None;
        }
        self.arm_soft(id);
        self.look_at = born.min(self.look_at);
    }

    pub(crate) fn start_failed(&mut self, now: Instant, id: JobId, hopeless: bool) {
        if self.job(id).phase == Phase::Starting {
            let job = self.job(id);
            job.hopeless = hopeless;
            job.attempt = job.attempt.saturating_add(1);
            job.started = now;
            job.cause = Some(Cause::StartFailed);
            self.end(now, id);
        }
    }

    // --- planned restarts ----------------------------------------------------------------------------------

    pub(crate) fn plan(&mut self, id: JobId, cause: Cause) {
        let job = self.job(id);
        if job.phase == Phase::Running && job.due.is_none() {
            job.due = Some(cause);
        }
    }

    /// At most one planned restart is in flight, from its SIGTERM until its successor runs.
    fn next_planned(&mut self, now: Instant) {
        if let Some(id) = self.planned.filter(|id| self.jobs[id.index()].is_final()) {
            self.planned = None;
            self.job(id).due = None;
        }
        if self.planned.is_some() || self.shutdown.is_some() {
            return;
        }
        let next = self.ids().find(|id| {
            let job = &self.jobs[id.index()];
            job.due.is_some() && job.phase == Phase::Running
        });
        let Some(id) = next else { return };
        if let Some(cause) = self.job(id).due.take() {
            self.planned = Some(id);
            self.stop(now, id, cause);
        }
    }

    // --- end -----------------------------------------------------------------------------------------------

    /// SIGTERM, and its grace begins. Only for a job at work; whatever else it is, it is ending already.
    pub(crate) fn stop(&mut self, now: Instant, id: JobId, cause: Cause) {
        if self.job(id).phase != Phase::Running {
            return;
        }
        self.thaw(id);
        let job = self.job(id);
        job.phase = Phase::Terminating;
        job.cause = Some(cause);
        // What it was asked is outdone; taken back later, it would think that it may go on.
        job.asked = None;
        let (grace, usage) = (job.policy.grace, job.usage);
        // The age of a job that is ending is of no interest; SIGKILL's hour is.
        job.timers.clear();
        job.timers.set(Timer::Grace, now.after(grace));
        self.release_soft(id);
        self.act(Effect::Terminate(id, cause));
        self.say(Event::Terminate { job: id, cause, usage, grace });
    }

    /// SIGKILL to the whole tree.
    pub(crate) fn kill(&mut self, now: Instant, id: JobId, cause: Cause) {
        let job = self.job(id);
        if !job.is_alive() || matches!(job.phase, Phase::Killing | Phase::Unkillable) {
            return;
        }
        let after_grace = job.phase == Phase::Terminating;
        job.phase = Phase::Killing;
        job.killed_at = Some(now);
        let cause = *job.cause.get_or_insert(cause);
        let usage = job.usage;
        job.timers.clear();
        job.timers.set(Timer::KillWait, now.after(KILL_WAIT));
        // A frozen tree dies of SIGKILL under v2; where it would not, the actuator thaws it.
        job.frozen = false;
        self.memory_returns(now, id);
        self.act(Effect::Kill(id, cause));
        let available = self.available();
        self.say(Event::Kill { job: id, cause, usage, available, after_grace });
    }

    fn grace_is_over(&mut self, now: Instant, id: JobId) {
        let cause = self.job(id).cause.unwrap_or(Cause::Requested);
        self.kill(now, id, cause);
    }

    pub(crate) fn exited(&mut self, now: Instant, id: JobId, exit: Exit) {
        let job = self.job(id);
        // The tree may have been seen empty before its main process was reaped.
        if !(job.is_alive() || job.phase == Phase::Settling) || job.exit.is_some() {
            return;
        }
        job.exit = Some(exit);
        let kernel = job.kernel_kill.filter(|(at, _)| now.since(*at) < KERNELS_VICTIM);
        job.cause.get_or_insert(match (exit, kernel) {
            (Exit::Code(0), _) => Cause::Finished,
            (Exit::Signal(9), Some((_, cause))) => cause,
            _ => Cause::Crash,
        });
        if !matches!(job.phase, Phase::Running | Phase::Terminating) {
            return;
        }
        job.phase = Phase::Draining;
        job.timers.clear();
        job.timers.set(Timer::Grace, now.after(LEFTOVER_GRACE));
        self.memory_returns(now, id);
        self.thaw(id);
        self.release_soft(id);
        self.act(Effect::TerminateTree(id));
    }

    pub(crate) fn emptied(&mut self, now: Instant, id: JobId) {
        if !self.job(id).is_alive() {
            return;
        }
        self.memory_returns(now, id);
        let job = self.job(id);
        job.phase = Phase::Settling;
        job.frozen = false;
        if let Some(ending) = &mut job.ending {
            ending.left = job.usage.unwrap_or_default();
        }
        job.timers.clear();
        job.timers.set(Timer::MemoryBack, now.after(EMPTY_WAIT));
        self.look_at = now;
    }

    /// An empty tree has ended when its exit code is known, its shared memory removed, and its memory back.
    fn try_settle(&mut self, now: Instant, id: JobId) {
        let job = &self.jobs[id.index()];
        if job.phase != Phase::Settling || job.exit.is_none() || self.sweep(now, id) {
            return;
        }
        let job = &self.jobs[id.index()];
        if job.sweep != Sweep::UnderWay && job.memory_is_back() {
            self.end(now, id);
        }
    }

    /// Has removed what it left in shared memory, where memory ended it or it is to leave nothing; whether that begins now.
    fn sweep(&mut self, now: Instant, id: JobId) -> bool {
        let job = self.job(id);
        let ended = job.cause.is_some_and(|cause| cause.is_memory() || job.policy.leaves_nothing);
        let due = ended && job.sweep == Sweep::NotAsked;
        if due {
            job.sweep = Sweep::UnderWay;
            job.timers.set(Timer::MemoryBack, now.after(SWEEP_WAIT));
            self.act(Effect::Sweep(id));
        }
        due
    }

    /// What was left is removed; the look that follows says whether that was all.
    pub(crate) fn swept(&mut self, now: Instant, id: JobId) {
        let job = self.job(id);
        if job.phase == Phase::Settling && job.sweep == Sweep::UnderWay {
            job.sweep = Sweep::Done;
            job.timers.set(Timer::MemoryBack, now.after(EMPTY_WAIT));
            self.look_at = now;
        }
    }

    /// What an empty tree is still charged for. While that falls, it is on its way.
    pub(crate) fn left_behind(&mut self, now: Instant, id: JobId) {
        let job = self.job(id);
        let (Phase::Settling, Some(usage), Some(ending)) = (job.phase, job.usage, &mut job.ending) else {
            return;
        };
        if usage.plus(WORTH_WAITING) <= ending.left {
            ending.left = usage;
            let wait = if job.sweep == Sweep::UnderWay { SWEEP_WAIT } else { EMPTY_WAIT };
            job.timers.set(Timer::MemoryBack, now.after(wait));
        }
    }

    /// One step nearer to its end (exited, killed, empty). Remembers how things stood at the first, so that what
    /// comes back can be told from what others give or take.
    fn memory_returns(&mut self, now: Instant, id: JobId) {
        self.victim_moved(now, id);
        let available = self.available();
        let job = self.job(id);
        let usage = job.usage.unwrap_or_default();
        job.ending.get_or_insert(Ending { since: now, usage, left: usage, available }).since = now;
    }

    fn did_not_die(&mut self, now: Instant, id: JobId) {
        let job = self.job(id);
        job.phase = Phase::Unkillable;
        let after = job.killed_at.map_or(KILL_WAIT, |at| now.since(at));
        self.say(Event::Unkillable { job: id, after });
    }

    fn end(&mut self, now: Instant, id: JobId) {
        let jitter = self.random.draw();
        self.victim_moved(now, id);
        let warning = self.policy.warning;
        let job = self.job(id);
        let complete = job.memory_is_back();
        let cause = job.cause.unwrap_or(Cause::Crash);
        let exit = job.exit.unwrap_or(Exit::Unknown);
        let (age, peak, killed_at) = (job.age(now), job.peak, job.killed_at);
        job.needs = if cause == Cause::Reserve { peak.min(warning) } else { Bytes::ZERO };
        let next = match job.failures.after(&job.policy, cause, age, jitter) {
            Next::After(_) | Next::Park(_) if job.hopeless => Next::Park(Parked::CannotStart),
            next => next,
        };
        if let Some(at) = killed_at {
            self.say(Event::MemoryBack { job: id, after: now.since(at), complete });
        }
        self.say(Event::Ended { job: id, cause, exit, age, peak });
        self.act(Effect::Clean(id));
        let job = self.job(id);
        let held_vram = job.gpus.has_held;
        job.reset();
        let next = if job.removed.is_some() { Next::Over } else { next };
        self.follow(now, id, next);
        if held_vram {
            self.owe_vram(now, id);
        }
    }

    fn follow(&mut self, now: Instant, id: JobId, next: Next) {
        let job = self.job(id);
        let failures = job.failures.in_row;
        match next {
            Next::Over => job.phase = Phase::Over,
            Next::Now => job.timers.set(Timer::Start, now),
            Next::After(delay) => {
                job.timers.set(Timer::Start, now.after(delay));
                self.say(Event::Waiting { job: id, pause: Pause::Backoff, delay, failures });
            }
            Next::Park(parked) => {
                job.phase = Phase::Parked;
                self.say(Event::Parked { job: id, parked, failures });
            }
        }
    }

    // --- asked from outside --------------------------------------------------------------------------------

    pub(crate) fn remove(&mut self, now: Instant, id: JobId, urgency: Urgency) {
        self.job(id).removed = Some(urgency);
        match (self.job(id).phase, urgency) {
            (Phase::Waiting | Phase::Parked, _) => {
                let job = self.job(id);
                job.phase = Phase::Over;
                job.timers.clear();
            }
            (_, Urgency::Graceful) => self.stop(now, id, Cause::Requested),
            (_, Urgency::Now) => self.kill(now, id, Cause::Requested),
        }
    }

    /// A rolling restart of what runs; what waits, was given up or is over gets a fresh chance at once, and what is
    /// being stopped when it has ended: the last word counts. Nothing begins again in a shutdown.
    pub(crate) fn restart(&mut self, now: Instant, id: JobId) {
        if self.shutdown.is_some() {
            return;
        }
        let job = self.job(id);
        let stopped = job.removed.take().is_some();
        match job.phase {
            Phase::Waiting | Phase::Parked | Phase::Over => {
                job.phase = Phase::Waiting;
                job.failures = Failures::default();
                job.timers.set(Timer::Start, now);
                self.await_vram(now, id);
            }
            _ if stopped => {}
            _ => self.plan(id, Cause::Requested),
        }
    }

    pub(crate) fn shut_down(&mut self, now: Instant, urgency: Urgency) {
        self.shutdown = Some(urgency);
        for id in self.ids() {
            self.remove(now, id, urgency);
        }
    }

    fn tell_health(&mut self, now: Instant, id: JobId) {
        let available = self.available();
        let job = self.job(id);
        job.timers.set(Timer::Health, now.after(HEALTH_EVERY));
        let (age, usage) = (job.age(now), job.usage);
        let max_age = match job.timers.get(Timer::Age) {
            Instant::NEVER => None,
            due => Some(due.since(job.started)),
        };
        let vram = self.fullest_gpu(id);
        self.say(Event::Health { job: id, age, max_age, usage, available, vram });
    }
}
