//! From the text of a file to a [`Config`]: which keys there are, what they mean, what they are without being said.
//!
//! Every default and every rule between two values is here. It reads no file; of the outside world it asks only
//! whether a `cwd` is there.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use oomguard_core::{Bytes, Enforcement, HostPolicy, JobPolicy};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::source::Source;
use super::table::{Table, Value, scalar};
use super::{Config, Log, Malloc, Memory, OnLimit, Pool, Restart};
use crate::amount::limit;
use crate::error::Error;

/// More workers than any machine has memory for.
const MOST_WORKERS: u32 = 512;
/// Log files below this would turn over all the time.
const LEAST_LOG: Bytes = Bytes::kib(64);

/// What is true without being said, for a machine with this much memory.
pub(super) fn defaults(base: &Path, total: Bytes) -> Config {
    let host = HostPolicy::for_machine(total, 1);
    Config {
        path: None,
        base: base.to_owned(),
        state_dir: None,
        cgroup_parent: None,
        memory: Memory {
            reserve: host.reserve,
            warning: host.warning,
            vram_reserve: None,
            swap_limit: Bytes::ZERO,
            require: None,
        },
        log: Log { dir: base.join("logs"), max_size: Bytes::mib(50), keep: 10 },
        pools: Vec::new(),
    }
}

/// A pool that only says what it runs.
pub(super) fn default_pool(name: &str, command: Vec<String>, base: &Path) -> Pool {
    let job = JobPolicy::worker(Enforcement::WatchOnly);
    Pool {
        name: name.to_owned(),
        command,
        count: 2,
        env: BTreeMap::new(),
        malloc: Malloc::Tight,
        cwd: base.to_owned(),
        memory_limit: job.limit,
        vram_limit: None,
        max_age: job.max_age,
        grace: job.grace,
        prune_patience: job.prune_patience,
        timeout: job.timeout,
        on_limit: job.on_limit,
        restart: job.restart,
    }
}

/// Reads `source`; `pyproject` means that only `[tool.oomguard]` of it is ours.
pub(super) fn parse(
    source: &Source<'_>,
    pyproject: bool,
    base: &Path,
    total: Bytes,
) -> Result<Config, Error> {
    let (mut top, prefix) = top(source, pyproject)?;
    let mut config = defaults(base, total);
    config.state_dir = top.text("state_dir")?.map(|dir| base.join(dir.get_ref()));
    config.cgroup_parent = top.text("cgroup_parent")?.map(|path| path.into_inner().into());
    if let Some(table) = top.table("memory", &format!("[{prefix}memory]"))? {
        memory(table, source, &mut config.memory, total)?;
    }
    if let Some(table) = top.table("log", &format!("[{prefix}log]"))? {
        log(table, source, &mut config.log, base)?;
    }
    if let Some(table) = top.table("pool", &format!("[{prefix}pool]"))? {
        config.pools = pools(table, source, prefix, base, total)?;
    }
    // Other verbs have tables of their own in this file.
    for other in ["audit", "test"] {
        top.table(other, other)?;
    }
    top.finish()?;
    Ok(config)
}

/// Our part of the file: all of it, or `[tool.oomguard]`; and what stands before the names of its tables.
pub(super) fn top<'s, 't>(
    source: &'s Source<'t>,
    pyproject: bool,
) -> Result<(Table<'s, 't>, &'static str), Error> {
    let document = DeTable::parse(source.text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        source.error(span, &format!("could not understand the file: {}", error.message()))
    })?;
    let document = document.into_inner();
    let (document, prefix) =
        if pyproject { (ours(document).unwrap_or_default(), "tool.oomguard.") } else { (document, "") };
    Ok((Table::new(source, prefix.trim_end_matches('.').to_owned(), document), prefix))
}

/// `[tool.oomguard]`, if there is one.
fn ours(document: DeTable<'_>) -> Option<DeTable<'_>> {
    inner(inner(document, "tool")?, "oomguard")
}

fn inner<'t>(table: DeTable<'t>, key: &str) -> Option<DeTable<'t>> {
    match table.into_iter().find(|(name, _)| name.get_ref() == key)?.1.into_inner() {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}

fn memory(
    mut table: Table<'_, '_>,
    source: &Source<'_>,
    memory: &mut Memory,
    total: Bytes,
) -> Result<(), Error> {
    let reserve = table.size("reserve", total)?;
    let warning = table.size("warning", total)?;
    if let Some(swap) = table.size("swap_limit", total)? {
        memory.swap_limit = swap.into_inner();
    }
    if let Some(reserve) = table.of_device("vram_reserve", str::parse)? {
        memory.vram_reserve = reserve;
    }
    let better = [
        ("cgroup2", Enforcement::Cgroup2),
        ("cgroup", Enforcement::Cgroup1),
        ("rlimit", Enforcement::Rlimit),
    ];
    memory.require = table.word("require", &better)?;
    table.finish()?;
    if let Some(reserve) = &reserve {
        if *reserve.get_ref() >= total {
            let message = format!("wrong value of `reserve`: it leaves nothing of this machine's {total}");
            return Err(source.error(reserve.span(), &message));
        }
        // The distance between the thresholds stays when only one of them is moved.
        let gap = memory.warning.minus(memory.reserve);
        memory.reserve = *reserve.get_ref();
        memory.warning = memory.warning.max(memory.reserve.plus(gap).min(total));
    }
    if let Some(warning) = &warning {
        memory.warning = *warning.get_ref();
        if memory.warning < memory.reserve {
            let reserve = memory.reserve;
            let message = format!(
                "wrong value of `warning`: it is below the reserve ({reserve}), so it would never warn"
            );
            return Err(source.error(warning.span(), &message));
        }
    }
    Ok(())
}

fn log(mut table: Table<'_, '_>, source: &Source<'_>, log: &mut Log, base: &Path) -> Result<(), Error> {
    if let Some(dir) = table.text("dir")? {
        log.dir = base.join(dir.get_ref());
    }
    if let Some(size) = table.size("max_size", Bytes::MAX)? {
        if *size.get_ref() < LEAST_LOG {
            let message = format!("wrong value of `max_size`: it is below {LEAST_LOG}");
            return Err(source.error(size.span(), &message));
        }
        log.max_size = size.into_inner();
    }
    if let Some(keep) = table.count("keep", 0, 1000)? {
        log.keep = keep;
    }
    table.finish()
}

fn pools(
    table: Table<'_, '_>,
    source: &Source<'_>,
    prefix: &str,
    base: &Path,
    total: Bytes,
) -> Result<Vec<Pool>, Error> {
    let mut pools: Vec<Pool> = Vec::new();
    // `[pool]` itself holds only names: whoever writes `[pool] command = ...` forgot one.
    for (name, value) in table.rest() {
        if !matches!(value.get_ref(), DeValue::Table(_)) {
            let error = source.error(
                name.span(),
                &format!("`{}` stands in `[pool]` itself, not in a pool", name.get_ref()),
            );
            return Err(error.hint(format!("give the pool a name: `[{prefix}pool.train]`")));
        }
        let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
        if name.get_ref().is_empty() || name.get_ref().len() > 40 || !name.get_ref().chars().all(plain) {
            let error =
                source.error(name.span(), &format!("`{}` cannot be the name of a pool", name.get_ref()));
            return Err(error.hint("up to 40 letters, digits, `-` and `_`"));
        }
        pools.push(pool(&name, value, source, prefix, base, total)?);
        if pools.iter().map(|pool| u32::from(pool.count)).sum::<u32>() > MOST_WORKERS {
            return Err(
                source.error(name.span(), &format!("more than {MOST_WORKERS} workers in all pools together"))
            );
        }
    }
    Ok(pools)
}

fn pool(
    name: &Spanned<String>,
    value: Value<'_>,
    source: &Source<'_>,
    prefix: &str,
    base: &Path,
    total: Bytes,
) -> Result<Pool, Error> {
    let shown = format!("[{prefix}pool.{}]", name.get_ref());
    let DeValue::Table(table) = value.into_inner() else {
        return Err(source.error(name.span(), "not a table"));
    };
    let mut table = Table::new(source, shown.clone(), table);
    let command = table.command("command")?;
    let mut pool = default_pool(name.get_ref(), command.clone().unwrap_or_default(), base);
    if let Some(count) = table.count("count", 1, MOST_WORKERS)? {
        pool.count = u16::try_from(count).unwrap_or(u16::MAX);
    }
    if let Some(environment) = table.table("env", &format!("[{prefix}pool.{}.env]", name.get_ref()))? {
        pool.env = env(environment, source)?;
    }
    pool.cwd = table.directory("cwd", base)?.unwrap_or(pool.cwd);
    if let Some(limit) = table.limit("memory_limit", total)? {
        pool.memory_limit = Some(limit.into_inner()).filter(|limit| *limit != Bytes::MAX);
    }
    pool.vram_limit = table.of_device("vram_limit", limit)?.unwrap_or(pool.vram_limit);
    pool.max_age = table.time_or_none("max_age")?.unwrap_or(pool.max_age);
    pool.timeout = table.time_or_none("timeout")?.unwrap_or(pool.timeout);
    pool.grace = table.time("grace")?.map_or(pool.grace, Spanned::<Duration>::into_inner);
    pool.prune_patience =
        table.time("prune_patience")?.map_or(pool.prune_patience, Spanned::<Duration>::into_inner);
    let limits = [("job", OnLimit::Job), ("process", OnLimit::Process)];
    pool.on_limit = table.word("on_limit", &limits)?.unwrap_or(pool.on_limit);
    let restarts =
        [("on-failure", Restart::OnFailure), ("always", Restart::Always), ("never", Restart::Never)];
    pool.restart = table.word("restart", &restarts)?.unwrap_or(pool.restart);
    let mallocs = [Malloc::Tight, Malloc::Default].map(|malloc| (malloc.name(), malloc));
    pool.malloc = table.word("malloc", &mallocs)?.unwrap_or(pool.malloc);
    table.finish()?;
    if command.is_none() {
        let error = source.error(name.span(), &format!("`{shown}` has no `command`"));
        return Err(error.hint("add what each worker runs: `command = [\"python\", \"train.py\"]`"));
    }
    Ok(pool)
}

/// Names with texts; whole numbers and true or false are taken as they are written.
pub(super) fn env(table: Table<'_, '_>, source: &Source<'_>) -> Result<BTreeMap<String, String>, Error> {
    let mut env = BTreeMap::new();
    for (name, value) in table.rest() {
        let key = name.get_ref();
        if key.is_empty() || key.contains(['=', '\0']) {
            return Err(source.error(name.span(), &format!("`{key}` cannot be the name of a variable")));
        }
        let text = match value.get_ref() {
            DeValue::Boolean(flag) => Some(flag.to_string()),
            DeValue::Float(number) => Some(number.as_str().to_owned()),
            other => scalar(other),
        };
        match text {
            Some(text) if !text.contains('\0') => env.insert(key.clone(), text),
            Some(_) => {
                return Err(source.error(value.span(), &format!("the value of `{key}` holds a zero byte")));
            }
            None => return Err(source.error(value.span(), &format!("the value of `{key}` is not a string"))),
        };
    }
    Ok(env)
}
