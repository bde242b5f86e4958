use crate::support::folder;
use oomguard_sys::psi::{self, Kind, Psi, Stall};
use std::path::Path;
use std::time::Duration;

const GOOD: &str = "some avg10=0.00 avg60=0.12 avg300=0.03 total=184467440737\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=42\n";

fn read(text: &str) -> Result<Stall, oomguard_sys::Error> {
    let proc = folder(&[("pressure/memory", text)]);
    Psi::open(proc.path()).unwrap().read()
}

#[test]
fn totals_are_microseconds() {
    assert_eq!(read(GOOD).unwrap(), Stall { some_us: 184_467_440_737, full_us: 42 });
}

#[test]
fn a_missing_or_broken_line_is_an_error() {
    for text in
        ["", "some avg10=0.00 total=1\n", &GOOD[..GOOD.len() - 1], &GOOD.replace("total=42", "total=")]
    {
        assert!(read(text).is_err(), "{text:?}");
    }
}

#[test]
fn a_cgroup_has_a_file_of_the_same_kind() {
    let dir = folder(&[("memory.pressure", GOOD)]);
    assert_eq!(Psi::open_cgroup(dir.path()).unwrap().read().unwrap().full_us, 42);
}

#[test]
fn a_kernel_without_pressure_is_an_error() {
    assert_eq!(Psi::open(folder(&[]).path()).unwrap_err().why(), oomguard_core::Why::NotSupported);
}

#[test]
fn a_trigger_is_quiet_on_a_quiet_machine_or_refused_with_a_reason() {
    let path = Path::new("/proc/pressure/memory");
    if !path.exists() {
        return crate::support::skip("psi", "no /proc/pressure/memory");
    }
    // A window of two seconds is allowed to everybody on new kernels.
    match psi::trigger(path, Kind::Full, Duration::from_millis(1900), Duration::from_secs(2)) {
        Ok(fd) => {
            let mut poller = oomguard_sys::wait::Poller::new();
            poller.add(std::os::fd::AsFd::as_fd(&fd), oomguard_sys::wait::Interest::Priority, 1);
            assert!(poller.wait(oomguard_sys::clock::now()).unwrap().is_empty());
        }
        Err(error) => {
            assert!(error.to_string().contains("set a trigger on `/proc/pressure/memory`"), "{error}")
        }
    }
    let absurd = psi::trigger(path, Kind::Some, Duration::from_secs(9), Duration::from_secs(1));
    assert!(absurd.is_err());
}
