//! What GPUs hold, in words.
//!
//! Only wording, as in `event`; a GPU is called by its name where that is known.

use oomguard_core::{Bytes, DeviceId, Reason, Why};

use super::event::why_this_one;
use super::units::{gb, gb2};
use super::{Line, Tone};
use crate::record::Roster;

/// `VRAM: 12.3%`.
pub(crate) fn share(percent: f64) -> String {
    format!("VRAM: {percent:.1}%")
}

pub(super) fn near(who: &str, gpu: &str, used: Bytes, limit: Bytes) -> Line {
    Tone::Warn.line(format!(
        "📈 {who} is near its VRAM limit on {gpu} (using {}, limit: {})",
        gb2(used),
        gb(limit)
    ))
}

/// By name: what it holds, what it may, what is left.
pub(super) fn brake(
    who: &str,
    gpu: &str,
    reason: Reason,
    used: Bytes,
    limit: Option<Bytes>,
    free: Option<Bytes>,
) -> Line {
    let why = match reason {
        Reason::OverLimit if limit.is_some_and(|limit| used > limit) => {
            "it is over its VRAM limit".to_owned()
        }
        reason => format!("GPU memory is short; {}", why_this_one(reason)),
    };
    let limit = limit.map_or(String::new(), |limit| format!(", limit: {}", gb2(limit)));
    let free = free.map_or(String::new(), |free| format!(", {} free", gb2(free)));
    Tone::Bad.line(format!("🛑 Braking {who} on {gpu}: {why} (using {}{limit}{free})", gb2(used)))
}

pub(super) fn unknown(device: Option<DeviceId>, whose: Option<String>, why: Why, roster: &Roster) -> Line {
    let what = match (device, whose) {
        (Some(device), Some(whose)) => format!("The VRAM that {whose} uses on {}", roster.gpu(device)),
        (Some(device), None) => format!("The VRAM of {}", roster.gpu(device)),
        (None, _) => "VRAM".to_owned(),
    };
    let remedy = remedy(why);
    Tone::Warn.line(format!("⚠️  {what} is not known, and nobody is braked for it: {why}; {remedy}"))
}

pub(super) fn known(device: Option<DeviceId>, whose: Option<String>, roster: &Roster) -> Line {
    let of = device.map_or(String::new(), |device| format!(" of {}", roster.gpu(device)));
    let whose = whose.map_or(String::new(), |whose| format!(" used by {whose}"));
    Tone::Good.line(format!("✅ The VRAM{of}{whose} is known again"))
}

/// What helps against not knowing.
pub fn remedy(why: Why) -> &'static str {
    match why {
        Why::NoDriver => {
            "install the vendor's driver, or give the container its devices and libraries (`--gpus all`)"
        }
        Why::Mismatch => {
            "the driver was updated under a running kernel module: reboot, or unload and load the module"
        }
        Why::Lost => {
            "reset the device (`nvidia-smi --gpu-reset`) or reboot; the kernel's log says why (`Xid`)"
        }
        Why::NoAnswer => {
            "the driver hangs: look for `Xid` and processes in state D; often only a reboot helps"
        }
        Why::NoPermission => "run as root, or in the host's process namespace (`--pid=host`)",
        Why::NotSupported => "this device or driver does not tell; a newer driver may (NVIDIA: 510 or later)",
        _ => "see what `nvidia-smi` or the kernel's log says",
    }
}
