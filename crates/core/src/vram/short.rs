//! What happens when too little of a GPU is left: all who hold some of it are asked to give back, and then one of them
//! goes. Never one who holds nothing of this GPU.
//!
//! One shortage, one victim: nobody is chosen while somebody who holds some of it is on the way out. A GPU that is short
//! costs its jobs their work, not the machine its life, so that nobody is killed without the grace.

use super::Holding;
use crate::clock::Instant;
use crate::effect::JobId;
use crate::engine::Engine;
use crate::event::{Cause, Event};
use crate::job::Phase;
use crate::policy::VRAM_RELIEF_WAIT;
use crate::sample::{DeviceId, DeviceMemory};
use crate::timer::Timer;
use crate::units::Bytes;
use crate::victim::{Candidate, Choice, choose};

/// Where the brake stands with one GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing to do.
    #[default]
    Enough,
    /// All who hold some of it were asked to give back, at that moment.
    Relieving(Instant),
    /// A job was asked or told to stop.
    Acting(JobId),
    /// None of ours can help.
    Helpless,
}

impl Engine {
    /// Judges one GPU by a reading that began at `at`.
    pub(super) fn judge_device(&mut self, now: Instant, at: Instant, id: DeviceId) {
        let stage = self.gpus.devices[id.index()].stage;
        let rule = self.policy.vram_reserve.zip(self.gpus.memory(id));
        let rule = rule.map(|(amount, memory)| (amount.of(memory.total), memory));
        let Some((reserve, memory)) = rule.filter(|(reserve, memory)| *reserve < memory.total) else {
            // No rule, or one that would leave nothing to anybody, or nothing is known.
            return self.let_go(id, stage);
        };
        let enough = reserve.plus(reserve.percent(10)).min(memory.total);
        let short = memory.free < reserve || (stage != Stage::Enough && memory.free < enough);
        let next = match stage {
            Stage::Enough if !short => Stage::Enough,
            Stage::Enough => self.begin_relief(now, id, memory, reserve),
            _ if !short => {
                self.say(Event::VramEnough { device: id, free: memory.free });
                return self.let_go(id, stage);
            }
            Stage::Relieving(since) if at < since || self.is_awaited(now, at, id, since) => stage,
            Stage::Acting(victim) if self.has_time(victim) => stage,
            _ if self.is_on_the_way_out(id) => stage,
            Stage::Acting(victim) if self.was_in_vain(victim) && self.holds(victim, id) => {
                self.stop(now, victim, Cause::Vram);
                stage
            }
            _ => self.brake_on(now, id, stage, memory, enough.minus(memory.free)),
        };
        self.gpus.devices[id.index()].stage = next;
    }

    /// This GPU asks nobody for anything any more.
    fn let_go(&mut self, id: DeviceId, stage: Stage) {
        self.gpus.devices[id.index()].stage = Stage::Enough;
        if let Stage::Acting(victim) = stage
            && self.job(victim).asked == Some(Cause::Vram)
            && !self.is_acted_on(victim)
        {
            self.resume(victim);
        }
    }

    /// Some GPU has chosen it.
    pub(super) fn is_acted_on(&self, job: JobId) -> bool {
        self.gpus.devices.iter().any(|device| device.stage == Stage::Acting(job))
    }

    fn begin_relief(&mut self, now: Instant, id: DeviceId, memory: DeviceMemory, reserve: Bytes) -> Stage {
        let DeviceMemory { total, free } = memory;
        self.say(Event::VramShort { device: id, free, total, reserve });
        for row in 0..self.gpus.rows.len() {
            let sample = self.gpus.rows[row].sample;
            let held = sample.used.known().filter(|used| sample.device == id && *used > Bytes::ZERO);
            if let Some(used) = held.filter(|_| sample.job.index() < self.jobs.len()) {
                self.relieve_vram(sample.job, id, used);
            }
        }
        Stage::Relieving(now)
    }

    /// Somebody who was asked has not answered yet, and may still, or did after the reading began.
    fn is_awaited(&self, now: Instant, at: Instant, id: DeviceId, since: Instant) -> bool {
        let owes = |job: JobId| {
            let job = self.jobs.get(job.index()).filter(|job| job.phase == Phase::Running);
            job.is_some_and(|job| job.may_give_back_yet(at))
        };
        now.since(since) < VRAM_RELIEF_WAIT && self.gpus.holders(id).any(|(job, ..)| owes(job))
    }

    /// It was asked, for whatever reason, and may still answer.
    fn has_time(&self, id: JobId) -> bool {
        let job = &self.jobs[id.index()];
        job.phase == Phase::Running && job.asked.is_some() && job.timers.get(Timer::Prune) != Instant::NEVER
    }

    fn was_in_vain(&self, id: JobId) -> bool {
        let job = &self.jobs[id.index()];
        job.phase == Phase::Running && job.asked.is_some()
    }

    /// It is known to hold some of it.
    fn holds(&self, job: JobId, id: DeviceId) -> bool {
        self.gpus.holders(id).any(|(holder, ..)| holder == job)
    }

    /// Somebody who holds some of it is being ended, whoever asked for that.
    fn is_on_the_way_out(&self, id: DeviceId) -> bool {
        let ends = |job: JobId| {
            self.jobs.get(job.index()).is_some_and(|job| job.phase == Phase::Terminating || job.is_dying())
        };
        self.gpus.holders(id).any(|(job, ..)| ends(job))
    }

    fn brake_on(
        &mut self,
        now: Instant,
        id: DeviceId,
        stage: Stage,
        memory: DeviceMemory,
        deficit: Bytes,
    ) -> Stage {
        // Whoever was asked is not known to hold any of it any more.
        self.let_go(id, stage);
        let Some(Choice { victim, reason }) = self.choose_on(now, id, memory, deficit) else {
            if stage != Stage::Helpless {
                self.say(Event::VramNoVictim { device: id, free: memory.free });
            }
            return Stage::Helpless;
        };
        let Candidate { job, usage: used, limit, .. } = victim;
        self.say_vram_brake(job, Holding { device: id, used, limit }, reason);
        if self.has_time(job) {
            // It is stopping for another reason already.
        } else if self.job(job).checks && self.job(job).asked.is_none() {
            self.ask(now, job, Cause::Vram);
        } else {
            self.stop(now, job, Cause::Vram);
        }
        Stage::Acting(job)
    }

    fn choose_on(&self, now: Instant, id: DeviceId, memory: DeviceMemory, deficit: Bytes) -> Option<Choice> {
        let candidates = self.gpus.holders(id).filter_map(|(job, used, row)| {
            let it = self.jobs.get(job.index()).filter(|it| it.phase == Phase::Running)?;
            Some(Candidate {
                job,
                usage: used,
                rate: row.growth.rate(),
                limit: it.policy.vram_limit.map(|limit| limit.of(memory.total)),
                unsaved: now.since(it.unsaved_since),
            })
        });
        choose(candidates, deficit)
    }
}
