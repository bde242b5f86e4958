//! NVIDIA's management library as a test wants it: every answer comes from `fake-nvml.json` beside this library.
//!
//! How often it was asked for memory stands in `questions`, beside it. The script is read again at every call, so a test changes the world by replacing it. Copies of the library have scripts
//! of their own.
//! Only the functions that oomguard calls are there, with the structures of `nvml.h`. Nothing here touches a driver.

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Deserialize;

type Return = c_int;
/// 0: none. Else 1 + index of the card, and in the upper half 1 + index of the instance in it.
type Handle = *mut c_void;

const SUCCESS: Return = 0;
const INVALID_ARGUMENT: Return = 2;
const NOT_SUPPORTED: Return = 3;
const NOT_FOUND: Return = 6;
const INSUFFICIENT_SIZE: Return = 7;
const UNKNOWN: Return = 999;
const NOT_AVAILABLE: c_ulonglong = c_ulonglong::MAX;

/// What the library is to say.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Script {
    /// What `nvmlInit` returns.
    init: Return,
    /// The driver's version.
    driver: String,
    /// The call of this name never returns: `init`, `memory`, `processes`.
    hang: Option<String>,
    /// The cards.
    devices: Vec<Device>,
}

/// A card, or an instance in one.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Device {
    uuid: String,
    name: String,
    total: u64,
    used: u64,
    /// Added to `used` at every further question for it.
    growth: u64,
    /// What the question for memory returns.
    memory: Return,
    /// What the question for processes returns.
    list: Return,
    /// Processes that compute.
    compute: Vec<Process>,
    /// Processes that draw.
    graphics: Vec<Process>,
    /// Instances of a divided card.
    instances: Vec<Device>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Process {
    pid: u32,
    /// Absent: the driver does not know.
    used: Option<u64>,
}

/// `nvmlMemory_v2_t`.
#[repr(C)]
#[derive(Debug)]
pub struct Memory {
    version: c_uint,
    total: c_ulonglong,
    reserved: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

/// `nvmlProcessInfo_t`.
#[repr(C)]
#[derive(Debug)]
pub struct ProcessInfo {
    pid: c_uint,
    used: c_ulonglong,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

/// `nvmlPciInfo_t`.
#[repr(C)]
#[derive(Debug)]
pub struct PciInfo {
    bus_id_legacy: [c_char; 16],
    domain: c_uint,
    bus: c_uint,
    device: c_uint,
    pci_device_id: c_uint,
    pci_subsystem_id: c_uint,
    bus_id: [c_char; 32],
}

static QUESTIONS: AtomicU64 = AtomicU64::new(0);

/// Where this copy of the library lies.
fn here() -> Option<PathBuf> {
    // SAFETY: all zeroes are a valid `Dl_info`; the address is one of this library's own.
    unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        let found = libc::dladdr(nvmlInit_v2 as *const c_void, &mut info);
        if found == 0 || info.dli_fname.is_null() {
            return None;
        }
        Some(PathBuf::from(CStr::from_ptr(info.dli_fname).to_str().ok()?))
    }
}

/// The script as it is now. What cannot be read is said on stderr, because a panic would not get through C.
fn script() -> Result<Script, Return> {
    let read = || {
        let path = here().ok_or("the library cannot find itself")?.with_file_name("fake-nvml.json");
        let text = std::fs::read(&path).map_err(|error| format!("{path:?}: {error}"))?;
        serde_json::from_slice(&text).map_err(|error| format!("{path:?}: {error}"))
    };
    read().map_err(|error: String| {
        eprintln!("fake-nvml: {error}");
        UNKNOWN
    })
}

/// Does not come back where the script says so.
fn answer(call: &str) -> Result<Script, Return> {
    let script = script()?;
    while script.hang.as_deref() == Some(call) {
        std::thread::park_timeout(Duration::from_secs(3600));
    }
    Ok(script)
}

fn device(script: Script, handle: Handle) -> Result<Device, Return> {
    let number = handle as u64;
    let (card, instance) = ((number & 0xFFFF) as usize, (number >> 16) as usize);
    let card = script.devices.into_iter().nth(card.wrapping_sub(1)).ok_or(INVALID_ARGUMENT)?;
    match instance {
        0 => Ok(card),
        _ => card.instances.into_iter().nth(instance - 1).ok_or(INVALID_ARGUMENT),
    }
}

/// Writes an answer where the caller wants it.
fn put<T>(to: *mut T, value: Result<T, Return>) -> Return {
    match value {
        Ok(_) if to.is_null() => INVALID_ARGUMENT,
        Ok(value) => {
            // SAFETY: NVML's contract: a pointer of the function's type, checked not to be null.
            unsafe { to.write(value) };
            SUCCESS
        }
        Err(code) => code,
    }
}

/// Writes a string with its NUL, if it fits.
fn put_text(to: *mut c_char, size: c_uint, text: Result<String, Return>) -> Return {
    match text {
        Err(code) => code,
        Ok(text) if text.len() >= size as usize => INSUFFICIENT_SIZE,
        Ok(text) => {
            // SAFETY: NVML's contract: a buffer of `size` bytes; text and NUL are no more.
            unsafe {
                std::ptr::copy_nonoverlapping(text.as_ptr().cast(), to, text.len());
                to.add(text.len()).write(0);
            }
            SUCCESS
        }
    }
}

/// `nvmlInit_v2`.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> Return {
    answer("init").map_or_else(|code| code, |script| script.init)
}

/// `nvmlShutdown`.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> Return {
    SUCCESS
}

/// `nvmlSystemGetDriverVersion`.
///
/// # Safety
///
/// As `nvml.h` says: pointers to what their types name, null where a function takes that, sizes that are true.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(to: *mut c_char, size: c_uint) -> Return {
    put_text(to, size, script().map(|script| script.driver))
}

/// `nvmlDeviceGetCount_v2`.
///
/// # Safety
///
/// As `nvml.h` says: pointers to what their types name, null where a function takes that, sizes that are true.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(to: *mut c_uint) -> Return {
    put(to, script().map(|script| script.devices.len() as c_uint))
}

/// `nvmlDeviceGetHandleByIndex_v2`.
///
/// # Safety
///
/// As `nvml.h` says: pointers to what their types name, null where a function takes that, sizes that are true.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, to: *mut Handle) -> Return {
    let handle = script().and_then(|script| match (index as usize) < script.devices.len() {
        true => Ok((index as usize + 1) as Handle),
        false => Err(INVALID_ARGUMENT),
    });
    put(to, handle)
}

/// `nvmlDeviceGetUUID`.
///
/// # Safety
///
/// As `nvml.h` says: pointers to what their types name, null where a function takes that, sizes that are true.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(handle: Handle, to: *mut c_char, size: c_uint) -> Return {
    put_text(to, size, script().and_then(|script| device(script, handle)).map(|it| it.uuid))
}

/// `nvmlDeviceGetName`.
///
/// # Safety
///
/// As `nvml.h` says: pointers to what their types name, null where a function takes that, sizes that are true.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(handle: Handle, to: *mut c_char, size: c_uint) -> Return {
    put_text(to, size, script().and_then(|script| device(script, handle)).map(|it| it.name))
}

/// `nvmlDeviceGetPciInfo_v3`.
///
/// # Safety
///
/// As `nvml.h` says: pointers to what their types name, null where a function takes that, sizes that are true.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(handle: Handle, to: *mut PciInfo) -> Return {
    let bus = (handle as u64 & 0xFFFF) as c_uint;
    let text = format!("00000000:{bus:02X}:00.0");
    let mut info = PciInfo {
        bus_id_legacy: [0; 16],
        domain: 0,
        bus,
        device: 0,
        pci_device_id: 0x2330_10DE,
        pci_subsystem_id: 0,
        bus_id: [0; 32],
    };
    for (to, byte) in info.bus_id.iter_mut().zip(text.bytes()) {
        *to = byte as c_char;
    }
    put(to, Ok(info))
}

/// `nvmlDeviceGetMemoryInfo_v2`.
///
/// # Safety
///
/// As `nvml.h` says: pointers to what their types name, null where a function takes that, sizes that are true.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(handle: Handle, to: *mut Memory) -> Return {
    // The real one looks at the version that the caller has filled in.
    const VERSION: c_uint = size_of::<Memory>() as c_uint | 2 << 24;
    // SAFETY: NVML's contract: null, or a structure whose version is filled in.
    if to.is_null() || unsafe { (*to).version } != VERSION {
        return INVALID_ARGUMENT;
    }
    let answer = answer("memory");
    let asked = QUESTIONS.fetch_add(1, Ordering::Relaxed);
    if let Some(here) = here() {
        // Whoever cannot read it waits in vain, and says so.
        let _ = std::fs::write(here.with_file_name("questions"), format!("{asked}\n"));
    }
    let memory = answer.and_then(|script| device(script, handle)).and_then(|it| match it.memory {
        SUCCESS => {
            let grown = it.growth * asked;
            let used = (it.used + grown).min(it.total);
            Ok(Memory { version: VERSION, total: it.total, reserved: 0, free: it.total - used, used })
        }
        code => Err(code),
    });
    put(to, memory)
}

/// Both lists have the same form: with too small a buffer the size that is needed, and an error.
fn list(
    handle: Handle,
    count: *mut c_uint,
    to: *mut ProcessInfo,
    which: fn(Device) -> Vec<Process>,
) -> Return {
    let device = match answer("processes").and_then(|script| device(script, handle)) {
        Ok(device) if device.list == SUCCESS => device,
        Ok(device) => return device.list,
        Err(code) => return code,
    };
    let all = which(device);
    // SAFETY: NVML's contract: `count` is the size of `to` in elements, and is written back.
    unsafe {
        let room = *count as usize;
        *count = all.len() as c_uint;
        if room < all.len() {
            return INSUFFICIENT_SIZE;
        }
        for (index, process) in all.iter().enumerate() {
            to.add(index).write(ProcessInfo {
                pid: process.pid,
                used: process.used.unwrap_or(NOT_AVAILABLE),
                gpu_instance: c_uint::MAX,
                compute_instance: c_uint::MAX,
            });
        }
    }
    SUCCESS
}

/// `nvmlDeviceGetComputeRunningProcesses_v3`.
///
/// # Safety
///
/// As `nvml.h` says: pointers to what their types name, null where a function takes that, sizes that are true.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    handle: Handle,
    count: *mut c_uint,
    to: *mut ProcessInfo,
) -> Return {
    list(handle, count, to, |device| device.compute)
}

/// `nvmlDeviceGetGraphicsRunningProcesses_v3`.
///
/// # Safety
///
/// As `nvml.h` says: pointers to what their types name, null where a function takes that, sizes that are true.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGraphicsRunningProcesses_v3(
    handle: Handle,
    count: *mut c_uint,
    to: *mut ProcessInfo,
) -> Return {
    list(handle, count, to, |device| device.graphics)
}

/// `nvmlDeviceGetMaxMigDeviceCount`.
///
/// # Safety
///
/// As `nvml.h` says: pointers to what their types name, null where a function takes that, sizes that are true.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxMigDeviceCount(handle: Handle, to: *mut c_uint) -> Return {
    // As on a card that can be divided and is not: 0; on one that cannot: not supported.
    let count = script().and_then(|script| device(script, handle)).and_then(|it| match it.instances.len() {
        0 => Err(NOT_SUPPORTED),
        // There is room for one more than there are.
        count => Ok(count as c_uint + 1),
    });
    put(to, count)
}

/// `nvmlDeviceGetMigDeviceHandleByIndex`.
///
/// # Safety
///
/// As `nvml.h` says: pointers to what their types name, null where a function takes that, sizes that are true.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    handle: Handle,
    index: c_uint,
    to: *mut Handle,
) -> Return {
    let instance = script().and_then(|script| device(script, handle)).and_then(|it| {
        let there = (index as usize) < it.instances.len();
        there.then(|| (handle as u64 | (u64::from(index) + 1) << 16) as Handle).ok_or(NOT_FOUND)
    });
    put(to, instance)
}
