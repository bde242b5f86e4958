//! The limits above ourselves: in a container they, and not the host's memory, say what is available.
//!
//! Touches the limit, usage and `memory.stat` of our own cgroup and of those above it that are visible. Never
//! writes, and never allocates after `open`.

use std::path::Path;

use oomguard_core::Bytes;

use super::mounts::Mounts;
use crate::os::error::Result;
use crate::os::kept::{Kept, buffer};
use crate::os::text;

/// Limits are read again after so many looks: containers are resized while they run.
const REREAD_EVERY: u32 = 64;

/// The files of one level.
#[derive(Debug)]
struct Level {
    limit: Kept,
    usage: Kept,
    stat: Kept,
    now: Bytes,
    /// Steps up from our own.
    up: usize,
}

/// Our own cgroup and those above it.
#[derive(Debug)]
pub struct Ancestors {
    levels: Vec<Level>,
    cache_keys: [&'static str; 2],
    looks: u32,
    tightest: Option<usize>,
}

impl Ancestors {
    /// Opens every level that has a limit file, whether or not it has a limit now. `root` is `/` but for tests.
    pub fn open(proc_root: &Path, root: &Path) -> Result<Ancestors> {
        let mounts = Mounts::discover(proc_root, root)?;
        Ok(Ancestors::of(&mounts))
    }

    /// The same for hierarchies that are known already.
    pub fn of(mounts: &Mounts) -> Ancestors {
        let v2 = mounts.unified.as_ref().filter(|_| mounts.unified_has_memory);
        let (hierarchy, files, cache_keys) = match (v2, &mounts.memory1) {
            (None, Some(v1)) => (
                Some(v1),
                ["memory.limit_in_bytes", "memory.usage_in_bytes"],
                ["total_inactive_file", "total_active_file"],
            ),
            (v2, _) => (v2, ["memory.max", "memory.current"], ["inactive_file", "active_file"]),
        };
        let mut levels = Vec::new();
        if let Some((mount, own)) = hierarchy.and_then(|h| Some((&h.mount, h.own.as_ref()?))) {
            for (up, dir) in own.ancestors().take_while(|dir| dir.starts_with(mount)).enumerate() {
                levels.extend(Level::open(dir, up, files));
            }
        }
        Ancestors { levels, cache_keys, looks: 0, tightest: None }
    }

    /// The least that any level can still give, and the smallest limit. `None`: no level has a limit.
    ///
    /// A level can give `limit - (usage - file cache)`. Costs nothing but a counter where there is no limit; else
    /// two reads a level (4 to 20 us), and the limits themselves are read again at every 64th look. A level that
    /// cannot be read is left out.
    pub fn headroom(&mut self) -> Option<(Bytes, Bytes)> {
        let reread = self.looks == REREAD_EVERY;
        self.looks = if reread { 0 } else { self.looks + 1 };
        let keys = self.cache_keys;
        let mut least: Option<(Bytes, Bytes)> = None;
        self.tightest = None;
        for level in &mut self.levels {
            if reread && let Ok(limit) = level.limit.limit() {
                level.now = limit;
            }
            if let Some(available) = level.headroom(keys) {
                let (a, t) = least.unwrap_or((Bytes::MAX, Bytes::MAX));
                if least.is_none() || available < a {
                    self.tightest = Some(level.up);
                }
                least = Some((a.min(available), t.min(level.now)));
            }
        }
        least
    }

    /// How many steps above our own cgroup the level stands that could give least when [`headroom`](Ancestors::headroom)
    /// was last asked, 0 being our own. What lies outside of it gives nothing back to it.
    pub fn tightest(&self) -> Option<usize> {
        self.tightest
    }
}

impl Level {
    /// `None` where the level has no limit file (the v2 root) or is not ours to read.
    fn open(dir: &Path, up: usize, [limit, usage]: [&str; 2]) -> Option<Level> {
        let limit = Kept::read_only(&dir.join(limit)).ok()?;
        let now = limit.limit().ok()?;
        let usage = Kept::read_only(&dir.join(usage)).ok()?;
        let stat = Kept::read_only(&dir.join("memory.stat")).ok()?;
        Some(Level { limit, usage, stat, now, up })
    }

    /// What it can still give.
    fn headroom(&self, cache_keys: [&str; 2]) -> Option<Bytes> {
        if self.now == Bytes::MAX {
            return None;
        }
        let usage = Bytes(self.usage.number().ok()?);
        let mut space = buffer::<16384>();
        let [inactive, active] = text::fields(self.stat.read(&mut space).ok()?, cache_keys);
        let cache = Bytes(inactive?).plus(Bytes(active?));
        Some(self.now.minus(usage.minus(cache)))
    }
}
