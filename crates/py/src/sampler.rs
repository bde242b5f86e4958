//! The thread that watches the machine where no guard does, and the guard's page where one does; what this process holds,
//! where a guard of its own has a limit.
//!
//! It never takes the GIL, never locks memory, and allocates nothing after its start. It reads `/proc/meminfo`, the
//! limits of the cgroups above this process, and `/proc/self/statm`.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst};
use std::thread::Thread;
use std::time::Duration;

use oomguard_core::clock::nanos;
use oomguard_core::{Bytes, HostPolicy, Instant, Level};
use oomguard_sys::cgroup::Ancestors;
use oomguard_sys::clock;
use oomguard_sys::footprint::Resident;
use oomguard_sys::meminfo::Meminfo;
use oomguard_sys::page::Reader;

use crate::{interrupt, monitor, notify, relief, reserve};

/// A guard that has not beaten for so long is dead.
const DEAD_AFTER: Duration = Duration::from_secs(5);
/// The slowest look: memory can be freed and thresholds can change.
const SLOWEST: Duration = Duration::from_secs(1);
/// The fastest look: 2 % of a core (measured).
const FASTEST: Duration = Duration::from_millis(1);
/// Below the threshold there is nothing left to be early for.
const BELOW: Duration = Duration::from_millis(10);
/// Between two pokes of a thread that has not heard the first.
const POKE_AGAIN: Duration = Duration::from_millis(20);
/// A guard's page that cannot be waited for is looked at so often.
const PAGE_ONLY: Duration = Duration::from_millis(100);

/// Between two reports of what is held of GPUs, where the guard wants them.
const REPORTS: Duration = Duration::from_secs(1);

static THREAD: Mutex<Option<Thread>> = Mutex::new(None);
static HURRY: AtomicBool = AtomicBool::new(false);
static SAID_CHECKS: AtomicBool = AtomicBool::new(false);

/// Opens what there is, takes the first look, and starts the thread. Called with the GIL held, once a process.
///
/// Returns why the page that `OOMGUARD_PAGE` names cannot be used, if so: then the machine is watched instead. The
/// error says which variable is not a size.
pub(crate) fn start() -> Result<Option<String>, String> {
    let mut sources = Sources::open();
    let reading = sources.read().ok();
    set_thresholds(reading.map_or(u64::MAX, |(_, total)| total))?;
    let unusable = match std::env::var_os("OOMGUARD_PAGE") {
        Some(path) if monitor::page().is_none() => match Reader::open(Path::new(&path)) {
            Ok(page) => {
                monitor::keep_page(page);
                None
            }
            Err(why) => Some(format!("OOMGUARD_PAGE: {why}; watching the machine without a guard")),
        },
        _ => None,
    };
    let relieved = monitor::page().map_or(0, Reader::relieve);
    monitor::saw(reading);
    monitor::set_guarded(guard_lives());
    if monitor::page().is_some() && !SAID_CHECKS.swap(true, Relaxed) {
        notify::send("X_OOMGUARD_CHECKS=1");
    }
    monitor::set_started();
    relief::start();
    let thread = std::thread::Builder::new().name("oomguard".to_owned()).stack_size(128 << 10);
    // Where no thread can be had (a process limit), checks go on with the first look.
    if let Ok(handle) = thread.spawn(move || watch(sources, relieved))
        && let Ok(mut kept) = THREAD.try_lock()
    {
        *kept = Some(handle.thread().clone());
    }
    Ok(unusable)
}

/// Makes the thread look now: a threshold came that it does not know.
pub(crate) fn hurry() {
    HURRY.store(true, SeqCst);
    if let Some(page) = monitor::page() {
        page.wake();
    }
    if let Ok(kept) = THREAD.try_lock()
        && let Some(thread) = &*kept
    {
        thread.unpark();
    }
}

/// `relieved`: how many of the guard's requests for relief are no news.
fn watch(mut sources: Sources, mut relieved: u32) {
    let mut report_at = Instant(0);
    loop {
        // Before anything is looked at: what changes from here on ends the wait.
        let bell = monitor::page().map(Reader::bell);
        HURRY.store(false, SeqCst);
        let guarded = guard_lives();
        let mut interval = SLOWEST;
        if !guarded {
            let reading = sources.read().ok();
            monitor::saw(reading);
            if let Some((available, _)) = reading {
                interval = pace(available, monitor::watched());
            }
        }
        // After the reading: a check must not meet an old one.
        monitor::set_guarded(guarded);
        let (own, over) = watch_own_limit(&sources);
        interval = interval.min(own);
        if monitor::guard()
            .is_some_and(|page| std::mem::replace(&mut relieved, page.relieve()) != page.relieve())
        {
            relief::ask();
        }
        if relief::vram_wanted() && clock::now() >= report_at {
            report_at = clock::now().after(REPORTS);
            relief::ask_report();
        }
        let level = monitor::level();
        if over || monitor::stop().is_some() || level == Level::Critical && !guarded {
            reserve::release();
        } else if level == Level::Normal {
            reserve::refill();
        }
        if level != Level::Normal && !guarded {
            relief::ask_now_and_then();
        }
        if interrupt::poke(monitor::should_interrupt) {
            interval = interval.min(POKE_AGAIN);
        }
        monitor::looked(nanos(interval));
        wait(interval, monitor::guard().zip(bell));
    }
}

/// Looks at what this process holds, if a guard has a limit: when to look again, and whether the limit is met.
fn watch_own_limit(sources: &Sources) -> (Duration, bool) {
    let (Some(limit), Ok(resident)) = (monitor::limit(), &sources.own) else { return (SLOWEST, false) };
    let Ok(used) = resident.read() else { return (SLOWEST, false) };
    monitor::used(used.0);
    if used.0 >= limit / 10 * 8 {
        relief::ask_now_and_then();
    }
    (pace(limit, used.0), used.0 >= limit)
}

/// Until the interval is over, the guard's page changes, or somebody is in a hurry.
fn wait(interval: Duration, page: Option<(&Reader, u32)>) {
    if HURRY.load(SeqCst) {
        return;
    }
    let unheard = page.is_some_and(|(page, bell)| page.wait(bell, interval).is_err());
    match page {
        Some(_) if !unheard => {}
        Some(_) => std::thread::park_timeout(interval.min(PAGE_ONLY)),
        None => std::thread::park_timeout(interval),
    }
}

/// The next look comes before the fastest growth could use what `available` has above `threshold`.
fn pace(available: u64, threshold: u64) -> Duration {
    let headroom = available.saturating_sub(threshold);
    if headroom == 0 {
        return BELOW;
    }
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let rate = HostPolicy::for_machine(Bytes::MAX, cores).worst_rate.0;
    Duration::from_secs_f64(headroom as f64 / rate as f64).clamp(FASTEST, SLOWEST)
}

fn guard_lives() -> bool {
    monitor::page().is_some_and(|page| page.beat().0 != 0 && clock::now().since(page.beat()) < DEAD_AFTER)
}

/// `OOMGUARD_RESERVE` and `OOMGUARD_WARNING` (a size, or a share of `total`), else the engine's defaults.
fn set_thresholds(total: u64) -> Result<(), String> {
    let machine = HostPolicy::for_machine(Bytes(total), 1);
    let reserve = size_from("OOMGUARD_RESERVE", total)?.unwrap_or(machine.reserve.0);
    let warning = size_from("OOMGUARD_WARNING", total)?.unwrap_or(machine.warning.0.max(reserve));
    if reserve > warning {
        return Err(format!(
            "OOMGUARD_RESERVE ({reserve} bytes) is above OOMGUARD_WARNING ({warning} bytes)"
        ));
    }
    monitor::set_thresholds(reserve, warning);
    Ok(())
}

fn size_from(name: &str, total: u64) -> Result<Option<u64>, String> {
    let Some(text) = std::env::var_os(name) else { return Ok(None) };
    let text = text.to_string_lossy();
    if let Some(share) = text.trim().strip_suffix('%') {
        let share: f64 = share.trim().parse().unwrap_or(f64::NAN);
        return match share {
            0.0..=100.0 => Ok(Some((total as f64 * share / 100.0) as u64)),
            _ => Err(format!("{name}: `{text}` is not a share between 0% and 100%")),
        };
    }
    text.parse::<Bytes>().map(|bytes| Some(bytes.0)).map_err(|e| format!("{name}: {e}"))
}

/// The files that say what is available.
pub(crate) struct Sources {
    host: Result<Meminfo, String>,
    above: Option<Ancestors>,
    own: Result<Resident, String>,
}

impl Sources {
    pub(crate) fn open() -> Sources {
        let proc_root = Path::new("/proc");
        Sources {
            host: Meminfo::open(proc_root).map_err(|e| e.to_string()),
            above: Ancestors::open(proc_root, Path::new("/")).ok(),
            own: Resident::open().map_err(|e| e.to_string()),
        }
    }

    /// Available and total bytes: the smallest of the host's and those of every cgroup limit above us. The error says
    /// why it is not known.
    pub(crate) fn read(&mut self) -> Result<(u64, u64), String> {
        let host = self.host.as_mut().map_err(|why| why.clone())?;
        let memory = host.read().map_err(|e| e.to_string())?;
        let (available, total) = (memory.available.0, memory.total.0);
        let above = self.above.as_mut().and_then(Ancestors::headroom);
        Ok(above.map_or((available, total), |(a, t)| (available.min(a.0), total.min(t.0))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_look_comes_before_the_headroom_can_be_used() {
        assert_eq!(pace(1 << 30, 2 << 30), BELOW);
        assert_eq!(pace((2 << 30) + 1, 2 << 30), FASTEST);
        assert_eq!(pace(1 << 40, 2 << 30), SLOWEST);
    }
}
