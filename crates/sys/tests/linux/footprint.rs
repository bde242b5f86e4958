//! This process's own memory: seen as it is, and given back.

use oomguard_core::Bytes;
use oomguard_sys::footprint::{self, Reserve, Resident};

/// One test: all of this is the process's, and tests may share one.
#[test]
fn what_is_touched_is_seen_remembered_and_given_back() {
    let kept = Resident::open().unwrap();
    footprint::forget_peak().unwrap();
    let before = kept.read().unwrap();
    let touched = vec![1u8; 64 << 20];
    let with = kept.read().unwrap();
    assert!(with.minus(before) >= Bytes::mib(60), "{before} {with}");
    drop(std::hint::black_box(touched));
    let peak = footprint::peak().unwrap();
    assert!(peak >= with.minus(Bytes::mib(2)), "{peak} {with}");
    footprint::forget_peak().unwrap();
    assert!(footprint::peak().unwrap() < peak.minus(Bytes::mib(40)));

    // Small blocks below a living one: the allocator keeps them until it is asked.
    let mut blocks: Vec<Vec<u8>> = (0..16_384).map(|_| vec![1u8; 4096]).collect();
    let last = blocks.pop();
    drop(blocks);
    let back = footprint::trim();
    assert!(cfg!(not(target_env = "gnu")) || back.unwrap() >= Bytes::mib(40), "{back:?}");
    drop(std::hint::black_box(last));

    // A reserve is nothing until it is filled, and nothing again once it is released.
    let reserve = Reserve::new(Bytes::mib(32)).unwrap();
    let without = footprint::charged().unwrap();
    reserve.fill().unwrap();
    let filled = footprint::charged().unwrap();
    assert!(filled.minus(without) >= Bytes::mib(31), "{without} {filled}");
    reserve.release();
    assert!(filled.minus(footprint::charged().unwrap()) >= Bytes::mib(31));
    reserve.fill().unwrap();
}
