//! From a [`Request`] to a [`Suite`]: options, rootdir, settings, arguments, walk, scan.

use std::path::{Path, PathBuf};

use super::argument::{self, Argument, without_overlaps};
use super::options::{self, Options};
use super::rootdir::{self, Setup, absolute};
use super::scan;
use super::visit::{Rules, Visit};
use super::{Request, Suite, TestFile, usage, words};
use crate::error::Error;

/// Nothing to run, in pytest's words "no tests collected".
const NO_TESTS: u8 = 5;

/// The files that pytest would collect from, each with what its text says about it. Reads every one of them once.
///
/// Exit codes of the errors are pytest's: 4 for a wrong argument or setting, 2 for a folder that cannot be read, 5 where
/// there is no test file.
pub fn discover(request: &Request) -> Result<Suite, Error> {
    let cwd = &request.cwd;
    let mut said = match request.addopts.as_deref() {
        Some(line) => words::split(line).map_err(|why| usage(format!("`PYTEST_ADDOPTS={line}`: {why}")))?,
        None => Vec::new(),
    };
    said.extend(request.pytest_args.iter().cloned());
    let mut options = options::read(&said)?;
    let mut named: Vec<PathBuf> = options.paths.iter().map(|word| argument::path_of(cwd, word)).collect();
    named.extend(request.args.iter().map(|arg| match arg.to_str() {
        Some(word) => argument::path_of(cwd, word),
        None => absolute(cwd, arg),
    }));
    let mut setup = rootdir::determine(cwd, &named, &options)?;
    let mut notes = notes(&setup);

    // `addopts` of the settings stands before all else, and may override settings in its turn.
    let mut all = setup.settings.list("addopts")?.unwrap_or_default();
    let paths_before = options::read(&all)?.paths;
    all.extend(said);
    options = options::read(&all)?;
    for (key, value) in &options.overrides {
        setup.settings.set(key, value);
    }
    if !paths_before.is_empty() {
        let paths = paths_before.iter().map(|path| format!("`{path}`")).collect::<Vec<_>>().join(", ");
        notes.push(format!("`addopts` names {paths}: pytest runs that whatever else is named"));
    }
    if options.pyargs {
        return Err(usage("`--pyargs` is not understood: where a package is, only an interpreter knows")
            .hint("name its directory"));
    }
    let arguments = arguments(request, &options, &setup, &mut notes)?;
    let rules = Rules::new(cwd, &options, &setup.settings)?;
    let mut visit = Visit::new(&rules, &arguments);
    for argument in &arguments {
        visit.argument(argument)?;
    }
    notes.append(&mut visit.notes);
    let mut found = visit.found;
    found.retain(|path| !deselected(path, &setup.rootdir, &options.deselect));
    if found.is_empty() {
        let places =
            arguments.iter().map(|one| format!("`{}`", one.path.display())).collect::<Vec<_>>().join(", ");
        return Err(Error::new(format!("no test files in {places}"))
            .code(NO_TESTS)
            .hint(format!("pytest's `python_files` here: {}", rules.python_files())));
    }
    let roots = roots(cwd, &setup, &found)?;
    let mut files = scan::files(&found, &setup.rootdir)?;
    for file in &mut files {
        select(file, &arguments, &setup.rootdir);
    }
    let junitxml = options.junitxml.filter(|path| !path.is_empty());
    Ok(Suite { rootdir: setup.rootdir, inifile: setup.inifile, files, roots, options: all, junitxml, notes })
}

fn notes(setup: &Setup) -> Vec<String> {
    let Some(file) = &setup.inifile else { return Vec::new() };
    let say =
        |other: &&str| format!("pytest takes its settings from `{}`, not from `{other}`", file.display());
    setup.ignored.iter().map(say).collect()
}

/// What is to be collected: what was named, else `testpaths`, else the working directory.
fn arguments(
    request: &Request,
    options: &Options,
    setup: &Setup,
    notes: &mut Vec<String>,
) -> Result<Vec<Argument>, Error> {
    let cwd = &request.cwd;
    let mut arguments = Vec::new();
    for word in &options.paths {
        arguments.push(Argument::new(cwd, word)?);
    }
    for arg in &request.args {
        arguments.push(match arg.to_str() {
            Some(word) => Argument::new(cwd, word)?,
            None => Argument::whole(absolute(cwd, arg)),
        });
    }
    if arguments.is_empty() && *cwd == setup.rootdir {
        let testpaths = setup.settings.list("testpaths")?.unwrap_or_default();
        for pattern in &testpaths {
            arguments.extend(expand(cwd, pattern)?.into_iter().map(Argument::whole));
        }
        if arguments.is_empty() && !testpaths.is_empty() {
            notes.push(
                "nothing is where pytest's `testpaths` point: all of the working directory counts".to_owned(),
            );
        }
    }
    if arguments.is_empty() {
        arguments.push(Argument::whole(cwd.clone()));
    }
    Ok(if options.keep_duplicates { arguments } else { without_overlaps(arguments) })
}

/// The paths that a pattern of `testpaths` stands for, sorted: Python's `glob`, in which `*` leaves out hidden names.
fn expand(cwd: &Path, pattern: &str) -> Result<Vec<PathBuf>, Error> {
    if !pattern.contains(['*', '?', '[']) {
        let path = absolute(cwd, pattern);
        return Ok(if path.symlink_metadata().is_ok() { vec![path] } else { Vec::new() });
    }
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    let base = glob::Pattern::escape(&cwd.to_string_lossy());
    let whole = if pattern.starts_with('/') { pattern.to_owned() } else { format!("{base}/{pattern}") };
    let paths = glob::glob_with(&whole, options)
        .map_err(|error| usage(format!("pytest's setting `testpaths` holds `{pattern}`: {}", error.msg)))?;
    let mut paths: Vec<PathBuf> = paths.flatten().map(|path| absolute(cwd, path)).collect();
    paths.sort_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    Ok(paths)
}

/// Does a `--deselect` take away all of a file?
fn deselected(path: &Path, rootdir: &Path, prefixes: &[String]) -> bool {
    let Some(id) = path.strip_prefix(rootdir).ok().and_then(Path::to_str) else { return false };
    prefixes.iter().any(|prefix| id.starts_with(prefix.as_str()))
}

/// What the arguments select in a file; a file that was named as a whole, or lies in a folder that was, is not cut.
fn select(file: &mut TestFile, arguments: &[Argument], rootdir: &Path) {
    let path = rootdir.join(&file.path);
    let mut selects = arguments.iter().filter(|one| path.starts_with(&one.path)).map(Argument::select);
    let all: Option<Vec<String>> = selects.by_ref().collect();
    file.select = all.unwrap_or_default();
}

/// Where the project's own modules lie: where people run it, `src`, pytest's `pythonpath`, and what pytest puts on the
/// path for a test file (the first folder above it that is no package).
fn roots(cwd: &Path, setup: &Setup, files: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let base = setup.inifile.as_deref().and_then(Path::parent).unwrap_or(cwd);
    let mut roots = vec![cwd.to_owned(), cwd.join("src"), setup.rootdir.clone(), setup.rootdir.join("src")];
    let pythonpath = setup.settings.list("pythonpath")?.unwrap_or_default();
    roots.extend(pythonpath.iter().map(|path| absolute(base, path)));
    let mut folders: Vec<&Path> = files.iter().filter_map(|file| file.parent()).collect();
    folders.dedup();
    for folder in folders {
        roots.extend(
            folder.ancestors().find(|above| !above.join("__init__.py").is_file()).map(Path::to_owned),
        );
    }
    roots.sort();
    roots.dedup();
    Ok(roots)
}
