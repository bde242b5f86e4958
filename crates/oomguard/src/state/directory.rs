//! The state directory: where it is, that it is ours, and what lies in it.
//!
//! Creates it (0700). Never uses one that belongs to somebody else or that a link stands in for.

use std::fs;
use std::path::{Path, PathBuf};

use oomguard_sys::folder::Folder;

use super::key;
use crate::config::Config;
use crate::error::{Error, in_words};

/// An opened state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// Where the state of this configuration lies: `state_dir`, else `$XDG_STATE_HOME/oomguard/<name>-<key>`
    /// (`~/.local/state` by default, `/var/lib/oomguard` where there is no home). Reads nothing but `env`.
    pub fn locate(config: &Config, env: &dyn Fn(&str) -> Option<String>) -> PathBuf {
        if let Some(dir) = &config.state_dir {
            return dir.clone();
        }
        StateDir::of(&config.base, config.path.as_ref().unwrap_or(&config.base), env)
    }

    /// Where the state of `subject` lies, named after `base`.
    pub fn of(base: &Path, subject: &Path, env: &dyn Fn(&str) -> Option<String>) -> PathBuf {
        let set = |name: &str| env(name).filter(|value| Path::new(value).is_absolute()).map(PathBuf::from);
        let home = set("XDG_STATE_HOME")
            .or_else(|| set("LOCALAPPDATA"))
            .or_else(|| {
                set("HOME").filter(|home| home != Path::new("/")).map(|home| home.join(".local/state"))
            })
            .unwrap_or_else(|| PathBuf::from("/var/lib"));
        let subject = fs::canonicalize(subject).unwrap_or_else(|_| subject.to_owned());
        home.join("oomguard").join(format!("{}-{}", readable(base), key(&subject)))
    }

    /// Opens the directory, making it if need be.
    pub fn open(path: &Path) -> Result<StateDir, Error> {
        ours(path, "state directory")?;
        Ok(StateDir { path: path.to_owned() })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Letters, digits, `-` and `_` of the last part of `path`.
fn readable(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let safe =
        |letter: char| if letter.is_ascii_alphanumeric() || "-_".contains(letter) { letter } else { '-' };
    let name: String = name.chars().take(40).map(safe).collect();
    if name.is_empty() { "root".to_owned() } else { name }
}

/// Makes `path` with mode 0700 unless it is there, and checks that it is a real directory of ours that nobody else can
/// put another one in the place of.
pub(super) fn ours(path: &Path, what: &str) -> Result<(), Error> {
    Folder::make_private(path).map(drop).map_err(|error| {
        // What the system refuses has its number; what we refuse has our words.
        if error.raw_os_error().is_none() {
            return Error::new(format!("{what} `{}` is refused: {}", path.display(), in_words(&error)))
                .hint("use a directory of your own: set `state_dir` or `XDG_RUNTIME_DIR`");
        }
        Error::new(format!("could not create `{}`: {}", path.display(), in_words(&error)))
            .hint(format!("the {what} must be writable"))
    })
}
