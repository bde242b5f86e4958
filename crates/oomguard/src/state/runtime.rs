//! The runtime directory: sockets and shared pages, which mean nothing after a reboot.
//!
//! Decides their paths. Creates the directory (0700) when asked to; never one that belongs to somebody else, and
//! never a socket path that the kernel would cut short.

use std::path::{Path, PathBuf};

use super::directory::ours;
use super::key;
use crate::error::Error;

/// `sun_path` holds 108 bytes with its final zero; 104 on other systems.
const LONGEST_SOCKET: usize = 103;

/// Where one guard's sockets and pages lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    dir: PathBuf,
    key: String,
}

impl Runtime {
    /// `$XDG_RUNTIME_DIR/oomguard`, else `/run/oomguard` for root, else `run` in the state directory; where the
    /// path would be too long for a socket, `/tmp/oomguard-<uid>`. An `XDG_RUNTIME_DIR` that is somebody else's (`su`
    /// keeps the variable) does not count. Reads nothing but `env` and who owns that directory.
    pub fn locate(state_dir: &Path, env: &dyn Fn(&str) -> Option<String>, uid: u32) -> Runtime {
        let own = |dir: &PathBuf| dir.is_absolute() && !is_anothers(dir, uid);
        let dir = match env("XDG_RUNTIME_DIR").map(PathBuf::from).filter(own) {
            Some(dir) => dir.join("oomguard"),
            None if uid == 0 => PathBuf::from("/run/oomguard"),
            None => state_dir.join("run"),
        };
        let runtime = Runtime { dir, key: key(state_dir) };
        match runtime.notify().as_os_str().len() {
            0..=LONGEST_SOCKET => runtime,
            _ => Runtime { dir: PathBuf::from(format!("/tmp/oomguard-{uid}")), ..runtime },
        }
    }

    /// Makes the directory and checks that it is ours.
    pub fn create(&self) -> Result<(), Error> {
        ours(&self.dir, "runtime directory")
    }

    /// What tells this guard's sockets, pages and cgroups from another's.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join(format!("{}.sock", self.key))
    }

    /// The socket on which workers speak.
    pub fn notify(&self) -> PathBuf {
        self.dir.join(format!("{}.notify", self.key))
    }

    /// The page shared with this worker.
    pub fn page(&self, worker: &str) -> PathBuf {
        self.dir.join(format!("{}-{worker}.page", self.key))
    }
}

fn is_anothers(dir: &Path, uid: u32) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(dir).is_ok_and(|meta| meta.uid() != uid)
}
