//! When to look again: before the fastest possible growth could have used what is left, and no sooner.
//!
//! The deadline always comes from a rate bound, never from the observed slope: a spike has no history. Also
//! moves the common ceiling of all jobs with what the rest of the machine uses.

use std::time::Duration;

use crate::brake::Brake;
use crate::clock::Instant;
use crate::effect::Effect;
use crate::engine::Engine;
use crate::event::Level;
use crate::forecast::time_to_use;
use crate::job::{Job, Phase};
use crate::limit::RELIEVE;
use crate::policy::WORST_RATE_PER_CORE;
use crate::sample::HostSample;
use crate::units::Bytes;

/// The edge.
const SOONEST: Duration = Duration::from_millis(1);
/// Idle.
const LATEST: Duration = Duration::from_secs(2);
/// While a victim is on its way out.
const WHILE_BRAKING: Duration = Duration::from_millis(5);
/// While short with nothing to be done about it, as long as what is left allows.
const WHILE_HELPLESS: Duration = Duration::from_millis(100);
/// A tree without a cgroup costs a look into every process: not more often than this.
const SOONEST_TREE: Duration = Duration::from_millis(10);
/// A job that the kernel holds is only watched for its gentle stages.
const SOONEST_HELD: Duration = Duration::from_millis(20);
/// At the longest while such a job is close to where they begin.
const CLOSE_TO_MARK: Duration = Duration::from_millis(100);

impl Engine {
    pub(crate) fn when_to_look(&self, now: Instant) -> Instant {
        let jobs = self.jobs.iter().map(look_at_job).min().unwrap_or(LATEST);
        now.after(self.look_at_host().min(jobs))
    }

    fn look_at_host(&self) -> Duration {
        let (room, worst) = (self.available(), self.policy.worst_rate);
        match self.brake {
            Brake::Confirm => Duration::ZERO,
            Brake::Acting(_) | Brake::Settle(_) => WHILE_BRAKING,
            Brake::Helpless => (time_to_use(room, worst) / 2).clamp(WHILE_BRAKING, WHILE_HELPLESS),
            Brake::Idle => time_to_use(room.minus(self.policy.reserve), worst).clamp(SOONEST, LATEST),
        }
    }

    /// Lets the jobs have together what the rest of the machine does not use, less half the reserve. The upper
    /// half is the brake's: with the wall at the reserve itself the kernel would kill, the largest and without
    /// its grace, before the brake could ever choose. File cache in the cgroups is reclaimed before this kills.
    pub(crate) fn move_ceiling(&mut self, host: &HostSample) {
        let Some(charged) = host.charged.known() else { return };
        let shortage = self.levels.level() == Level::Critical;
        let kept = Bytes(self.policy.reserve.0 / 2);
        let ceiling = charged.plus(host.available.minus(kept)).min(host.total.minus(kept));
        let step = Bytes::mib(32).max(Bytes(self.policy.reserve.0 / 8));
        let before = self.ceiling.unwrap_or(Bytes::ZERO);
        let moved = before.minus(ceiling).max(ceiling.minus(before));
        // In a shortage the brake chooses; a ceiling lowered onto living jobs would let the kernel choose.
        if self.ceiling.is_none() || (moved >= step && !shortage) {
            self.ceiling = Some(ceiling);
            self.act(Effect::SetCeiling(ceiling));
        }
    }
}

fn look_at_job(job: &Job) -> Duration {
    if job.phase == Phase::Settling || job.phase == Phase::Killing {
        return SOONEST_HELD;
    }
    let (Phase::Running, Some(limit), Some(mark)) = (job.phase, job.policy.limit, job.mark()) else {
        return LATEST;
    };
    let usage = job.usage.unwrap_or_default();
    if !job.is_held() {
        return time_to_use(limit.minus(usage), WORST_RATE_PER_CORE).clamp(SOONEST_TREE, LATEST);
    }
    if !job.is_worker() && !job.checks {
        return LATEST;
    }
    // Half the time to the mark at the rate seen: the tripwire and the wall stand behind it. Close to the mark a
    // job that pauses between two steps is not trusted with a long look away.
    let longest = if usage >= limit.percent(RELIEVE) { CLOSE_TO_MARK } else { LATEST };
    (time_to_use(mark.minus(usage), job.growth.rate()) / 2).clamp(SOONEST_HELD, longest)
}
