//! Finds the file and reads it.
//!
//! Looks for `oomguard.toml`, then for a `pyproject.toml` with `[tool.oomguard]`, in the working directory and then
//! upwards. It never takes a file that it cannot read for one that is not there, and never a stranger's from above.

use std::io;
use std::path::{Path, PathBuf};

use oomguard_core::Bytes;
use oomguard_sys::folder;
use std::fs;

use super::source::Source;
use super::{Config, Overrides, parse, test};
use crate::error::Error;

/// No real configuration comes near this.
const LARGEST: u64 = 1 << 20;

/// The configuration that holds in `cwd`: of the `explicit` file, else of the one that is found, else the
/// defaults (without a pool); with the overrides on top. Percentages are of `total`.
pub fn load(
    explicit: Option<&Path>,
    cwd: &Path,
    overrides: &Overrides,
    total: Bytes,
) -> Result<Config, Error> {
    let path = match explicit {
        Some(path) => Some(cwd.join(path)),
        None => find(cwd)?,
    };
    let mut config = match path {
        Some(path) => from_file(&path, cwd, total)?,
        None => parse::defaults(cwd, total),
    };
    overrides.apply(&mut config, cwd, total)?;
    Ok(config)
}

/// As much as can be had of a configuration that is wrong: where it lies, and where its guard keeps its state. For
/// asking a guard that runs on an older one.
pub fn whereabouts(
    explicit: Option<&Path>,
    cwd: &Path,
    overrides: &Overrides,
    total: Bytes,
) -> Option<Config> {
    let path = explicit.map(|path| cwd.join(path)).or_else(|| find(cwd).ok()?)?;
    let mut config = parse::defaults(path.parent().unwrap_or(cwd), total);
    let table = read(&path).ok().and_then(|text| text.parse::<toml::Table>().ok()).unwrap_or_default();
    let ours = table.get("tool").and_then(|tool| tool.get("oomguard")).and_then(toml::Value::as_table);
    let state_dir = ours.unwrap_or(&table).get("state_dir").and_then(toml::Value::as_str);
    config.state_dir = state_dir.map(|dir| config.base.join(dir));
    config.path = Some(path);
    overrides.apply(&mut config, cwd, total).ok()?;
    Some(config)
}

/// One pool that runs `command`, without a file.
pub fn single(
    command: Vec<String>,
    cwd: &Path,
    overrides: &Overrides,
    total: Bytes,
) -> Result<Config, Error> {
    let mut config = parse::defaults(cwd, total);
    config.pools.push(parse::default_pool("worker", command, cwd));
    overrides.apply(&mut config, cwd, total)?;
    Ok(config)
}

/// The file that holds in `cwd`, if there is one.
pub fn find(cwd: &Path) -> Result<Option<PathBuf>, Error> {
    for folder in cwd.ancestors() {
        let own = folder.join("oomguard.toml");
        if there(&own)? {
            check_owner(&own, cwd)?;
            return Ok(Some(own));
        }
        let shared = folder.join("pyproject.toml");
        if there(&shared)? && mentions_us(&read(&shared)?) {
            check_owner(&shared, cwd)?;
            return Ok(Some(shared));
        }
    }
    Ok(None)
}

/// A configuration says what is run. One that was found by going upwards counts only if root, we ourselves or whoever
/// the working directory belongs to wrote it: in `/tmp` everybody could lay one over all that is below.
fn check_owner(path: &Path, cwd: &Path) -> Result<(), Error> {
    use std::os::unix::fs::MetadataExt as _;
    if path.parent() == Some(cwd) {
        return Ok(());
    }
    let owner = |path: &Path| fs::metadata(path).map(|meta| meta.uid());
    let uid = owner(path).map_err(|error| unreadable(path, &error))?;
    let known = [Some(0), Some(rustix::process::geteuid().as_raw()), owner(cwd).ok()];
    if known.contains(&Some(uid)) {
        return Ok(());
    }
    Err(Error::new(format!("`{}` belongs to user {uid}, and says what is run", path.display()))
        .hint("if you trust it, name it: `-c FILE`"))
}

fn there(path: &Path) -> Result<bool, Error> {
    match fs::metadata(path) {
        Ok(meta) => Ok(meta.is_file()),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(false)
        }
        // A folder above that we may not look into is none of our business; a file that we may not see is.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        Err(error) => Err(unreadable(path, &error)),
    }
}

/// A table of ours in a file for many: a broken one that does not mention us is for others to complain about.
fn mentions_us(text: &str) -> bool {
    match text.parse::<toml::Table>() {
        Ok(table) => table.get("tool").and_then(|tool| tool.get("oomguard")).is_some(),
        Err(_) => text.contains("tool.oomguard"),
    }
}

fn read(path: &Path) -> Result<String, Error> {
    let bytes = folder::read(path, LARGEST).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => Error::new(format!(
            "`{}` has more than {LARGEST} bytes; that is no configuration",
            path.display()
        )),
        _ => unreadable(path, &error),
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::new(format!("could not read `{}`: byte {at} is not UTF-8", path.display()))
    })
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::io("read", path, error).hint("`oomguard init` writes an example, `-c FILE` names another file")
}

/// `[test]` of the `explicit` file or of the one that is found.
pub(super) fn test(explicit: Option<&Path>, cwd: &Path, total: Bytes) -> Result<test::Settings, Error> {
    let path = match explicit {
        Some(path) => Some(cwd.join(path)),
        None => find(cwd)?,
    };
    let Some(path) = path else { return Ok(test::Settings::default()) };
    let mut settings =
        parsed(&path, cwd, |source, pyproject, base| test::parse(source, pyproject, base, total))?;
    settings.path = Some(path);
    Ok(settings)
}

fn from_file(path: &Path, cwd: &Path, total: Bytes) -> Result<Config, Error> {
    let mut config =
        parsed(path, cwd, |source, pyproject, base| parse::parse(source, pyproject, base, total))?;
    config.path = Some(path.to_owned());
    Ok(config)
}

fn parsed<T>(
    path: &Path,
    cwd: &Path,
    parse: impl Fn(&Source<'_>, bool, &Path) -> Result<T, Error>,
) -> Result<T, Error> {
    let text = read(path)?;
    let shown = path.strip_prefix(cwd).unwrap_or(path).display().to_string();
    let pyproject = path.file_name().is_some_and(|name| name == "pyproject.toml");
    parse(&Source { shown, text: &text }, pyproject, path.parent().unwrap_or(cwd))
}
