//! After a guard has died: its living workers are taken over, by (pid, start time, boot), and go on as if nothing
//! had been. What cannot be taken over is ended, and said.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use oomguard_core::{Cause, Enforcement, Input, JobId, Word};
use oomguard_sys::process::{Process, Signal};
use oomguard_sys::{clock, page, tree};

use super::super::Guard;
use super::Up;
use super::worker::JOB;
use crate::record::Notice;
use crate::state::{Death, Loaded, Worker};

/// A process that was killed is gone by then, or hangs in the kernel.
const DEATH: Duration = Duration::from_secs(5);

impl Up {
    /// What the last guard of this boot wrote about its workers.
    pub(super) fn survivors(&mut self, guard: &mut Guard) -> Vec<Worker> {
        let left = match self.state.load() {
            Loaded::Damaged(notice, left) => {
                guard.note(notice);
                left.map_or(Loaded::Nothing, Loaded::Found)
            }
            loaded => loaded,
        };
        match left {
            Loaded::Found(state) if state.boot_id == self.boot_id => {
                // Its workers carry the run's name in their environment.
                self.run_id = state.run_id;
                state.workers
            }
            _ => Vec::new(),
        }
    }

    /// The living worker of that name, or a new one.
    pub(super) fn adopt_or_add(
        &mut self,
        guard: &mut Guard,
        job: JobId,
        enforcement: Enforcement,
        found: &mut Vec<Worker>,
    ) {
        let Some(worker) = self.worker(job) else { return };
        let policy = worker.pool.policy(worker.number, enforcement);
        let name = worker.names.name.clone();
        let old = found.iter().position(|old| old.name == name).map(|at| found.swap_remove(at));
        worker.attempt = old.as_ref().map_or(0, |old| old.attempt);
        let failures = old.as_ref().map_or(0, |old| old.failures);
        let living = old.as_ref().and_then(|old| Process::adopt(old.pid?, old.start_time).ok());
        // Nobody may have reaped it yet.
        let living = living.filter(Process::is_alive);
        let now = clock::now();
        let main = living.filter(|main| self.take_over(guard, job, main));
        let (Some(old), Some(main)) = (&old, main) else {
            if let Some(old) = &old {
                // And the start that the guard before us may not have had the time to write down.
                self.dead.push(format!("{}/{}#{}", self.run_id, old.name, old.attempt.saturating_add(1)));
                self.bury(guard, job, old);
            }
            self.empty_leaf(guard, job);
            guard.engine.handle(now, Input::Add(job, policy));
            guard.engine.recall(job, failures);
            return;
        };
        let Some(worker) = self.worker(job) else { return };
        let age = now.since(old.started_mono_ns);
        worker.pid = Some(main.pid());
        worker.start_time = old.start_time;
        worker.attempt = old.attempt;
        worker.started = old.started_mono_ns;
        worker.started_ts = old.started_ts;
        worker.checks = old.checks;
        let pid = main.pid();
        let hand = &mut guard.hands[job.index()];
        hand.page = page::Writer::reopen(&self.runtime.page(&name)).ok();
        if let Some(page) = &mut hand.page {
            // What the guard before us asked for, we have not.
            page.stop(page::Stop::GoOn, None);
        }
        hand.born = std::time::SystemTime::now() - age;
        if let Some(entry) = guard.roster.get_mut(job) {
            (entry.pid, entry.attempt) = (Some(pid), old.attempt);
        }
        guard.hold(job, main);
        // The guard before us may have died while it held the worker still.
        let _ = guard.hands[job.index()].freeze(false);
        guard.engine.handle(now, Input::Adopt(job, policy, age, old.attempt));
        guard.engine.recall(job, failures);
        if old.checks {
            // It says so only once in its life.
            guard.engine.handle(now, Input::Heard(job, Word::Checks));
        }
        guard.note(Notice::Adopted { job, pid, age });
    }

    /// Takes hold of a living worker's cgroup, with the limit of today; whether that succeeded. One that lives
    /// somewhere else (the parent was set to another place meanwhile) cannot be held, and is ended.
    fn take_over(&mut self, guard: &mut Guard, job: JobId, main: &Process) -> bool {
        let mark = self.workers.iter().find(|worker| worker.job == job).map(|worker| self.token(worker));
        let hand = &mut guard.hands[job.index()];
        hand.mark = mark.map(|mark| (JOB.to_owned(), mark));
        let done = hand.make_leaf(guard.parent.as_ref());
        let held = hand.leaf.is_some() || guard.parent.is_none();
        if let Err(error) = done {
            // A limit below what it uses now; the engine sees to it.
            let (effect, error) = ("adopt".to_owned(), error.to_string());
            guard.note(Notice::EffectFailed { job: Some(job), effect, error });
        }
        let hand = &mut guard.hands[job.index()];
        if held && (hand.leaf.is_none() || hand.has(main.pid())) {
            return true;
        }
        guard.hands[job.index()].leaf = None;
        if !main.is_alive() {
            // It has ended this moment.
            return false;
        }
        let _ = main.signal(Signal::KILL);
        let _ = main.wait_exit(DEATH);
        let (name, pid) = (guard.hands[job.index()].name.clone(), main.pid());
        let why = "it is not in the cgroup where its limit would be held now".to_owned();
        guard.note(Notice::OrphanEnded { name, pid, why });
        false
    }

    /// A worker that died while no guard was there. If the kernel killed it at its limit, its cgroup still knows: its
    /// trial outgrew what it had, and must not be tried again as if it were somebody else's fault.
    fn bury(&mut self, guard: &mut Guard, job: JobId, old: &Worker) {
        let Some(pid) = old.pid else { return };
        let token = format!("{}/{}#{}", self.run_id, old.name, old.attempt);
        self.dead.push(token.clone());
        let name = guard.hands[job.index()].name.clone();
        let killed = guard.parent.as_ref().is_some_and(|parent| {
            let known = parent.leaves().is_ok_and(|leaves| leaves.contains(&name));
            let events = || parent.leaf(&name).ok()?.events().ok();
            known && events().is_some_and(|events| events.oom_kill > 0)
        });
        if killed {
            let limit = guard.roster.get(job).and_then(|entry| entry.limit).map(|limit| limit.as_gib());
            let death = Death {
                job: token,
                boot_id: self.boot_id.clone(),
                pid,
                start_time: old.start_time,
                cause: Cause::Limit.name().to_owned(),
                own: true,
                available_gb: None,
                usage_gb: limit,
                limit_gb: limit,
                gpu: None,
                vram_gb: None,
                vram_limit_gb: None,
                ts: Timestamp::now(),
            };
            // Best effort: without the record the trial counts as lost for an unknown reason.
            let _ = self.deaths.append(&death);
        }
    }

    /// The main process is gone, yet others of its tree may live on in the leaf.
    fn empty_leaf(&mut self, guard: &mut Guard, job: JobId) {
        let name = guard.hands[job.index()].name.clone();
        self.end_leaf(guard, &name, "its main process died with the guard before this one");
    }

    fn end_leaf(&mut self, guard: &mut Guard, name: &str, why: &str) {
        let Some(parent) = &guard.parent else { return };
        if !parent.leaves().is_ok_and(|leaves| leaves.iter().any(|leaf| leaf == name)) {
            return;
        }
        let Ok(leaf) = parent.leaf(name) else { return };
        let mut pids = Vec::new();
        let _ = leaf.pids(&mut pids);
        let _ = leaf.kill();
        // Until it is empty nothing is started in it: the start would meet the dead.
        let deadline = clock::now().after(DEATH);
        while leaf.is_populated().unwrap_or(false) && clock::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = leaf.remove();
        if let Some(pid) = pids.first() {
            let (name, why) = (name.to_owned(), why.to_owned());
            guard.note(Notice::OrphanEnded { name, pid: *pid, why });
        }
    }

    /// Workers that the configuration does not know any more, and processes that carry our mark in no worker's tree.
    pub(super) fn end_orphans(&mut self, guard: &mut Guard, left: Vec<Worker>) {
        for old in left {
            // Two of one name (the file was damaged): what bears that name is taken over or ended already.
            if self.workers.iter().any(|worker| worker.names.name == old.name) {
                continue;
            }
            self.dead.push(format!("{}/{}#{}", self.run_id, old.name, old.attempt));
            let name = self.leaf_name(&old.name);
            self.end_leaf(guard, &name, "the configuration has no such worker any more");
        }
        let dead: Vec<String> = std::mem::take(&mut self.dead);
        let marked = |token: &String| tree::find_marked(Path::new("/proc"), JOB, token).unwrap_or_default();
        for orphan in dead.iter().flat_map(marked) {
            if guard.job_of(orphan.pid()).is_some() || tree::is_above_us(orphan.pid()) {
                continue;
            }
            let _ = orphan.signal(Signal::KILL);
            let _ = orphan.wait_exit(DEATH);
            let (name, why) = ("?".to_owned(), "it belongs to no worker that lives".to_owned());
            guard.note(Notice::OrphanEnded { name, pid: orphan.pid(), why });
        }
    }
}
