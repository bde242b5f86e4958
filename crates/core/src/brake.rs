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
use crate::job::Phase;
use crate::policy::MEMORY_BACK_WAIT;
use crate::timer::Timer;
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
    /// A job was killed; its memory is on the way back.
    Settle(JobId, Instant),
    /// Short, and none of ours can help.
    Helpless,
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
            Brake::Confirm => match self.choose_victim(now) {
                Some(choice) => self.brake_job(now, choice),
                None => self.helpless(),
            },
            Brake::Acting(id) => self.follow_up(now, id, short),
            Brake::Settle(id, since) => self.settle(now, id, since),
        };
    }

    /// A shortage begins. A job that is dying already is its victim, whoever ended it.
    fn notice(&mut self, now: Instant) -> Brake {
        let dying = |id: &JobId| {
            let job = &self.jobs[id.index()];
            job.is_dying() && job.killed_at.is_some_and(|at| now.since(at) < MEMORY_BACK_WAIT)
        };
        if let Some(id) = self.ids().find(dying) {
            return Brake::Settle(id, now);
        }
        match self.choose_victim(now) {
            Some(_) => Brake::Confirm,
            None => self.helpless(),
        }
    }

    fn helpless(&mut self) -> Brake {
        if self.brake != Brake::Helpless {
            let available = self.available();
            self.say(Event::NoVictim { available });
        }
        Brake::Helpless
    }

    fn choose_victim(&self, now: Instant) -> Option<Choice> {
        let deficit = self.policy.reserve.plus(self.policy.reserve.percent(10)).minus(self.available());
        let candidates = self.ids().filter_map(|id| self.jobs[id.index()].candidate(id, now));
        choose(candidates, deficit)
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
            Phase::Running | Phase::Terminating if left <= NO_TIME => self.kill_for_memory(now, id),
            Phase::Running => {
                if job.timers.get(Timer::Prune) == Instant::NEVER || left <= TIME_TO_TERMINATE {
                    self.stop(now, id, Cause::Reserve);
                }
                Brake::Acting(id)
            }
            Phase::Terminating => Brake::Acting(id),
            _ if job.is_dying() => Brake::Settle(id, now),
            _ => Brake::Idle,
        }
    }

    /// Until nothing at all is left, at the fastest growth in sight.
    fn time_left(&self, id: JobId) -> Duration {
        // Free memory ends before MemAvailable says zero: the last eighth of the reserve is not counted on.
        let room = self.available().minus(Bytes(self.policy.reserve.0 / 8));
        time_to_use(room, self.growth.rate().max(self.jobs[id.index()].growth.rate()))
    }

    /// SIGKILL; whatever else grows is held while the memory comes back.
    fn kill_for_memory(&mut self, now: Instant, id: JobId) -> Brake {
        self.kill(now, id, Cause::Reserve);
        for other in self.ids().filter(|other| *other != id) {
            let job = self.job(other);
            if job.phase == Phase::Running && !job.frozen && job.growth.rate() >= GROWING {
                job.frozen = true;
                self.act(Effect::Freeze(other));
                self.say(Event::Freeze { job: other });
            }
        }
        Brake::Settle(id, now)
    }

    fn settle(&mut self, now: Instant, id: JobId, since: Instant) -> Brake {
        let waiting = self.jobs[id.index()].is_dying() && now.since(since) < MEMORY_BACK_WAIT;
        if waiting {
            return Brake::Settle(id, since);
        }
        for other in self.ids() {
            self.thaw(other);
        }
        Brake::Idle
    }

    pub(crate) fn thaw(&mut self, id: JobId) {
        if std::mem::take(&mut self.job(id).frozen) {
            self.act(Effect::Thaw(id));
            self.say(Event::Thaw { job: id });
        }
    }
}
