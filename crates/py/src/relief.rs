//! Giving memory back before the brake has to: freed heap first, without the GIL; then, when the interpreter answers, what
//! `oomguard/_relief.py` does. And telling a guard that cannot see it what is held of GPUs, which nobody but the
//! interpreter can say either.
//!
//! Decides when to ask again. Never runs Python code but in the main thread or in a thread that checks, unless neither
//! answers: objects die in the thread that collects them, and some must not die in just any (Tk's abort the process).

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread::Thread;
use std::time::Duration;

use oomguard_core::clock::nanos;
use oomguard_sys::page::Reader;
use oomguard_sys::{clock, footprint};
use pyo3::prelude::*;

use crate::{interrupt, monitor};

/// The interpreter has so long to answer by itself.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two reliefs without a guard: a machine may stay at warning for hours.
const PAUSE: u64 = 30_000_000_000;

static THREAD: Mutex<Option<Thread>> = Mutex::new(None);
/// When the last relief of our own accord began, nanoseconds; 0: never.
static LAST: AtomicU64 = AtomicU64::new(0);
/// What trimming gave back, bytes, and how long it took, nanoseconds.
static TRIMMED: AtomicU64 = AtomicU64::new(0);
static TRIM_TOOK: AtomicU64 = AtomicU64::new(0);

/// Starts the thread that relieves, once a process.
pub(crate) fn start() {
    let Ok(mut kept) = THREAD.try_lock() else { return };
    let thread = std::thread::Builder::new().name("oomguard-relief".to_owned()).stack_size(256 << 10);
    // Where no thread can be had, there is relief in `oomguard.relieve()` only.
    if let Ok(handle) = thread.spawn(run) {
        *kept = Some(handle.thread().clone());
    }
}

/// The thread, where there is one and nobody is at it.
fn thread() -> Option<Thread> {
    THREAD.try_lock().ok()?.clone()
}

/// The guard asks for relief.
pub(crate) fn ask() {
    if let Some(thread) = thread()
        && monitor::ask_relief()
    {
        thread.unpark();
    }
}

/// The guard wants to be told what this process holds of GPUs.
pub(crate) fn ask_report() {
    monitor::ask_report();
    if let Some(thread) = thread() {
        thread.unpark();
    }
}

/// The machine is at warning and nobody else asks, or this process nears a limit of its own.
pub(crate) fn ask_now_and_then() {
    let (now, last) = (clock::now().0, LAST.load(SeqCst));
    if last == 0 || now.saturating_sub(last) >= PAUSE {
        LAST.store(now, SeqCst);
        ask();
    }
}

fn run() {
    loop {
        std::thread::park();
        if crate::is_ending() {
            return;
        }
        if monitor::report_is_due() {
            interrupt::ask_main_for_report();
        }
        if !monitor::relief_is_due() {
            continue;
        }
        let begun = clock::now();
        let back = footprint::trim();
        TRIMMED.store(back.map_or(u64::MAX, |bytes| bytes.0), SeqCst);
        TRIM_TOOK.store(nanos(clock::now().since(begun)), SeqCst);
        // From here on a check answers, too.
        monitor::let_checks_relieve();
        interrupt::ask_main_for_relief();
        let until = clock::now().after(PATIENCE);
        while monitor::relief_is_due() && clock::now() < until {
            std::thread::park_timeout(until.since(clock::now()));
        }
        if monitor::relief_is_due() && !crate::is_ending() {
            Python::try_attach(answer_from_here);
        }
    }
}

/// The last resort: the main thread waits in C code, and nobody checks.
fn answer_from_here(py: Python<'_>) {
    let tk = py.import("sys").and_then(|sys| sys.getattr("modules")?.contains("_tkinter"));
    if !tk.unwrap_or(true) {
        answer(py);
    }
}

/// Runs what is left to be done, if anything is. Never raises: nobody asked for it here.
pub(crate) fn answer(py: Python<'_>) {
    if !monitor::relief_is_due() {
        return;
    }
    let done = py.import("oomguard._relief").and_then(|relief| relief.getattr("answer")?.call0());
    if let Err(error) = done {
        error.write_unraisable(py, None);
    }
}

/// Tells what this process holds of GPUs, if that is still wanted. Never raises: nobody asked for it here.
pub(crate) fn report(py: Python<'_>) {
    if monitor::take_report()
        && let Err(error) = py.import("oomguard._vram").and_then(|vram| vram.getattr("report")?.call0())
    {
        error.write_unraisable(py, None);
    }
}

/// Takes the request to tell what this process holds of GPUs, if there is one. Whoever gets `True` does it.
#[pyfunction]
pub(crate) fn take_report() -> bool {
    monitor::take_report()
}

/// Whether the guard wants to be told what this process holds of GPUs: no driver tells it.
#[pyfunction]
pub(crate) fn vram_wanted() -> bool {
    monitor::guard().is_some_and(Reader::asks_for_vram)
}

/// Takes the request for relief, if there is one: what trimming gave back in bytes (None: unknown), and its seconds.
/// Whoever gets it does the rest; it is given once.
#[pyfunction]
pub(crate) fn take_relief() -> Option<(Option<u64>, f64)> {
    if !monitor::take_relief() {
        return None;
    }
    if let Some(thread) = thread() {
        thread.unpark();
    }
    let trimmed = Some(TRIMMED.load(SeqCst)).filter(|bytes| *bytes != u64::MAX);
    Some((trimmed, TRIM_TOOK.load(SeqCst) as f64 / 1e9))
}

/// The thread is not there in a forked child.
pub(crate) fn after_fork_in_child() {
    if let Ok(mut kept) = THREAD.try_lock() {
        *kept = None;
    }
}
