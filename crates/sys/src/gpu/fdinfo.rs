//! Who holds memory of a card that the kernel drives, as `/proc/PID/fdinfo` tells (Linux 5.19; AMD, Intel's i915 and xe).
//!
//! Touches the `fd` and `fdinfo` folders of every process that we may read: some 10 us a process and 3 us an open file.
//! Never opens a device.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use oomguard_core::{Bytes, Reading, Why};

use super::{Device, Holder};

/// What one open card says: whose it is, which client, how much of the card's own memory.
#[derive(Debug, PartialEq, Eq)]
struct Client {
    bus: String,
    id: u64,
    vram: Option<Bytes>,
}

/// Fills in who holds these cards.
pub(super) fn read(proc: &Path, devices: &mut [Device]) {
    let mut seen: BTreeSet<(String, u64)> = BTreeSet::new();
    let mut held: BTreeMap<(String, u32), Reading<Bytes>> = BTreeMap::new();
    for pid in pids(proc) {
        let dir = proc.join(pid.to_string());
        // Another user's, or gone.
        let fds = std::fs::read_dir(dir.join("fd")).into_iter().flatten();
        for fd in fds.flatten() {
            let to = std::fs::read_link(fd.path()).unwrap_or_default();
            if !to.starts_with("/dev/dri") {
                continue;
            }
            // Whatever cannot be read is closed by now.
            let text = std::fs::read_to_string(dir.join("fdinfo").join(fd.file_name())).unwrap_or_default();
            let Some(client) = parse(&text) else { continue };
            // A descriptor that was inherited or duplicated is the same client.
            if !seen.insert((client.bus.clone(), client.id)) {
                continue;
            }
            let used = client.vram.map_or(Reading::Unknown(Why::NotSupported), Reading::Known);
            let sum = held.entry((client.bus, pid)).or_insert(Reading::Known(Bytes::ZERO));
            *sum = match (*sum, used) {
                (Reading::Known(sum), Reading::Known(more)) => Reading::Known(sum.plus(more)),
                (Reading::Unknown(why), _) | (_, Reading::Unknown(why)) => Reading::Unknown(why),
            };
        }
    }
    for device in devices {
        let of = |((bus, pid), used): (&(String, u32), &Reading<Bytes>)| {
            (*bus == device.bus).then_some(Holder { pid: *pid, used: *used })
        };
        device.holders = Ok(held.iter().filter_map(of).collect());
    }
}

/// The lowest number first: who opened a card has a lower one than who inherited it.
fn pids(proc: &Path) -> Vec<u32> {
    let entries = std::fs::read_dir(proc).into_iter().flatten().flatten();
    let mut pids: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

/// `None`: no card, or a text that was cut short.
fn parse(text: &str) -> Option<Client> {
    let (mut bus, mut id) = (None, None);
    // What is in the card now; what older kernels say for it; all that was asked for.
    let (mut resident, mut memory, mut total) = (None, None, None);
    for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match key {
            "drm-pdev" => bus = Some(value.to_owned()),
            "drm-client-id" => id = value.parse().ok(),
            _ => {
                for (prefix, sum) in [
                    ("drm-resident-", &mut resident),
                    ("drm-memory-", &mut memory),
                    ("drm-total-", &mut total),
                ] {
                    // `vram`, `vram0`, `vram1` (AMD, xe), `local0` (i915): all others are the machine's own memory.
                    let region = key.strip_prefix(prefix).unwrap_or_default();
                    if region.starts_with("vram") || region.starts_with("local") {
                        *sum = Some(sum.unwrap_or(Bytes::ZERO).plus(size(value)?));
                    }
                }
            }
        }
    }
    Some(Client { bus: bus?, id: id?, vram: resident.or(memory).or(total) })
}

fn size(text: &str) -> Option<Bytes> {
    let mut words = text.split_ascii_whitespace();
    let number: u64 = words.next()?.parse().ok()?;
    match words.next() {
        None => Some(Bytes(number)),
        Some("KiB") => Some(Bytes::kib(number)),
        Some("MiB") => Some(Bytes::mib(number)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "pos:\t0\nflags:\t02100002\nmnt_id:\t28\nino:\t714\ndrm-driver:\tamdgpu\n\
                        drm-client-id:\t42\ndrm-pdev:\t0000:03:00.0\npasid:\t32770\n";

    fn vram(lines: &str) -> Option<Option<Bytes>> {
        parse(&format!("{HEAD}{lines}")).map(|client| client.vram)
    }

    #[test]
    fn what_is_in_the_card_counts_before_what_was_asked_for() {
        let lines = "drm-total-vram:\t900 KiB\ndrm-shared-vram:\t0\ndrm-memory-vram:\t800 KiB\n\
                     drm-resident-vram:\t700 KiB\ndrm-total-gtt:\t9 MiB\n";
        assert_eq!(vram(lines), Some(Some(Bytes::kib(700))));
        assert_eq!(vram("drm-memory-vram:\t8 MiB\ndrm-memory-gtt: \t7 KiB\n"), Some(Some(Bytes::mib(8))));
        assert_eq!(vram("drm-total-local0:\t4096\ndrm-total-system0:\t9 MiB\n"), Some(Some(Bytes(4096))));
        assert_eq!(
            vram("drm-resident-vram0:\t1 MiB\ndrm-resident-vram1:\t2 MiB\n"),
            Some(Some(Bytes::mib(3)))
        );
    }

    #[test]
    fn nothing_said_is_not_nothing_held() {
        assert_eq!(vram("drm-engine-gfx:\t123 ns\n"), Some(None));
        assert_eq!(vram("drm-memory-vram:\t12 furlongs\n"), None);
        assert_eq!(vram("drm-memory-vram:\t-1 KiB\n"), None);
        assert_eq!(parse("pos:\t0\nflags:\t02\n"), None);
        assert_eq!(parse("drm-client-id:\t42\ndrm-pdev:\t0000:03:00.0"), None, "cut short");
    }
}
