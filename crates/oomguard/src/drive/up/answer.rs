//! What is asked over the control socket, and what it comes to.

use oomguard_core::{DeviceView, Input, JobId, Phase, Urgency};
use oomguard_sys::clock;
use oomguard_sys::wait::Interest;
use serde_json::{Value, json};

use super::super::Guard;
use super::{CONTROL, Up};
use crate::control::{self, ClientId, GpuStatus, GuardStatus, HostStatus, Request, Status, WorkerStatus};
use crate::error::Error;
use crate::record::{Notice, Record};
use crate::sink::jsonl;

impl Up {
    pub(super) fn watch_control(&self, guard: &mut Guard) {
        use std::os::fd::AsFd;
        guard.poller.add(self.control.as_fd(), Interest::Read, CONTROL);
    }

    /// Answers all that has come in.
    pub(super) fn answer(&mut self, guard: &mut Guard) {
        for (client, request) in self.control.turn() {
            match self.obey(guard, client, &request) {
                Ok(answer) => self.control.reply(client, &answer),
                Err(error) => self.control.refuse(client, &error),
            }
        }
    }

    fn obey(&mut self, guard: &mut Guard, client: ClientId, request: &Request) -> Result<Value, Error> {
        let jobs = self.meant(request)?;
        if !matches!(request.verb, control::Verb::Status | control::Verb::Watch) {
            let uid = self.control.uid(client).unwrap_or(u32::MAX);
            let asked = format!("{:?}", request.verb).to_lowercase();
            guard.note(Notice::Asked { request: asked, target: request.worker.clone(), uid });
        }
        let now = clock::now();
        match request.verb {
            control::Verb::Status => Ok(json!({"ok": true, "status": self.status(guard)})),
            control::Verb::Watch => Ok(json!({"ok": true})),
            control::Verb::Reload => {
                self.reload(guard).map(|changes| json!({"ok": true, "changes": changes}))
            }
            control::Verb::Restart => {
                let named = request.worker.is_some();
                // Who was stopped by name is started again by name only.
                let meant = |worker: &&mut super::Worker| {
                    jobs.contains(&worker.job) && !worker.leaving && (named || !worker.stopped)
                };
                let mut again = Vec::new();
                for worker in self.workers.iter_mut().filter(meant) {
                    worker.stopped = false;
                    again.push(worker.job);
                    guard.engine.handle(now, Input::Restart(worker.job));
                }
                if let ([], Some(name)) = (again.as_slice(), &request.worker) {
                    return Err(Error::new(format!(
                        "`{name}` is leaving: the configuration knows it no more"
                    ))
                    .hint("put it back, then `oomguard reload`"));
                }
                Ok(json!({"ok": true, "restarting": self.names(&again)}))
            }
            control::Verb::Stop if request.worker.is_some() => {
                for worker in self.workers.iter_mut().filter(|worker| jobs.contains(&worker.job)) {
                    worker.stopped = true;
                    guard.engine.handle(now, Input::Remove(worker.job, urgency(request)));
                }
                Ok(json!({"ok": true, "stopping": self.names(&jobs)}))
            }
            control::Verb::Stop => {
                guard.shut_down(urgency(request), "asked over the control socket".to_owned());
                Ok(json!({"ok": true, "stopping": self.names(&jobs)}))
            }
        }
    }

    fn meant(&self, request: &Request) -> Result<Vec<JobId>, Error> {
        let all = || self.workers.iter().map(|worker| worker.job).collect();
        let Some(name) = &request.worker else { return Ok(all()) };
        match self.workers.iter().find(|worker| worker.names.name == *name) {
            Some(worker) => Ok(vec![worker.job]),
            None => {
                let known: Vec<_> = self.workers.iter().map(|worker| worker.names.name.as_str()).collect();
                Err(Error::new(format!("there is no worker `{name}`"))
                    .hint(format!("there are: {}", known.join(", "))))
            }
        }
    }

    fn names(&self, jobs: &[JobId]) -> Vec<&str> {
        let meant = |worker: &&super::Worker| jobs.contains(&worker.job);
        self.workers.iter().filter(meant).map(|worker| worker.names.name.as_str()).collect()
    }

    /// Passes an event on to those who watch.
    pub(super) fn pass_on(&mut self, guard: &Guard, record: &Record) {
        if self.control.is_watched() {
            self.control.publish(&jsonl::line(record, &guard.roster));
        }
    }

    fn status(&self, guard: &Guard) -> Status {
        let now = clock::now();
        let host = guard.host();
        let policy = guard.engine.host_policy();
        Status {
            guard: GuardStatus {
                pid: std::process::id(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                uptime_s: now.since(self.started).as_secs_f64(),
                enforcement: guard.enforcement,
                notes: self.notes.clone(),
                config: self.config.path.as_ref().map(|path| path.display().to_string()),
            },
            host: HostStatus {
                available: host.available,
                total: host.total,
                level: guard.engine.level(),
                reserve: policy.reserve,
                warning: policy.warning,
                gpus: guard.engine.gpus().map(|gpu| status_of_gpu(gpu, guard)).collect(),
            },
            workers: self.workers.iter().filter_map(|worker| status_of(worker, guard, now)).collect(),
        }
    }
}

fn urgency(request: &Request) -> Urgency {
    if request.now { Urgency::Now } else { Urgency::Graceful }
}

fn status_of(worker: &super::Worker, guard: &Guard, now: oomguard_core::Instant) -> Option<WorkerStatus> {
    let view = guard.engine.view(worker.job, now)?;
    let alive = worker.pid.is_some();
    Some(WorkerStatus {
        name: worker.names.name.clone(),
        slot: worker.job.0,
        phase: match view.phase {
            Phase::Waiting | Phase::Starting => control::Phase::Waiting,
            Phase::Running if view.frozen => control::Phase::Frozen,
            Phase::Running if view.asked.is_some() => control::Phase::Pruning,
            Phase::Running => control::Phase::Running,
            Phase::Terminating | Phase::Killing | Phase::Draining | Phase::Settling => {
                control::Phase::Stopping
            }
            Phase::Unkillable => control::Phase::Unkillable,
            Phase::Parked => control::Phase::Parked,
            Phase::Over => control::Phase::Done,
        },
        pid: worker.pid,
        age_s: alive.then_some(view.age.as_secs_f64()),
        max_age_s: view.restart_in.map(|left| (view.age + left).as_secs_f64()),
        usage: view.usage.filter(|_| alive),
        peak: Some(view.peak).filter(|_| alive),
        limit: view.limit,
        attempt: view.attempt,
        failures: view.failures,
        next_start_in_s: view.start_in.map(|left| left.as_secs_f64()),
        trial: worker.trial,
        status_text: worker.status.clone(),
        leak_eta_s: view.leak.filter(|_| alive).map(|(_, reaches)| reaches.as_secs_f64()),
        leak_slope: view.leak.filter(|_| alive).map(|(leak, _)| leak.slope),
        leak_confidence: view.leak.filter(|_| alive).map(|(leak, _)| leak.confidence.fraction()),
        vram: view.vram.map(|it| it.used),
        vram_limit: view.vram.and_then(|it| it.limit),
        gpu: view.vram.map(|it| guard.roster.gpu(it.device)),
    })
}

fn status_of_gpu(gpu: DeviceView, guard: &Guard) -> GpuStatus {
    let memory = gpu.memory.known();
    GpuStatus {
        device: gpu.device.0,
        name: guard.roster.gpu(gpu.device),
        total: memory.map(|memory| memory.total),
        free: memory.map(|memory| memory.free),
        used_percent: gpu.vram().map(|vram| vram.percent()),
        unknown: gpu.memory.why().map(|why| why.to_string()),
        short: gpu.is_short,
        stuck: gpu.stuck.and_then(|job| guard.roster.get(job)).map(|entry| entry.name.clone()),
    }
}
