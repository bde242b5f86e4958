//! What the workers' frameworks are told about their limit on GPUs.
//!
//! Interpreters are asked, and drivers waited for, before anything runs; what is not known then is not told later.

use std::collections::BTreeMap;
use std::path::Path;

use oomguard_core::Amount;
use oomguard_sys::gpu::Variables;

use super::super::Guard;
use super::super::frameworks::{framework_env, is_python, torch_obeys};
use super::{Up, env};
use crate::config::Pool;

/// Which interpreters' torch can be held to a share of a GPU.
#[derive(Debug, Default)]
pub(super) struct Interpreters(BTreeMap<String, bool>);

impl Interpreters {
    fn obeys(&self, pool: &Pool) -> bool {
        pool.command.first().is_some_and(|program| self.0.get(program).copied().unwrap_or(false))
    }

    fn ask(&mut self, pool: &Pool) {
        if let Some(program) = pool.command.first().filter(|program| is_python(program)) {
            self.0.entry(program.clone()).or_insert_with(|| torch_obeys(Path::new(program)));
        }
    }
}

impl Up {
    /// Asks what frameworks are to be told about. `alone`: no worker lives yet that would have to wait for its guard.
    pub(super) fn know_gpus(&mut self, guard: &mut Guard, alone: bool) {
        for pool in self.config.pools.iter().filter(|pool| pool.vram_limit.is_some()) {
            self.interpreters.ask(pool);
        }
        // A share can be told without knowing of what.
        if alone && self.config.pools.iter().any(|pool| matches!(pool.vram_limit, Some(Amount::Bytes(_)))) {
            guard.see_gpus_first();
        }
    }

    /// Notes what each worker's frameworks are told from its next start on, and which GPUs it may use.
    pub(super) fn tell_frameworks(&mut self, guard: &mut Guard) {
        for worker in &mut self.workers {
            let says = |name: &str| worker.pool.env.get(name).cloned().or_else(|| env(name));
            let sees = Variables::from_env(says);
            let obeys = self.interpreters.obeys(&worker.pool);
            worker.vram_env = framework_env(&guard.gpus, &sees, worker.pool.vram_limit, obeys, &says);
            guard.hands[worker.job.index()].sees = sees;
        }
    }
}
