//! What is written down for those who come later: the state for the next guard, deaths for the trials' owners,
//! pids for people.

use jiff::Timestamp;
use oomguard_core::{Bytes, Cause, Event, JobId};

use super::super::Guard;
use super::Up;
use crate::record::{Notice, Record};
use crate::state::{Death, State, Worker};
use crate::worker_log::write_pids;

impl Up {
    /// Books an event of the engine.
    pub(super) fn book(&mut self, guard: &mut Guard, event: &Event, record: &Record) {
        match *event {
            Event::Started { .. } | Event::Parked { .. } | Event::Waiting { .. } => self.save(guard),
            Event::Ended { job, cause, peak, .. } => {
                self.book_death(guard, job, cause, peak, record.ts);
                self.save(guard);
            }
            _ => {}
        }
    }

    fn book_death(&mut self, guard: &mut Guard, job: JobId, cause: Cause, peak: Bytes, ts: Timestamp) {
        let gib = |bytes: Bytes| bytes.as_gib();
        let available = gib(guard.host().available);
        let boot_id = self.boot_id.clone();
        let Some(index) = self.workers.iter().position(|worker| worker.job == job) else { return };
        let token = self.token(&self.workers[index]);
        let worker = &mut self.workers[index];
        let Some(pid) = worker.pid.take() else { return };
        worker.trial = None;
        let death = Death {
            job: token,
            boot_id,
            pid,
            start_time: worker.start_time,
            cause: cause.name().to_owned(),
            own: cause.is_own_footprint(),
            available_gb: Some(available),
            usage_gb: Some(gib(peak)),
            limit_gb: worker.pool.memory_limit.map(gib),
            ts,
        };
        if let Err(error) = self.deaths.append(&death) {
            guard.note(Notice::EffectFailed {
                job: Some(job),
                effect: "write down a death".to_owned(),
                error: error.to_string(),
            });
        }
    }

    /// Writes the state for the next guard, and the pids for people.
    pub(super) fn save(&mut self, guard: &mut Guard) {
        let mut state = State::new(&self.run_id, &self.boot_id, self.config.path.clone());
        state.workers = self.workers.iter().map(|worker| saved(worker, guard)).collect();
        if let Err(error) = self.state.save(&state) {
            guard.note(Notice::Note { text: error.to_string() });
        }
        let pids: Vec<u32> = self.workers.iter().filter_map(|worker| worker.pid).collect();
        let _ = write_pids(&self.config.log.dir, &pids);
    }
}

fn saved(worker: &super::Worker, guard: &Guard) -> Worker {
    let hand = &guard.hands[worker.job.index()];
    let view = guard.engine.view(worker.job, oomguard_sys::clock::now());
    Worker {
        slot: worker.job.0,
        name: worker.names.name.clone(),
        pid: worker.pid,
        start_time: worker.start_time,
        leaf: hand.leaf.as_ref().map(|leaf| leaf.dir().to_owned()),
        attempt: worker.attempt,
        checks: worker.checks,
        started_mono_ns: worker.started,
        started_ts: worker.started_ts,
        failures: view.map_or(0, |view| view.failures),
    }
}
