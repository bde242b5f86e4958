//! What only cgroup v2 can do, on real cgroups; and its files as folders of bytes.

use crate::support::{SOON, TestParent, shell, until};
use oomguard_core::{Bytes, Enforcement};
use oomguard_sys::cgroup::{Counters, How, Limits};

#[test]
fn the_whole_job_ends_at_its_limit() {
    let Some(test) = TestParent::new(Some(Enforcement::Cgroup2)) else { return };
    let mut leaf = test.get().leaf("a").unwrap();
    leaf.set_limit(&Limits::new(Bytes::mib(48))).unwrap();
    let child =
        shell("sleep 1000 & head -c 134217728 /dev/zero | tail -c 134217728 | sleep 1000", Some(&leaf));
    assert!(child.0.wait_exit(SOON).unwrap());
    until("all of it to be gone", || !leaf.is_populated().unwrap());
    assert!(leaf.events().unwrap().oom_kill >= 3);
}

#[test]
fn the_soft_mark_throttles_until_it_is_taken_back() {
    let Some(test) = TestParent::new(Some(Enforcement::Cgroup2)) else { return };
    let mut leaf = test.get().leaf("a").unwrap();
    leaf.set_limit(&Limits::new(Bytes::mib(400))).unwrap();
    leaf.set_soft(Some(Bytes::mib(32))).unwrap();
    let _child = shell("head -c 134217728 /dev/zero | tail -c 134217728 | sleep 1000", Some(&leaf));
    until("it to be throttled", || leaf.events().unwrap().high > 50);
    assert!(leaf.charged().unwrap() < Bytes::mib(100));
    leaf.set_soft(None).unwrap();
    until("it to grow again", || leaf.charged().unwrap() > Bytes::mib(120));
}

#[test]
fn file_cache_is_charged_but_not_used_and_can_be_reclaimed() {
    let Some(test) = TestParent::new(Some(Enforcement::Cgroup2)) else { return };
    let leaf = test.get().leaf("a").unwrap();
    leaf.set_limit(&Limits::new(Bytes::mib(400))).unwrap();
    let file = std::env::current_exe().unwrap();
    let copy = tempfile::NamedTempFile::new_in(file.parent().unwrap()).unwrap();
    let script = format!(
        "dd if=/dev/zero of={} bs=1M count=64 conv=fsync 2>/dev/null; sleep 1000",
        copy.path().display()
    );
    let _child = shell(&script, Some(&leaf));
    until("64 MiB to be cached", || leaf.charged().unwrap() > Bytes::mib(60));
    if leaf.shmem().unwrap() > Bytes::mib(1) {
        return eprintln!("SKIPPED: the build folder lies on a tmpfs");
    }
    until("it to be written", || leaf.usage().unwrap() < Bytes::mib(20));
    // EAGAIN: less than asked, which is what the counters then show.
    let _ = leaf.reclaim(Bytes::mib(32));
    until("cache to be given back", || leaf.charged().unwrap() < Bytes::mib(50));
}

#[test]
fn killing_is_one_write() {
    let Some(test) = TestParent::new(Some(Enforcement::Cgroup2)) else { return };
    let leaf = test.get().leaf("a").unwrap();
    let child = shell("sleep 1000", Some(&leaf));
    let killed = leaf.kill().unwrap();
    assert_eq!((killed.how, killed.signalled), (How::AtOnce, 0));
    assert!(child.0.wait_exit(SOON).unwrap());
}

#[test]
fn a_kill_for_the_limit_above_is_told_from_one_for_the_own() {
    use oomguard_core::LimitEvent;
    let before = Counters { oom_local: Some(0), ..Counters::default() };
    let above = Counters { oom_kill: 1, ..before };
    let own = Counters { oom_kill: 1, oom: 1, oom_local: Some(1), ..before };
    let below = Counters { oom_kill: 1, oom: 1, ..before };
    assert_eq!(above.since(&before), Some(LimitEvent::KilledAbove));
    assert_eq!(own.since(&before), Some(LimitEvent::KilledAtLimit));
    assert_eq!(below.since(&before), Some(LimitEvent::KilledAtLimit));
    assert_eq!(Counters { high: 3, ..before }.since(&before), Some(LimitEvent::Soft));
    assert_eq!(before.since(&before), None);
    // v1: `failcnt` is the only hint.
    let before = Counters::default();
    assert_eq!(Counters { oom_kill: 1, ..before }.since(&before), Some(LimitEvent::KilledAbove));
    assert_eq!(Counters { oom_kill: 1, max: 9, ..before }.since(&before), Some(LimitEvent::KilledAtLimit));
}
