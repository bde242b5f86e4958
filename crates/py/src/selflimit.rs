//! A program that limits itself: in a cgroup leaf of its own, or by `RLIMIT_DATA` where there is none.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use oomguard_core::Bytes;
use oomguard_sys::cgroup::{Joined, Mounts, ParentOptions};
use oomguard_sys::footprint;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;

/// The leaf that this process made, and what it held outside of it then.
static LEAF: Mutex<Option<(u32, Joined, Bytes)>> = Mutex::new(None);

/// What holds this process: its name, the bytes that it may still take, the leaf's directory, and why it is not better.
type Held = (&'static str, u64, Option<PathBuf>, Option<String>);

/// Holds this process and its future children to `limit` bytes. Raises ValueError if it uses as much already, OSError
/// if nothing at all can hold it.
///
/// `parent`: the cgroup to make the leaf in, None to find one. `nested`: this process is in a guard's cgroup already
/// and must not leave it.
#[pyfunction]
#[pyo3(signature = (limit, parent, nested))]
pub(crate) fn limit_self(
    py: Python<'_>,
    limit: u64,
    parent: Option<PathBuf>,
    nested: bool,
) -> PyResult<Held> {
    py.detach(|| hold(Bytes(limit), parent, nested))
}

fn hold(limit: Bytes, parent: Option<PathBuf>, nested: bool) -> PyResult<Held> {
    let os_error = |error: oomguard_sys::Error| PyOSError::new_err(error.to_string());
    let used = footprint::charged().map_err(os_error)?;
    if used >= limit {
        let said = format!("this process holds {used} already, so it cannot be held to {limit}");
        return Err(PyValueError::new_err(said));
    }
    let left = limit.minus(used);
    let mut kept = LEAF.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some((pid, leaf, outside)) = &*kept
        && *pid == std::process::id()
    {
        leaf.set_limit(limit.minus(*outside)).map_err(os_error)?;
        return Ok((leaf.enforcement().name(), left.0, Some(leaf.dir()), None));
    }
    let refused = if nested && is_v2() {
        "it is in a guard's cgroup already, and cgroup v2 lets no cgroup be divided that holds processes"
            .to_owned()
    } else {
        // The guard's own choice of a place may be above us: going there would be leaving it.
        let explicit = parent.filter(|_| !nested).map(|parent| parent.join("self"));
        let options =
            ParentOptions { explicit, name: "oomguard-self".to_owned(), ..ParentOptions::default() };
        match Joined::new(&options, left) {
            Ok(leaf) => {
                let held = (leaf.enforcement().name(), left.0, Some(leaf.dir()), None);
                *kept = Some((std::process::id(), leaf, used));
                return Ok(held);
            }
            Err(refusal) => refusal.to_string(),
        }
    };
    footprint::limit_data(left).map_err(os_error)?;
    Ok(("rlimit", left.0, None, Some(refused)))
}

/// Whether the memory controller is v2's here.
fn is_v2() -> bool {
    Mounts::discover(Path::new("/proc"), Path::new("/")).is_ok_and(|mounts| mounts.unified_has_memory)
}

/// A size as people write it (`8GiB`, `8G`, `500M`), in bytes. Raises ValueError that says what is wrong with it.
#[pyfunction]
pub(crate) fn parse_size(text: &str) -> PyResult<u64> {
    text.parse::<Bytes>().map(|bytes| bytes.0).map_err(|error| PyValueError::new_err(error.to_string()))
}
