//! How one job is held to its limit: relieve, then prune, then SIGTERM, each early enough for the next.
//!
//! Where the kernel holds the tree, its wall stands at the limit and needs nobody; the gentle stages begin a
//! tenth below it, because the wall has no grace. Never looks at the host; that is the brake's business.

use std::time::Duration;

use crate::clock::Instant;
use crate::effect::{Effect, JobId};
use crate::engine::Engine;
use crate::event::{Cause, Event, Reason};
use crate::forecast::time_to_use;
use crate::job::{Job, Phase};
use crate::leak::Leak;
use crate::timer::Timer;
use crate::units::Bytes;

/// Caches are asked back from here on, in percent of the limit.
pub(crate) const RELIEVE: u64 = 80;
/// Asking counts as answered below this.
const RELIEVED: u64 = 70;
/// A throttle stays in force for at most this long (left alone it livelocks: a 90-minute outage is on record).
const THROTTLE: Duration = Duration::from_secs(2);
/// It is armed again after this.
const THROTTLE_AGAIN: Duration = Duration::from_secs(10);

impl Engine {
    /// Judges one job by its fresh usage.
    pub(crate) fn hold_to_limit(&mut self, now: Instant, id: JobId) {
        let job = &self.jobs[id.index()];
        let (Some(limit), Some(mark), Some(usage)) = (job.policy.limit, job.mark(), job.usage) else {
            return;
        };
        if job.phase != Phase::Running {
            return;
        }
        self.watch_for_leak(now, id, limit, usage);
        let job = self.job(id);
        job.relieved &= usage >= limit.percent(RELIEVED);
        let near = usage >= mark || will_reach(job, limit.minus(usage));
        if (near || usage >= limit.percent(RELIEVE)) && !std::mem::replace(&mut job.relieved, true) {
            self.relieve(id);
        }
        let job = &self.jobs[id.index()];
        let over = usage < limit.percent(RELIEVE) || job.was_asked_in_vain(Cause::Limit);
        if job.asked == Some(Cause::Limit) && over && !near {
            self.resume(id);
        }
        let job = &self.jobs[id.index()];
        if usage > limit && !job.is_held() {
            self.is_over_limit(now, id);
        } else if near {
            self.is_near_limit(now, id);
        } else if job.throttled && job.timers.get(Timer::Soft) != Instant::NEVER {
            // The mark was touched by file cache alone: give it room, throttle later.
            self.release_soft(id);
            self.job(id).timers.set(Timer::Soft, now.after(THROTTLE_AGAIN));
        }
    }

    /// Nothing but us holds it: a worker gets its grace if the host can afford that, a run is over.
    fn is_over_limit(&mut self, now: Instant, id: JobId) {
        self.say_brake(id, Cause::Limit, Reason::OverLimit);
        let job = &self.jobs[id.index()];
        let host = self.available().minus(self.policy.reserve);
        if job.is_worker() && time_to_use(host, job.growth.rate()) > job.policy.grace {
            self.stop(now, id, Cause::Limit);
        } else {
            self.kill(now, id, Cause::Limit);
        }
    }

    fn is_near_limit(&mut self, now: Instant, id: JobId) {
        let job = &self.jobs[id.index()];
        if job.throttled && job.timers.get(Timer::Soft) == Instant::NEVER {
            self.job(id).timers.set(Timer::Soft, now.after(THROTTLE));
        }
        let job = &self.jobs[id.index()];
        let full = job.mark().zip(job.usage).is_some_and(|(mark, usage)| usage >= mark);
        let asked_in_vain = job.was_asked_in_vain(Cause::Limit);
        if job.checks && job.asked.is_none() {
            self.say_brake(id, Cause::Limit, Reason::NearLimit);
            self.ask(now, id, Cause::Limit);
        } else if full && job.is_worker() && (!job.checks || asked_in_vain) {
            // A run has nobody to start it again: it keeps the chance to stop by itself before the wall.
            self.say_brake(id, Cause::Limit, Reason::NearLimit);
            self.stop(now, id, Cause::Limit);
        }
    }

    fn watch_for_leak(&mut self, now: Instant, id: JobId, limit: Bytes, usage: Bytes) {
        let job = self.job(id);
        let Some(leak) = job.leak.update(now, limit, usage) else { return };
        let reaches_limit_in = leak.reaches(limit, usage);
        let soon = reaches_limit_in < job.policy.grace.saturating_add(THROTTLE_AGAIN) && job.is_worker();
        if job.leak.is_news(&leak, reaches_limit_in) {
            let Leak { slope, at_least, confidence } = leak;
            self.say(Event::Leak { job: id, slope, at_least, confidence, reaches_limit_in });
        }
        if soon {
            self.plan(id, Cause::Leak);
        }
    }

    // --- the gentle stages ---------------------------------------------------------------------------------

    /// Asks for caches back.
    pub(crate) fn relieve(&mut self, id: JobId) {
        let job = self.job(id);
        let usage = job.usage.unwrap_or_default();
        if job.phase == Phase::Running && job.checks {
            job.owes_relief = true;
            self.act(Effect::Relieve(id));
            self.say(Event::Relieve { job: id, usage });
        }
    }

    /// Asks it to stop its present work.
    pub(crate) fn ask(&mut self, now: Instant, id: JobId, cause: Cause) {
        let job = self.job(id);
        job.asked = Some(cause);
        let (patience, usage) = (job.policy.prune_patience, job.usage.unwrap_or_default());
        job.timers.set(Timer::Prune, now.after(patience));
        self.act(Effect::Prune(id, cause));
        self.say(Event::Prune { job: id, cause, usage });
    }

    /// Takes that back.
    pub(crate) fn resume(&mut self, id: JobId) {
        let job = self.job(id);
        let usage = job.usage.unwrap_or_default();
        if job.phase == Phase::Running && job.asked.take().is_some() {
            job.timers.stop(Timer::Prune);
            self.act(Effect::Resume(id));
            self.say(Event::Resume { job: id, usage });
            if !self.job(id).throttled {
                self.arm_soft(id);
            }
        }
    }

    pub(crate) fn say_brake(&mut self, id: JobId, cause: Cause, reason: Reason) {
        let available = self.available();
        let job = &self.jobs[id.index()];
        let (usage, rate, limit) = (job.usage.unwrap_or_default(), job.growth.rate(), job.policy.limit);
        self.say(Event::Brake { job: id, cause, reason, usage, rate, limit, available });
    }

    // --- the throttle --------------------------------------------------------------------------------------

    /// Puts the kernel's tripwire at the mark, for jobs that can do something about it.
    pub(crate) fn arm_soft(&mut self, id: JobId) {
        let job = self.job(id);
        let useful = job.phase == Phase::Running && (job.is_worker() || job.checks);
        if let Some(mark) = job.mark().filter(|_| useful && job.is_held()) {
            job.throttled = true;
            job.timers.stop(Timer::Soft);
            self.act(Effect::SetSoft(id, Some(mark)));
        }
    }

    pub(crate) fn release_soft(&mut self, id: JobId) {
        if std::mem::take(&mut self.job(id).throttled) {
            self.act(Effect::SetSoft(id, None));
        }
    }

    /// The tripwire was touched: look now, and in any case let go in time.
    pub(crate) fn soft_reached(&mut self, now: Instant, id: JobId) {
        let job = self.job(id);
        if job.throttled && job.timers.get(Timer::Soft) == Instant::NEVER {
            job.timers.set(Timer::Soft, now.after(THROTTLE));
        }
        self.look_at = now;
    }

    pub(crate) fn soft_is_over(&mut self, now: Instant, id: JobId) {
        if self.job(id).throttled {
            self.release_soft(id);
            self.job(id).timers.set(Timer::Soft, now.after(THROTTLE_AGAIN));
        } else {
            self.arm_soft(id);
        }
    }
}

/// At the rate that it keeps up it would hit the wall before it could stop by itself. Only for jobs that listen and
/// are past three quarters of their limit: a start-up that loads data grows fast too.
fn will_reach(job: &Job, room: Bytes) -> bool {
    let far_on = job.usage.zip(job.policy.limit).is_some_and(|(usage, limit)| usage > limit.percent(75));
    job.checks && far_on && time_to_use(room, job.growth.sustained()) < Duration::from_secs(1)
}
