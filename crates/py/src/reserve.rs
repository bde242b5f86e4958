//! A little memory that this process holds back, touched, and lets go when memory is short, so that handlers can run.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use oomguard_core::Bytes;
use oomguard_sys::footprint::Reserve;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// As much as a handler needs that writes a small file and a few log lines.
const SIZE: Bytes = Bytes::mib(16);
const NAME: &str = "OOMGUARD_HANDLER_RESERVE";

static RESERVE: OnceLock<Option<Reserve>> = OnceLock::new();
static HELD: AtomicBool = AtomicBool::new(false);
/// Somebody in this process has asked for it: a forked child that never does is spared.
static WANTED: AtomicBool = AtomicBool::new(false);

/// Holds it from now on: 16 MiB, or what `OOMGUARD_HANDLER_RESERVE` says (0: none). Once a process.
pub(crate) fn hold(py: Python<'_>) -> PyResult<()> {
    if WANTED.load(SeqCst) {
        return Ok(());
    }
    let size = match std::env::var(NAME) {
        Ok(text) => text.parse::<Bytes>().map_err(|e| PyValueError::new_err(format!("{NAME}: {e}")))?,
        Err(_) => SIZE,
    };
    py.detach(|| {
        // Where it cannot be had, handlers do without.
        RESERVE.get_or_init(|| if size == Bytes::ZERO { None } else { Reserve::new(size).ok() });
        WANTED.store(true, SeqCst);
        refill();
    });
    Ok(())
}

/// Memory is short: whoever needs it may have it. No lock, no allocation.
pub(crate) fn release() {
    if HELD.swap(false, SeqCst)
        && let Some(Some(reserve)) = RESERVE.get()
    {
        reserve.release();
    }
}

/// There is room again.
pub(crate) fn refill() {
    if WANTED.load(SeqCst)
        && let Some(Some(reserve)) = RESERVE.get()
        && !HELD.swap(true, SeqCst)
        && reserve.fill().is_err()
    {
        HELD.store(false, SeqCst);
    }
}

/// Whether it is held.
#[pyfunction]
pub(crate) fn holds_reserve() -> bool {
    HELD.load(SeqCst)
}

/// The mapping is there in a forked child, and holds nothing.
pub(crate) fn after_fork_in_child() {
    WANTED.store(false, SeqCst);
    HELD.store(false, SeqCst);
}
