use crate::support::{shell, until};
use oomguard_core::Bytes;
use oomguard_core::watch::Who;
use oomguard_sys::held::Held;
use oomguard_sys::reaper::Reaper;

#[test]
fn it_dies_as_a_whole_and_its_number_is_not_enough() {
    let (one, other) = (shell("sleep 1000", None), shell("trap '' TERM; sleep 1000 & wait", None));
    // It has a child once its trap is set.
    let children = format!("/proc/{0}/task/{0}/children", other.0.pid());
    until("the other to be deaf", || std::fs::read(&children).is_ok_and(|pids| !pids.is_empty()));
    let who = |child: &crate::support::Child| Who { pid: child.0.pid(), start: child.0.start_time() };
    let mut held = Held::new().unwrap();
    held.add(who(&one)).unwrap();
    held.add(who(&other)).unwrap();
    let error = held.add(Who { start: 1, ..who(&one) }).unwrap_err();
    assert!(error.to_string().contains("is not the one that was meant"), "{error}");
    assert!(held.has(who(&one)) && held.has_pid(other.0.pid()) && !held.has_pid(1));
    assert_eq!(held.remains().processes, 2);
    assert!(held.remains().usage > Bytes::ZERO);
    let (told, refused) = held.terminate();
    assert!(told == 2 && refused.is_none());
    until("the one that listens to end", || held.remains().processes == 1);
    let (killed, refused) = held.kill(&Reaper::start().unwrap());
    assert!(killed == 1 && refused.is_none());
    until("the other to end", || held.remains().processes == 0);
    assert_eq!(held.remains().usage, Bytes::ZERO);
    held.clear();
    assert!(!held.has(who(&one)));
}
