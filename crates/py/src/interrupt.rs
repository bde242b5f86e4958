//! Interrupting Python: a real signal for the main thread, an asynchronous exception for any other, and relief asked of
//! the main thread between two of its bytecodes.
//!
//! The only file that calls CPython past PyO3's back, for the two functions that PyO3 does not wrap. It never decides who
//! is interrupted: see [`crate::seat`].
#![expect(unsafe_code, reason = "PyO3 wraps neither PyThreadState_SetAsyncExc nor Py_AddPendingCall")]

use std::ffi::{c_int, c_long, c_void};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::Thread;

use oomguard_sys::thread;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::holes;
use crate::seat::{self, Who};

static HANDLED: AtomicBool = AtomicBool::new(false);
/// The main thread has been asked to report, and has not begun.
static REPORT_QUEUED: AtomicBool = AtomicBool::new(false);
static POKER: Mutex<Option<Thread>> = Mutex::new(None);

/// The calling thread.
pub(crate) fn who(py: Python<'_>) -> PyResult<Who> {
    let threading = py.import("threading")?;
    let ident: u64 = threading.call_method0("get_ident")?.extract()?;
    let main: u64 = threading.call_method0("main_thread")?.getattr("ident")?.extract()?;
    Ok(Who { ident, native: thread::current(), main: ident == main })
}

/// Makes sure that a poke of this thread will be heard: the main thread needs a handler, once a process; another one
/// needs a helper that takes the GIL for it.
pub(crate) fn prepare(py: Python<'_>, who: Who) -> PyResult<()> {
    holes::learn(py)?;
    if !who.main {
        start_poker();
        return Ok(());
    }
    if HANDLED.swap(true, SeqCst) {
        return Ok(());
    }
    let handler = py.import("oomguard._core")?.getattr("on_interrupt")?;
    let signal = py.import("signal")?;
    let before = signal.call_method1("signal", (thread::INTERRUPT.as_raw(), &handler))?;
    // Somebody else's use of SIGURG goes on: out-of-band data is rare, but it is theirs.
    if before.is_callable() {
        py.import("oomguard._brake")?.setattr("previous_interrupt", before)?;
    }
    Ok(())
}

/// Pokes every thread that should stop and has not heard it yet. Needs no GIL. Whether there is one.
pub(crate) fn poke(should_stop: impl Fn(u64, u64) -> bool) -> bool {
    let mut any = false;
    let mut others = false;
    for seat in seat::all() {
        if seat.update(&should_stop) {
            any = true;
            match seat.is_main() {
                // It may have ended just now; then nobody is left to interrupt.
                true => drop(thread::interrupt(seat.native())),
                false => others = true,
            }
        }
    }
    if others
        && let Ok(poker) = POKER.try_lock()
        && let Some(poker) = &*poker
    {
        poker.unpark();
    }
    any
}

/// Nothing that is under way arrives in this thread any more. Called by it.
pub(crate) fn forget(who: u64) {
    // SAFETY: called with the GIL held; a null exception takes back what is pending for the thread.
    unsafe { ffi::PyThreadState_SetAsyncExc(who as c_long, std::ptr::null_mut()) };
}

fn start_poker() {
    let Ok(mut poker) = POKER.try_lock() else { return };
    if poker.is_some() {
        return;
    }
    let thread = std::thread::Builder::new().name("oomguard-poke".to_owned()).stack_size(256 << 10);
    if let Ok(handle) = thread.spawn(|| {
        loop {
            std::thread::park();
            // With the GIL: the thread that is interrupted cannot leave its guard meanwhile.
            if crate::is_ending() || Python::try_attach(raise_in_others).is_none() {
                return;
            }
        }
    }) {
        *poker = Some(handle.thread().clone());
    }
}

fn raise_in_others(py: Python<'_>) {
    let Ok(exception) = py.import("oomguard._errors").and_then(|m| m.getattr("Interrupted")) else { return };
    for seat in seat::all().filter(|seat| !seat.is_main() && seat.is_due()) {
        // In a hole the next poke finds it elsewhere. Looking for one may let a finalizer run and the thread go on, so
        // whether it is still due is asked last.
        if holes::lost_in_thread(py, seat.ident()) || !seat.is_due() {
            continue;
        }
        // SAFETY: the GIL is held and the exception is a live class, of which CPython takes a reference of its own. A
        // thread that is gone is not found.
        unsafe { ffi::PyThreadState_SetAsyncExc(seat.ident() as c_long, exception.as_ptr()) };
    }
}

/// Has the main thread run relief as soon as it executes Python code. Whether it was asked.
pub(crate) fn ask_main_for_relief() -> bool {
    ask_main(relieve)
}

/// Has the main thread tell what this process holds of GPUs. Once at a time: its queue has 32 places for all.
pub(crate) fn ask_main_for_report() {
    if !REPORT_QUEUED.swap(true, SeqCst) && !ask_main(report) {
        REPORT_QUEUED.store(false, SeqCst);
    }
}

fn ask_main(act: extern "C" fn(*mut c_void) -> c_int) -> bool {
    // With the GIL, or a busy main thread would not notice before something else wakes it (measured: over 1 s).
    Python::try_attach(|_| {
        // SAFETY: a function that lives as long as the process, and no argument.
        unsafe { ffi::Py_AddPendingCall(Some(act), std::ptr::null_mut()) == 0 }
    })
    .unwrap_or(false)
}

extern "C" fn relieve(_: *mut c_void) -> c_int {
    Python::try_attach(crate::relief::answer);
    0
}

extern "C" fn report(_: *mut c_void) -> c_int {
    REPORT_QUEUED.store(false, SeqCst);
    Python::try_attach(crate::relief::report);
    0
}

/// The threads are not there in a forked child. The handler is.
pub(crate) fn after_fork_in_child() {
    // Held by a thread that does not exist here it would stay locked: then nothing can be interrupted in the child but
    // its main thread.
    if let Ok(mut poker) = POKER.try_lock() {
        *poker = None;
    }
    REPORT_QUEUED.store(false, SeqCst);
    seat::after_fork_in_child();
}
