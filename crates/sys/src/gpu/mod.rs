//! What GPUs hold: per device total, used and free; per process, where the driver shows it.
//!
//! Touches NVIDIA's library (loaded at run time) or `nvidia-smi`, sysfs and `/proc/PID/fdinfo`. Drivers can hang, so
//! all of it is read by a thread of its own ([`Gpu`]), which exists while somebody wants to know. Never decides anything,
//! and never takes "not known" for "nothing used".

mod amd;
mod drm;
mod fdinfo;
mod nvml;
mod smi;
mod visible;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use oomguard_core::{Bytes, Instant, Reading, Why};

pub use visible::{Variables, visible};
pub use watch::Gpu;

/// More than an idle driver keeps for itself: if more is used and no process is shown, processes are hidden.
const IDLE: Bytes = Bytes::mib(640);

/// Who made a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// NVIDIA.
    Nvidia,
    /// AMD.
    Amd,
    /// Intel.
    Intel,
}

/// A device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// All that there is.
    pub total: Bytes,
    /// Held by processes, and by the driver for them.
    pub used: Bytes,
    /// What can still be had. Not always `total - used`: the driver keeps some for itself.
    pub free: Bytes,
}

impl Memory {
    /// In use, in percent: all that nobody can have any more.
    pub fn percent(&self) -> f64 {
        100.0 * self.total.minus(self.free).0 as f64 / self.total.0.max(1) as f64
    }
}

/// A process that holds memory of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its number in the driver's eyes, which are ours except in a container with a process namespace of its own.
    pub pid: u32,
    /// How much.
    pub used: Reading<Bytes>,
}

/// A GPU, or an instance (MIG) in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Who made it.
    pub vendor: Vendor,
    /// Its number with the driver: in the order of the PCI bus for NVIDIA, of the `card` nodes for others. An
    /// instance's is its place in its card.
    pub index: u32,
    /// The card that it is an instance of: its place in [`Sample::devices`].
    pub card: Option<usize>,
    /// It is divided: its memory is to be had only through its instances.
    pub divided: bool,
    /// `GPU-...` or `MIG-...`; empty if it has none.
    pub uuid: String,
    /// What people call it.
    pub name: String,
    /// Its address on the PCI bus; empty if not known.
    pub bus: String,
    /// Its memory.
    pub memory: Reading<Memory>,
    /// Who holds it, each process once.
    pub holders: Result<Vec<Holder>, Why>,
}

impl Device {
    /// Memory is held and the driver shows nobody: those who hold it are outside of our process namespace.
    pub fn hides_holders(&self) -> bool {
        let used = self.memory.known().map_or(Bytes::ZERO, |memory| memory.used);
        used > IDLE && self.holders.as_ref().is_ok_and(Vec::is_empty)
    }

    /// What the processes that `is_ours` knows hold here. Unknown where the driver does not tell who holds what.
    pub fn used_by(&self, mut is_ours: impl FnMut(u32) -> bool) -> Reading<Bytes> {
        let holders = match &self.holders {
            Ok(_) if self.hides_holders() => return Reading::Unknown(Why::NoPermission),
            Ok(holders) => holders,
            Err(why) => return Reading::Unknown(*why),
        };
        let mut all = Bytes::ZERO;
        for holder in holders.iter().filter(|holder| is_ours(holder.pid)) {
            match holder.used {
                Reading::Known(used) => all = all.plus(used),
                unknown => return unknown,
            }
        }
        Reading::Known(all)
    }
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driver {
    /// `NVML`, `nvidia-smi`, `sysfs`.
    pub name: &'static str,
    /// Its version, or what is known about why it does not answer.
    pub says: Result<String, (Why, String)>,
}

/// All GPUs at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// When reading began.
    pub at: Instant,
    /// Who was asked.
    pub drivers: Vec<Driver>,
    /// What they drive; an instance follows its card.
    pub devices: Vec<Device>,
    /// Those that this process may use: places in `devices`.
    pub visible: Vec<usize>,
}

impl Sample {
    /// The fullest device among these (places in `devices`), and how full it is in percent. Where one of them cannot be
    /// read, the reason; where there are none, [`Why::NoDriver`] or what the driver said. No allocation.
    pub fn fullest(&self, among: &[usize]) -> Reading<(usize, f64)> {
        let mut fullest = Reading::Unknown(self.why_none());
        for &place in among {
            let Some(device) = self.devices.get(place) else { continue };
            match device.memory {
                // A device without memory of its own, or that tells nothing of it, cannot be filled that we know of.
                Reading::Unknown(Why::NotSupported) if fullest.known().is_some() => {}
                Reading::Unknown(Why::NotSupported) => fullest = Reading::Unknown(Why::NotSupported),
                Reading::Unknown(why) => return Reading::Unknown(why),
                Reading::Known(memory) => match fullest {
                    Reading::Known((_, most)) if most >= memory.percent() => {}
                    _ => fullest = Reading::Known((place, memory.percent())),
                },
            }
        }
        fullest
    }

    /// Why there is no device that could be read.
    pub fn why_none(&self) -> Why {
        let mut said =
            self.drivers.iter().filter_map(|driver| driver.says.as_ref().err()).map(|(why, _)| *why);
        said.find(|why| *why != Why::NoDriver).unwrap_or(Why::NoDriver)
    }

    /// The machine has no GPU at all, as opposed to one that cannot be read.
    pub fn has_none(&self) -> bool {
        self.devices.is_empty() && self.why_none() == Why::NoDriver
    }
}

/// Where to look. [`Places::default`] is the real world.
#[derive(Clone, Debug)]
pub struct Places {
    /// NVIDIA's library: a name for the dynamic loader, or a path.
    pub nvml: PathBuf,
    /// NVIDIA's program: a name for `$PATH`, or a path.
    pub smi: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
    /// `/proc`.
    pub proc: PathBuf,
    /// What says which devices are ours. None by default: all are.
    pub variables: Variables,
    /// How long an answer may take until the reader is told that there is none.
    pub patience: Duration,
    /// ... and the first one: without the persistence daemon each card is woken first.
    pub first_patience: Duration,
    /// How long the program may take: it wakes each card each time.
    pub smi_patience: Duration,
    /// A library that has failed is loaded anew after this.
    pub retry: Duration,
}

impl Default for Places {
    fn default() -> Places {
        Places {
            nvml: "libnvidia-ml.so.1".into(),
            smi: "nvidia-smi".into(),
            sys: "/sys".into(),
            proc: "/proc".into(),
            variables: Variables::default(),
            patience: Duration::from_secs(3),
            first_patience: Duration::from_secs(15),
            smi_patience: Duration::from_secs(10),
            retry: Duration::from_secs(5),
        }
    }
}
