//! What the environment and the command line say on top of the file.
//!
//! Flags win over `OOMGUARD_*`, which wins over the file. A pool's values are overridden in every pool.

use std::path::PathBuf;
use std::time::Duration;

use oomguard_core::Bytes;

use super::Config;
use crate::amount::{Amount, duration, limit};
use crate::error::Error;

/// Values that were said outside of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `OOMGUARD_STATE_DIR`.
    pub state_dir: Option<PathBuf>,
    /// `OOMGUARD_CGROUP_PARENT`.
    pub cgroup_parent: Option<PathBuf>,
    /// `OOMGUARD_LOG_DIR`.
    pub log_dir: Option<PathBuf>,
    /// `OOMGUARD_RESERVE`.
    pub reserve: Option<Amount>,
    /// `OOMGUARD_WARNING`.
    pub warning: Option<Amount>,
    /// `OOMGUARD_MEMORY_LIMIT`.
    pub memory_limit: Option<Amount>,
    /// `OOMGUARD_VRAM_RESERVE`.
    pub vram_reserve: Option<Amount>,
    /// `OOMGUARD_VRAM_LIMIT`.
    pub vram_limit: Option<Amount>,
    /// `OOMGUARD_COUNT`.
    pub count: Option<u16>,
    /// `OOMGUARD_MAX_AGE`.
    pub max_age: Option<Duration>,
    /// `OOMGUARD_GRACE`.
    pub grace: Option<Duration>,
}

impl Overrides {
    /// What the environment says. A value that cannot be read is an error: it was meant.
    pub fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Result<Overrides, Error> {
        let path = |name| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Ok(Overrides {
            state_dir: path("OOMGUARD_STATE_DIR"),
            cgroup_parent: path("OOMGUARD_CGROUP_PARENT"),
            log_dir: path("OOMGUARD_LOG_DIR"),
            reserve: read(env, "OOMGUARD_RESERVE", str::parse)?,
            warning: read(env, "OOMGUARD_WARNING", str::parse)?,
            memory_limit: read(env, "OOMGUARD_MEMORY_LIMIT", limit)?,
            vram_reserve: read(env, "OOMGUARD_VRAM_RESERVE", str::parse)?,
            vram_limit: read(env, "OOMGUARD_VRAM_LIMIT", limit)?,
            count: read(env, "OOMGUARD_COUNT", count)?,
            max_age: read(env, "OOMGUARD_MAX_AGE", duration)?,
            grace: read(env, "OOMGUARD_GRACE", duration)?,
        })
    }

    /// These, and where they say nothing, the `weaker` ones.
    #[must_use]
    pub fn or(self, weaker: Overrides) -> Overrides {
        Overrides {
            state_dir: self.state_dir.or(weaker.state_dir),
            cgroup_parent: self.cgroup_parent.or(weaker.cgroup_parent),
            log_dir: self.log_dir.or(weaker.log_dir),
            reserve: self.reserve.or(weaker.reserve),
            warning: self.warning.or(weaker.warning),
            memory_limit: self.memory_limit.or(weaker.memory_limit),
            vram_reserve: self.vram_reserve.or(weaker.vram_reserve),
            vram_limit: self.vram_limit.or(weaker.vram_limit),
            count: self.count.or(weaker.count),
            max_age: self.max_age.or(weaker.max_age),
            grace: self.grace.or(weaker.grace),
        }
    }

    pub(super) fn apply(
        &self,
        config: &mut Config,
        cwd: &std::path::Path,
        total: Bytes,
    ) -> Result<(), Error> {
        let at = |path: &PathBuf| cwd.join(path);
        config.state_dir = self.state_dir.as_ref().map(at).or(config.state_dir.take());
        config.cgroup_parent = self.cgroup_parent.clone().or(config.cgroup_parent.take());
        config.log.dir = self.log_dir.as_ref().map_or_else(|| config.log.dir.clone(), at);
        let memory = &mut config.memory;
        memory.reserve = self.reserve.map_or(memory.reserve, |amount| amount.of(total));
        memory.warning = self.warning.map_or(memory.warning, |amount| amount.of(total)).max(memory.reserve);
        memory.vram_reserve = self.vram_reserve.or(memory.vram_reserve);
        if memory.reserve >= total {
            return Err(Error::new(format!(
                "a reserve of {} leaves nothing of this machine's {total}",
                memory.reserve
            )));
        }
        for pool in &mut config.pools {
            pool.memory_limit = self.memory_limit.map(|amount| amount.of(total)).or(pool.memory_limit);
            pool.vram_limit = self.vram_limit.or(pool.vram_limit);
            pool.count = self.count.unwrap_or(pool.count);
            pool.max_age = self.max_age.or(pool.max_age);
            pool.grace = self.grace.unwrap_or(pool.grace);
        }
        Ok(())
    }
}

fn count(text: &str) -> Result<u16, String> {
    match text.trim().parse() {
        Ok(count @ 1..=512) => Ok(count),
        _ => Err(format!("`{text}` is not between 1 and 512")),
    }
}

fn read<T>(
    env: &dyn Fn(&str) -> Option<String>,
    name: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, Error> {
    let Some(text) = env(name).filter(|text| !text.is_empty()) else { return Ok(None) };
    let wrong = |why| Error::new(format!("wrong value of the environment variable `{name}`: {why}"));
    parse(&text).map(Some).map_err(wrong)
}
