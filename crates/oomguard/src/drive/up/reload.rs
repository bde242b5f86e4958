//! A re-read configuration: said, applied to what runs, or refused whole.

use oomguard_core::{Input, Phase, Urgency};
use oomguard_sys::clock;

use super::super::{Guard, sensors};
use super::{Up, worker::limits};
use crate::config::Config;
use crate::error::Error;
use crate::record::Notice;

impl Up {
    /// Reads the configuration again. A broken one changes nothing.
    pub(super) fn reload(&mut self, guard: &mut Guard) -> Result<Vec<String>, Error> {
        guard.sinks.reopen();
        let path = self.config.path.clone().unwrap_or_else(|| self.config.base.clone());
        let read = self.source.read(guard.host().total).and_then(|config| {
            config.need_pools()?;
            Ok(config)
        });
        match read {
            Err(error) => {
                guard.note(Notice::ConfigRefused { path, error: error.to_string() });
                Err(error)
            }
            Ok(mut config) => {
                let changes = self.config.diff(&config);
                config.keep_fixed(&self.config);
                self.config = config;
                guard.note(Notice::ConfigReloaded { path, changes: changes.clone() });
                self.apply(guard);
                Ok(changes)
            }
        }
    }

    fn apply(&mut self, guard: &mut Guard) {
        let config: Config = self.config.clone();
        let policy = config.memory.host_policy(guard.host().total, sensors::cores());
        guard.engine.set_host_policy(policy);
        (guard.roster.reserve, guard.roster.warning) = (policy.reserve, policy.warning);
        let enforcement = guard.enforcement;
        let now = clock::now();
        for worker in &mut self.workers {
            let wanted =
                config.workers().find(|(pool, number)| config.worker_name(pool, *number) == worker.names);
            let kept = wanted.filter(|(pool, _)| pool.name == worker.pool.name && !worker.leaving);
            let Some((pool, number)) = kept else {
                // Whoever has its name from now on begins when it has left.
                worker.again = wanted.map(|(pool, number)| (pool.clone(), number));
                if !std::mem::replace(&mut worker.leaving, true) {
                    guard.engine.handle(now, Input::Remove(worker.job, Urgency::Graceful));
                }
                continue;
            };
            worker.pool = pool.clone();
            guard.hands[worker.job.index()].limits = limits(pool, config.memory.swap_limit);
            if let Some(entry) = guard.roster.get_mut(worker.job) {
                entry.limit = pool.memory_limit;
            }
            guard.engine.handle(now, Input::Change(worker.job, pool.policy(number, enforcement)));
        }
        let known: Vec<_> = self.workers.iter().map(|worker| worker.names.clone()).collect();
        let new: Vec<_> = config
            .workers()
            .filter(|(pool, number)| !known.contains(&config.worker_name(pool, *number)))
            .map(|(pool, number)| (pool.clone(), number))
            .collect();
        for (pool, number) in new {
            let policy = pool.policy(number, enforcement);
            let job = self.make_worker(guard, pool, number, enforcement);
            guard.engine.handle(now, Input::Add(job, policy));
        }
        self.tell_frameworks(guard);
        self.see_off(guard);
        self.save(guard);
    }

    /// Forgets the workers that have left for good, and begins anew with those that were wanted again meanwhile.
    pub(super) fn see_off(&mut self, guard: &mut Guard) {
        let left = |job| {
            let view = guard.engine.view(job, clock::now());
            view.is_some_and(|view| view.phase == Phase::Over)
        };
        let mut begin = Vec::new();
        self.workers.retain_mut(|worker| {
            if !worker.leaving || !left(worker.job) {
                return true;
            }
            let Some((pool, number)) = worker.again.take() else { return false };
            (worker.leaving, worker.pool, worker.number) = (false, pool, number);
            begin.push((worker.job, worker.pool.clone(), number));
            true
        });
        for (job, pool, number) in begin {
            guard.hands[job.index()].limits = limits(&pool, self.config.memory.swap_limit);
            if let Some(entry) = guard.roster.get_mut(job) {
                entry.limit = pool.memory_limit;
            }
            let policy = pool.policy(number, guard.enforcement);
            guard.engine.handle(clock::now(), Input::Add(job, policy));
        }
    }
}
