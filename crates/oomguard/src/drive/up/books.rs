//! What is written down for those who come later: the state for the next guard, deaths for the trials' owners,
//! pids for people.

use std::io;
use std::path::PathBuf;

use jiff::Timestamp;
use oomguard_core::{Bytes, Cause, Event, Holding, JobId};

use super::super::Guard;
use super::Up;
use crate::error::in_words;
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
        let vram = worker.vram.take().filter(|_| cause == Cause::Vram);
        let outgrew = |it: &Holding| it.limit.is_some_and(|limit| it.used > limit);
        let death = Death {
            job: token,
            boot_id,
            pid,
            start_time: worker.start_time,
            cause: cause.name().to_owned(),
            own: cause.is_own_footprint() || vram.as_ref().is_some_and(outgrew),
            available_gb: Some(available),
            usage_gb: Some(gib(peak)),
            limit_gb: worker.pool.memory_limit.map(gib),
            gpu: vram.map(|it| guard.roster.gpu(it.device)),
            vram_gb: vram.map(|it| gib(it.used)),
            vram_limit_gb: vram.and_then(|it| it.limit).map(gib),
            ts,
        };
        let written = self.deaths.append(&death);
        self.say_once(guard, self.deaths.path().to_owned(), written);
    }

    /// What was met while nothing could be said.
    pub(super) fn say_unsaid(&mut self, guard: &mut Guard) {
        for (path, written) in std::mem::take(&mut self.unsaid) {
            self.say_once(guard, path, written);
        }
    }

    /// What cannot be written is said once, and once more when it can be again. Nothing is missing in it then: of the
    /// state it is the last one that counts, and deaths wait.
    pub(super) fn say_once(&mut self, guard: &mut Guard, path: PathBuf, written: io::Result<()>) {
        match (written, self.unwritten.iter().position(|failing| *failing == path)) {
            (Ok(()), None) | (Err(_), Some(_)) => {}
            (Ok(()), Some(at)) => {
                self.unwritten.swap_remove(at);
                guard.note(Notice::SinkResumed { path, lost: 0 });
            }
            (Err(error), None) => {
                self.unwritten.push(path.clone());
                guard.note(Notice::SinkFailed { path, error: in_words(&error) });
            }
        }
    }

    /// Writes the state for the next guard, and the pids for people.
    pub(super) fn save(&mut self, guard: &mut Guard) {
        let mut state = State::new(&self.run_id, &self.boot_id, self.config.path.clone());
        state.workers = self.workers.iter().map(|worker| saved(worker, guard)).collect();
        let saved = self.state.save(&state);
        self.say_once(guard, self.state.file("state.json"), saved);
        let pids: Vec<u32> = self.workers.iter().filter_map(|worker| worker.pid).collect();
        let _ = write_pids(&self.config.log.dir, &pids);
        let late = self.deaths.flush();
        self.say_once(guard, self.deaths.path().to_owned(), late);
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
