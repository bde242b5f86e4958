//! NVIDIA's devices by `nvidia-smi`, where the library cannot be loaded or is too old to be asked.
//!
//! Touches that program, twice a reading; some 100 ms each. Whatever takes too long is killed. Never used where the
//! library answers.

use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use oomguard_core::{Bytes, Reading, Why};

use super::{Device, Holder, Memory, Vendor};
use crate::clock;
use crate::process::{Process, Signal};
use crate::wait::{Interest, until_ready};

const DEVICES: &str =
    "--query-gpu=index,uuid,pci.bus_id,name,memory.total,memory.used,memory.free,driver_version";
const PROCESSES: &str = "--query-compute-apps=pid,used_memory,gpu_uuid";
/// More than it has ever to say.
const LONGEST: usize = 1 << 20;

/// Adds all cards; gives the driver's version.
pub(super) fn read(
    program: &Path,
    patience: Duration,
    devices: &mut Vec<Device>,
) -> Result<String, (Why, String)> {
    let text = ask(program, DEVICES, patience)?;
    let bad = || (Why::Malformed, format!("`nvidia-smi` said {:?}", text.lines().next().unwrap_or_default()));
    let (found, version) = parse_devices(&text).ok_or_else(bad)?;
    let first = devices.len();
    devices.extend(found);
    let holders = ask(program, PROCESSES, patience).map_err(|(why, _)| why);
    let holders = holders.and_then(|text| parse_processes(&text).ok_or(Why::Malformed));
    for device in &mut devices[first..] {
        device.holders = match &holders {
            Ok(all) => Ok(all.iter().filter(|(uuid, _)| *uuid == device.uuid).map(|(_, it)| *it).collect()),
            Err(why) => Err(*why),
        };
    }
    Ok(version)
}

/// What it says to one question.
fn ask(program: &Path, question: &str, patience: Duration) -> Result<String, (Why, String)> {
    let failed = |doing: &str, error: std::io::Error| {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => Why::NoDriver,
            std::io::ErrorKind::PermissionDenied => Why::NoPermission,
            _ => Why::Errno(error.raw_os_error().unwrap_or_default()),
        };
        (why, format!("could not {doing} `{}`: {error}", program.display()))
    };
    let mut child = Command::new(program)
        .args([question, "--format=csv,noheader,nounits"])
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed("start", error))?;
    let process = Process::open(child.id());
    let text = child.stdout.take().map_or_else(|| Ok(Vec::new()), |out| listen(out, patience));
    // Somebody else in this process may have reaped it; then its number may be another's by now.
    if let Ok(process) = &process {
        if text.is_err() || !process.wait_exit(patience).unwrap_or(false) {
            let _ = process.signal(Signal::KILL);
        }
        let _ = process.wait_exit(patience);
    }
    let status = child.try_wait();
    let text = text.map_err(|error| match error.kind() {
        std::io::ErrorKind::TimedOut => {
            (Why::NoAnswer, format!("`{}` had not answered after {patience:?}: killed", program.display()))
        }
        _ => failed("read what is said by", error),
    })?;
    let text = String::from_utf8_lossy(&text).into_owned();
    match status {
        // It says why on stdout.
        Ok(Some(status)) if !status.success() => Err(refused(status.code().unwrap_or(-1), &text)),
        _ => Ok(text),
    }
}

/// Its exit codes, where they mean something to us.
fn refused(code: i32, text: &str) -> (Why, String) {
    let why = match code {
        3 => Why::NotSupported,
        4 => Why::NoPermission,
        6 => Why::Vanished,
        9 | 12 => Why::NoDriver,
        15 => Why::Lost,
        18 => Why::Mismatch,
        code => Why::Driver(code),
    };
    let line = text.lines().next().unwrap_or_default();
    (why, format!("`nvidia-smi` ended with {code}: {line}"))
}

/// All that comes until the end, or an error after `patience`.
fn listen(mut out: std::process::ChildStdout, patience: Duration) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let end = clock::now().after(patience);
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let ready = until_ready(out.as_fd(), Interest::Read, end).map_err(std::io::Error::other)?;
        if !ready || text.len() > LONGEST {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        match out.read(&mut buffer)? {
            0 => return Ok(text),
            count => text.extend_from_slice(&buffer[..count]),
        }
    }
}

/// MiB, or the driver's word for "I do not know".
fn mib(text: &str) -> Option<Reading<Bytes>> {
    match text {
        "[N/A]" | "N/A" | "[Not Supported]" | "[Not Available]" => Some(Reading::Unknown(Why::NotSupported)),
        "[Insufficient Permissions]" => Some(Reading::Unknown(Why::NoPermission)),
        "[GPU is lost]" | "[GPU requires reset]" | "[Unknown Error]" => Some(Reading::Unknown(Why::Lost)),
        text => text.parse().ok().map(|mib| Reading::Known(Bytes::mib(mib))),
    }
}

/// One line a card. A name may hold a comma, numbers and identifiers never do.
fn parse_devices(text: &str) -> Option<(Vec<Device>, String)> {
    let mut devices = Vec::new();
    let mut version = String::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let words: Vec<&str> = line.split(", ").map(str::trim).collect();
        let (&[index, uuid, bus], rest) = words.split_first_chunk::<3>()?;
        let (name, &[total, used, free, driver]) = rest.split_last_chunk::<4>()?;
        let memory = match (mib(total)?, mib(used)?, mib(free)?) {
            (Reading::Known(total), Reading::Known(used), Reading::Known(free)) => {
                Reading::Known(Memory { total, used, free })
            }
            (Reading::Unknown(why), ..) | (_, Reading::Unknown(why), _) | (.., Reading::Unknown(why)) => {
                Reading::Unknown(why)
            }
        };
        version = driver.to_owned();
        devices.push(Device {
            vendor: Vendor::Nvidia,
            index: index.parse().ok()?,
            card: None,
            // Its instances cannot be asked for in this way.
            divided: false,
            uuid: uuid.to_owned(),
            name: name.join(", "),
            bus: bus.to_owned(),
            memory,
            holders: Err(Why::NotYet),
        });
    }
    Some((devices, version))
}

/// One line a process: which card, who, how much. Only those that compute.
fn parse_processes(text: &str) -> Option<Vec<(String, Holder)>> {
    let mut all = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let mut words = line.split(',').map(str::trim);
        let (pid, used, uuid) = (words.next()?, words.next()?, words.next()?);
        all.push((uuid.to_owned(), Holder { pid: pid.parse().ok()?, used: mib(used)? }));
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_a_line() {
        let text = "0, GPU-5f1c, 00000000:17:00.0, NVIDIA H200, 143771, 12042, 131014, 550.54.15\n\
                    1, GPU-77aa, 00000000:65:00.0, NVIDIA A, B, [N/A], [N/A], [N/A], 550.54.15\n";
        let (devices, version) = parse_devices(text).unwrap();
        assert_eq!(version, "550.54.15");
        let memory = devices[0].memory.known().unwrap();
        assert_eq!((memory.total, memory.used), (Bytes::mib(143771), Bytes::mib(12042)));
        assert_eq!((devices[1].name.as_str(), devices[1].index), ("NVIDIA A, B", 1));
        assert_eq!(devices[1].memory, Reading::Unknown(Why::NotSupported));
    }

    #[test]
    fn what_is_no_answer_is_not_believed() {
        assert_eq!(parse_devices("NVIDIA-SMI has failed because it couldn't communicate\n"), None);
        assert_eq!(parse_devices("0, GPU-5f1c, 00000000:17:00.0, H200, 143771, 12042\n"), None);
        assert_eq!(parse_devices("0, GPU-5f1c, 0:17, H200, -1, 12042, 1, 550\n"), None);
        assert_eq!(parse_processes("1234, 55\n"), None);
        assert_eq!(parse_devices(""), Some((Vec::new(), String::new())));
    }

    #[test]
    fn a_process_without_a_number_is_still_there() {
        let all = parse_processes("4711, 812, GPU-5f1c\n4712, [N/A], GPU-5f1c\n").unwrap();
        assert_eq!(all[0].1, Holder { pid: 4711, used: Reading::Known(Bytes::mib(812)) });
        assert_eq!(all[1].1, Holder { pid: 4712, used: Reading::Unknown(Why::NotSupported) });
    }
}
