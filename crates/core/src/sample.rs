//! What the sensors saw: plain numbers, with "unknown, because" as a value of its own.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::effect::JobId;
use crate::units::Bytes;

/// Why a reading is not known. Said once to people, never turned into 0 or -1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// This kernel or platform does not offer it.
    NotSupported,
    /// It is there, but not for us.
    NoPermission,
    /// The process or file went away.
    Vanished,
    /// It was there and could not be understood.
    Malformed,
    /// Nothing has been read yet.
    NotYet,
    /// The call failed with this `errno`.
    Errno(i32),
    /// There is no driver, or nothing that it could drive.
    NoDriver,
    /// The driver has not answered in time.
    NoAnswer,
    /// The device is gone, or must be reset before it can be used again.
    Lost,
    /// The driver and its library are of different versions.
    Mismatch,
    /// The driver refused with this code of its own.
    Driver(i32),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::NotSupported => "not offered here",
            Why::NoPermission => "not shown to us",
            Why::Vanished => "it went away",
            Why::Malformed => "it could not be understood",
            Why::NotYet => "not read yet",
            Why::NoDriver => "no driver, or no device",
            Why::NoAnswer => "the driver has not answered in time",
            Why::Lost => "the device is lost, or must be reset",
            Why::Mismatch => "driver and library are of different versions",
            Why::Errno(number) => return write!(f, "error number {number}"),
            Why::Driver(code) => return write!(f, "the driver's error {code}"),
        })
    }
}

/// A value, or the reason why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reading<T> {
    /// It was read.
    Known(T),
    /// It was not.
    Unknown(Why),
}

impl<T: Copy> Reading<T> {
    /// The value, if it is known.
    pub fn known(self) -> Option<T> {
        match self {
            Reading::Known(value) => Some(value),
            Reading::Unknown(_) => None,
        }
    }
    /// What follows from the value, if it is known.
    pub fn map<U>(self, of: impl FnOnce(T) -> U) -> Reading<U> {
        match self {
            Reading::Known(value) => Reading::Known(of(value)),
            Reading::Unknown(why) => Reading::Unknown(why),
        }
    }
    /// Why it is not known, if it is not.
    pub fn why(self) -> Option<Why> {
        match self {
            Reading::Known(_) => None,
            Reading::Unknown(why) => Some(why),
        }
    }
}

/// The whole machine, or the container that we are in, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSample {
    /// Memory that can still be given without swapping: the smallest of the host's own (with the free pages on
    /// per-CPU lists) and that of every cgroup limit above us.
    pub available: Bytes,
    /// What `available` is out of: RAM, or the smallest cgroup limit above us.
    pub total: Bytes,
    /// Unused swap.
    pub swap_free: Bytes,
    /// Anonymous + shared + kernel memory of all jobs under their common parent, those of other guards included.
    pub charged: Reading<Bytes>,
    /// Microseconds for which every task was stalled on memory, since boot.
    pub stalled_us: Reading<u64>,
}

/// A GPU, or an instance in one: a number that stays its own as long as the guard lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeviceId(pub u16);

impl DeviceId {
    /// Its place in tables that hold one row a device.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMemory {
    /// All that there is.
    pub total: Bytes,
    /// What can still be had.
    pub free: Bytes,
}

/// One device at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSample {
    /// Which.
    pub device: DeviceId,
    /// Its memory.
    pub memory: Reading<DeviceMemory>,
}

/// What one job holds of one device that it may use, at one moment. There is one of these for each such device, and
/// none for the others; what a dead job's processes still hold counts until its slot starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldSample {
    /// Whose.
    pub job: JobId,
    /// Of which device.
    pub device: DeviceId,
    /// How much: nothing where it has none.
    pub used: Reading<Bytes>,
}

/// One job at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSample {
    /// Which job.
    pub job: JobId,
    /// Anonymous + shared + kernel memory of its cgroup, else PSS (or RSS, the upper bound) of its tree.
    pub usage: Reading<Bytes>,
}
