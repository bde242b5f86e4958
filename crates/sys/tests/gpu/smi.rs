//! `nvidia-smi`, where the library is missing: a real program that says what the test wants.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use oomguard_core::{Bytes, Reading, Why};
use oomguard_sys::clock;
use oomguard_sys::gpu::{Gpu, Holder};

use super::{Machine, SOON};

fn program(text: &str) -> Machine {
    let machine = Machine::new();
    machine.put("nvidia-smi", &format!("#!/bin/sh\n{text}\n"));
    let runs = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(machine.path("nvidia-smi"), runs).unwrap();
    machine
}

const ANSWERS: &str = r#"
[ "$2" = --format=csv,noheader,nounits ] || exit 2
case $1 in
--query-gpu=*) echo '0, GPU-aa, 00000000:17:00.0, NVIDIA H200, 143771, 2042, 141014, 550.54.15';;
--query-compute-apps=pid,used_memory,gpu_uuid) echo '4711, 812, GPU-aa'; echo '4712, 5, GPU-bb';;
*) exit 2;;
esac"#;

#[test]
fn it_answers_where_the_library_cannot_be_loaded() {
    let sample = program(ANSWERS).read();
    assert!(matches!(sample.drivers[0].says, Err((Why::NoDriver, _))));
    assert_eq!(
        (sample.drivers[1].name, sample.drivers[1].says.clone()),
        ("nvidia-smi", Ok("550.54.15".to_owned()))
    );
    let card = &sample.devices[0];
    assert_eq!(card.memory.known().unwrap().total, Bytes::mib(143771));
    let holder = Holder { pid: 4711, used: Reading::Known(Bytes::mib(812)) };
    assert_eq!(card.holders.as_deref(), Ok(&[holder][..]));
}

#[test]
fn what_it_refuses_is_a_reading_with_its_reason() {
    for (code, reason) in [(9, Why::NoDriver), (15, Why::Lost), (4, Why::NoPermission), (77, Why::Driver(77))]
    {
        let sample = program(&format!("echo 'Unable to do that'; exit {code}")).read();
        let said = sample.drivers.iter().find(|it| it.name == "nvidia-smi");
        match (reason, said) {
            // It is installed without a driver.
            (Why::NoDriver, None) => assert!(sample.has_none()),
            (_, said) => {
                let (why, text) = said.unwrap().says.clone().unwrap_err();
                assert_eq!(why, reason);
                assert!(text.contains("Unable to do that"), "{text}");
            }
        }
    }
}

#[test]
fn an_answer_in_other_words_is_not_believed() {
    let sample = program("echo 'No devices were found'").read();
    let (why, text) = sample.drivers[1].says.clone().unwrap_err();
    assert_eq!(why, Why::Malformed);
    assert!(text.contains("No devices were found"), "{text}");
}

#[test]
fn one_that_never_answers_is_killed() {
    let machine = program("kill -STOP $$");
    let mut places = machine.places();
    places.smi_patience = Duration::from_millis(300);
    let mut gpu = Gpu::watch(places).unwrap();
    let sample = gpu.read_now(clock::now().after(SOON)).known().unwrap().clone();
    let (why, text) = sample.drivers[1].says.clone().unwrap_err();
    assert_eq!(why, Why::NoAnswer, "{text}");
    let own = machine.path("nvidia-smi").into_os_string().into_encoded_bytes();
    let runs = |entry: std::fs::DirEntry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        line.windows(own.len()).any(|part| part == own)
    };
    // The watcher may have asked it once more meanwhile; that one is killed, too.
    gpu.park(true);
    let end = clock::now().after(SOON);
    while std::fs::read_dir("/proc").unwrap().flatten().any(runs) {
        assert!(clock::now() < end, "it still runs");
        std::thread::yield_now();
    }
}
