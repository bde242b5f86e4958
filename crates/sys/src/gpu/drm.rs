//! The graphics cards that the kernel itself drives: AMD's and Intel's.
//!
//! Touches `/sys/class/drm/card*`. NVIDIA's are left to NVIDIA's library. Where there is no such card, this is one
//! directory listing.

use std::io;
use std::path::Path;

use oomguard_core::{Reading, Why};

use super::{Device, Vendor, amd, fdinfo};

const AMD: &str = "0x1002";
const INTEL: &str = "0x8086";

/// An error about a file of the kernel's.
pub(super) fn why(error: &io::Error) -> Why {
    match error.kind() {
        io::ErrorKind::NotFound => Why::NotSupported,
        io::ErrorKind::PermissionDenied => Why::NoPermission,
        io::ErrorKind::InvalidData => Why::Malformed,
        _ => error.raw_os_error().map_or(Why::Malformed, Why::Errno),
    }
}

/// Adds all cards with what their processes hold. Some 20 us a card, and some 10 us a process where there is one.
pub(super) fn read(sys: &Path, proc: &Path, devices: &mut Vec<Device>) {
    let class = sys.join("class/drm");
    let first = devices.len();
    let entries = std::fs::read_dir(&class).into_iter().flatten().flatten();
    let mut cards: Vec<u32> =
        entries.filter_map(|entry| entry.file_name().to_str()?.strip_prefix("card")?.parse().ok()).collect();
    cards.sort_unstable();
    for index in cards {
        let device = class.join(format!("card{index}/device"));
        devices.extend(card(index, &device));
    }
    if devices.len() > first {
        fdinfo::read(proc, &mut devices[first..]);
    }
}

fn card(index: u32, device: &Path) -> Option<Device> {
    let text = |name: &str| std::fs::read_to_string(device.join(name)).unwrap_or_default();
    let (vendor, memory) = match text("vendor").trim() {
        AMD => (Vendor::Amd, amd::memory(device)),
        // Neither of Intel's drivers says in sysfs how much there is; processes say what they hold.
        INTEL => (Vendor::Intel, Reading::Unknown(Why::NotSupported)),
        _ => return None,
    };
    let bus = text("uevent").lines().find_map(|line| Some(line.strip_prefix("PCI_SLOT_NAME=")?.to_owned()));
    let (uuid, name) = match vendor {
        Vendor::Amd => (amd::uuid(device), amd::name(device)),
        _ => (String::new(), String::new()),
    };
    Some(Device {
        vendor,
        index,
        card: None,
        divided: false,
        uuid,
        name,
        bus: bus.unwrap_or_default(),
        memory,
        holders: Err(Why::NotYet),
    })
}
