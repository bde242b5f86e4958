//! Whether what a dead job held of GPUs has really come back before anything is started there again.
//!
//! A process that was killed while it was in the driver's hands may stay, and its memory with it. It is waited for a
//! while, and then said; a GPU that is held like that is not used again until it is free.

use std::time::Duration;

use super::since;
use crate::clock::Instant;
use crate::effect::JobId;
use crate::engine::Engine;
use crate::event::{Event, Pause};
use crate::job::Phase;
use crate::policy::VRAM_BACK_WAIT;
use crate::sample::{DeviceId, Reading};
use crate::timer::Timer;
use crate::units::Bytes;

/// What a slot's last job has left on GPUs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owed {
    /// Since its end.
    since: Instant,
    /// It has not come back in time.
    stuck: bool,
}

impl Engine {
    /// A job has ended that held some; the next one in its slot waits, if there is one.
    pub(crate) fn owe_vram(&mut self, now: Instant, id: JobId) {
        let job = self.job(id);
        if job.is_worker() {
            job.gpus.owed = Some(Owed { since: now, stuck: false });
            self.await_vram(now, id);
        }
    }

    /// What its last job held is waited for, counted from its end, by a slot that is to start again.
    pub(crate) fn await_vram(&mut self, now: Instant, id: JobId) {
        let job = self.job(id);
        if let Some(owed) = job.gpus.owed.filter(|owed| job.phase == Phase::Waiting && !owed.stuck) {
            job.timers.set(Timer::VramBack, owed.since.after(VRAM_BACK_WAIT).max(now));
        }
    }

    /// Nothing of its last job is in the way, and no GPU that it may use is short or held by the dead.
    pub(crate) fn has_vram(&self, id: JobId) -> bool {
        let is_free = |device: DeviceId| {
            self.gpus.device(device).is_none_or(|it| it.stuck.is_none() && it.stage == super::Stage::Enough)
        };
        self.jobs[id.index()].gpus.owed.is_none() && self.gpus.of(id).all(|row| is_free(row.sample.device))
    }

    /// A reading that began after its end shows none of it any more.
    pub(super) fn has_vram_come_back(&mut self, now: Instant, at: Instant, id: JobId) {
        let job = &self.jobs[id.index()];
        let gone = job.gpus.worst.is_none_or(|worst| worst.used == Bytes::ZERO);
        let has_ended = matches!(job.phase, Phase::Waiting | Phase::Parked | Phase::Over);
        if has_ended && job.gpus.owed.is_none() && !gone {
            // Nobody looked while its last job lived. One that is over may be started again all the same.
            return self.owe_vram(now, id);
        }
        let Some(owed) = job.gpus.owed.filter(|owed| at >= owed.since) else { return };
        if gone && job.gpus.unknown.is_none() {
            self.vram_is_settled(now, id, owed.since, true);
        }
    }

    fn vram_is_settled(&mut self, now: Instant, id: JobId, then: Instant, complete: bool) {
        let job = self.job(id);
        job.gpus.owed = None;
        job.timers.stop(Timer::VramBack);
        if job.phase == Phase::Waiting && job.waits_for == Some(Pause::Vram) {
            job.timers.set(Timer::Start, now);
        }
        self.say(Event::VramBack { job: id, after: now.since(then), complete });
    }

    /// It was waited for long enough. What is seen to be held keeps its GPU; what cannot be seen is let be.
    pub(crate) fn vram_is_late(&mut self, now: Instant, id: JobId) {
        let gpus = &mut self.job(id).gpus;
        let held = gpus.worst.is_some_and(|worst| worst.used > Bytes::ZERO);
        match &mut gpus.owed {
            Some(owed) if held => {
                owed.stuck = true;
                self.find_stuck(now);
            }
            Some(owed) => {
                let then = owed.since;
                self.vram_is_settled(now, id, then, false);
            }
            None => {}
        }
    }

    /// Which GPUs the dead hold.
    pub(super) fn find_stuck(&mut self, now: Instant) {
        for id in self.gpus.ids() {
            let Some(device) = self.gpus.device(id) else { continue };
            let before = device.stuck;
            let stuck = self.gpus.holders(id).find(|(job, ..)| self.is_stuck(*job));
            let stuck = stuck.map(|(job, held, _)| (job, held));
            let cannot_see = matches!(device.memory, Reading::Unknown(_));
            self.gpus.devices[id.index()].stuck = match stuck {
                None if cannot_see => before,
                stuck => stuck.map(|(job, _)| job),
            };
            match (before, stuck) {
                (None, Some((job, held))) => {
                    let after = self.since_its_end(now, job);
                    self.say(Event::VramStuck { job, device: id, held, after });
                }
                // What a slot was waiting for is told where it is.
                (Some(job), None) if !cannot_see && self.is_unkillable(job) => {
                    let after = self.since_its_end(now, job);
                    self.say(Event::VramBack { job, after, complete: true });
                }
                _ => {}
            }
        }
    }

    fn is_unkillable(&self, id: JobId) -> bool {
        self.jobs.get(id.index()).is_some_and(|job| job.phase == Phase::Unkillable)
    }

    fn is_stuck(&self, id: JobId) -> bool {
        let owed = self.jobs.get(id.index()).and_then(|job| job.gpus.owed);
        owed.is_some_and(|owed| owed.stuck) || self.is_unkillable(id)
    }

    fn since_its_end(&self, now: Instant, id: JobId) -> Duration {
        let Some(job) = self.jobs.get(id.index()) else { return Duration::ZERO };
        since(now, job.gpus.owed.map(|owed| owed.since).or(job.killed_at))
    }
}
