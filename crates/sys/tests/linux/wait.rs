use crate::support::{SOON, shell};
use oomguard_core::Instant;
use oomguard_sys::clock;
use oomguard_sys::wait::{Interest, Poller, Ready, Signals};
use std::os::fd::AsFd as _;
use std::time::Duration;

#[test]
fn a_deadline_is_neither_early_nor_forgotten() {
    let mut poller = Poller::new();
    let until = clock::now().after(Duration::from_millis(5));
    assert!(poller.wait(until).unwrap().is_empty());
    assert!(clock::now() >= until);
    // One that has passed does not wait at all.
    assert!(poller.wait(Instant(0)).unwrap().is_empty());
}

#[test]
fn tokens_name_who_is_ready_until_they_are_removed() {
    let (from, into) = rustix::pipe::pipe().unwrap();
    let (quiet, _keep) = rustix::pipe::pipe().unwrap();
    let mut poller = Poller::new();
    poller.add(quiet.as_fd(), Interest::Read, 1);
    poller.add(from.as_fd(), Interest::Read, 2);
    assert_eq!(poller.wait(Instant(0)).unwrap(), []);
    rustix::io::write(&into, b"x").unwrap();
    assert_eq!(poller.wait(Instant::NEVER).unwrap(), [Ready { token: 2, broken: false }]);
    drop(into);
    assert_eq!(poller.wait(Instant::NEVER).unwrap(), [Ready { token: 2, broken: true }]);
    assert!(poller.remove(2) && !poller.remove(2));
    assert_eq!(poller.wait(Instant(0)).unwrap(), []);
    assert_eq!(poller.len(), 1);
}

#[test]
fn a_process_that_ends_wakes_the_guard() {
    let child = shell("exit 3", None);
    let mut poller = Poller::new();
    poller.add(child.0.fd(), Interest::Read, 9);
    assert_eq!(poller.wait(clock::now().after(SOON)).unwrap().len(), 1);
}

#[test]
fn a_signal_comes_with_its_sender_and_how_it_was_sent() {
    let mut signals = Signals::block().unwrap();
    // To this very thread, since the other tests' threads have not blocked it.
    // SAFETY: signals this thread, which has the signal blocked.
    let rc = unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGUSR1) };
    assert_eq!(rc, 0);
    let mut poller = Poller::new();
    poller.add(signals.fd(), Interest::Read, 1);
    assert_eq!(poller.wait(clock::now().after(SOON)).unwrap().len(), 1);
    let received = signals.receive().unwrap().unwrap();
    assert_eq!(received.signal, libc::SIGUSR1);
    assert_eq!(received.sender, std::process::id());
    assert!(!received.is_from_terminal());
    assert_eq!(signals.receive().unwrap(), None);
}
