//! Where jobs are put and what holds them there: the best that this machine gives, proved by doing it once.
//!
//! Decides only whether what was found is what was asked for.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use oomguard_core::{Bytes, Enforcement};
use oomguard_sys::cgroup::{Parent, ParentOptions, Refusal};
use oomguard_sys::systemd;

use crate::cli::Require;
use crate::error::Error;

/// The place, and what it is worth.
pub struct Place {
    /// The cgroup around all jobs, if there can be one.
    pub parent: Option<Parent>,
    /// What holds a job.
    pub enforcement: Enforcement,
    /// What is missing and what replaces it, one sentence each.
    pub notes: Vec<String>,
    /// Why there is no cgroup, and what to do about it.
    pub refusal: Option<String>,
    /// To find it again, should somebody remove it.
    pub options: ParentOptions,
}

/// Another guard that leaves may take an empty parent away while we look at it; so often we make it again.
const TRIES: u32 = 4;

/// Opens the parent, made again if it vanishes under our hands.
pub(super) fn open_parent(options: &ParentOptions) -> Result<Parent, Refusal> {
    let mut opened = Parent::open(options);
    for _ in 1..TRIES {
        match &opened {
            Err(refusal) if refusal.attempts.iter().any(|attempt| attempt.errno == Some(GONE)) => {
                opened = Parent::open(options);
            }
            _ => break,
        }
    }
    opened
}

/// `ENOENT`.
pub(super) const GONE: i32 = rustix::io::Errno::NOENT.raw_os_error();

impl Place {
    /// Finds the best place. Without rights of our own we are started again inside a systemd scope that has
    /// them, if the user's systemd gives one; then this does not return.
    pub fn find(explicit: Option<&Path>) -> Place {
        let place = Place::probe(explicit);
        if place.parent.is_none() && explicit.is_none() {
            let argv: Vec<_> = std::env::args_os().collect();
            if let Some(scope) = systemd::scope_command(&argv) {
                // Only returns if it failed; then we go on with what we have.
                let _ = std::process::Command::new(&scope[0]).args(&scope[1..]).exec();
            }
        }
        place
    }

    /// The same, without being started again.
    pub fn probe(explicit: Option<&Path>) -> Place {
        let options = ParentOptions { explicit: explicit.map(PathBuf::from), ..ParentOptions::default() };
        match open_parent(&options) {
            Ok(parent) => Place {
                options,
                enforcement: parent.enforcement(),
                notes: parent.notes().to_vec(),
                parent: Some(parent),
                refusal: None,
            },
            Err(refusal) => Place {
                options,
                parent: None,
                enforcement: Enforcement::Rlimit,
                notes: vec![
                    "no cgroup holds the tree as a whole: each process has its own RLIMIT_DATA, and the guard \
                     watches the sum"
                        .to_owned(),
                ],
                refusal: Some(refusal.to_string()),
            },
        }
    }

    /// Leaves it as it was found; what others use stays.
    pub fn leave(self) {
        if let Some(parent) = self.parent {
            let _ = parent.remove();
        }
    }

    /// The cgroup's path, for people.
    pub fn path(&self) -> Option<String> {
        self.parent.as_ref().map(|parent| parent.dir().display().to_string())
    }

    /// Refuses a place that is worth less than what was asked for.
    pub fn must_be(&self, require: Option<Require>) -> Result<(), Error> {
        match require {
            Some(require) if !require.is_met_by(self.enforcement) => {
                let found = self.enforcement.name();
                let why = self.refusal.clone().unwrap_or_else(|| self.notes.join("; "));
                Err(Error::new(format!("the limit would only be held by `{found}`\n{why}"))
                    .hint("`oomguard doctor` shows what was tried; `--best-effort` instead of `--require` starts all the same"))
            }
            _ => Ok(()),
        }
    }
}

/// The per-process limit that goes with a limit of the whole tree where no cgroup holds it. Generous: torch
/// needs 0.8 GB of private data at half a GB resident, and the guard's own watching is what counts.
pub fn rlimit_data(enforcement: Enforcement, limit: Option<Bytes>) -> Option<Bytes> {
    limit.filter(|_| enforcement == Enforcement::Rlimit).map(|limit| limit.plus(Bytes::gib(1)))
}
