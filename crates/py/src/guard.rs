//! `with oomguard.guard(...)`: entered and left in native code, because a Python `__exit__` can itself be interrupted.
//!
//! Decides when a guard's thresholds are crossed. What is raised then, and as what it leaves the guard, stands in
//! `oomguard/_brake.py`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, TryLockError};

use oomguard_core::Bytes;
use oomguard_sys::clock;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use crate::seat::{self, Before, Seat};
use crate::{holes, interrupt, monitor, reserve, started};

/// Between two warnings of one guard: a check may run a thousand times a second.
const WARN_EVERY: u64 = 60_000_000_000;

/// Watches memory while it is entered. Sizes in bytes.
#[pyclass(frozen, module = "oomguard._core")]
#[derive(Debug)]
pub(crate) struct Guard {
    trial: Option<Py<PyAny>>,
    context: String,
    warn: u64,
    critical: u64,
    limit: u64,
    interrupt: bool,
    entered: Mutex<Option<Entered>>,
    next_warning: AtomicU64,
}

/// Where it was entered.
#[derive(Debug)]
struct Entered {
    generation: u64,
    armed: Option<(&'static Seat, Before)>,
}

#[pymethods]
impl Guard {
    #[new]
    #[pyo3(signature = (trial, context, warn, critical, limit, interrupt))]
    fn new(
        py: Python<'_>,
        trial: Option<Py<PyAny>>,
        context: String,
        warn: Option<u64>,
        critical: Option<u64>,
        limit: Option<u64>,
        interrupt: bool,
    ) -> PyResult<Guard> {
        started(py)?;
        let critical = critical.unwrap_or_else(monitor::reserve);
        let warn = warn.unwrap_or_else(|| monitor::warning().max(critical));
        if critical > warn {
            let said = format!("critical ({}) must not be above warn ({})", Bytes(critical), Bytes(warn));
            return Err(PyValueError::new_err(said));
        }
        if limit == Some(0) {
            return Err(PyValueError::new_err("limit must be above 0"));
        }
        Ok(Guard {
            trial,
            context,
            warn,
            critical,
            limit: limit.unwrap_or(u64::MAX),
            interrupt,
            entered: Mutex::new(None),
            next_warning: AtomicU64::new(0),
        })
    }

    fn __enter__(slf: PyRef<'_, Self>) -> PyResult<PyRef<'_, Self>> {
        let py = slf.py();
        let mut entered = match slf.entered.try_lock() {
            Ok(entered) if entered.is_none() => entered,
            _ => {
                let said = "this guard is in use already: make one for each `with` and each thread";
                return Err(PyRuntimeError::new_err(said));
            }
        };
        started(py)?;
        // A guard for which the machine is never short needs none, and what it measures must not hold one: filled or given
        // back in a test, it would be the test's.
        if slf.critical > 0 {
            reserve::hold(py)?;
        }
        let who = slf.interrupt.then(|| interrupt::who(py)).transpose()?;
        if let Some(who) = who {
            interrupt::prepare(py, who)?;
        }
        // From here on nothing can fail.
        monitor::watch(slf.warn);
        monitor::add_limit(slf.limit);
        let armed = who.map(|who| {
            let seat = seat::take(who);
            (seat, seat.arm(slf.critical, slf.limit))
        });
        *entered = Some(Entered { generation: monitor::generation(), armed });
        drop(entered);
        crate::sampler::hurry();
        Ok(slf)
    }

    #[pyo3(signature = (kind, error, traceback, /))]
    fn __exit__(
        &self,
        py: Python<'_>,
        kind: Option<Bound<'_, PyAny>>,
        error: Option<Bound<'_, PyAny>>,
        traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let _ = (kind, traceback);
        self.leave();
        if let Some(error) = error {
            let brake = py.import("oomguard._brake")?;
            if error.is_instance(&brake.getattr("MemoryCritical")?)? {
                let _shielded = Shielded::new(py)?;
                brake.getattr("leave")?.call1((&self.trial, error, &self.context))?;
            }
        }
        Ok(())
    }

    /// Raises if memory is too short to go on, or if this process holds as much as the guard's limit; else costs some
    /// atomic loads.
    #[pyo3(signature = (context = None))]
    fn check(&self, py: Python<'_>, context: Option<&str>) -> PyResult<()> {
        let over = monitor::usage() >= self.limit;
        if !over && !monitor::must_look(self.critical) {
            return match monitor::is_below(self.warn) {
                true => self.warn(py, context),
                false => Ok(()),
            };
        }
        let context = context.unwrap_or(&self.context);
        let limit = over.then_some((self.limit, monitor::usage()));
        py.import("oomguard._brake")?.getattr("raise_stop")?.call1((context, self.critical, limit))?;
        Ok(())
    }

    /// A trial that keeps its guard is a cycle.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.trial.as_ref().map_or(Ok(()), |trial| visit.call(trial))
    }

    /// Delays interrupts of this thread while it is entered: for a save that must not be cut in half.
    #[staticmethod]
    fn shield() -> Shield {
        Shield::new()
    }

    /// What this process may hold, None without a limit.
    #[getter]
    fn limit(&self) -> Option<u64> {
        (self.limit != u64::MAX).then_some(self.limit)
    }

    /// Below it check() warns.
    #[getter]
    fn warn_below(&self) -> u64 {
        self.warn
    }

    /// Below it check() raises, where no guard decides.
    #[getter]
    fn critical_below(&self) -> u64 {
        self.critical
    }

    fn __repr__(&self) -> String {
        let limit = self.limit().map_or("None".to_owned(), |limit| Bytes(limit).to_string());
        format!(
            "oomguard.guard(warn='{}', critical='{}', limit={limit}, interrupt={})",
            Bytes(self.warn),
            Bytes(self.critical),
            if self.interrupt { "True" } else { "False" }
        )
    }
}

impl Guard {
    /// From here on nothing is raised on behalf of this guard.
    fn leave(&self) {
        let entered = match self.entered.try_lock() {
            Ok(mut entered) => entered.take(),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().take(),
            Err(TryLockError::WouldBlock) => None,
        };
        // A forked child leaves what its parent entered: there it was never armed.
        let Some(entered) = entered.filter(|entered| entered.generation == monitor::generation()) else {
            return;
        };
        monitor::remove_limit(self.limit);
        if let Some((seat, before)) = entered.armed {
            let (who, main) = (seat.ident(), seat.is_main());
            seat.disarm(before);
            if !main {
                // Also where another guard is around this one: if it wants an interrupt of its own, it asks again.
                interrupt::forget(who);
            }
        }
    }

    #[cold]
    fn warn(&self, py: Python<'_>, context: Option<&str>) -> PyResult<()> {
        let now = clock::now().0;
        if now < self.next_warning.load(Relaxed) {
            return Ok(());
        }
        self.next_warning.store(now + WARN_EVERY, Relaxed);
        let context = context.unwrap_or(&self.context);
        py.import("oomguard._brake")?.getattr("warn")?.call1((context, self.warn, self.critical))?;
        Ok(())
    }
}

impl Drop for Guard {
    /// Where CPython lost the `__exit__`: see [`crate::holes`].
    fn drop(&mut self) {
        self.leave();
    }
}

/// Delays interrupts of the thread that enters it.
#[pyclass(frozen, module = "oomguard._core")]
#[derive(Debug)]
pub(crate) struct Shield {
    entered: Mutex<Vec<(u64, &'static Seat)>>,
}

#[pymethods]
impl Shield {
    #[new]
    fn new() -> Shield {
        Shield { entered: Mutex::new(Vec::new()) }
    }

    fn __enter__(slf: PyRef<'_, Self>) -> PyResult<PyRef<'_, Self>> {
        let seat = seat::take(interrupt::who(slf.py())?);
        seat.shield();
        match slf.entered.try_lock() {
            Ok(mut entered) => entered.push((monitor::generation(), seat)),
            Err(_) => seat.unshield(),
        }
        Ok(slf)
    }

    #[pyo3(signature = (kind = None, error = None, traceback = None, /))]
    fn __exit__(
        &self,
        kind: Option<Bound<'_, PyAny>>,
        error: Option<Bound<'_, PyAny>>,
        traceback: Option<Bound<'_, PyAny>>,
    ) {
        let _ = (kind, error, traceback);
        self.leave();
    }
}

impl Shield {
    /// Leaves it once. Whether it was entered.
    fn leave(&self) -> bool {
        let left = self.entered.try_lock().ok().and_then(|mut entered| entered.pop());
        let Some((generation, seat)) = left else { return false };
        if generation == monitor::generation() {
            seat.unshield();
        }
        true
    }
}

impl Drop for Shield {
    /// Where its `__exit__` was lost (a KeyboardInterrupt): its thread would never be interrupted again.
    fn drop(&mut self) {
        while self.leave() {}
    }
}

/// The same for native code.
struct Shielded(&'static Seat);

impl Shielded {
    fn new(py: Python<'_>) -> PyResult<Shielded> {
        let seat = seat::take(interrupt::who(py)?);
        seat.shield();
        Ok(Shielded(seat))
    }
}

impl Drop for Shielded {
    fn drop(&mut self) {
        self.0.unshield();
    }
}

/// Raises in the main thread if it is to be interrupted: the handler of the signal that does it.
#[pyfunction]
pub(crate) fn on_interrupt(py: Python<'_>, number: i32, frame: &Bound<'_, PyAny>) -> PyResult<()> {
    let brake = py.import("oomguard._brake")?;
    let Some(seat) = seat::all().find(|seat| seat.is_main() && seat.is_due()) else {
        brake.getattr("pass_on")?.call1((number, frame))?;
        return Ok(());
    };
    // In a hole the next poke finds it elsewhere.
    if !holes::would_be_lost(frame) && seat.hear() {
        brake.getattr("interrupt")?.call0()?;
    }
    Ok(())
}

/// The exception has arrived in this thread: no further one may follow it. Returns below how many available bytes the
/// thread's guards want it, and from how many held on (None: never); None if the thread has no guard.
#[pyfunction]
pub(crate) fn acknowledge(py: Python<'_>) -> PyResult<Option<(u64, Option<u64>)>> {
    let who = interrupt::who(py)?;
    let seat = seat::of(who.ident);
    if let Some(seat) = seat {
        seat.hear();
    }
    interrupt::forget(who.ident);
    Ok(seat.map(Seat::thresholds))
}
