//! This process itself goes into a leaf, for a program that limits itself.
//!
//! Touches the place that [`Parent::open`] finds and the empty leaves that ended processes left there. Never signals.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use oomguard_core::{Bytes, Enforcement};
use rustix::fs::{FlockOperation, Mode, OFlags};

use super::leaf::Leaf;
use super::memory::Limits;
use super::parent::{Parent, ParentOptions};
use super::refusal::{Log, Refusal};
use crate::os::Result;

/// How leaves of this kind begin.
const PREFIX: &str = "self-";

/// The leaf that this process is in now. It outlives the process, empty; the next one that joins removes it.
#[derive(Debug)]
pub struct Joined {
    leaf: Leaf,
    enforcement: Enforcement,
}

impl Joined {
    /// Moves this process, with all its threads, into a leaf of its own that may use `limit` more: what it holds
    /// already stays charged where it was. Children started later are in it too.
    pub fn new(options: &ParentOptions, limit: Bytes) -> std::result::Result<Joined, Refusal> {
        let parent = Parent::open(options)?;
        let _alone = alone(&parent);
        sweep(&parent);
        let name = format!("{PREFIX}{}-{}", std::process::id(), crate::os::clock::now().0);
        let joined = parent.leaf(&name).and_then(|leaf| {
            leaf.set_limit(&Limits::new(limit))?;
            leaf.add(std::process::id())?;
            Ok(leaf)
        });
        match joined {
            Ok(leaf) => Ok(Joined { leaf, enforcement: parent.enforcement() }),
            Err(error) => {
                let mut log = Log::default();
                log.error(parent.dir(), &error);
                sweep(&parent);
                Err(log.refuse())
            }
        }
    }

    /// Changes what this leaf may be charged.
    pub fn set_limit(&self, limit: Bytes) -> Result<Bytes> {
        self.leaf.set_limit(&Limits::new(limit))
    }

    /// What the kernel charges to this leaf.
    pub fn charged(&self) -> Result<Bytes> {
        self.leaf.charged()
    }

    /// What holds it.
    pub fn enforcement(&self) -> Enforcement {
        self.enforcement
    }

    /// Its directory in the memory hierarchy.
    pub fn dir(&self) -> PathBuf {
        self.leaf.dir().to_owned()
    }
}

/// Held while a leaf is made and joined: workers of one pool start together, and each sweeps. Where the kernel gives no
/// such lock, one that lost its leaf to a neighbour's sweep is told so.
fn alone(parent: &Parent) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(parent.dir(), flags, Mode::empty()).ok()?;
    rustix::fs::flock(&dir, FlockOperation::LockExclusive).ok()?;
    Some(dir)
}

/// Removes the leaves of processes that have ended.
fn sweep(parent: &Parent) {
    for name in parent.leaves().unwrap_or_default() {
        if name.starts_with(PREFIX)
            && let Ok(leaf) = parent.leaf(&name)
            && matches!(leaf.is_populated(), Ok(false))
        {
            let _ = leaf.remove();
        }
    }
}
