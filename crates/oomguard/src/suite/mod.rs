//! Which test files there are, in pytest's order, and what each of them says about itself.
//!
//! [`discover`] follows pytest's own rules (those of 8 and later: entries of a folder by name, files and folders
//! mixed), [`preload`] and [`shard`] work on what it found. It reads files and starts no process: no `conftest.py`
//! runs, so what one adds or takes away (`collect_ignore`, `pytest_ignore_collect`, `pytest_collect_file`) is not
//! known here. A file that a conftest takes away is listed, and pytest then finds no tests in it.

mod argument;
mod discover;
mod expand;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod iniconfig;
mod options;
mod pattern;
mod preload;
mod rootdir;
mod scan;
mod settings;
mod shard;
mod standard;
mod visit;
mod words;

use std::ffi::OsString;
use std::path::PathBuf;

use oomguard_core::Bytes;

pub use discover::discover;
pub use expand::expand;
pub use preload::preload;
pub use shard::shard;

use crate::error::Error;

/// A wrong argument or setting: pytest's exit code for those.
fn usage(message: impl Into<String>) -> Error {
    Error::new(message).code(4)
}

/// What to look for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The working directory, absolute.
    pub cwd: PathBuf,
    /// The paths and node ids that the user named; none: what pytest does without any.
    pub args: Vec<OsString>,
    /// What goes to pytest besides, without paths.
    pub pytest_args: Vec<String>,
    /// The value of `PYTEST_ADDOPTS`; empty is as good as none.
    pub addopts: Option<String>,
}

/// What there is to run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Suite {
    /// Where node ids start.
    pub rootdir: PathBuf,
    /// The file that pytest takes its settings from.
    pub inifile: Option<PathBuf>,
    /// In the order in which pytest would run them; each file once.
    pub files: Vec<TestFile>,
    /// Folders whose modules are the project's own: for [`preload`].
    pub roots: Vec<PathBuf>,
    /// All options of pytest in effect: the settings' `addopts`, `PYTEST_ADDOPTS`, what was said.
    pub options: Vec<String>,
    /// Where they want JUnit's XML, as it is written there: see [`expand`].
    pub junitxml: Option<String>,
    /// What people should know, one sentence each.
    pub notes: Vec<String>,
}

/// One file of tests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TestFile {
    /// From `rootdir` where it lies below it, else absolute.
    pub path: PathBuf,
    /// What the user named in it (`TestX::test_y[p]`, without the path); empty: all.
    pub select: Vec<String>,
    /// In bytes.
    pub size: u64,
    /// What it imports.
    pub imports: Imports,
    /// Why it counts as a GPU file (`line 3: imports cupy`); `None`: nothing says so.
    pub gpu: Option<String>,
    /// What its `@pytest.mark.oomguard` say.
    pub marks: Marks,
}

/// Absolute imports, dotted, sorted, each once. `from x import y` is `x` and `x.y`, of which the second may be no module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imports {
    /// When the module is imported.
    pub module: Vec<String>,
    /// Only when a function of it runs.
    pub function: Vec<String>,
}

/// The largest of all marks of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// What its tests need of RAM.
    pub memory: Option<Bytes>,
    /// What its tests need of VRAM.
    pub vram: Option<Bytes>,
    /// No other file may run meanwhile.
    pub serial: bool,
}
