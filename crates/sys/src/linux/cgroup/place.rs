//! Where the parent cgroup of all jobs can be, tried out in order, and the list of what did not work.
//!
//! Touches candidates by making the parent there, and on v2 by switching the memory controller on above it. What
//! was made for a candidate that turned out useless is removed again. Never changes a limit.

use std::path::{Component, Path, PathBuf};

use oomguard_core::Bytes;
use rustix::io::Errno;

use super::dirs;
use super::leaf::Dirs;
use super::mounts::{Hierarchy, Mounts};
use super::probe;
use super::refusal::Log;
use crate::os::error::Error;
use crate::os::kept::Kept;

/// A parent that works.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) dirs: Dirs,
    /// Directories to remove in the end, deepest last.
    pub(crate) made: Vec<PathBuf>,
    pub(crate) notes: Vec<String>,
    /// The smallest limit that we are under and jobs in this place would not be.
    pub(crate) inherited: Option<Bytes>,
    /// Our own cgroup, if it was divided for this.
    pub(crate) divided: Option<PathBuf>,
}

/// Whether a path given by a person stays below the hierarchy's root and names something in it.
pub(crate) fn is_plain(path: &Path) -> bool {
    let mut parts = path.components().filter(|c| *c != Component::RootDir).peekable();
    parts.peek().is_some() && parts.all(|c| matches!(c, Component::Normal(_)))
}

/// An explicit path below a mount.
pub(crate) fn below(mount: &Path, explicit: &Path) -> PathBuf {
    mount.join(explicit.strip_prefix("/").unwrap_or(explicit))
}

/// The leaf that we move to when our own cgroup is divided.
const GUARD: &str = "guard";

/// cgroup v2 with the memory controller.
pub(crate) fn in_v2(v2: &Hierarchy, explicit: Option<&Path>, name: &str, log: &mut Log) -> Option<Place> {
    if let Some(explicit) = explicit {
        return make_v2(&v2.mount, &below(&v2.mount, explicit), None, log);
    }
    let Some(own) = &v2.own else {
        log.say(&v2.mount, "our own cgroup is not visible here", None);
        return None;
    };
    // Divided already, by an earlier guard in this process or by one that has exec'ed into us.
    let divided = own.ends_with(GUARD) && own.parent().is_some_and(|above| above.join(name).is_dir());
    if !divided && let Some(place) = divide_own(own, name, log) {
        return Some(place);
    }
    let mut inherited: Option<Bytes> = None;
    for above in own.ancestors().take_while(|dir| dir.starts_with(&v2.mount)) {
        // Our own cgroup may be used as it is only where the kernel lets a cgroup with processes be divided: at the
        // root.
        if (above != own || own == &v2.mount)
            && let Some(place) = make_v2(above, &above.join(name), inherited, log)
        {
            return Some(place);
        }
        let limit = Kept::read_only(&above.join("memory.max")).and_then(|f| f.limit());
        if let Ok(limit) = limit.as_ref()
            && *limit != Bytes::MAX
        {
            inherited = Some(inherited.unwrap_or(Bytes::MAX).min(*limit));
        }
    }
    None
}

/// Our own cgroup, if we are alone in it: we move to a leaf `guard` and jobs go beside us.
fn divide_own(own: &Path, name: &str, log: &mut Log) -> Option<Place> {
    let me = std::process::id().to_string();
    let procs = own.join("cgroup.procs");
    match std::fs::read_to_string(&procs) {
        Ok(text) if text.trim() == me => {}
        Ok(_) => {
            log.say(own, "other processes are in it, so it cannot be divided", Some(Errno::NOTUNIQ));
            return None;
        }
        Err(e) => {
            log.error(own, &Error::io("read", &procs, &e));
            return None;
        }
    }
    let guard = own.join(GUARD);
    let moved = dirs::make(&guard)
        .map_err(|errno| Error::file("make", &guard, errno))
        .and_then(|_| Kept::write_only(&guard.join("cgroup.procs"))?.write(b"0"));
    if let Err(error) = moved {
        log.error(own, &error);
        let _ = dirs::remove(&guard);
        return None;
    }
    match make_v2(own, &own.join(name), None, log) {
        Some(mut place) => {
            place.notes.push(format!("moved itself to `{}`", guard.display()));
            place.divided = Some(own.to_owned());
            Some(place)
        }
        None => {
            // Back to where we were; what cannot be undone is said.
            if let Err(error) = join_up(own) {
                log.error(own, &error);
            }
            None
        }
    }
}

/// Undoes the division of our own cgroup, once nothing but the guard is left below it.
pub(crate) fn join_up(own: &Path) -> crate::os::Result<()> {
    let write = |file: &str, text: &[u8]| Kept::write_only(&own.join(file))?.write(text);
    // Only a cgroup that passes no controllers on may hold processes. It may never have come to that.
    if dirs::lists(&own.join("cgroup.subtree_control"), "memory") {
        write("cgroup.subtree_control", b"-memory")?;
    }
    write("cgroup.procs", b"0")?;
    let guard = own.join(GUARD);
    dirs::remove(&guard).map_err(|errno| Error::file("remove", &guard, errno))
}

/// Makes `dir` and what is missing between it and `top`, with the memory controller on all the way, and probes it.
fn make_v2(top: &Path, dir: &Path, inherited: Option<Bytes>, log: &mut Log) -> Option<Place> {
    let mut made = Vec::new();
    let result = (|| {
        enable_memory(top, log)?;
        for step in dirs::steps(top, dir) {
            match dirs::make(&step) {
                Ok(true) => made.push(step.clone()),
                Ok(false) => {}
                Err(errno) => {
                    log.failed(&step, "make it", errno);
                    return None;
                }
            }
            enable_memory(&step, log)?;
        }
        let dirs = Dirs { memory: dir.to_owned(), v2: true, side: None, freezer: None };
        probe::leaf(&dirs).map_err(|error| log.error(dir, &error)).ok()?;
        Some(dirs)
    })();
    finish(result, made, Vec::new(), inherited)
}

/// Removes what was made if it was in vain.
fn finish(
    dirs: Option<Dirs>,
    made: Vec<PathBuf>,
    notes: Vec<String>,
    inherited: Option<Bytes>,
) -> Option<Place> {
    if dirs.is_none() {
        for dir in made.iter().rev() {
            let _ = dirs::remove(dir);
        }
    }
    Some(Place { dirs: dirs?, made, notes, inherited, divided: None })
}

/// Switches the memory controller on for the children of `dir`.
fn enable_memory(dir: &Path, log: &mut Log) -> Option<()> {
    if dirs::lists(&dir.join("cgroup.subtree_control"), "memory") {
        return Some(());
    }
    if !dirs::lists(&dir.join("cgroup.controllers"), "memory") {
        log.say(dir, "it has no memory controller to pass on", None);
        return None;
    }
    Kept::write_only(&dir.join("cgroup.subtree_control"))
        .and_then(|file| file.write(b"+memory"))
        .map_err(|error| log.error(dir, &error))
        .ok()
}

/// cgroup v1, with v2 or the freezer beside it.
pub(crate) fn in_v1(
    v1: &Hierarchy,
    mounts: &Mounts,
    explicit: Option<&Path>,
    name: &str,
    log: &mut Log,
) -> Option<Place> {
    let base = |h: &Hierarchy| match explicit {
        Some(explicit) => Some(below(&h.mount, explicit)),
        None => h.own.as_ref().map(|own| own.join(name)),
    };
    let Some(dir) = base(v1) else {
        log.say(&v1.mount, "our own cgroup is not visible here", None);
        return None;
    };
    let mut made = Vec::new();
    let mut notes = Vec::new();
    if !make_all(&v1.mount, &dir, &mut made, log) {
        return finish(None, made, notes, None);
    }
    // Old kernels: without it the parent's limit would not count what is in the leaves.
    let hierarchy = dir.join("memory.use_hierarchy");
    if std::fs::read(&hierarchy).is_ok_and(|text| text == b"0\n")
        && let Err(e) = std::fs::write(&hierarchy, "1")
    {
        notes
            .push(format!("the ceiling around all jobs does not hold: {}", Error::io("set", &hierarchy, &e)));
    }
    let mut dirs = Dirs { memory: dir.clone(), v2: false, side: None, freezer: None };
    let mut lost = Log::default();
    let beside = [(&mounts.unified, "cgroup.freeze"), (&mounts.freezer1, "freezer.state")];
    for (hierarchy, wanted) in beside {
        let Some((mount, place)) = hierarchy.as_ref().and_then(|h| Some((&h.mount, base(h)?))) else {
            continue;
        };
        let mut here = Vec::new();
        if make_all(mount, &place, &mut here, &mut lost) && place.join(wanted).exists() {
            made.append(&mut here);
            match wanted {
                "cgroup.freeze" => dirs.side = Some(place),
                _ => dirs.freezer = Some(place),
            }
            break;
        }
        drop(finish(None, here, Vec::new(), None));
    }
    notes.extend(lost.0.iter().map(|attempt| format!("not beside the memory cgroup: {attempt}")));
    match (&dirs.side, &dirs.freezer) {
        (Some(_), _) => {}
        (None, Some(_)) => notes.push("jobs are frozen by the v1 freezer and killed one by one".to_owned()),
        (None, None) => notes.push("jobs are stopped and killed one by one".to_owned()),
    }
    let probed = probe::leaf(&dirs).map_err(|error| log.error(&dir, &error)).ok();
    finish(probed.map(|()| dirs), made, notes, None)
}

/// `mkdir -p` below a mount.
fn make_all(mount: &Path, dir: &Path, made: &mut Vec<PathBuf>, log: &mut Log) -> bool {
    for step in dirs::steps(mount, dir) {
        match dirs::make(&step) {
            Ok(true) => made.push(step),
            Ok(false) => {}
            Err(errno) => {
                log.failed(&step, "make it", errno);
                return false;
            }
        }
    }
    true
}
