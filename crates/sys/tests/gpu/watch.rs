//! The thread: what its reader sees while a driver answers, hangs, or is not there.

use std::time::Duration;

use oomguard_core::{Reading, Why};
use oomguard_sys::clock;
use oomguard_sys::gpu::Gpu;
use oomguard_sys::process::Process;
use oomguard_sys::wait::{Interest, Poller};
use serde_json::json;

use super::{GIB, Machine, SOON, sample};

/// The threads of this process that read GPUs.
fn threads() -> usize {
    let name = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("comm")).ok();
    let all = std::fs::read_dir("/proc/self/task").unwrap().flatten().filter_map(name);
    all.filter(|name| name.trim() == "oomguard-gpu").count()
}

#[test]
fn a_machine_without_gpus_has_no_thread_that_looks_for_them() {
    // Alone in a process of its own, or others' threads would be counted.
    let machine = Machine::new();
    let mut gpu = machine.gpu();
    let seen = sample(&mut gpu);
    assert!(seen.has_none());
    assert_eq!(seen.fullest(&seen.visible), Reading::Unknown(Why::NoDriver));
    // Asking once more neither hangs nor starts anything.
    assert!(sample(&mut gpu).has_none());
    gpu.ask();
    if std::env::var_os("NEXTEST").is_some() {
        let end = clock::now().after(SOON);
        while threads() > 0 {
            assert!(clock::now() < end, "the thread is still there");
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_call_that_never_returns_is_no_answer_and_delays_nobody() {
    let card = json!([{"total": GIB, "used": 0}]);
    let machine = Machine::with_nvml(&json!({"devices": card}));
    let mut places = machine.places();
    places.patience = Duration::from_millis(50);
    let mut gpu = Gpu::watch(places).unwrap();
    assert_eq!(sample(&mut gpu).devices.len(), 1);
    machine.say(&json!({"devices": card, "hang": "memory"}));
    assert_eq!(gpu.read_now(clock::now().after(SOON)), Reading::Unknown(Why::NoAnswer));
    // The reader is not held up by it, however often it looks.
    let begin = clock::now();
    for _ in 0..1000 {
        assert_eq!(gpu.latest(clock::now()), Reading::Unknown(Why::NoAnswer));
    }
    assert!(clock::now().since(begin) < Duration::from_secs(1));
    // Nor is whoever lets go of it.
    drop(gpu);
}

#[test]
fn a_library_that_hangs_when_it_begins_is_no_answer_either() {
    let machine = Machine::with_nvml(&json!({"hang": "init"}));
    let mut places = machine.places();
    places.first_patience = Duration::from_millis(50);
    let mut gpu = Gpu::watch(places).unwrap();
    assert_eq!(gpu.read_now(clock::now().after(SOON)), Reading::Unknown(Why::NoAnswer));
}

#[test]
fn before_the_first_answer_nothing_is_known() {
    let machine = Machine::with_nvml(&json!({"hang": "init"}));
    let mut gpu = machine.gpu();
    assert_eq!(gpu.latest(clock::now()), Reading::Unknown(Why::NotYet));
    assert!(gpu.late_at() > clock::now());
}

#[test]
fn the_reader_is_woken_by_what_is_new() {
    let machine = Machine::with_nvml(&json!({"devices": [{"total": 100 * GIB, "used": 0, "growth": GIB}]}));
    let mut gpu = machine.gpu();
    let mut poller = Poller::new();
    poller.add(gpu.fd(), Interest::Read, 7);
    let mut used = Vec::new();
    let end = clock::now().after(SOON);
    while used.len() < 4 {
        assert!(!poller.wait(end).unwrap().is_empty(), "nothing new in time");
        gpu.hear();
        let seen = gpu.latest(clock::now()).known().unwrap();
        used.push(seen.devices[0].memory.known().unwrap().used.0 / GIB);
    }
    assert_eq!(used, [0, 1, 2, 3], "each once, and in order");
}

#[test]
fn a_parked_thread_asks_nobody_until_it_is_told_to() {
    let machine = Machine::with_nvml(&json!({"devices": [{"total": 100 * GIB, "used": 0, "growth": GIB}]}));
    let mut gpu = machine.gpu();
    gpu.park(true);
    let first = sample(&mut gpu).at;
    // Whoever parks it still hears of one that was under way: ask once more, so that none is.
    let second = sample(&mut gpu).at;
    assert!(second > first);
    let mut poller = Poller::new();
    gpu.hear();
    poller.add(gpu.fd(), Interest::Read, 7);
    // More than the second after which it would have looked.
    assert!(poller.wait(clock::now().after(Duration::from_millis(1500))).unwrap().is_empty());
    gpu.park(false);
    assert!(!poller.wait(clock::now().after(SOON)).unwrap().is_empty());
}

#[test]
fn looking_is_for_free() {
    // The process id is ours: whatever the driver shows can be matched with what we guard.
    let own = std::process::id();
    let machine = Machine::with_nvml(&json!({"devices": [
        {"total": GIB, "used": GIB / 2, "compute": [{"pid": own, "used": GIB / 2}]},
    ]}));
    let seen = machine.read();
    let is_ours = |pid: u32| Process::open(pid).is_ok() && pid == own;
    assert_eq!(seen.devices[0].used_by(is_ours).known().unwrap().0, GIB / 2);
}
