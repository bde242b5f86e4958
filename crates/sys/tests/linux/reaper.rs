use crate::support::{SOON, TestParent, shell, until};
use oomguard_core::Bytes;
use oomguard_sys::cgroup::Limits;
use oomguard_sys::process::Signal;
use oomguard_sys::reaper::Reaper;

#[test]
fn what_is_sent_is_done_before_the_end() {
    let reaper = Reaper::start().unwrap();
    let child = shell("sleep 1000", None);
    // Not dying: refused by the kernel, counted, and nothing happens to it.
    reaper.release(child.0.fd()).unwrap();
    until("the refusal", || reaper.reaped().failed == 1);
    assert!(child.0.is_alive());
    child.0.signal(Signal::KILL).unwrap();
    reaper.release(child.0.fd()).unwrap();
    let reaped = reaper.finish();
    assert_eq!(reaped.freed + reaped.gone + reaped.failed, 2, "{reaped:?}");
}

#[test]
fn the_memory_of_a_stopped_victim_comes_back() {
    let Some(test) = TestParent::new(None) else { return };
    let leaf = test.get().leaf("a").unwrap();
    leaf.set_limit(&Limits::new(Bytes::mib(300))).unwrap();
    let child = shell("head -c 134217728 /dev/zero | tail -c 134217728 | sleep 1000", Some(&leaf));
    until("128 MiB to be held", || leaf.usage().unwrap() > Bytes::mib(120));
    leaf.freeze().unwrap();
    let mut pids = Vec::new();
    leaf.pids(&mut pids).unwrap();
    let held: Vec<_> = pids.iter().map(|pid| oomguard_sys::process::Process::open(*pid).unwrap()).collect();
    leaf.kill().unwrap();
    let reaper = Reaper::start().unwrap();
    for process in &held {
        reaper.release(process.fd()).unwrap();
    }
    until("the memory to be back", || leaf.charged().unwrap() < Bytes::mib(20));
    assert!(child.0.wait_exit(SOON).unwrap());
    let reaped = reaper.finish();
    assert_eq!(reaped.freed + reaped.gone, held.len() as u32, "{reaped:?}");
}
