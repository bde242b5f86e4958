//! NVIDIA's library: the real loader and the real calls, into a library that says what the test wants.

use std::time::Duration;

use oomguard_core::{Bytes, Reading, Why};
use oomguard_sys::clock;
use oomguard_sys::gpu::{Gpu, Holder, Memory, Variables, Vendor};
use serde_json::json;

use super::{GIB, Machine, SOON, sample, why};

#[test]
fn a_card_says_what_it_has_and_who_holds_it() {
    let machine = Machine::with_nvml(&json!({
        "driver": "550.54.15",
        "devices": [
            {"uuid": "GPU-aa", "name": "NVIDIA H200", "total": 140 * GIB, "used": 3 * GIB,
             "compute": [{"pid": 41, "used": 2 * GIB}, {"pid": 42}], "graphics": [{"pid": 41, "used": GIB}]},
            {"uuid": "GPU-bb", "name": "NVIDIA H200", "total": 140 * GIB, "used": 0},
        ]
    }));
    let sample = machine.read();
    assert_eq!(sample.drivers[0].says, Ok("550.54.15".to_owned()));
    let card = &sample.devices[0];
    assert_eq!((card.vendor, card.index, card.uuid.as_str()), (Vendor::Nvidia, 0, "GPU-aa"));
    assert_eq!(card.bus, "00000000:01:00.0");
    let memory = Memory { total: Bytes::gib(140), used: Bytes::gib(3), free: Bytes::gib(137) };
    assert_eq!(card.memory, Reading::Known(memory));
    // Computing and drawing, a process has what it has once; what is not known is not nothing.
    let holders = [
        Holder { pid: 41, used: Reading::Known(Bytes::gib(2)) },
        Holder { pid: 42, used: Reading::Unknown(Why::NotSupported) },
    ];
    assert_eq!(card.holders.as_deref(), Ok(&holders[..]));
    assert_eq!(card.used_by(|pid| pid == 41), Reading::Known(Bytes::gib(2)));
    assert_eq!(card.used_by(|pid| pid == 42), Reading::Unknown(Why::NotSupported));
    assert_eq!(card.used_by(|pid| pid == 7), Reading::Known(Bytes::ZERO));
    assert_eq!(sample.devices[1].holders.as_deref(), Ok(&[][..]));
    assert!(!sample.devices[1].hides_holders());
    assert_eq!(sample.visible, [0, 1]);
}

#[test]
fn a_driver_that_hides_processes_is_not_one_without_them() {
    let machine = Machine::with_nvml(&json!({"devices": [{"total": 80 * GIB, "used": 30 * GIB}]}));
    let card = &machine.read().devices[0];
    assert!(card.hides_holders());
    assert_eq!(card.used_by(|_| true), Reading::Unknown(Why::NoPermission));
}

#[test]
fn the_fullest_of_the_visible_cards_counts() {
    let machine = Machine::with_nvml(&json!({"devices": [
        {"uuid": "GPU-aa", "total": 100 * GIB, "used": 81 * GIB},
        {"uuid": "GPU-bb", "total": 100 * GIB, "used": 12 * GIB},
    ]}));
    let all = machine.read();
    assert_eq!(all.fullest(&all.visible), Reading::Known((0, 81.0)));
    let mut places = machine.places();
    places.variables = Variables { cuda: Some("1".to_owned()), ..Variables::default() };
    let mut gpu = Gpu::watch(places).unwrap();
    let other = sample(&mut gpu);
    assert_eq!(other.fullest(&other.visible), Reading::Known((1, 12.0)));
    assert_eq!(other.fullest(&[]), Reading::Unknown(Why::NoDriver));
}

#[test]
fn a_divided_card_is_there_by_its_instances() {
    let machine = Machine::with_nvml(&json!({"devices": [
        {"uuid": "GPU-aa", "total": 80 * GIB, "used": 9 * GIB, "instances": [
            {"uuid": "MIG-1", "total": 20 * GIB, "used": 9 * GIB, "compute": [{"pid": 5, "used": 9 * GIB}]},
            {"uuid": "MIG-2", "total": 20 * GIB, "used": 0},
        ]},
        {"uuid": "GPU-bb", "total": 80 * GIB, "used": 0},
    ]}));
    let sample = machine.read();
    let shape: Vec<_> = sample.devices.iter().map(|it| (it.uuid.as_str(), it.card, it.divided)).collect();
    assert_eq!(
        shape,
        [
            ("GPU-aa", None, true),
            ("MIG-1", Some(0), false),
            ("MIG-2", Some(0), false),
            ("GPU-bb", None, false)
        ]
    );
    assert_eq!(sample.visible, [1, 2, 3]);
    assert_eq!(sample.fullest(&sample.visible), Reading::Known((1, 45.0)));
    assert_eq!(sample.devices[1].used_by(|pid| pid == 5), Reading::Known(Bytes::gib(9)));
}

#[test]
fn every_way_of_failing_is_a_reading_with_its_reason() {
    for (code, reason) in [
        (3, Why::NotSupported),
        (4, Why::NoPermission),
        (15, Why::Lost),
        (16, Why::Lost),
        (18, Why::Mismatch),
        (11, Why::Driver(11)),
        (999, Why::Driver(999)),
    ] {
        // One card fails, the other goes on.
        let machine = Machine::with_nvml(&json!({"devices": [
            {"total": GIB, "memory": code, "list": code}, {"total": GIB},
        ]}));
        let sample = machine.read();
        assert_eq!(why(&sample), Some(reason), "NVML's error {code}");
        assert_eq!(sample.devices[0].holders, Err(reason), "NVML's error {code}");
        assert!(sample.devices[1].memory.known().is_some(), "NVML's error {code}");
    }
}

#[test]
fn a_library_that_cannot_begin_says_why() {
    for (code, reason) in [(9, Why::NoDriver), (18, Why::Mismatch), (4, Why::NoPermission), (15, Why::Lost)] {
        let sample = Machine::with_nvml(&json!({"init": code})).read();
        let (why, text) = sample.drivers[0].says.clone().unwrap_err();
        assert_eq!(why, reason, "{text}");
        assert!(!text.is_empty());
        assert_eq!(sample.fullest(&sample.visible), Reading::Unknown(reason));
        assert_eq!(sample.has_none(), reason == Why::NoDriver);
    }
}

#[test]
fn a_card_that_is_lost_comes_back_when_the_library_is_asked_anew() {
    let card = |code: i32| json!({"devices": [{"uuid": "GPU-aa", "total": GIB, "memory": code}]});
    let machine = Machine::with_nvml(&card(0));
    let mut places = machine.places();
    places.retry = Duration::from_millis(200);
    let mut gpu = Gpu::watch(places).unwrap();
    assert!(sample(&mut gpu).devices[0].memory.known().is_some());
    machine.say(&card(15));
    assert_eq!(why(&sample(&mut gpu)), Some(Why::Lost));
    machine.say(&card(0));
    let end = clock::now().after(SOON);
    loop {
        let seen = sample(&mut gpu);
        if seen.devices.first().is_some_and(|card| card.memory.known().is_some()) {
            break;
        }
        // Until then nobody asks a library that has failed, and it is still known why.
        assert_eq!(seen.fullest(&seen.visible), Reading::Unknown(Why::Lost));
        assert!(clock::now() < end, "the library was not loaded again");
    }
}
