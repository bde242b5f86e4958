//! From a look to a kill nothing is allocated: counted, on real cgroups and processes.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "what fails in a test should end it where it fails")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

use oomguard_core::watch::{Effect, Policy, Standing, Watch};
use oomguard_core::{Bytes, HostPolicy, HostSample, Reading, Why};
use oomguard_sys::cgroup::{Ancestors, Limits};
use oomguard_sys::held::Held;
use oomguard_sys::process::{Process, Signal};
use oomguard_sys::processes::Processes;
use oomguard_sys::wait::{Interest, Poller};
use oomguard_sys::{clock, meminfo, psi, reaper, tree, zoneinfo};

#[path = "support/mod.rs"]
#[expect(dead_code, reason = "the other tests use the rest of it")]
mod support;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// Counts what this thread asks for.
struct Counting;

// SAFETY: passes everything on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // While a thread ends its counter may be gone already.
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of this thread while `what` is done.
fn allocations<T>(what: impl FnOnce() -> T) -> u64 {
    let before = COUNT.get();
    let kept = what();
    let after = COUNT.get();
    drop(kept);
    after - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| Box::new(1)), 1);
}

#[test]
fn looking_at_the_host_allocates_nothing() {
    let proc = Path::new("/proc");
    let mut meminfo = meminfo::Meminfo::open(proc).unwrap();
    let mut pages = zoneinfo::PerCpuPages::open(proc).unwrap();
    let mut above = Ancestors::open(proc, Path::new("/")).unwrap();
    assert_eq!(allocations(|| meminfo.read().unwrap()), 0);
    assert_eq!(allocations(|| pages.read().unwrap()), 0);
    assert_eq!(allocations(|| (0..200).map(|_| above.headroom()).count()), 0);
    if let Ok(mut psi) = psi::Psi::open(proc) {
        assert_eq!(allocations(|| psi.read().unwrap()), 0);
    }
}

#[cfg(feature = "gpu")]
#[test]
fn looking_at_what_was_seen_of_gpus_allocates_nothing() {
    use oomguard_sys::gpu::{Gpu, Places};
    let dir = support::folder(&[("fake-nvml.json", r#"{"devices": [{"total": 1024, "used": 512}]}"#)]);
    let built = std::env::current_exe().unwrap().with_file_name("libfake_nvml.so");
    let nvml = dir.path().join("libnvidia-ml.so.1");
    std::fs::copy(built, &nvml).unwrap();
    let mut gpu = Gpu::watch(Places { nvml, ..Places::default() }).unwrap();
    for _ in 0..3 {
        // A new one each time, so that there is an old one to be let go.
        let before = gpu.latest(clock::now()).known().map(|sample| sample.at);
        gpu.ask();
        support::until("something new", || {
            let (mut percent, mut at) = (None, None);
            let look = || {
                let seen = gpu.latest(clock::now()).known();
                percent = seen.and_then(|sample| sample.fullest(&sample.visible).known());
                at = seen.map(|sample| sample.at);
            };
            assert_eq!(allocations(look), 0);
            at > before && percent.is_some_and(|(_, percent)| percent == 50.0)
        });
    }
}

#[test]
fn looking_at_a_job_and_killing_it_allocates_nothing() {
    let Some(test) = support::TestParent::new(None) else { return };
    let parent = test.get();
    let mut leaf = parent.leaf("a").unwrap();
    leaf.set_limit(&Limits::new(Bytes::mib(64))).unwrap();
    let child = support::shell("sleep 1000 & sleep 1000", Some(&leaf));
    let reaper = reaper::Reaper::start().unwrap();
    let mut poller = Poller::new();
    poller.add(child.0.fd(), Interest::Read, 1);
    assert_eq!(allocations(|| parent.charged().unwrap()), 0);
    assert_eq!(allocations(|| parent.set_ceiling(Bytes::mib(200)).unwrap()), 0);
    assert_eq!(allocations(|| leaf.usage().unwrap()), 0);
    assert_eq!(allocations(|| leaf.events().unwrap()), 0);
    assert_eq!(allocations(|| leaf.is_populated().unwrap()), 0);
    assert_eq!(allocations(|| leaf.set_soft(Some(Bytes::mib(48))).unwrap()), 0);
    assert_eq!(allocations(|| poller.wait(clock::now()).unwrap().len()), 0);
    assert_eq!(allocations(|| leaf.freeze().unwrap()), 0);
    assert_eq!(allocations(|| leaf.kill().unwrap()), 0);
    assert_eq!(allocations(|| reaper.release(child.0.fd()).unwrap()), 0);
    assert_eq!(allocations(|| poller.wait(clock::now().after(support::SOON)).unwrap().len()), 0);
    assert_eq!(allocations(|| child.0.is_alive()), 0);
}

#[test]
fn looking_at_a_tree_and_signalling_it_allocates_nothing() {
    let child = support::shell("sleep 1000 & sleep 1000 & wait", None);
    let held = Process::adopt(child.0.pid(), child.0.start_time()).unwrap();
    let mut tree = tree::Tree::new(held, None).unwrap();
    support::until("three processes", || {
        tree.rescan().unwrap();
        tree.processes().count() == 3
    });
    assert_eq!(allocations(|| tree.rss()), 0);
    assert_eq!(allocations(|| tree.signal_all(Signal::STOP)), 0);
    assert_eq!(allocations(|| tree.is_empty()), 0);
    assert_eq!(allocations(|| tree.signal_all(Signal::KILL)), 0);
}

#[test]
fn from_a_shortage_of_the_whole_machine_to_the_kill_nothing_is_allocated() {
    let child = support::shell("sleep 1000 & sleep 1000", None);
    let (pid, start) = (child.0.pid(), child.0.start_time());
    // One process, as large as is needed to be chosen; held and killed is the real one.
    let stat = format!(
        "{pid} (hog) S 1 {pid} {pid} 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 {start} 1073741824 131072 1 \n"
    );
    let status = "Uid:\t1000\t0\t0\t0\nRssAnon:\t  409600 kB\nRssShmem:\t 65536 kB\nVmSwap:\t 0 kB\n";
    let file = |name: &str| format!("{pid}/{name}");
    let proc = support::folder(&[
        (&file("stat"), &stat),
        (&file("status"), status),
        (&file("cgroup"), "0::/people\n"),
        (&file("oom_score_adj"), "0\n"),
    ]);
    let policy = HostPolicy {
        reserve: Bytes::gib(2),
        warning: Bytes::gib(4),
        worst_rate: Bytes::gib(8),
        vram_reserve: None,
    };
    let mut watch = Watch::new(Policy { host: policy, grace: std::time::Duration::ZERO, enforce: true });
    let mut processes = Processes::open(proc.path()).unwrap();
    let mut held = Held::new().unwrap();
    let reaper = reaper::Reaper::start().unwrap();
    let host = |available| HostSample {
        available,
        total: Bytes::gib(16),
        swap_free: Bytes::ZERO,
        charged: Reading::Unknown(Why::NotSupported),
        stalled_us: Reading::Known(0),
    };
    let now = clock::now();
    assert!(watch.look(now, &host(Bytes::gib(8)), None));
    processes.scan(false, false, |_| Standing::Ordinary).unwrap();
    watch.scan(now, std::time::Duration::ZERO, processes.rows());
    // Armed: a shortage, the look at everybody, the second look, the hold and the kill.
    let later = now.after(std::time::Duration::from_secs(1));
    let short = host(Bytes::gib(1));
    let mut killed = 0;
    let count = allocations(|| {
        for _ in 0..2 {
            if watch.look(later, &short, None) {
                let begun = clock::of_this_thread();
                processes.scan(watch.is_short(), false, |_| Standing::Ordinary).unwrap();
                watch.scan(later, clock::of_this_thread().since(begun), processes.rows());
            }
        }
        while let Some(effect) = watch.poll_effect() {
            match effect {
                Effect::Hold(leader) => {
                    for at in watch.families().members(processes.rows(), leader) {
                        held.add(processes.rows()[at].who).unwrap();
                        held.remember_shm(processes.rows()[at].who);
                    }
                }
                Effect::Kill => killed += held.kill(&reaper).0,
                Effect::Terminate | Effect::Sweep | Effect::Release => {}
            }
        }
        held.remains()
    });
    assert_eq!((killed, count), (1, 0));
}
