//! Real cgroups, of whichever kind this machine has.

use crate::support::{Child, SOON, TestParent, shell, skip, until};
use oomguard_core::{Bytes, Enforcement, LimitEvent};
use oomguard_sys::cgroup::{How, Limits};
use oomguard_sys::clock;
use oomguard_sys::process::Process;
use oomguard_sys::wait::{Interest, Poller};
use std::os::fd::BorrowedFd;

/// Holds so much anonymous memory until it is killed, without using any CPU.
fn holder(mib: u32) -> String {
    let bytes = mib << 20;
    format!("head -c {bytes} /dev/zero | tail -c {bytes} | sleep 1000")
}

fn wait_for(fd: BorrowedFd<'_>, interest: Interest) {
    let mut poller = Poller::new();
    poller.add(fd, interest, 7);
    assert!(!poller.wait(clock::now().after(SOON)).unwrap().is_empty(), "nothing was said in time");
}

#[test]
fn a_leaf_is_made_opened_again_and_removed() {
    let Some(test) = TestParent::new(None) else { return };
    let parent = test.get();
    assert_eq!(parent.leaves().unwrap(), [""; 0]);
    let leaf = parent.leaf("worker-1").unwrap();
    leaf.set_limit(&Limits::new(Bytes::mib(64))).unwrap();
    drop(leaf);
    assert_eq!(parent.leaves().unwrap(), ["worker-1"]);
    let leaf = parent.leaf("worker-1").unwrap();
    assert!(!leaf.is_populated().unwrap());
    leaf.remove().unwrap();
    assert_eq!(parent.leaves().unwrap(), [""; 0]);
    assert!(parent.leaf("../escape").is_err());
}

#[test]
fn limits_are_read_back_rounded_to_pages_up_and_down() {
    let Some(test) = TestParent::new(None) else { return };
    let leaf = test.get().leaf("a").unwrap();
    let swap = Some(Bytes::mib(16));
    for memory in [Bytes::mib(64), Bytes::mib(256), Bytes::mib(32), Bytes::MAX, Bytes::mib(64)] {
        for swap in [None, swap, Some(Bytes::MAX)] {
            let limits = Limits { memory, swap, whole_job: true };
            assert_eq!(leaf.set_limit(&limits).unwrap(), memory, "{limits:?}");
        }
    }
    let page = rustix::param::page_size() as u64;
    let odd = leaf.set_limit(&Limits::new(Bytes(Bytes::mib(64).0 + 1))).unwrap();
    assert_eq!(odd, Bytes::mib(64), "rounded down to pages of {page}");
}

#[test]
fn the_ceiling_is_held_and_the_leaves_count_towards_it() {
    let Some(test) = TestParent::new(None) else { return };
    let parent = test.get();
    assert_eq!(parent.set_ceiling(Bytes::mib(400)).unwrap(), Bytes::mib(400));
    assert_eq!(parent.ceiling().unwrap(), Bytes::mib(400));
    let leaf = parent.leaf("a").unwrap();
    leaf.set_limit(&Limits::new(Bytes::mib(300))).unwrap();
    let child = shell(&holder(64), Some(&leaf));
    until("64 MiB to be held", || leaf.usage().unwrap() > Bytes::mib(60));
    assert!(parent.charged().unwrap() >= leaf.charged().unwrap().minus(Bytes::mib(4)));
    // Exact only where it is asked for; never more than the charge.
    let charged = leaf.charged().unwrap();
    assert!(leaf.usage().unwrap() <= charged.plus(Bytes::mib(4)));
    assert!(leaf.peak().known().unwrap() >= Bytes::mib(60));
    assert!(leaf.shmem().unwrap() < Bytes::mib(4));
    let mut pids = Vec::new();
    leaf.pids(&mut pids).unwrap();
    assert!(pids.contains(&child.0.pid()) && pids.len() >= 3, "{pids:?}");
    assert!(leaf.is_populated().unwrap());
}

#[test]
fn a_job_over_its_limit_is_killed_by_the_kernel_and_the_event_says_so() {
    let Some(test) = TestParent::new(None) else { return };
    let mut leaf = test.get().leaf("a").unwrap();
    leaf.set_limit(&Limits { whole_job: false, ..Limits::new(Bytes::mib(48)) }).unwrap();
    let before = leaf.events().unwrap();
    let _child = shell(&holder(128), Some(&leaf));
    let mut poller = Poller::new();
    let (fd, interest) = leaf.event_fds()[0].unwrap();
    poller.add(fd, interest, 1);
    assert!(!poller.wait(clock::now().after(SOON)).unwrap().is_empty());
    // v1 tells that memory is out before it kills, and does not tell again.
    until("the kill to be counted", || leaf.events().unwrap().oom_kill > before.oom_kill);
    let after = leaf.events().unwrap();
    assert_eq!(after.since(&before), Some(LimitEvent::KilledAtLimit), "{after:?}");
    assert!(after.max > before.max);
}

#[test]
fn a_kill_for_the_ceiling_is_told_from_one_for_the_own_limit() {
    let Some(test) = TestParent::new(None) else { return };
    let parent = test.get();
    parent.set_ceiling(Bytes::mib(48)).unwrap();
    let mut leaf = parent.leaf("a").unwrap();
    leaf.set_limit(&Limits { whole_job: false, ..Limits::new(Bytes::mib(400)) }).unwrap();
    let before = leaf.events().unwrap();
    let _child = shell(&holder(128), Some(&leaf));
    until("a kill to be counted", || leaf.events().unwrap().oom_kill > before.oom_kill);
    assert_eq!(leaf.events().unwrap().since(&before), Some(LimitEvent::KilledAbove));
}

#[test]
fn the_soft_mark_is_told_and_can_be_moved_without_anybody_polling_noticing() {
    let Some(test) = TestParent::new(None) else { return };
    let mut leaf = test.get().leaf("a").unwrap();
    leaf.set_limit(&Limits::new(Bytes::mib(400))).unwrap();
    leaf.set_soft(Some(Bytes::mib(300))).unwrap();
    leaf.set_soft(None).unwrap();
    leaf.set_soft(Some(Bytes::mib(32))).unwrap();
    let before = leaf.events().unwrap();
    let mut poller = Poller::new();
    for (fd, interest) in leaf.event_fds().into_iter().flatten() {
        poller.add(fd, interest, 1);
    }
    assert!(poller.wait(clock::now()).unwrap().is_empty(), "quiet before anything has happened");
    let _child = shell(&holder(64), Some(&leaf));
    assert!(!poller.wait(clock::now().after(SOON)).unwrap().is_empty());
    assert_eq!(leaf.events().unwrap().since(&before), Some(LimitEvent::Soft));
    leaf.set_soft(None).unwrap();
}

#[test]
fn a_frozen_job_stands_still_and_goes_on_when_thawed() {
    let Some(test) = TestParent::new(None) else { return };
    let leaf = test.get().leaf("a").unwrap();
    let child = shell("while :; do :; done", Some(&leaf));
    let ticks = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(')').next().unwrap().split_whitespace().nth(11).unwrap().parse::<u64>().unwrap()
    };
    let pid = child.0.pid();
    until("it to use some CPU", || ticks(pid) > 1);
    leaf.freeze().unwrap();
    let mut last = ticks(pid);
    let mut same = 0;
    until("it to stand still", || {
        let now = ticks(pid);
        same = if now == last { same + 1 } else { 0 };
        last = now;
        same > 50
    });
    leaf.thaw().unwrap();
    until("it to go on", || ticks(pid) > last);
}

#[test]
fn a_kill_ends_every_process_and_the_end_is_told() {
    let Some(test) = TestParent::new(None) else { return };
    let leaf = test.get().leaf("a").unwrap();
    let child = shell("for i in 1 2 3 4 5 6 7 8; do (setsid sleep 1000 &) ; done; sleep 1000", Some(&leaf));
    let mut pids = Vec::new();
    until("nine processes", || {
        pids.clear();
        leaf.pids(&mut pids).unwrap();
        pids.len() == 10
    });
    let held: Vec<Process> = pids.iter().map(|pid| Process::open(*pid).unwrap()).collect();
    let populated = leaf.is_populated().unwrap();
    let killed = leaf.kill().unwrap();
    assert!(populated && !killed.incomplete, "{killed:?}");
    for process in &held {
        assert!(process.wait_exit(SOON).unwrap(), "{} lives", process.pid());
    }
    drop(child);
    // Read, wait, read: a wait without a read before it has nothing to compare with.
    if let Some(fd) = leaf.populated_fd().filter(|_| populated) {
        wait_for(fd, Interest::Priority);
    }
    until("the leaf to be empty", || !leaf.is_populated().unwrap());
}

#[test]
fn a_frozen_job_dies_all_the_same() {
    let Some(test) = TestParent::new(None) else { return };
    let leaf = test.get().leaf("a").unwrap();
    let Child(process) = &shell("sleep 1000", Some(&leaf));
    leaf.freeze().unwrap();
    leaf.kill().unwrap();
    assert!(process.wait_exit(SOON).unwrap());
}

#[test]
fn a_fork_storm_does_not_outrun_the_kill() {
    let Some(test) = TestParent::new(None) else { return };
    let leaf = test.get().leaf("a").unwrap();
    leaf.set_limit(&Limits::new(Bytes::mib(200))).unwrap();
    let _child = shell("f() { while :; do (sleep 0.001) & wait $!; done; }; f & f & f & f", Some(&leaf));
    let mut pids = Vec::new();
    until("the storm to rage", || {
        pids.clear();
        leaf.pids(&mut pids).unwrap();
        pids.len() > 6
    });
    leaf.kill().unwrap();
    until("nobody to be left", || !leaf.is_populated().unwrap());
}

#[test]
fn groups_that_a_job_makes_for_itself_belong_to_it() {
    let Some(test) = TestParent::new(None) else { return };
    let leaf = test.get().leaf("a").unwrap();
    let dir = leaf.dir().join("own");
    std::fs::create_dir(&dir).unwrap();
    let child = shell("exec sleep 1000", Some(&leaf));
    std::fs::write(dir.join("cgroup.procs"), child.0.pid().to_string()).unwrap();
    let mut pids = Vec::new();
    leaf.pids(&mut pids).unwrap();
    assert_eq!(pids, [child.0.pid()]);
    drop(child);
    until("it to be gone", || leaf.pids(&mut pids).map(|()| pids.drain(..).count() == 0).unwrap());
    leaf.remove().unwrap();
    assert!(!dir.exists());
}

#[test]
fn a_leaf_in_use_is_not_removed() {
    let Some(test) = TestParent::new(None) else { return };
    let leaf = test.get().leaf("a").unwrap();
    let _child = shell("sleep 1000", Some(&leaf));
    assert_eq!(leaf.remove().unwrap_err().errno(), Some(libc::EBUSY));
    assert_eq!(test.get().leaves().unwrap(), ["a"]);
}

#[test]
fn a_leaf_that_is_left_beside_the_memory_hierarchy_is_still_there() {
    let Some(test) = TestParent::new(None) else { return };
    let parent = test.get();
    let leaf = parent.leaf("a").unwrap();
    if parent.enforcement() == Enforcement::Cgroup2 || leaf.populated_fd().is_none() {
        return skip("cgroup1", "no memory hierarchy of v1 with v2 beside it");
    }
    std::fs::remove_dir(leaf.dir()).unwrap();
    assert_eq!(parent.leaves().unwrap(), ["a"]);
    leaf.remove().unwrap();
    assert_eq!(parent.leaves().unwrap(), [""; 0]);
}

#[test]
fn on_v1_a_machine_says_why_it_is_not_v2() {
    let Some(test) = TestParent::new(Some(Enforcement::Cgroup1)) else { return };
    let notes = test.get().notes().join("\n");
    assert!(notes.contains("not cgroup v2:"), "{notes}");
    assert_eq!(test.get().inherited_limit(), None);
}

#[test]
fn what_cgroup1_cannot_do_is_refused_not_ignored() {
    let Some(test) = TestParent::new(Some(Enforcement::Cgroup1)) else { return };
    let leaf = test.get().leaf("a").unwrap();
    assert_eq!(leaf.reclaim(Bytes::mib(1)).unwrap_err().errno(), Some(libc::ENOSYS));
}

#[test]
fn two_guards_can_share_one_parent() {
    let Some(test) = TestParent::new(None) else { return };
    let options = oomguard_sys::cgroup::ParentOptions {
        explicit: Some(test.path.clone()),
        ..oomguard_sys::cgroup::ParentOptions::default()
    };
    let second = oomguard_sys::cgroup::Parent::open(&options).unwrap();
    let _leaf = test.get().leaf("a").unwrap();
    assert_eq!(second.leaves().unwrap(), ["a"]);
    second.remove().unwrap();
    assert_eq!(test.get().leaves().unwrap(), ["a"]);
}

#[test]
fn hybrid_machines_kill_at_once_through_v2() {
    let Some(test) = TestParent::new(None) else { return };
    let leaf = test.get().leaf("a").unwrap();
    if leaf.populated_fd().is_none() {
        return skip("cgroup2", "no v2 hierarchy beside the memory hierarchy");
    }
    let child = shell("sleep 1000", Some(&leaf));
    assert_eq!(leaf.kill().unwrap().how, How::AtOnce);
    assert!(child.0.wait_exit(SOON).unwrap());
}
