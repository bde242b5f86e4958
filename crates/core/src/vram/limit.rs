//! How one job is held to what it may hold of a GPU: relief first, then asking, then SIGTERM and its grace.
//!
//! The driver's memory cannot be put under a wall, and exceeding a limit hurts nobody at once: there is always time for
//! the grace. Judges by a reading that is fresh, and that began after the job gave back; where there is none, nothing
//! happens.

use super::Holding;
use crate::clock::Instant;
use crate::effect::JobId;
use crate::engine::Engine;
use crate::event::{Cause, Event, Reason};
use crate::job::Phase;
use crate::limit::RELIEVE;
use crate::policy::VRAM_RELIEF_WAIT;

/// Asking counts as answered below this, in percent of the limit.
const RELIEVED: u64 = 70;
/// A request to stop is taken back below this.
const CALM: u64 = 90;

impl Engine {
    /// Judges one job by what it was just read to hold, by a reading that began at `at`.
    pub(super) fn hold_to_vram_limit(&mut self, now: Instant, at: Instant, id: JobId) {
        let job = &self.jobs[id.index()];
        let Some(holding @ Holding { device, used, limit: Some(limit) }) = job.gpus.worst else {
            // Without a limit, or without a reading, nobody is over it.
            self.job(id).gpus.over = None;
            if self.job(id).asked == Some(Cause::Vram) && !self.is_acted_on(id) {
                self.resume(id);
            }
            return;
        };
        if job.phase != Phase::Running {
            return;
        }
        let job = self.job(id);
        job.gpus.relieved &= used >= limit.percent(RELIEVED);
        if used >= limit.percent(RELIEVE) && !std::mem::replace(&mut job.gpus.relieved, true) {
            self.say(Event::VramNear { job: id, device, used, limit });
            self.relieve_vram(id, device, used);
        }
        if used > limit {
            return self.is_over_vram_limit(now, at, id, holding);
        }
        let job = self.job(id);
        job.gpus.over = None;
        let answered = used < limit.percent(CALM) || job.was_asked_in_vain(Cause::Vram);
        if job.asked == Some(Cause::Vram) && answered && !self.is_acted_on(id) {
            self.resume(id);
        }
    }

    /// A job that listens has time to give back and then to stop by itself; whatever else it has been asked for
    /// meanwhile, that time ends.
    fn is_over_vram_limit(&mut self, now: Instant, at: Instant, id: JobId, holding: Holding) {
        let job = self.job(id);
        let waited = now.since(*job.gpus.over.get_or_insert(now));
        let longest = VRAM_RELIEF_WAIT.saturating_add(job.policy.prune_patience.saturating_mul(2));
        if job.checks && job.may_give_back_yet(at) && waited < VRAM_RELIEF_WAIT {
            return;
        }
        if job.checks && job.asked.is_none() {
            self.say_vram_brake(id, holding, Reason::OverLimit);
            self.ask(now, id, Cause::Vram);
        } else if !job.checks || job.was_asked_in_vain(Cause::Vram) || waited > longest {
            self.say_vram_brake(id, holding, Reason::OverLimit);
            self.stop(now, id, Cause::Vram);
        }
    }
}
