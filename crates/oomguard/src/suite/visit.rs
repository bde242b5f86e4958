//! The walk through folders: which files pytest would collect from, in its order.
//!
//! Follows `Dir.collect`, `Package.collect` and `pytest_ignore_collect` of pytest 8 and 9: entries by name, files and
//! folders mixed, `__init__.py` first. Reads folders, and of files only a `setup.py` (for doctests).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::argument::Argument;
use super::options::Options;
use super::pattern::{fnmatch, matches};
use super::rootdir::absolute;
use super::settings::Settings;
use super::usage;
use crate::error::Error;

/// What pytest does not go into without being told otherwise.
const NO_RECURSE: [&str; 9] =
    ["*.egg", ".*", "_darcs", "build", "CVS", "dist", "node_modules", "venv", "{arch}"];

/// What decides about a path.
#[derive(Debug)]
pub(super) struct Rules {
    python_files: Vec<String>,
    no_recurse: Vec<String>,
    ignore: Vec<PathBuf>,
    ignore_glob: Vec<PathBuf>,
    doctest_glob: Vec<String>,
    doctest_modules: bool,
    in_virtualenv: bool,
    python: bool,
    doctest: bool,
}

/// A walk.
#[derive(Debug)]
pub(super) struct Visit<'r> {
    rules: &'r Rules,
    /// What was named, which no rule keeps out.
    named: BTreeSet<PathBuf>,
    above_named: BTreeSet<PathBuf>,
    seen: BTreeSet<PathBuf>,
    pub(super) found: Vec<PathBuf>,
    pub(super) notes: Vec<String>,
}

impl Rules {
    pub(super) fn new(cwd: &Path, options: &Options, settings: &Settings) -> Result<Rules, Error> {
        let words = |defaults: &[&str]| defaults.iter().map(|word| (*word).to_owned()).collect();
        let paths = |paths: &[String]| paths.iter().map(|path| absolute(cwd, path)).collect();
        let python_files = settings.list("python_files")?;
        let doctest_glob = options.doctest_glob.clone();
        Ok(Rules {
            python_files: python_files.unwrap_or_else(|| words(&["test_*.py", "*_test.py"])),
            no_recurse: settings.list("norecursedirs")?.unwrap_or_else(|| words(&NO_RECURSE)),
            ignore: paths(&options.ignore),
            ignore_glob: paths(&options.ignore_glob),
            doctest_glob: if doctest_glob.is_empty() { words(&["test*.txt"]) } else { doctest_glob },
            doctest_modules: options.doctest_modules,
            in_virtualenv: options.collect_in_virtualenv,
            python: !options.without("python"),
            doctest: !options.without("doctest"),
        })
    }

    /// The patterns of test files, for people.
    pub(super) fn python_files(&self) -> String {
        self.python_files.iter().map(|pattern| format!("`{pattern}`")).collect::<Vec<_>>().join(", ")
    }

    fn ignored(&self, path: &Path, is_dir: bool) -> bool {
        let whole = path.to_string_lossy();
        path.file_name().is_some_and(|name| name == "__pycache__")
            || self.ignore.iter().any(|ignored| ignored == path)
            || self.ignore_glob.iter().any(|glob| fnmatch(&whole, &glob.to_string_lossy()))
            || is_dir && !self.in_virtualenv && is_virtualenv(path)
            || is_dir && self.no_recurse.iter().any(|pattern| matches(pattern, path))
    }

    fn collects(&self, path: &Path, named: bool) -> bool {
        if path.extension().is_some_and(|extension| extension == "py") {
            let module =
                self.python && (named || self.python_files.iter().any(|pattern| matches(pattern, path)));
            return module || self.doctest && self.doctest_modules && !is_program(path);
        }
        let text = path.extension().is_some_and(|extension| extension == "txt" || extension == "rst");
        self.doctest && (named && text || self.doctest_glob.iter().any(|pattern| matches(pattern, path)))
    }
}

/// No module with doctests: `__main__.py`, and a `setup.py` of a package.
fn is_program(path: &Path) -> bool {
    let is = |name: &str| path.file_name().is_some_and(|found| found == name);
    let holds = |text: &[u8], word: &[u8]| text.windows(word.len()).any(|part| part == word);
    is("__main__.py")
        || is("setup.py")
            && fs::read(path).is_ok_and(|text| holds(&text, b"setuptools") || holds(&text, b"distutils"))
}

fn is_virtualenv(path: &Path) -> bool {
    path.join("pyvenv.cfg").is_file() || path.join("conda-meta").join("history").is_file()
}

impl<'r> Visit<'r> {
    /// For exactly these arguments.
    pub(super) fn new(rules: &'r Rules, arguments: &[Argument]) -> Visit<'r> {
        let above = |argument: &Argument| argument.path.ancestors().map(Path::to_owned).collect::<Vec<_>>();
        Visit {
            rules,
            named: arguments.iter().map(|argument| argument.path.clone()).collect(),
            above_named: arguments.iter().flat_map(above).collect(),
            seen: BTreeSet::new(),
            found: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// All files of one argument.
    pub(super) fn argument(&mut self, argument: &Argument) -> Result<(), Error> {
        if argument.path.is_dir() {
            return self.folder(&argument.path);
        }
        if !self.rules.collects(&argument.path, true) {
            return Err(usage(format!("pytest finds no tests in a file like `{}`", argument.path.display()))
                .hint("name a Python file, or one with doctests (`.txt`, `.rst`)"));
        }
        self.file(argument.path.clone());
        Ok(())
    }

    fn folder(&mut self, folder: &Path) -> Result<(), Error> {
        let unreadable = |error| {
            Error::io("read", folder, &error)
                .code(2)
                .hint(format!("`--ignore={}` leaves it out", folder.display()))
        };
        let mut entries =
            fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(unreadable)?;
        let package = folder.join("__init__.py").is_file();
        entries.sort_by_key(|entry| {
            let name = entry.file_name();
            (!(package && name == "__init__.py"), name)
        });
        for entry in entries {
            let path = folder.join(entry.file_name());
            // Follows a link; one that leads nowhere is neither.
            let Ok(kind) = fs::metadata(&path).map(|meta| meta.file_type()) else { continue };
            if kind.is_dir() {
                let kept = self.above_named.contains(&path) || !self.rules.ignored(&path, true);
                if kept && !self.leads_back(&entry, &path) {
                    self.folder(&path)?;
                }
            } else if kind.is_file() {
                let named = self.named.contains(&path);
                if (named || !self.rules.ignored(&path, false)) && self.rules.collects(&path, named) {
                    self.file(path);
                }
            }
        }
        Ok(())
    }

    fn file(&mut self, path: PathBuf) {
        if self.seen.insert(path.clone()) {
            self.found.push(path);
        }
    }

    /// A link to a folder above itself: pytest goes round until the system stops it, 40 times the same files.
    fn leads_back(&mut self, entry: &fs::DirEntry, path: &Path) -> bool {
        if !entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            return false;
        }
        let there = path
            .canonicalize()
            .and_then(|target| Ok((path.parent().unwrap_or(path).canonicalize()?, target)));
        let back = there.is_ok_and(|(from, target)| from.starts_with(target));
        if back {
            self.notes.push(format!("`{}` leads back to a folder above it and is left out", path.display()));
        }
        back
    }
}
