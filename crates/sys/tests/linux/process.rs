use crate::support::{SOON, shell};
use oomguard_sys::process::{Process, Released, Signal};
use oomguard_sys::wait;

#[test]
fn a_process_is_its_pid_and_its_start_time() {
    let child = shell("exec sleep 1000", None);
    let (pid, start) = (child.0.pid(), child.0.start_time());
    assert_eq!(Process::adopt(pid, start).unwrap().pid(), pid);
    let error = Process::adopt(pid, start + 1).unwrap_err();
    assert!(error.to_string().contains("is not the one that was meant"), "{error}");
}

#[test]
fn death_is_seen_before_it_is_reaped_and_nobody_else_is_signalled_after() {
    let child = shell("exec sleep 1000", None);
    assert!(child.0.is_alive());
    child.0.signal(Signal::KILL).unwrap();
    assert!(child.0.wait_exit(SOON).unwrap());
    assert!(!child.0.is_alive());
    // A zombie can still be opened: its exit code has not been asked for.
    Process::open(child.0.pid()).unwrap();
    assert_eq!(wait::reap_one(child.0.pid()).unwrap(), Some(oomguard_core::Exit::Signal(libc::SIGKILL)));
    assert_eq!(child.0.signal(Signal::KILL).unwrap_err().errno(), Some(libc::ESRCH));
    assert_eq!(Process::open(child.0.pid()).unwrap_err().errno(), Some(libc::ESRCH));
}

#[test]
fn nobody_has_an_impossible_pid() {
    for pid in [0, u32::MAX] {
        assert_eq!(Process::open(pid).unwrap_err().errno(), Some(libc::ESRCH));
    }
    let child = shell("exec sleep 1000", None);
    assert_eq!(child.0.signal_number(4096).unwrap_err().errno(), Some(libc::EINVAL));
}

#[test]
fn memory_is_only_taken_from_the_dying() {
    let child = shell("exec sleep 1000", None);
    let alive = child.0.release_memory().unwrap_err();
    if alive.errno() == Some(libc::ENOSYS) {
        return crate::support::skip("mrelease", "this kernel has no process_mrelease");
    }
    assert_eq!(alive.errno(), Some(libc::EINVAL));
    child.0.signal(Signal::KILL).unwrap();
    child.0.wait_exit(SOON).unwrap();
    assert_eq!(child.0.release_memory().unwrap(), Released::AlreadyGone);
}
