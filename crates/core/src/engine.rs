//! The engine: takes inputs, keeps the slots, gives effects and events.
//!
//! This is the front door and the order of things; what is decided stands in `lifecycle` (how a job starts and
//! ends), `limit` (how it is held to what it may use), `brake` (what happens when the host is short) and `look`
//! (when to look again). It never blocks, reads or allocates once its jobs are known.

use std::collections::VecDeque;
use std::time::Duration;

use crate::brake::Brake;
use crate::clock::Instant;
use crate::effect::{Effect, Exit, Input, JobId, LimitEvent, Urgency, Word};
use crate::event::{Cause, Event, Level};
use crate::forecast::Growth;
use crate::job::{Job, Phase, View};
use crate::level::Levels;
use crate::policy::{HostPolicy, JobPolicy, OnLimit};
use crate::pool::Random;
use crate::sample::{HostSample, JobSample};
use crate::timer::Timer;
use crate::units::Bytes;
use crate::vram::Gpus;

/// Decides everything; see the crate's page.
#[derive(Debug)]
pub struct Engine {
    pub(crate) policy: HostPolicy,
    pub(crate) jobs: Vec<Job>,
    pub(crate) host: Option<HostSample>,
    pub(crate) levels: Levels,
    /// Growth of what is used on the host.
    pub(crate) growth: Growth,
    pub(crate) brake: Brake,
    pub(crate) gpus: Gpus,
    /// The slot whose planned restart is in flight.
    pub(crate) planned: Option<JobId>,
    pub(crate) shutdown: Option<Urgency>,
    pub(crate) ceiling: Option<Bytes>,
    pub(crate) random: Random,
    pub(crate) look_at: Instant,
    done: bool,
    effects: VecDeque<Effect>,
    events: VecDeque<Event>,
}

impl Engine {
    /// An engine without jobs. `seed` only spreads restarts after failures.
    pub fn new(policy: HostPolicy, seed: u64) -> Engine {
        Engine {
            policy,
            jobs: Vec::new(),
            host: None,
            levels: Levels::default(),
            growth: Growth::default(),
            brake: Brake::default(),
            gpus: Gpus::default(),
            planned: None,
            shutdown: None,
            ceiling: None,
            random: Random(seed),
            look_at: Instant(0),
            done: false,
            effects: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Takes one input. Afterwards drain [`Engine::effect`] and then [`Engine::event`].
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        if self.is_known(&input) {
            self.take(now, input);
        }
        self.advance(now);
        self.say_when_done();
    }

    /// Late news about a slot that was never made is no reason to fall.
    fn is_known(&self, input: &Input<'_>) -> bool {
        match *input {
            Input::Change(job, _)
            | Input::Started(job)
            | Input::StartFailed(job)
            | Input::CannotStart(job)
            | Input::Limit(job, _)
            | Input::Unheld(job)
            | Input::Exited(job, _)
            | Input::Emptied(job)
            | Input::Swept(job)
            | Input::Heard(job, _)
            | Input::Restart(job)
            | Input::Remove(job, _) => job.index() < self.jobs.len(),
            Input::Add(..) | Input::Adopt(..) | Input::Sample(..) | Input::Shutdown(_) | Input::Tick => true,
            Input::Vram(..) | Input::VramUnknown(_) => true,
        }
    }

    fn take(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Add(job, policy) => self.add(now, job, policy),
            Input::Change(job, policy) => self.change(now, job, policy),
            Input::Adopt(job, policy, age, attempt) => self.adopt(now, job, policy, age, attempt),
            Input::Started(job) => self.started(now, job),
            Input::StartFailed(job) => self.start_failed(now, job, false),
            Input::CannotStart(job) => self.start_failed(now, job, true),
            Input::Sample(host, jobs) => self.sampled(now, host, jobs),
            Input::Vram(at, devices, held) => self.gpus_read(now, at, devices, held),
            Input::VramUnknown(why) => self.gpus_unknown(why),
            Input::Limit(job, event) => self.kernel_spoke(now, job, event),
            Input::Unheld(job) => self.unheld(now, job),
            Input::Exited(job, exit) => self.exited(now, job, exit),
            Input::Emptied(job) => self.emptied(now, job),
            Input::Swept(job) => self.swept(now, job),
            Input::Heard(job, word) => self.heard(now, job, word),
            Input::Restart(job) => self.restart(now, job),
            Input::Remove(job, urgency) => self.remove(now, job, urgency),
            Input::Shutdown(urgency) => self.shut_down(now, urgency),
            Input::Tick => {}
        }
    }

    /// The next thing to do.
    pub fn effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// The next thing to say.
    pub fn event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When the engine wants to be called, with a fresh sample if [`Engine::next_look`] is due by then.
    pub fn deadline(&self) -> Instant {
        self.jobs
            .iter()
            .map(|job| job.timers.earliest())
            .min()
            .unwrap_or(Instant::NEVER)
            .min(self.look_at)
            .min(self.gpus.stale_at())
    }

    /// When the sensors are to be read next.
    pub fn next_look(&self) -> Instant {
        self.look_at
    }

    /// How short memory is.
    pub fn level(&self) -> Level {
        self.levels.level()
    }

    /// The thresholds in force.
    pub fn host_policy(&self) -> &HostPolicy {
        &self.policy
    }

    /// What an earlier guard had counted of a slot: failures in a row, which go on from there.
    pub fn recall(&mut self, job: JobId, failures: u32) {
        if let Some(job) = self.jobs.get_mut(job.index()) {
            job.failures.in_row = failures;
        }
    }

    /// New thresholds, from a re-read configuration.
    pub fn set_host_policy(&mut self, policy: HostPolicy) {
        self.policy = policy;
        self.look_at = Instant(0);
    }

    /// No slot will do anything any more.
    pub fn is_done(&self) -> bool {
        !self.jobs.is_empty() && self.jobs.iter().all(Job::is_final)
    }

    /// How many slots there are.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// What others may see of a slot.
    pub fn view(&self, job: JobId, now: Instant) -> Option<View> {
        let job = self.jobs.get(job.index())?;
        let until = |timer| match job.timers.get(timer) {
            Instant::NEVER => None,
            at => Some(at.since(now)),
        };
        Some(View {
            phase: job.phase,
            attempt: job.attempt,
            age: if job.is_alive() { job.age(now) } else { Duration::ZERO },
            restart_in: until(Timer::Age),
            start_in: until(Timer::Start).filter(|_| job.phase == Phase::Waiting),
            usage: job.usage,
            peak: job.peak,
            rate: job.growth.rate(),
            limit: job.policy.limit,
            leak: job.leak(),
            failures: job.failures.in_row,
            asked: job.asked,
            checks: job.checks,
            frozen: job.frozen,
            vram: job.gpus.worst,
            vram_brake: job.gpus.braked,
        })
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = JobId> + Clone + use<> {
        (0..self.jobs.len() as u16).map(JobId)
    }

    pub(crate) fn job(&mut self, job: JobId) -> &mut Job {
        &mut self.jobs[job.index()]
    }

    pub(crate) fn available(&self) -> Bytes {
        self.host.map_or(Bytes::ZERO, |host| host.available)
    }

    pub(crate) fn act(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    pub(crate) fn say(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// Makes a slot. From here on nothing may allocate: no input brings more than this out of one job.
    pub(crate) fn make_slot(&mut self, job: JobId, policy: JobPolicy) {
        while self.jobs.len() <= job.index() {
            // A gap: no slot at all, until somebody makes it one.
            self.jobs.push(Job { phase: Phase::Over, removed: Some(Urgency::Now), ..Job::new(policy) });
        }
        let attempt = self.job(job).attempt;
        *self.job(job) = Job { attempt, ..Job::new(policy) };
        self.reserve();
        self.done = false;
    }

    /// Sets aside what one input can bring at most.
    pub(crate) fn reserve(&mut self) {
        let most = 16 + 8 * (self.jobs.len() + self.gpus.len());
        self.effects.reserve(most);
        self.events.reserve(most);
    }

    fn change(&mut self, now: Instant, id: JobId, policy: JobPolicy) {
        let job = self.job(id);
        let before = std::mem::replace(&mut job.policy, policy);
        if !job.is_alive() {
            return;
        }
        if before.max_age != policy.max_age {
            job.timers.set(Timer::Age, job.age_due().max(now));
        }
        if before.limit != policy.limit {
            self.release_soft(id);
            if self.job(id).asked == Some(Cause::Limit) {
                self.resume(id);
            }
            self.act(Effect::SetLimit(id, policy.limit.unwrap_or(Bytes::MAX)));
            self.arm_soft(id);
        }
    }

    fn sampled(&mut self, now: Instant, host: &HostSample, jobs: &[JobSample]) {
        self.host = Some(*host);
        self.growth.update(now, host.total.minus(host.available));
        for sample in jobs {
            self.measured(now, sample);
        }
        for id in self.ids() {
            self.left_behind(now, id);
        }
        if let Some(from) = self.levels.update(now, host, &self.policy) {
            self.level_changed(from, host.available);
        }
        for id in self.ids() {
            self.hold_to_limit(now, id);
        }
        self.brake(now);
        self.move_ceiling(host);
        self.look_at = self.when_to_look(now);
    }

    fn measured(&mut self, now: Instant, sample: &JobSample) {
        let Some(job) = self.jobs.get_mut(sample.job.index()) else { return };
        job.usage = sample.usage.known();
        let Some(usage) = job.usage else { return };
        job.growth.update(now, usage);
        if let Some(ending) = &mut job.ending {
            // What was known when its end came may have been seconds old.
            ending.usage = ending.usage.max(usage);
        }
        if job.is_alive() {
            job.peak = job.peak.max(usage);
        }
    }

    fn level_changed(&mut self, from: Level, available: Bytes) {
        let to = self.levels.level();
        self.say(Event::Level { from, to, available });
        if from == Level::Normal {
            for id in self.ids() {
                self.relieve(id);
            }
        }
    }

    fn kernel_spoke(&mut self, now: Instant, id: JobId, event: LimitEvent) {
        let job = self.job(id);
        if !job.is_alive() && job.phase != Phase::Settling {
            return;
        }
        match event {
            // The sample that follows decides.
            LimitEvent::Soft => self.soft_reached(now, id),
            LimitEvent::KilledAtLimit => self.kernel_killed(now, id, Cause::Limit),
            LimitEvent::KilledAbove => self.kernel_killed(now, id, Cause::Reserve),
        }
    }

    /// Its wall is gone, and its tripwire with it.
    fn unheld(&mut self, now: Instant, id: JobId) {
        let job = self.job(id);
        (job.unheld, job.throttled) = (true, false);
        job.timers.stop(Timer::Soft);
        self.look_at = now;
    }

    fn kernel_killed(&mut self, now: Instant, id: JobId, cause: Cause) {
        self.say(Event::KernelKill { job: id, cause });
        let job = self.job(id);
        job.kernel_kill = Some((now, cause));
        let whole = job.policy.on_limit == OnLimit::Job;
        // A job that was being ended for another reason died of this one. Where it may outlive the loss of a
        // child, only the death of its main process says so.
        let died = whole || (job.exit == Some(Exit::Signal(9)) && job.cause == Some(Cause::Crash));
        let settled = job.cause.is_some_and(|cause| cause.is_memory() || cause == Cause::Finished);
        // Told to stop for its neighbours' sake, it ran into its own wall: that is its own footprint.
        let own_wall = cause == Cause::Limit && job.cause == Some(Cause::Reserve);
        if died && (!settled || own_wall) {
            job.cause = Some(cause);
        }
        if whole {
            self.kill(now, id, cause);
        }
    }

    fn heard(&mut self, now: Instant, id: JobId, word: Word) {
        let job = self.job(id);
        match word {
            Word::Ready | Word::Alive | Word::Stopping => {}
            // Said again and again, it must not prolong a throttle.
            Word::Checks => {
                if !std::mem::replace(&mut job.checks, true) {
                    self.arm_soft(id);
                }
            }
            Word::Trial(_) | Word::Checkpoint => job.unsaved_since = now,
            // An answer is worth a line; what a worker does of its own accord is not.
            Word::Relieved(freed) => {
                if std::mem::take(&mut job.owes_relief) {
                    job.gave_back = Some(now);
                    // It may be enough to take a request back.
                    self.look_at = now;
                    self.say(Event::Relieved { job: id, freed });
                }
            }
        }
    }

    fn say_when_done(&mut self) {
        let done = self.is_done();
        if done && !self.done {
            self.say(Event::Done);
        }
        self.done = done;
    }
}
