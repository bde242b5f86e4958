use crate::support::folder;
use oomguard_core::Bytes;
use oomguard_sys::zoneinfo::PerCpuPages;
use std::path::Path;

fn zone(name: &str, cpus: u32, count: u64) -> String {
    let mut text = format!("Node 0, zone {name:>8}\n  pages free     3840\n        boost    0\n  pagesets\n");
    for cpu in 0..cpus {
        text += &format!(
            "    cpu: {cpu}\n              count:    {count}\n              high:     378\n              \
             batch:    63\n  vm stats threshold: 20\n"
        );
    }
    text + "  node_unreclaimable:  0\n  start_pfn:           1\n"
}

fn read(text: &str) -> Result<Bytes, oomguard_sys::Error> {
    let proc = folder(&[("zoneinfo", text)]);
    PerCpuPages::open(proc.path()).unwrap().read()
}

fn pages(n: u64) -> Bytes {
    Bytes(n * rustix::param::page_size() as u64)
}

#[test]
fn every_pageset_of_every_zone_counts() {
    assert_eq!(read(&(zone("DMA", 2, 0) + &zone("Normal", 2, 1000))).unwrap(), pages(2000));
}

#[test]
fn the_file_of_a_large_machine_is_longer_than_any_buffer() {
    let text = zone("DMA32", 1024, 3) + &zone("Normal", 1024, 4) + &zone("Normal", 1024, 5);
    assert!(text.len() > 200_000);
    assert_eq!(read(&text).unwrap(), pages(1024 * 12));
}

#[test]
fn a_file_that_names_no_pageset_is_not_zero() {
    for text in ["", "Node 0, zone      DMA\n  pages free     3840\n", "\n\n\n"] {
        assert!(read(text).unwrap_err().to_string().contains("no per-CPU pagesets"), "{text:?}");
    }
}

#[test]
fn garbage_is_an_error() {
    assert!(
        read("  pagesets\n    cpu: 0\n    count:    many\n")
            .unwrap_err()
            .to_string()
            .contains("not a number")
    );
    assert!(read(&"x".repeat(100_000)).unwrap_err().to_string().contains("too long"));
    assert!(read("    count: 99999999999999999999\n").is_err());
}

#[test]
fn a_last_line_cut_short_is_left_out() {
    assert_eq!(read("    count:    7\n    count:    12").unwrap(), pages(7));
}

#[test]
fn this_machine_parks_less_than_it_has() {
    let parked = PerCpuPages::open(Path::new("/proc")).unwrap().read().unwrap();
    let total = oomguard_sys::meminfo::Meminfo::open(Path::new("/proc")).unwrap().read().unwrap().total;
    assert!(parked < total);
}
