//! AMD's and Intel's cards, by folders that hold the kernel's bytes.

use oomguard_core::{Bytes, Reading, Why};
use oomguard_sys::gpu::{Holder, Memory, Vendor};

use super::{Machine, why};

const CARD: &str = "sys/class/drm/card1/device";

/// An AMD card of 16 GiB.
fn amd(total: &str, used: &str) -> Machine {
    let machine = Machine::new();
    machine.put(&format!("{CARD}/vendor"), "0x1002\n");
    machine.put(&format!("{CARD}/uevent"), "DRIVER=amdgpu\nPCI_CLASS=30000\nPCI_SLOT_NAME=0000:03:00.0\n");
    machine.put(&format!("{CARD}/unique_id"), "5f1c63e6a2d1b0aa\n");
    machine.put(&format!("{CARD}/mem_info_vram_total"), total);
    machine.put(&format!("{CARD}/mem_info_vram_used"), used);
    machine.put("sys/class/drm/card1-DP-1/status", "disconnected\n");
    machine.put("sys/class/drm/version", "drm 1.1.0 20060810\n");
    machine
}

/// An open card of a process.
fn client(machine: &Machine, pid: u32, fd: u32, id: u64, bus: &str, lines: &str) {
    machine.link(&format!("proc/{pid}/fd/{fd}"), "/dev/dri/renderD128");
    let text = format!(
        "pos:\t0\nflags:\t02100002\nmnt_id:\t28\nino:\t714\ndrm-driver:\tamdgpu\ndrm-client-id:\t{id}\n\
         drm-pdev:\t{bus}\n{lines}"
    );
    machine.put(&format!("proc/{pid}/fdinfo/{fd}"), &text);
}

#[test]
fn amds_card_says_what_it_has_and_its_processes_what_they_hold() {
    let machine = amd("17163091968\n", "1073741824\n");
    client(&machine, 77, 5, 1, "0000:03:00.0", "drm-memory-vram:\t1024 KiB\n");
    // The same client, inherited by a child; and another one of it.
    client(&machine, 78, 5, 1, "0000:03:00.0", "drm-memory-vram:\t1024 KiB\n");
    client(&machine, 78, 6, 2, "0000:03:00.0", "drm-memory-vram:\t8 MiB\n");
    client(&machine, 79, 5, 3, "0000:43:00.0", "drm-memory-vram:\t64 MiB\n");
    machine.link("proc/80/fd/0", "/dev/null");
    machine.put("proc/80/fdinfo/0", "pos:\t0\nflags:\t02\n");
    let sample = machine.read();
    assert_eq!(sample.devices.len(), 1, "connectors are no cards");
    let card = &sample.devices[0];
    assert_eq!((card.vendor, card.uuid.as_str()), (Vendor::Amd, "GPU-5f1c63e6a2d1b0aa"));
    let total = Bytes(17163091968);
    let memory = Memory { total, used: Bytes::gib(1), free: total.minus(Bytes::gib(1)) };
    assert_eq!(card.memory, Reading::Known(memory));
    let holders = [
        Holder { pid: 77, used: Reading::Known(Bytes::kib(1024)) },
        Holder { pid: 78, used: Reading::Known(Bytes::mib(8)) },
    ];
    assert_eq!(card.holders.as_deref(), Ok(&holders[..]));
}

#[test]
fn what_sysfs_does_not_say_is_not_known() {
    assert_eq!(why(&amd("17163091968", "0\n").read()), Some(Why::Malformed), "a number cut short");
    assert_eq!(why(&amd("17163091968\n", "").read()), Some(Why::Malformed));
    assert_eq!(why(&amd("1024\n", "2048\n").read()), Some(Why::Malformed), "more used than there is");
    let machine = amd("1\n", "0\n");
    std::fs::remove_file(machine.path(&format!("{CARD}/mem_info_vram_total"))).unwrap();
    assert_eq!(why(&machine.read()), Some(Why::NotSupported));
}

#[test]
fn intels_card_tells_only_who_holds_it() {
    let machine = Machine::new();
    machine.put("sys/class/drm/card0/device/vendor", "0x8086\n");
    machine.put("sys/class/drm/card0/device/uevent", "DRIVER=xe\nPCI_SLOT_NAME=0000:03:00.0\n");
    let lines = "drm-total-vram0:\t9 MiB\ndrm-resident-vram0:\t7 MiB\ndrm-resident-gtt:\t90 MiB\n";
    client(&machine, 9, 4, 1, "0000:03:00.0", lines);
    client(&machine, 10, 4, 2, "0000:03:00.0", "drm-engine-render:\t9 ns\n");
    let sample = machine.read();
    let card = &sample.devices[0];
    assert_eq!((card.vendor, card.memory), (Vendor::Intel, Reading::Unknown(Why::NotSupported)));
    assert_eq!(card.used_by(|pid| pid == 9), Reading::Known(Bytes::mib(7)));
    assert_eq!(card.used_by(|pid| pid == 10), Reading::Unknown(Why::NotSupported));
    assert!(!sample.has_none());
    assert_eq!(sample.fullest(&sample.visible), Reading::Unknown(Why::NotSupported));
}

#[test]
fn nvidias_cards_are_left_to_nvidias_library() {
    let machine = Machine::new();
    machine.put("sys/class/drm/card0/device/vendor", "0x10de\n");
    assert!(machine.read().has_none());
}
