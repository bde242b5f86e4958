//! `oomguard._core`: what Python needs from the engine.
//!
//! Only converts and hands on. What a check decides stands in [`monitor`]; how it reads memory in [`sampler`].
//! Nothing here touches a Python object outside the calls that Python makes: the sampling thread never takes the GIL.

mod guard;
mod heap;
mod holes;
mod interrupt;
mod monitor;
mod notify;
mod relief;
mod reserve;
mod sampler;
mod seat;
mod seen;
mod selflimit;
mod trend;

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use pyo3::exceptions::{PyRuntimeWarning, PyValueError};
use pyo3::prelude::*;

use monitor::Stop;
use seen::Snapshot;

/// What Python needs from the engine.
#[pymodule]
mod _core {
    #[pymodule_export]
    use super::Snapshot;
    #[pymodule_export]
    use super::guard::{Guard, Shield, acknowledge, on_interrupt};
    #[pymodule_export]
    use super::heap::{forget_peak, peak_resident, resident, trim};
    #[pymodule_export]
    use super::relief::{take_relief, take_report, vram_wanted};
    #[pymodule_export]
    use super::reserve::holds_reserve;
    #[pymodule_export]
    use super::selflimit::{limit_self, parse_size};
    #[pymodule_export]
    use super::trend::Trend;
    #[pymodule_export]
    use super::{
        after_fork_in_child, at_ease, available, check, end, level, notify_guard, prune_requested,
        request_stop, should_stop, snapshot, stop_requested,
    };

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "its name in Python")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}

/// Raises if memory is too short to go on; else costs some atomic loads (30 ns) and no system call.
///
/// Under a living guard it follows the guard's wish alone: in one shortage the guard picks one job. Without a guard it
/// raises while available memory is below the reserve: 2 GiB, on machines under 16 GiB an eighth of the memory, or
/// what `OOMGUARD_RESERVE` says.
///
/// Raises MemoryCritical (free what you can, save, go on or end), StopRequested (a SystemExit too: the process was
/// asked to end), ValueError (`OOMGUARD_RESERVE` or `OOMGUARD_WARNING` is not a size).
#[pyfunction]
#[pyo3(signature = (context = None))]
fn check(py: Python<'_>, context: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    if !monitor::must_look(monitor::reserve()) {
        return Ok(());
    }
    started(py)?;
    if !monitor::must_look(monitor::reserve()) {
        return Ok(());
    }
    let raise = py.import("oomguard._brake")?.getattr("raise_stop")?;
    match context {
        Some(context) => raise.call1((context,))?,
        None => raise.call0()?,
    };
    Ok(())
}

/// Whether a check with this threshold, in bytes, has to look closer. From now on the sampling thread looks often
/// enough for it.
#[pyfunction]
fn should_stop(py: Python<'_>, threshold: u64) -> PyResult<bool> {
    if !monitor::must_look(threshold) {
        return Ok(false);
    }
    started(py)?;
    monitor::watch(threshold);
    Ok(monitor::must_look(threshold))
}

/// Whether nobody asks this process to stop and at least `threshold` bytes are available: the fast way through a check.
#[pyfunction]
fn at_ease(threshold: u64) -> bool {
    monitor::is_started()
        && !monitor::must_look(threshold)
        && monitor::available().is_some_and(|bytes| bytes >= threshold)
}

/// Available memory in bytes as last seen, None if unknown.
#[pyfunction]
fn available(py: Python<'_>) -> PyResult<Option<u64>> {
    started(py)?;
    Ok(monitor::available())
}

/// `normal`, `warning` or `critical` as last seen: the guard's word, or available memory against the thresholds of
/// check(). `unknown` without a reading. Some atomic loads.
#[pyfunction]
fn level(py: Python<'_>) -> PyResult<&'static str> {
    started(py)?;
    Ok(seen::word())
}

/// Everything that is known, read afresh.
#[pyfunction]
fn snapshot(py: Python<'_>) -> PyResult<Snapshot> {
    started(py)?;
    Ok(Snapshot::take())
}

/// Makes every later check of this process ask it to end. Safe in a signal handler.
#[pyfunction]
fn request_stop() {
    monitor::terminate();
}

/// Whether this process was asked to end.
#[pyfunction]
fn stop_requested(py: Python<'_>) -> PyResult<bool> {
    started(py)?;
    Ok(monitor::stop() == Some(Stop::Terminate))
}

/// Whether the guard asks this process to give up its present work.
#[pyfunction]
fn prune_requested(py: Python<'_>) -> PyResult<bool> {
    started(py)?;
    Ok(monitor::stop() == Some(Stop::Prune))
}

/// Sends one datagram to the guard (`NOTIFY_SOCKET`, the sd_notify protocol). Returns whether it was sent; never
/// blocks and never raises.
#[pyfunction]
#[pyo3(name = "notify")]
fn notify_guard(message: &str) -> bool {
    notify::send(message)
}

/// The next check starts a sampling thread of the child's own.
#[pyfunction]
fn after_fork_in_child() {
    monitor::after_fork_in_child();
    interrupt::after_fork_in_child();
    relief::after_fork_in_child();
    reserve::after_fork_in_child();
}

/// The interpreter is about to end.
static ENDING: AtomicBool = AtomicBool::new(false);

/// From now on no thread of ours asks for the GIL: for `atexit`.
#[pyfunction]
fn end() {
    ENDING.store(true, SeqCst);
}

/// Whether the interpreter is about to end.
fn is_ending() -> bool {
    ENDING.load(SeqCst)
}

/// Starts what is needed, once a process.
fn started(py: Python<'_>) -> PyResult<()> {
    if monitor::is_started() {
        return Ok(());
    }
    let unusable_page = sampler::start().map_err(PyValueError::new_err)?;
    if let Some(why) = unusable_page.and_then(|why| std::ffi::CString::new(why).ok()) {
        PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &why, 1)?;
    }
    Ok(())
}
