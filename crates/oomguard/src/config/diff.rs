//! What is different between two configurations, in sentences, for a reload.
//!
//! Only describes, with what a running guard cannot change marked as such ([`Config::keep_fixed`]).

use std::fmt::{Debug, Display};
use std::path::Path;
use std::time::Duration;

use super::{Config, Pool, Restart};

/// Behind what only the next guard follows.
const LATER: &str = "(when `oomguard up` is started again)";

impl Config {
    /// One sentence for every difference, from `self` to `new`.
    pub fn diff(&self, new: &Config) -> Vec<String> {
        let mut said = Vec::new();
        let mut tell = |what: &str, old: String, new: String| {
            if old != new {
                said.push(format!("{what} {old} -> {new}"));
            }
        };
        let later = |new: String| format!("{new} {LATER}");
        tell("memory: reserve", self.memory.reserve.to_string(), new.memory.reserve.to_string());
        tell("memory: warning", self.memory.warning.to_string(), new.memory.warning.to_string());
        tell("memory: swap_limit", self.memory.swap_limit.to_string(), new.memory.swap_limit.to_string());
        tell("memory: vram_reserve", or_none(self.memory.vram_reserve), or_none(new.memory.vram_reserve));
        let require =
            |config: &Config| config.memory.require.map_or("none", |require| require.name()).to_owned();
        let places = |config: &Config| {
            [
                ("state_dir", path(config.state_dir.as_deref())),
                ("cgroup_parent", path(config.cgroup_parent.as_deref())),
                ("memory: require", require(config)),
                ("log: dir", path(Some(&config.log.dir))),
                ("log: max_size", config.log.max_size.to_string()),
                ("log: keep", config.log.keep.to_string()),
            ]
        };
        for ((what, old), (_, new)) in places(self).into_iter().zip(places(new)) {
            if old != new {
                tell(what, old, later(new));
            }
        }
        for old in &self.pools {
            match new.pools.iter().find(|pool| pool.name == old.name) {
                Some(pool) => said.extend(pool_diff(old, pool)),
                None => said.push(format!("pool `{}` is gone", old.name)),
            }
        }
        for pool in &new.pools {
            if !self.pools.iter().any(|old| old.name == pool.name) {
                said.push(format!("pool `{}` is new: {} workers", pool.name, pool.count));
            }
        }
        said
    }

    /// Keeps of `running` what a guard settles once, when it starts: where its state, its cgroups and its logs are.
    pub fn keep_fixed(&mut self, running: &Config) {
        self.state_dir.clone_from(&running.state_dir);
        self.cgroup_parent.clone_from(&running.cgroup_parent);
        self.memory.require = running.memory.require;
        self.log = running.log.clone();
    }
}

fn pool_diff(old: &Pool, new: &Pool) -> Vec<String> {
    let mut said = Vec::new();
    let mut tell = |what: &str, before: String, after: String| {
        if before != after {
            said.push(format!("pool `{}`: {what} {before} -> {after}", old.name));
        }
    };
    tell("command", list(&old.command), list(&new.command));
    tell("count", old.count.to_string(), new.count.to_string());
    tell("cwd", path(Some(&old.cwd)), path(Some(&new.cwd)));
    tell("memory_limit", or_none(old.memory_limit), or_none(new.memory_limit));
    tell("vram_limit", or_none(old.vram_limit), or_none(new.vram_limit));
    tell("max_age", time(old.max_age), time(new.max_age));
    tell("grace", time(Some(old.grace)), time(Some(new.grace)));
    tell("prune_patience", time(Some(old.prune_patience)), time(Some(new.prune_patience)));
    tell("timeout", time(old.timeout), time(new.timeout));
    tell("on_limit", word(old.on_limit), word(new.on_limit));
    tell("restart", restart(old.restart), restart(new.restart));
    tell("malloc", old.malloc.name().to_owned(), new.malloc.name().to_owned());
    for (name, value) in &old.env {
        match new.env.get(name) {
            // A value may be a secret: it is not repeated in a log.
            Some(after) if after != value => {
                said.push(format!("pool `{}`: env `{name}` has another value", old.name))
            }
            Some(_) => {}
            None => said.push(format!("pool `{}`: env `{name}` is gone", old.name)),
        }
    }
    let added = new.env.keys().filter(|name| !old.env.contains_key(*name));
    said.extend(added.map(|name| format!("pool `{}`: env `{name}` is new", old.name)));
    said
}

fn path(path: Option<&Path>) -> String {
    path.map_or("default".to_owned(), |path| format!("`{}`", path.display()))
}

fn or_none(size: Option<impl Display>) -> String {
    size.map_or("none".to_owned(), |size| size.to_string())
}

fn word(word: impl Debug) -> String {
    format!("{word:?}").to_lowercase()
}

fn restart(restart: Restart) -> String {
    match restart {
        Restart::OnFailure => "on-failure".to_owned(),
        other => word(other),
    }
}

fn list(command: &[String]) -> String {
    format!("`{}`", command.join(" "))
}

/// `60m`, `1h30m`, `90s`: as it would be typed.
fn time(time: Option<Duration>) -> String {
    let Some(time) = time else { return "none".to_owned() };
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        _ if time.subsec_nanos() > 0 => format!("{}ms", time.as_millis()),
        (0, 0, s) => format!("{s}s"),
        (0, m, 0) => format!("{m}m"),
        (1, 0, 0) => "60m".to_owned(),
        (h, 0, 0) => format!("{h}h"),
        (h, m, 0) => format!("{h}h{m}m"),
        _ => format!("{seconds}s"),
    }
}
