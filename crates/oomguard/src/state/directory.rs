//! The state directory: where it is, that it is ours, and what lies in it.
//!
//! Creates it (0700). Never uses one that belongs to somebody else or that a link stands in for.

use std::io;
use std::path::{Path, PathBuf};

use std::fs;

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
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|error| Error::io("create", parent, &error))?;
        }
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

/// Makes `path` with mode 0700 unless it is there, and checks that it is a real directory of ours.
pub(super) fn ours(path: &Path, what: &str) -> Result<(), Error> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::new(format!("could not create `{}`: {}", path.display(), in_words(&error)))
                .hint(format!("the {what} must be writable")));
        }
        _ => {}
    }
    let refuse = |why: &str| {
        Err(Error::new(format!("{what} `{}` is refused: {why}", path.display()))
            .hint("use a directory of your own: set `state_dir` or `XDG_RUNTIME_DIR`"))
    };
    let meta = std::fs::symlink_metadata(path).map_err(|error| Error::io("examine", path, &error))?;
    if meta.is_symlink() {
        return refuse("it is a symbolic link");
    }
    if !meta.is_dir() {
        return refuse("it is not a directory");
    }
    owned(path, &meta).or_else(|why| refuse(&why))
}

#[cfg(unix)]
fn owned(path: &Path, meta: &std::fs::Metadata) -> Result<(), String> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(format!("it belongs to user {}", meta.uid()));
    }
    if meta.mode() & 0o077 != 0 {
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(path, private).map_err(|_| "others can write to it".to_owned())?;
    }
    Ok(())
}

#[cfg(not(unix))]
fn owned(_: &Path, _: &std::fs::Metadata) -> Result<(), String> {
    Ok(())
}
