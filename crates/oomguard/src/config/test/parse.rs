//! From the text of a file to the [`Settings`] of its `[test]`. Reads no file.

use std::path::Path;

use oomguard_core::Bytes;
use toml::Spanned;

use super::{FileSettings, GpuFiles, Isolation, Jobs, Override, RetryOn, Settings};
use crate::amount::limit;
use crate::config::parse::{env, top};
use crate::config::source::Source;
use crate::config::table::Table;
use crate::error::Error;

const ISOLATIONS: [(&str, Isolation); 3] =
    [("auto", Isolation::Auto), ("fork", Isolation::Fork), ("spawn", Isolation::Spawn)];
const GPU: [(&str, GpuFiles); 2] = [("serial", GpuFiles::Serial), ("packed", GpuFiles::Packed)];

/// Reads `source`, of which only `[test]` counts; `pyproject`: only `[tool.oomguard.test]`.
pub(in crate::config) fn parse(
    source: &Source<'_>,
    pyproject: bool,
    base: &Path,
    total: Bytes,
) -> Result<Settings, Error> {
    let (mut top, prefix) = top(source, pyproject)?;
    let Some(mut table) = top.table("test", &format!("[{prefix}test]"))? else {
        return Ok(Settings::default());
    };
    let settings = Settings {
        path: None,
        memory_limit: memory_limit(&mut table, total)?,
        vram_limit: table.of_device("vram_limit", limit)?,
        ram_preflight: table.percent("ram_preflight")?,
        vram_preflight: table.percent("vram_preflight")?,
        ram_target: table.percent("ram_target")?,
        wait: table.time("wait")?.map(Spanned::into_inner),
        timeout: table.time_or_none("timeout")?,
        retries: table.count("retries", 0, 100)?,
        retry_on: table.list("retry_on", retry_on)?,
        isolation: table.word("isolation", &ISOLATIONS)?,
        jobs: table.typed("jobs", "`\"auto\"` or a whole number", jobs)?.map(Spanned::into_inner),
        command: table.command("command")?,
        python: table.text("python")?.map(|python| interpreter(python.get_ref(), base)),
        disable_memory_limit: table.flag("disable_memory_limit")?,
        disable_watchdog: table.flag("disable_watchdog")?,
        memory_profile: table.flag("memory_profile")?,
        gpu: table.word("gpu", &GPU)?,
        overrides: overrides(&mut table, source, prefix, total)?,
    };
    table.finish()?;
    Ok(settings)
}

fn overrides(
    test: &mut Table<'_, '_>,
    source: &Source<'_>,
    prefix: &str,
    total: Bytes,
) -> Result<Vec<Override>, Error> {
    let shown = format!("[[{prefix}test.override]]");
    let mut overrides = Vec::new();
    for (place, mut table) in test.tables("override", &shown)? {
        let filter = table.text("filter")?;
        let environment = table.table("env", &format!("[{prefix}test.override.env]"))?;
        let values = FileSettings {
            memory_limit: memory_limit(&mut table, total)?,
            vram_limit: table.of_device("vram_limit", limit)?,
            serial: table.flag("serial")?,
            timeout: table.time_or_none("timeout")?,
            env: environment.map(|table| env(table, source)).transpose()?.unwrap_or_default(),
            isolation: table.word("isolation", &ISOLATIONS)?,
        };
        table.finish()?;
        let Some(filter) = filter else {
            let error = source.error(place, &format!("`{shown}` has no `filter`"));
            return Err(error.hint("say which files are meant: `filter = \"tests/gpu/**\"`"));
        };
        let wrong = |error: glob::PatternError| {
            source.error(filter.span(), &format!("wrong value of `filter`: {}", error.msg))
        };
        overrides.push(Override { filter: glob::Pattern::new(filter.get_ref()).map_err(wrong)?, values });
    }
    Ok(overrides)
}

fn memory_limit(table: &mut Table<'_, '_>, total: Bytes) -> Result<Option<Option<Bytes>>, Error> {
    let limit = table.limit("memory_limit", total)?;
    Ok(limit.map(|limit| Some(limit.into_inner()).filter(|limit| *limit != Bytes::MAX)))
}

fn jobs(text: &str) -> Result<Jobs, String> {
    match (text, text.parse()) {
        ("auto", _) => Ok(Jobs::Auto),
        (_, Ok(count @ 1..=512)) => Ok(Jobs::Count(count)),
        _ => Err(format!("`{text}` is neither `auto` nor between 1 and 512")),
    }
}

fn retry_on(word: &str) -> Result<RetryOn, String> {
    let known = [
        ("memory", RetryOn::Memory),
        ("crash", RetryOn::Crash),
        ("timeout", RetryOn::Timeout),
        ("failure", RetryOn::Failure),
    ];
    let meant = known.iter().find(|(name, _)| *name == word).map(|(_, meant)| *meant);
    meant.ok_or_else(|| {
        format!("`{word}` is not known (known: {})", known.map(|(name, _)| format!("`{name}`")).join(", "))
    })
}

/// A name without a slash is looked up in `PATH` when it is needed.
fn interpreter(python: &str, base: &Path) -> std::path::PathBuf {
    if python.contains('/') { base.join(python) } else { python.into() }
}
