//! Where the hierarchies are mounted and where we are in them.
//!
//! Touches `/proc/self/mountinfo`, `/proc/self/cgroup` and `cgroup.controllers` of the v2 mount. Never guesses
//! `/sys/fs/cgroup`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use crate::os::error::{Error, Result};

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// The directory it is mounted on.
    pub mount: PathBuf,
    /// The directory of our own cgroup in it; `None` if it lies outside what is mounted here.
    pub own: Option<PathBuf>,
}

/// The hierarchies that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounts {
    /// cgroup v1 with the memory controller.
    pub memory1: Option<Hierarchy>,
    /// cgroup v1 with the freezer.
    pub freezer1: Option<Hierarchy>,
    /// cgroup v2.
    pub unified: Option<Hierarchy>,
    /// Whether v2 has the memory controller (on hybrid machines v1 has it).
    pub unified_has_memory: bool,
}

/// What one line of mountinfo says about a cgroup mount.
struct Mounted<'t> {
    root: PathBuf,
    point: PathBuf,
    v2: bool,
    options: &'t str,
}

impl Mounts {
    /// Reads `self/mountinfo` and `self/cgroup` under `proc_root`; mount points are looked up under `root`, which is
    /// `/` but for tests. A hierarchy that is not mounted is `None`, not an error.
    pub fn discover(proc_root: &Path, root: &Path) -> Result<Mounts> {
        let read = |file| {
            let path = proc_root.join(file);
            std::fs::read(&path).map_err(|e| Error::io("read", &path, &e))
        };
        let mountinfo = read("self/mountinfo")?;
        let mountinfo = String::from_utf8_lossy(&mountinfo);
        let own = read("self/cgroup")?;
        let own = String::from_utf8_lossy(&own);

        let mut mounts = Mounts::default();
        for mounted in mountinfo.lines().filter_map(parse_mount) {
            let mount = under(root, &mounted.point);
            let controllers: Vec<&str> = mounted.options.split(',').collect();
            let place = |controller: Option<&str>| {
                let rel = own_path(&own, controller)?;
                Some(Hierarchy {
                    own: inside(&mounted.root, &rel).map(|rel| mount.join(rel).components().collect()),
                    mount: mount.clone(),
                })
            };
            if mounted.v2 {
                better(&mut mounts.unified, place(None));
            } else if controllers.contains(&"memory") {
                better(&mut mounts.memory1, place(Some("memory")));
            } else if controllers.contains(&"freezer") {
                better(&mut mounts.freezer1, place(Some("freezer")));
            }
        }
        mounts.unified_has_memory = mounts.unified.as_ref().is_some_and(|v2| {
            let dir = v2.own.as_ref().unwrap_or(&v2.mount);
            [dir, &v2.mount]
                .into_iter()
                .any(|dir| super::dirs::lists(&dir.join("cgroup.controllers"), "memory"))
        });
        Ok(mounts)
    }
}

/// Takes the first mount of a hierarchy, or a later one that shows our own cgroup when the first does not.
fn better(slot: &mut Option<Hierarchy>, found: Option<Hierarchy>) {
    let Some(found) = found else { return };
    let shows_us = |h: &Hierarchy| h.own.as_ref().is_some_and(|dir| dir.is_dir());
    if slot.as_ref().is_none_or(|have| !shows_us(have) && shows_us(&found)) {
        *slot = Some(found);
    }
}

/// `path` as seen from `root`.
fn under(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// `id parent major:minor root point options [optional]... - type source super-options`, if it is a cgroup's.
fn parse_mount(line: &str) -> Option<Mounted<'_>> {
    let (before, after) = line.split_once(" - ")?;
    let mut after = after.split(' ');
    let v2 = match after.next()? {
        "cgroup2" => true,
        "cgroup" => false,
        _ => return None,
    };
    let mut before = before.split(' ').skip(3);
    let (root, point) = (unescape(before.next()?), unescape(before.next()?));
    Some(Mounted { root, point, v2, options: after.nth(1).unwrap_or("") })
}

/// mountinfo writes blanks and the like as `\040`.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|o| *first == b'\\' && o.iter().all(|b| (b'0'..=b'7').contains(b)));
        match octal {
            Some(digits) => {
                bytes.push(digits.iter().fold(0u8, |n, d| n.wrapping_mul(8).wrapping_add(d - b'0')));
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// Our path in the hierarchy of a v1 controller, or (`None`) in v2: lines `id:controllers:path`.
fn own_path(text: &str, controller: Option<&str>) -> Option<PathBuf> {
    text.lines().find_map(|line| {
        let (id, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let ours = match controller {
            None => id == "0" && controllers.is_empty(),
            Some(wanted) => controllers.split(',').any(|c| c == wanted),
        };
        // A cgroup that was removed under us is shown with this mark.
        ours.then(|| PathBuf::from(path.strip_suffix(" (deleted)").unwrap_or(path)))
    })
}

/// `path` relative to the part of the hierarchy that is mounted; `None` if it lies outside.
fn inside(root: &Path, path: &Path) -> Option<PathBuf> {
    let rel = path.strip_prefix(root).ok()?;
    rel.components().all(|c| matches!(c, Component::Normal(_))).then(|| rel.to_owned())
}
