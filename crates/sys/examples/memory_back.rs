//! How soon a killed job's memory is back, for `bench/memory_back.py`: `memory_back MIB ROUNDS huge|small idle|busy` prints
//! one JSON object, milliseconds from SIGKILL until fifteen sixteenths of the charge are gone, of each round.
//!
//! Takes so many MiB in a leaf under `$OOMGUARD_CGROUP_PARENT`, or where a guard would put it, whose limit is an eighth
//! more. `busy`: every core computes, and the victim is the last that the scheduler lets run.
#![expect(clippy::unwrap_used, reason = "a measurement that cannot be set up has failed")]
#![expect(clippy::print_stdout, reason = "the measurement")]

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use oomguard_core::Bytes;
use oomguard_sys::cgroup::{Leaf, Limits, Parent, ParentOptions};
use oomguard_sys::process::{Process, Signal};
use oomguard_sys::reaper::Reaper;
use oomguard_sys::spawn::{Session, Spawn, Stream};
use oomguard_sys::wait::{Poller, reap};
use oomguard_sys::{clock, oneself};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

const SOON: Duration = Duration::from_secs(60);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["hold", mib, pages, load] => hold(mib.parse().unwrap(), pages == "huge", load == "busy"),
        [mib, rounds, pages, load] => {
            measure(mib.parse().unwrap(), rounds.parse().unwrap(), [mib, pages, load].map(OsString::from));
        }
        _ => panic!("unknown: {words:?}"),
    }
}

/// The victim.
fn hold(mib: usize, huge: bool, last: bool) -> ! {
    if last {
        rustix::process::nice(19).unwrap();
    }
    let length = mib << 20;
    // SAFETY: a new mapping that nobody else knows; advice on it changes only how it is backed; each write is within
    // it.
    unsafe {
        let flags = ProtFlags::READ | ProtFlags::WRITE;
        let at = mmap_anonymous(std::ptr::null_mut(), length, flags, MapFlags::PRIVATE).unwrap();
        madvise(at, length, if huge { Advice::LinuxHugepage } else { Advice::LinuxNoHugepage }).unwrap();
        for page in (0..length).step_by(4096) {
            at.cast::<u8>().add(page).write_volatile(1);
        }
    }
    loop {
        std::thread::park();
    }
}

fn measure(mib: u64, rounds: u32, words: [OsString; 3]) {
    let explicit = std::env::var_os("OOMGUARD_CGROUP_PARENT").map(PathBuf::from);
    let parent = Parent::open(&ParentOptions { explicit, ..ParentOptions::default() }).unwrap();
    let limit = Bytes::mib(mib + mib / 8);
    // As the guard does it, so that it is never in the way of itself.
    let scheduled = oneself::schedule_first();
    let reaper = Reaper::start().unwrap();
    static OVER: AtomicBool = AtomicBool::new(false);
    if words[2] == "busy" {
        let cores = std::thread::available_parallelism().unwrap().get();
        for _ in 0..cores {
            std::thread::spawn(|| {
                while !OVER.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
    }
    let argv: Vec<OsString> =
        [std::env::current_exe().unwrap().into(), "hold".into()].into_iter().chain(words).collect();
    let (mut alone, mut helped) = (Vec::new(), Vec::new());
    for round in 0..2 * rounds {
        let leaf = parent.leaf(&format!("memory-back-{}", std::process::id())).unwrap();
        leaf.set_limit(&Limits::new(limit)).unwrap();
        let stdio = [Stream::Null, Stream::Null, Stream::Inherit];
        let victim =
            Spawn { argv: &argv, leaf: Some(&leaf), stdio, session: Session::NewSession, ..Spawn::default() }
                .start()
                .unwrap();
        until(Duration::from_millis(1), "it has its memory", || leaf.charged().unwrap() >= Bytes::mib(mib));
        let reaper = (round % 2 == 1).then_some(&reaper);
        let taken = kill(&leaf, &victim, reaper, Bytes::mib(mib / 16));
        if reaper.is_some() { &mut helped } else { &mut alone }.push(taken);
        assert!(victim.wait_exit(SOON).unwrap());
        reap(|_, _| {}).unwrap();
        until(Duration::from_millis(1), "its leaf is empty", || !leaf.is_populated().unwrap());
        leaf.remove().unwrap();
    }
    OVER.store(true, Ordering::Relaxed);
    parent.remove().unwrap();
    let reaped = reaper.finish();
    println!(
        r#"{{"alone_ms": {alone:?}, "helped_ms": {helped:?}, "freed": {}, "gone": {}, "failed": {}, "first": {}}}"#,
        reaped.freed,
        reaped.gone,
        reaped.failed,
        scheduled.is_ok()
    );
}

/// As the guard kills; milliseconds until all but so much is back.
fn kill(leaf: &Leaf, victim: &Process, reaper: Option<&Reaper>, rest: Bytes) -> f64 {
    let begun = Instant::now();
    leaf.kill().unwrap();
    victim.signal(Signal::KILL).unwrap();
    if let Some(reaper) = reaper {
        reaper.release(victim.fd()).unwrap();
    }
    until(Duration::from_micros(50), "its memory is back", || leaf.charged().unwrap() <= rest);
    begun.elapsed().as_secs_f64() * 1e3
}

fn until(step: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    let end = clock::now().after(SOON);
    let mut nothing = Poller::new();
    while !is_so() {
        assert!(clock::now() < end, "still waiting for: {what}");
        nothing.wait(clock::now().after(step)).unwrap();
    }
}
