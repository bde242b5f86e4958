//! What happens when the host is short: one shortage, one victim, and the gentlest stage that is still in time.
//!
//! Sees twice before it acts (the second look is fresh), and after a kill waits until that memory has really
//! come back. Never chooses what is not a guarded job.

use std::time::Duration;

use crate::clock::Instant;
use crate::effect::{Effect, JobId};
use crate::engine::Engine;
use crate::event::{Cause, Event, Level};
use crate::forecast::time_to_use;
use crate::job::{Ending, Phase, WORTH_WAITING};
use crate::policy::MEMORY_BACK_WAIT;
use crate::units::Bytes;
use crate::victim::{Candidate, Choice, choose};

/// Asking is worth while if the machine lasts at least this long.
const TIME_TO_ASK: Duration = Duration::from_secs(2);
/// SIGTERM is, from here on.
const TIME_TO_TERMINATE: Duration = Duration::from_secs(1);
/// With less than this left, SIGKILL, whatever grace remains: it stops growth within microseconds, but death
/// takes a fifth of a second a GiB.
const NO_TIME: Duration = Duration::from_millis(500);
/// Growth that is worth stopping while a victim dies.
const GROWING: Bytes = Bytes::mib(32);

/// Where the brake stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Brake {
    /// Nothing to do.
    #[default]
    Idle,
    /// Short, and about to look again before acting.
    Confirm,
    /// A job was asked or told to stop.
    Acting(JobId),
    /// A job is on its way out; its memory is awaited.
    Settle(Awaited),
    /// Short, and none of ours can help.
    Helpless,
}

/// The memory of a victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Awaited {
    job: JobId,
    /// When some of it was last seen to come back.
    moved: Instant,
    /// What the victim still held then.
    held: Bytes,
    /// What will be available once all of it is back.
    expected: Bytes,
}

impl Brake {
    /// Memory is being won back.
    pub(crate) fn is_busy(self) -> bool {
        !matches!(self, Brake::Idle | Brake::Helpless)
    }
}

impl Engine {
    /// Takes one step, with a fresh sample.
    pub(crate) fn brake(&mut self, now: Instant) {
        let short = self.levels.level() == Level::Critical;
        self.brake = match self.brake {
            Brake::Idle | Brake::Helpless if !short => Brake::Idle,
            Brake::Idle | Brake::Helpless => self.notice(now),
            Brake::Confirm if !short => Brake::Idle,
            Brake::Confirm => self.confirm(now),
            Brake::Acting(id) => self.follow_up(now, id, short),
            Brake::Settle(awaited) => self.settle(now, awaited, short),
        };
    }

    /// A shortage begins, or goes on.
    fn notice(&mut self, now: Instant) -> Brake {
        if let Some(brake) = self.on_its_way(now) {
            return brake;
        }
        match self.choose_victim(now) {
            Some(_) => Brake::Confirm,
            None => self.helpless(),
        }
    }

    /// It is still short at the second look.
    fn confirm(&mut self, now: Instant) -> Brake {
        if let Some(brake) = self.on_its_way(now) {
            return brake;
        }
        match self.choose_victim(now) {
            Some(choice) => self.brake_job(now, choice),
            None => self.helpless(),
        }
    }

    /// A job that is on its way out already is the victim of this shortage, whoever ended it.
    fn on_its_way(&mut self, now: Instant) -> Option<Brake> {
        let told = |id: &JobId| {
            let job = &self.jobs[id.index()];
            job.phase == Phase::Terminating && job.cause == Some(Cause::Reserve)
        };
        let dying = |id: &JobId| {
            let job = &self.jobs[id.index()];
            let helps = |e: Ending| e.usage >= WORTH_WAITING && now.since(e.since) < MEMORY_BACK_WAIT;
            job.is_dying() && job.ending.is_some_and(helps)
        };
        if let Some(id) = self.ids().find(dying) {
            return Some(self.wait_for(now, id));
        }
        self.ids().find(told).map(Brake::Acting)
    }

    fn helpless(&mut self) -> Brake {
        if self.brake != Brake::Helpless {
            let available = self.available();
            self.say(Event::NoVictim { available });
        }
        Brake::Helpless
    }

    fn choose_victim(&self, now: Instant) -> Option<Choice> {
        let deficit = self.enough().minus(self.available());
        let candidates = self.ids().filter_map(|id| self.jobs[id.index()].candidate(id, now));
        choose(candidates, deficit)
    }

    /// With this available the shortage is over.
    fn enough(&self) -> Bytes {
        self.policy.reserve.plus(self.policy.reserve.percent(10))
    }

    fn brake_job(&mut self, now: Instant, choice: Choice) -> Brake {
        let Candidate { job: id, .. } = choice.victim;
        let left = self.time_left(id);
        self.say_brake(id, Cause::Reserve, choice.reason);
        let job = &self.jobs[id.index()];
        if left <= TIME_TO_TERMINATE {
            return self.kill_for_memory(now, id);
        }
        if job.phase == Phase::Running {
            if job.checks && left > TIME_TO_ASK {
                self.ask(now, id, Cause::Reserve);
            } else {
                self.stop(now, id, Cause::Reserve);
            }
        }
        Brake::Acting(id)
    }

    /// The victim of this shortage has been told; is that enough, and still in time?
    fn follow_up(&mut self, now: Instant, id: JobId, short: bool) -> Brake {
        let left = self.time_left(id);
        let job = &self.jobs[id.index()];
        match job.phase {
            Phase::Running | Phase::Terminating if !short => {
                if job.asked == Some(Cause::Reserve) {
                    self.resume(id);
                }
                Brake::Idle
            }
            Phase::Running if job.is_given_time(Cause::Reserve) && left > TIME_TO_TERMINATE => {
                Brake::Acting(id)
            }
            Phase::Running => self.press(now, id, left),
            Phase::Terminating if left <= NO_TIME => self.kill_for_memory(now, id),
            Phase::Terminating => Brake::Acting(id),
            _ if job.is_dying() => self.wait_for(now, id),
            _ => Brake::Idle,
        }
    }

    /// Asking was not enough. If something else has begun to die meanwhile, that is enough.
    fn press(&mut self, now: Instant, id: JobId, left: Duration) -> Brake {
        if let Some(brake) = self.on_its_way(now) {
            self.resume(id);
            return brake;
        }
        if left <= TIME_TO_TERMINATE {
            return self.choose_again(now, id);
        }
        self.stop(now, id, Cause::Reserve);
        Brake::Acting(id)
    }

    /// Time ran out on a job that was only asked: perhaps another one is why.
    fn choose_again(&mut self, now: Instant, asked: JobId) -> Brake {
        match self.choose_victim(now) {
            Some(choice) if choice.victim.job != asked => {
                self.resume(asked);
                self.brake_job(now, choice)
            }
            _ => self.kill_for_memory(now, asked),
        }
    }

    /// Until nothing at all is left, or the kernel chooses a victim of its own, at the fastest growth in sight.
    fn time_left(&self, id: JobId) -> Duration {
        let rate = self.growth.rate().max(self.jobs[id.index()].growth.rate());
        // Free memory ends before MemAvailable says zero: the last eighth of the reserve is not counted on.
        let room = self.available().minus(Bytes(self.policy.reserve.0 / 8));
        let charged = self.host.and_then(|host| host.charged.known());
        // Who stands at the ceiling and does not grow is in no hurry.
        match self.ceiling.zip(charged).filter(|_| rate >= GROWING) {
            Some((ceiling, charged)) => time_to_use(room.min(ceiling.minus(charged)), rate),
            None => time_to_use(room, rate),
        }
    }

    /// SIGKILL; whatever else grows is held while the memory comes back.
    fn kill_for_memory(&mut self, now: Instant, id: JobId) -> Brake {
        self.kill(now, id, Cause::Reserve);
        self.wait_for(now, id)
    }

    fn wait_for(&mut self, now: Instant, id: JobId) -> Brake {
        self.hold_growers(id);
        Brake::Settle(self.awaited(now, id))
    }

    fn awaited(&self, now: Instant, id: JobId) -> Awaited {
        let job = &self.jobs[id.index()];
        let held = job.usage.unwrap_or_default();
        let expected = job.ending.map_or(Bytes::ZERO, |ending| ending.available.plus(ending.usage));
        Awaited { job: id, moved: now, held, expected }
    }

    fn hold_growers(&mut self, victim: JobId) {
        for id in self.ids().filter(|id| *id != victim) {
            let job = self.job(id);
            if job.phase == Phase::Running && !job.frozen && job.growth.rate() >= GROWING {
                job.frozen = true;
                self.act(Effect::Freeze(id));
                self.say(Event::Freeze { job: id });
            }
        }
    }

    fn settle(&mut self, now: Instant, mut awaited: Awaited, short: bool) -> Brake {
        let id = awaited.job;
        let job = &self.jobs[id.index()];
        let held = job.usage.unwrap_or_default();
        if held.plus(WORTH_WAITING) <= awaited.held {
            (awaited.held, awaited.moved) = (held, now);
        }
        let patient = now.since(awaited.moved) < MEMORY_BACK_WAIT;
        if patient && (job.is_dying() || (short && self.is_hidden(&awaited))) {
            if short {
                self.hold_growers(id);
            }
            return Brake::Settle(awaited);
        }
        for other in self.ids() {
            self.thaw(other);
        }
        Brake::Idle
    }

    /// The victim has given back enough, but the kernel does not count it yet (pages on per-CPU lists) — unless
    /// somebody has taken it meanwhile.
    fn is_hidden(&self, awaited: &Awaited) -> bool {
        awaited.expected >= self.enough() && self.time_left(awaited.job) > NO_TIME
    }

    /// A victim has come one step nearer to its end (killed, empty, ended): its memory is worth waiting for anew.
    /// Once it has ended, what follows in its slot is not what was told to stop.
    pub(crate) fn victim_moved(&mut self, now: Instant, id: JobId) {
        match &mut self.brake {
            Brake::Settle(awaited) if awaited.job == id => awaited.moved = now,
            Brake::Acting(acting) if *acting == id => self.brake = Brake::Settle(self.awaited(now, id)),
            _ => {}
        }
    }

    pub(crate) fn thaw(&mut self, id: JobId) {
        if std::mem::take(&mut self.job(id).frozen) {
            self.act(Effect::Thaw(id));
            self.say(Event::Thaw { job: id });
        }
    }
}
