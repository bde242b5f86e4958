//! What can go wrong between us and the kernel: which file, which call, which errno.
//!
//! Paths are shared (`Arc`), so that an error about a kept file costs no allocation on the hot path. Nothing
//! here retries or hides anything.

use std::path::Path;
use std::sync::Arc;

use oomguard_core::{Bytes, Reading, Why};
use rustix::io::Errno;

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a sensor could not be read or an actuator did not act.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A call on a file failed.
    #[error("cannot {doing} `{}`: {}", path.display(), said(*errno))]
    File {
        /// The verb: open, read, write, ...
        doing: &'static str,
        /// The file.
        path: Arc<Path>,
        /// What the kernel said.
        errno: Errno,
    },
    /// A call that is not about a file failed.
    #[error("{doing} failed: {}", said(*errno))]
    Call {
        /// The call, with enough context to be understood.
        doing: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
    /// A file was read and does not say what it should.
    #[error("`{}` cannot be understood: {what}", path.display())]
    Malformed {
        /// The file.
        path: Arc<Path>,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The kernel accepted a limit and then holds another one.
    #[error("`{}` was set to {} bytes but holds {} bytes", path.display(), asked.0, held.0)]
    NotHeld {
        /// The file.
        path: Arc<Path>,
        /// What was written.
        asked: Bytes,
        /// What was read back.
        held: Bytes,
    },
    /// What was asked for makes no sense here.
    #[error("{0}")]
    Refused(String),
}

/// The kernel's words for `errno`.
fn said(errno: Errno) -> std::io::Error {
    std::io::Error::from(errno)
}

impl Error {
    /// An error of a call on `path`.
    pub(crate) fn file(doing: &'static str, path: &Path, errno: Errno) -> Error {
        Error::File { doing, path: Arc::from(path), errno }
    }
    /// A file that says something unexpected.
    pub(crate) fn malformed(path: &Arc<Path>, what: &'static str) -> Error {
        Error::Malformed { path: Arc::clone(path), what }
    }
    /// An error of the standard library on `path`.
    pub(crate) fn io(doing: &'static str, path: &Path, error: &std::io::Error) -> Error {
        Error::file(doing, path, Errno::from_io_error(error).unwrap_or(Errno::IO))
    }
    /// The error number, if the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::File { errno, .. } | Error::Call { errno, .. } => Some(errno.raw_os_error()),
            _ => None,
        }
    }
    /// The same as a reason for a reading that is not known.
    pub fn why(&self) -> Why {
        match self {
            Error::File { errno, .. } | Error::Call { errno, .. } => why(*errno),
            Error::Malformed { .. } => Why::Malformed,
            Error::NotHeld { .. } | Error::Refused(_) => Why::NotSupported,
        }
    }
}

/// The reason that an errno stands for.
pub(crate) fn why(errno: Errno) -> Why {
    match errno {
        Errno::NOENT | Errno::OPNOTSUPP | Errno::NOSYS => Why::NotSupported,
        Errno::ACCESS | Errno::PERM => Why::NoPermission,
        Errno::SRCH | Errno::NODEV => Why::Vanished,
        other => Why::Errno(other.raw_os_error()),
    }
}

/// A result as a reading: the error becomes the reason.
pub fn reading<T>(result: Result<T>) -> Reading<T> {
    match result {
        Ok(value) => Reading::Known(value),
        Err(error) => Reading::Unknown(error.why()),
    }
}
