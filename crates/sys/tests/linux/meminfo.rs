use crate::support::folder;
use oomguard_core::{Bytes, Why};
use oomguard_sys::meminfo::Meminfo;
use std::path::Path;

const GOOD: &str = "\
MemTotal:       24683656 kB
MemFree:        23877176 kB
MemAvailable:   24234992 kB
Buffers:          208956 kB
Cached:           316620 kB
SwapCached:            0 kB
Active(anon):       1520 kB
SwapTotal:       2097148 kB
SwapFree:        1048576 kB
Zswap:                 0 kB
AnonPages:         40856 kB
Shmem:              8924 kB
ShmemHugePages:        0 kB
";

fn error(text: &str) -> oomguard_sys::Error {
    let proc = folder(&[("meminfo", text)]);
    Meminfo::open(proc.path()).unwrap().read().unwrap_err()
}

#[test]
fn sizes_are_kibibytes() {
    let proc = folder(&[("meminfo", GOOD)]);
    let memory = Meminfo::open(proc.path()).unwrap().read().unwrap();
    assert_eq!(memory.total, Bytes::kib(24_683_656));
    assert_eq!(memory.available, Bytes::kib(24_234_992));
    assert_eq!(memory.free, Bytes::kib(23_877_176));
    assert_eq!(memory.shmem, Bytes::kib(8924));
    assert_eq!(memory.swap_total, Bytes::gib(2).minus(Bytes::kib(4)));
    assert_eq!(memory.swap_free, Bytes::gib(1));
}

#[test]
fn the_file_stays_open_and_is_read_anew() {
    let proc = folder(&[("meminfo", GOOD)]);
    let mut meminfo = Meminfo::open(proc.path()).unwrap();
    meminfo.read().unwrap();
    std::fs::write(proc.path().join("meminfo"), GOOD.replace("24234992", "00000001")).unwrap();
    assert_eq!(meminfo.read().unwrap().available, Bytes::kib(1));
}

#[test]
fn a_kernel_without_memavailable_is_told_so() {
    let old = GOOD.replace("MemAvailable:   24234992 kB\n", "");
    let error = error(&old);
    assert!(error.to_string().contains("no `MemAvailable` line (Linux 3.14"), "{error}");
    assert_eq!(error.why(), Why::Malformed);
}

#[test]
fn a_file_cut_short_never_yields_a_smaller_number() {
    let at = GOOD.find("8924").unwrap();
    assert!(error(&GOOD[..at + 2]).to_string().contains("`Shmem`"));
    assert!(error("").to_string().contains("`MemTotal`"));
    assert!(error("MemTotal: many kB\n").to_string().contains("`MemTotal`"));
    assert!(error(&GOOD.replace("24683656", "99999999999999999999")).to_string().contains("`MemTotal`"));
}

#[test]
fn a_number_too_large_for_any_machine_saturates() {
    let proc = folder(&[("meminfo", &*GOOD.replace("24234992", "18446744073709551615"))]);
    assert_eq!(Meminfo::open(proc.path()).unwrap().read().unwrap().available, Bytes::MAX);
}

#[test]
fn a_missing_file_is_an_error_with_its_path() {
    let proc = folder(&[]);
    let error = Meminfo::open(proc.path()).unwrap_err();
    assert!(
        error.to_string().starts_with("cannot open `") && error.to_string().contains("meminfo"),
        "{error}"
    );
    assert_eq!(error.errno(), Some(2));
}

#[test]
fn this_machine_says_something_plausible() {
    let memory = Meminfo::open(Path::new("/proc")).unwrap().read().unwrap();
    assert!(memory.total > Bytes::mib(64) && memory.available <= memory.total && memory.free <= memory.total);
}
