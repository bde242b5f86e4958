use crate::support::{SOON, folder, put, shell, shell_with, until};
use oomguard_core::Bytes;
use oomguard_sys::process::{Process, Signal};
use oomguard_sys::tree::{self, Tree, describe_largest, find_marked};
use std::ffi::OsString;
use std::path::Path;

fn again(process: &Process) -> Process {
    Process::adopt(process.pid(), process.start_time()).unwrap()
}

fn living(tree: &mut Tree) -> usize {
    tree.rescan().unwrap();
    tree.processes().filter(|p| p.is_alive()).count()
}

/// Changes to an environment.
type Env = Vec<(OsString, Option<OsString>)>;

fn mark(value: &str) -> (Env, (String, String)) {
    let value = format!("{value}-{}", std::process::id());
    let env = vec![("OOMGUARD_TEST_JOB".into(), Some(OsString::from(&value)))];
    (env, ("OOMGUARD_TEST_JOB".to_owned(), value))
}

#[test]
fn children_and_their_children_are_members_and_all_of_them_die() {
    let child = shell("sleep 1000 & sh -c 'sleep 1000 & wait' & sleep 1000 & wait", None);
    let mut tree = Tree::new(again(&child.0), None).unwrap();
    until("five processes", || living(&mut tree) == 5);
    assert!(tree.rss() > Bytes::ZERO);
    let pss = tree.pss();
    assert!(pss > Bytes::ZERO && pss <= tree.rss().plus(Bytes::mib(2)));
    let held: Vec<Process> = tree.processes().map(again).collect();
    let killed = tree.kill_all().unwrap();
    assert!(!killed.incomplete && killed.signalled == 5, "{killed:?}");
    for process in &held {
        assert!(process.wait_exit(SOON).unwrap());
    }
    tree.rescan().unwrap();
    assert!(tree.is_empty());
}

#[test]
fn a_member_that_ran_away_is_known_by_its_mark() {
    let (env, marker) = mark("runaway");
    // Ends at once; its grandchild is somebody else's child by then, and in another session.
    let child = shell_with("(setsid sleep 1000 &)", None, &env);
    assert!(child.0.wait_exit(SOON).unwrap());
    let mut unmarked = Tree::new(again(&child.0), None).unwrap();
    assert_eq!(living(&mut unmarked), 0);
    let mut tree = Tree::new(again(&child.0), Some(marker.clone())).unwrap();
    until("the runaway to be found", || living(&mut tree) == 1);
    let found = find_marked(Path::new("/proc"), &marker.0, &marker.1).unwrap();
    assert_eq!(found.len(), 1);
    tree.kill_all().unwrap();
    assert!(found[0].wait_exit(SOON).unwrap());
}

#[test]
fn another_jobs_mark_is_another_job() {
    let (env, marker) = mark("one");
    let child = shell_with("exec sleep 1000", None, &env);
    let bystander = shell_with("exec sleep 1000", None, &mark("one-and-more").0);
    let mut tree = Tree::new(again(&child.0), Some(marker)).unwrap();
    assert_eq!(living(&mut tree), 1);
    tree.kill_all().unwrap();
    assert!(child.0.wait_exit(SOON).unwrap());
    assert!(bystander.0.is_alive());
}

#[test]
fn a_frozen_tree_stands_still_and_forks_no_more() {
    let child = shell("while :; do (sleep 0.001); done", None);
    let mut tree = Tree::new(again(&child.0), None).unwrap();
    assert!(tree.freeze_all().unwrap() >= 1);
    let stopped = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") T ");
    until("it to be stopped", || stopped(child.0.pid()));
    assert!(tree.thaw_all() >= 1);
    until("it to go on", || !stopped(child.0.pid()));
    tree.kill_all().unwrap();
    assert!(child.0.wait_exit(SOON).unwrap());
}

#[test]
fn a_fork_storm_is_stopped_before_it_is_killed() {
    let (env, marker) = mark("storm");
    let storm = "f() { while :; do (sleep 0.001) & wait $!; done; }; f & f & f & f";
    let child = shell_with(storm, None, &env);
    let mut tree = Tree::new(again(&child.0), Some(marker.clone())).unwrap();
    until("the storm to rage", || living(&mut tree) > 5);
    tree.kill_all().unwrap();
    until("nobody to be left", || {
        tree.kill_all().unwrap();
        find_marked(Path::new("/proc"), &marker.0, &marker.1).unwrap().iter().all(|p| !p.is_alive())
    });
}

#[test]
fn the_guard_and_what_is_above_it_cannot_be_a_job() {
    let me = Process::open(std::process::id()).unwrap();
    assert!(Tree::new(me, None).is_err());
    let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get() as u32;
    assert!(Tree::new(Process::open(parent).unwrap(), None).is_err());
}

#[test]
fn the_largest_process_is_described_for_messages() {
    let small = shell("sleep 1000", None);
    let large = shell("head -c 33554432 /dev/zero | tail -c 33554432 | sleep 1000", None);
    let mut tree = Tree::new(again(&large.0), None).unwrap();
    until("it to be large", || {
        tree.rescan().unwrap();
        tree.rss() > Bytes::mib(30)
    });
    let (pid, comm, rss) = tree.largest().unwrap();
    assert_eq!(comm, "tail");
    assert!(rss > Bytes::mib(20));
    let described = describe_largest(Path::new("/proc"), &[small.0.pid(), pid, u32::MAX]).unwrap();
    assert_eq!((described.pid, described.cmdline.as_str()), (pid, "tail -c 33554432"));
    assert_eq!(describe_largest(Path::new("/proc"), &[u32::MAX]), None);
    tree.signal_all(Signal::KILL);
}

#[test]
fn descriptions_survive_any_bytes() {
    let proc = folder(&[]);
    put(proc.path(), "7/statm", "100 20 3 1 0 40 0\n");
    put(proc.path(), "7/comm", "odd\n");
    put(proc.path(), "7/cmdline", &"é".repeat(200));
    put(proc.path(), "8/statm", "garbage\n");
    let described = describe_largest(proc.path(), &[7, 8]).unwrap();
    assert_eq!(described.pid, 7);
    assert_eq!(described.cmdline, "é".repeat(80));
}

#[test]
fn processes_that_nobody_counts_are_added_up_and_the_dead_add_nothing() {
    let me = std::process::id();
    let (alone, exact) = (tree::rss(&[me]).unwrap(), tree::pss(&[me]).unwrap());
    assert!(
        alone > Bytes::mib(1) && exact > Bytes::ZERO && exact <= alone.plus(Bytes::mib(1)),
        "{alone} {exact}"
    );
    let child = shell("exit 0", None);
    assert!(child.0.wait_exit(SOON).unwrap());
    assert_eq!(tree::rss(&[child.0.pid()]).unwrap(), Bytes::ZERO);
    assert_eq!(tree::pss(&[child.0.pid()]).unwrap(), Bytes::ZERO);
}
