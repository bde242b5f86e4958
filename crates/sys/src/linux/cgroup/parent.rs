//! The one cgroup around all jobs: its limit is the ceiling that keeps the reserve free.
//!
//! Touches its own directories and their limit. Never removes a leaf: leaves outlive the guard, with their limits.

use std::path::{Path, PathBuf};

use oomguard_core::{Bytes, Enforcement};
use rustix::io::Errno;

use super::leaf::{Dirs, Leaf, check_name};
use super::memory::check_held;
use super::mounts::Mounts;
use super::place::{self, Place};
use super::refusal::{Log, Refusal};
use super::{dirs, memory1, memory2};
use crate::os::error::{Error, Result};
use crate::os::kept::Kept;

/// Where to look for a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentOptions {
    /// This cgroup and no other, relative to the root of the memory hierarchy (`/oomguard`); made if it is missing.
    pub explicit: Option<PathBuf>,
    /// The name of the parent where the place is ours to choose.
    pub name: String,
    /// `/proc`.
    pub proc_root: PathBuf,
    /// Where mount points are looked up: `/`, but for tests.
    pub sys_root: PathBuf,
}

impl Default for ParentOptions {
    fn default() -> ParentOptions {
        ParentOptions {
            explicit: None,
            name: "oomguard".to_owned(),
            proc_root: PathBuf::from("/proc"),
            sys_root: PathBuf::from("/"),
        }
    }
}

/// The open parent. Dropping it leaves the cgroup in place, with its limit in force.
#[derive(Debug)]
pub struct Parent {
    place: Place,
    limit: Kept,
    usage: Kept,
    stat: Kept,
}

impl Parent {
    /// Finds a place for the parent, makes it, and proves by doing that a leaf in it can be limited and joined.
    ///
    /// On v2 the place is our own cgroup if we are alone in it (we move to a child `guard`), else the nearest one
    /// above that can be divided; on v1 a child of our own memory cgroup.
    pub fn open(options: &ParentOptions) -> std::result::Result<Parent, Refusal> {
        let mut log = Log::default();
        let Some(place) = find(options, &mut log) else { return Err(log.refuse()) };
        let files = match place.dirs.v2 {
            true => ["memory.max", "memory.current"],
            false => ["memory.limit_in_bytes", "memory.usage_in_bytes"],
        };
        let dir = &place.dirs.memory;
        let read = |file: &str| Kept::read_only(&dir.join(file));
        let opened = Kept::read_write(&dir.join(files[0]))
            .and_then(|limit| Ok((limit, read(files[1])?, read("memory.stat")?)));
        match opened {
            Ok((limit, usage, stat)) => Ok(Parent { place, limit, usage, stat }),
            Err(error) => {
                log.error(dir, &error);
                Err(log.refuse())
            }
        }
    }

    /// What holds the jobs.
    pub fn enforcement(&self) -> Enforcement {
        if self.place.dirs.v2 { Enforcement::Cgroup2 } else { Enforcement::Cgroup1 }
    }
    /// Why it is not better than it is, and what was done to get here.
    pub fn notes(&self) -> &[String] {
        &self.place.notes
    }
    /// The smallest limit that applies to the guard but, because the parent had to be placed above it, not to the
    /// jobs: the ceiling should not exceed it.
    pub fn inherited_limit(&self) -> Option<Bytes> {
        self.place.inherited
    }
    /// Its directory in the memory hierarchy.
    pub fn dir(&self) -> &Path {
        &self.place.dirs.memory
    }
    /// Sets what all jobs together may be charged, `Bytes::MAX` for anything; what the kernel holds. v1 refuses
    /// (`EBUSY`) a ceiling below what is in use and cannot be reclaimed.
    pub fn set_ceiling(&self, ceiling: Bytes) -> Result<Bytes> {
        match self.place.dirs.v2 {
            true => memory2::write_limit(&self.limit, ceiling)?,
            false => memory1::write_limit(&self.limit, ceiling)?,
        }
        check_held(&self.limit, ceiling)
    }
    /// The ceiling that is in force.
    pub fn ceiling(&self) -> Result<Bytes> {
        self.limit.limit()
    }
    /// What all jobs together are charged, file cache included. One read, 0.7 us.
    pub fn charged(&self) -> Result<Bytes> {
        self.usage.number().map(Bytes)
    }
    /// The same without cache: what all jobs together really hold. See [`Leaf::usage`].
    pub fn used(&self) -> Result<Bytes> {
        let charged = self.charged()?;
        let cache = if self.place.dirs.v2 { memory2::cache(&self.stat) } else { memory1::cache(&self.stat) };
        Ok(charged.minus(cache?))
    }
    /// Makes a leaf, or opens one that is there.
    pub fn leaf(&self, name: &str) -> Result<Leaf> {
        check_name(name)?;
        Leaf::open(&self.place.dirs, name)
    }
    /// The names of the leaves that are there, of earlier guards too, sorted; one that a killed guard has removed from
    /// the memory hierarchy only is still there.
    pub fn leaves(&self) -> Result<Vec<String>> {
        let Dirs { memory, side, freezer, .. } = &self.place.dirs;
        let mut names = dirs::children(memory)?;
        for beside in [side, freezer].into_iter().flatten() {
            names.extend(dirs::children(beside)?);
        }
        names.sort();
        names.dedup();
        Ok(names)
    }
    /// Removes the parent and the directories made for it, and takes a division of our own cgroup back; what is still
    /// in use, by a leaf or by another guard, stays.
    pub fn remove(self) -> Result<()> {
        let Place { dirs: Dirs { memory, side, freezer, .. }, made, divided, .. } = self.place;
        let own = [Some(memory.clone()), side, freezer].into_iter().flatten();
        for dir in own.chain(made.into_iter().rev()) {
            match dirs::remove(&dir) {
                Ok(()) | Err(Errno::BUSY | Errno::NOTEMPTY) => {}
                Err(errno) => return Err(Error::file("remove", &dir, errno)),
            }
        }
        match divided {
            Some(own) if !memory.exists() => place::join_up(&own),
            _ => Ok(()),
        }
    }
}

/// The first place that works.
fn find(options: &ParentOptions, log: &mut Log) -> Option<Place> {
    let explicit = options.explicit.as_deref();
    if explicit.is_some_and(|path| !place::is_plain(path)) || check_name(&options.name).is_err() {
        let asked = explicit.unwrap_or(Path::new(&options.name));
        log.say(asked, "it is not a path of plain names below the root", Some(Errno::INVAL));
        return None;
    }
    let mounts = match Mounts::discover(&options.proc_root, &options.sys_root) {
        Ok(mounts) => mounts,
        Err(error) => {
            log.error(&options.proc_root, &error);
            return None;
        }
    };
    match &mounts.unified {
        Some(v2) if mounts.unified_has_memory => {
            if let Some(place) = place::in_v2(v2, explicit, &options.name, log) {
                return Some(place);
            }
        }
        Some(v2) => log.say(&v2.mount, "cgroup v2 has no memory controller here", None),
        None => log.say(&options.sys_root, "cgroup v2 is not mounted", None),
    }
    let Some(v1) = &mounts.memory1 else {
        log.say(&options.sys_root, "cgroup v1 with the memory controller is not mounted", None);
        return None;
    };
    let mut place = place::in_v1(v1, &mounts, explicit, &options.name, log)?;
    let better = log.0.iter().map(|attempt| format!("not cgroup v2: {attempt}"));
    place.notes.splice(0..0, better);
    Some(place)
}
