//! NVIDIA's devices by its own library.
//!
//! Touches `libnvidia-ml.so.1` through `nvml-wrapper`. A call takes some 10 us to some ms, and for ever where the driver
//! hangs: only the watcher's thread may come here. Never keeps a device's handle: they die with a reset.

use std::collections::BTreeMap;
use std::path::Path;

use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::{Device as Handle, Nvml};
use oomguard_core::{Bytes, Reading, Why};

use super::{Device, Holder, Memory, Vendor};

/// The library, initialised.
pub(super) struct Library {
    nvml: Nvml,
    version: String,
}

/// The library's errors in our words.
pub(super) fn why(error: &NvmlError) -> Why {
    match error {
        NvmlError::LibloadingError(_)
        | NvmlError::DriverNotLoaded
        | NvmlError::LibraryNotFound
        | NvmlError::Uninitialized => Why::NoDriver,
        NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound => {
            Why::NotSupported
        }
        NvmlError::NoPermission | NvmlError::OperatingSystem => Why::NoPermission,
        NvmlError::GpuLost | NvmlError::ResetRequired => Why::Lost,
        NvmlError::LibRmVersionMismatch => Why::Mismatch,
        NvmlError::Timeout => Why::NoAnswer,
        NvmlError::NotFound => Why::Vanished,
        NvmlError::Utf8Error(_) | NvmlError::NulError(_) | NvmlError::UnexpectedVariant(_) => Why::Malformed,
        other => Why::Driver(code(other)),
    }
}

/// `nvmlReturn_t` of those that have no word of their own above.
fn code(error: &NvmlError) -> i32 {
    match error {
        NvmlError::InvalidArg => 2,
        NvmlError::InsufficientSize(_) => 7,
        NvmlError::InsufficientPower => 8,
        NvmlError::IrqIssue => 11,
        NvmlError::CorruptedInfoROM => 14,
        NvmlError::InUse => 19,
        NvmlError::InsufficientMemory => 20,
        NvmlError::NoData => 21,
        _ => 999,
    }
}

fn reading<T>(result: Result<T, NvmlError>) -> Reading<T> {
    match result {
        Ok(value) => Reading::Known(value),
        Err(error) => Reading::Unknown(why(&error)),
    }
}

impl Library {
    /// Loads and initialises it: some ms, seconds where cards must be woken.
    pub(super) fn open(path: &Path) -> Result<Library, (Why, String)> {
        let told = |error: NvmlError| (why(&error), error.to_string());
        let nvml = Nvml::builder().lib_path(path.as_os_str()).init().map_err(told)?;
        let version = nvml.sys_driver_version().map_err(told)?;
        Ok(Library { nvml, version })
    }

    /// The driver's version.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Adds all cards and their instances. An error: it knows of none, or not of itself.
    pub(super) fn read(&self, devices: &mut Vec<Device>) -> Result<(), (Why, String)> {
        let count = self.nvml.device_count().map_err(|error| (why(&error), error.to_string()))?;
        for index in 0..count {
            match self.nvml.device_by_index(index) {
                Ok(handle) => self.card(index, &handle, devices),
                Err(error) => devices.push(Device {
                    memory: Reading::Unknown(why(&error)),
                    holders: Err(why(&error)),
                    ..unread(index)
                }),
            }
        }
        Ok(())
    }

    fn card(&self, index: u32, handle: &Handle<'_>, devices: &mut Vec<Device>) {
        let place = devices.len();
        let bus = handle.pci_info().map(|pci| pci.bus_id).unwrap_or_default();
        devices.push(Device { bus: bus.clone(), ..read(index, handle) });
        // Not to be had on most cards, and 0 on those that are not divided.
        let most = handle.mig_device_count().unwrap_or(0);
        for number in 0..most {
            // There may be fewer than there is room for.
            let Ok(instance) = handle.mig_device_by_index(number) else { continue };
            devices[place].divided = true;
            devices.push(Device { card: Some(place), bus: bus.clone(), ..read(number, &instance) });
        }
    }
}

fn unread(index: u32) -> Device {
    Device {
        vendor: Vendor::Nvidia,
        index,
        card: None,
        divided: false,
        uuid: String::new(),
        name: String::new(),
        bus: String::new(),
        memory: Reading::Unknown(Why::NotYet),
        holders: Err(Why::NotYet),
    }
}

fn read(index: u32, handle: &Handle<'_>) -> Device {
    let memory = handle.memory_info().map(|memory| Memory {
        total: Bytes(memory.total),
        used: Bytes(memory.used),
        free: Bytes(memory.free),
    });
    Device {
        uuid: handle.uuid().unwrap_or_default(),
        name: handle.name().unwrap_or_default(),
        memory: reading(memory),
        holders: holders(handle),
        ..unread(index)
    }
}

/// Those that compute and those that draw; who does both is told twice, with the same number.
fn holders(handle: &Handle<'_>) -> Result<Vec<Holder>, Why> {
    let compute = handle.running_compute_processes();
    let graphics = handle.running_graphics_processes();
    let all = match (compute, graphics) {
        (Ok(compute), Ok(graphics)) => compute.into_iter().chain(graphics).collect(),
        // Instances know no graphics, and some old cards no computing.
        (Ok(known), Err(NvmlError::NotSupported)) | (Err(NvmlError::NotSupported), Ok(known)) => known,
        (Err(error), _) | (_, Err(error)) => return Err(why(&error)),
    };
    Ok(once(all))
}

fn once(all: Vec<ProcessInfo>) -> Vec<Holder> {
    let mut holders: BTreeMap<u32, Reading<Bytes>> = BTreeMap::new();
    for process in all {
        let used = match process.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Reading::Known(Bytes(bytes)),
            UsedGpuMemory::Unavailable => Reading::Unknown(Why::NotSupported),
        };
        let held = holders.entry(process.pid).or_insert(used);
        *held = match (*held, used) {
            (Reading::Known(one), Reading::Known(other)) => Reading::Known(one.max(other)),
            (Reading::Known(one), _) => Reading::Known(one),
            (_, other) => other,
        };
    }
    holders.into_iter().map(|(pid, used)| Holder { pid, used }).collect()
}
