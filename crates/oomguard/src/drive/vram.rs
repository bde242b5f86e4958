//! What people are told about GPUs: how full the fullest is, who holds it, what is missing and what would help.
//!
//! Reads through the watcher only; decides nothing. Nobody who does not ask comes here, and nothing is loaded then.

use std::time::Duration;

use oomguard_core::{Bytes, Reading, Why};
use oomguard_sys::clock;
use oomguard_sys::gpu::{Device, Gpu, Places, Sample, Variables};

use crate::error::Error;
pub use crate::sink::human::remedy;

/// Longer than any driver may take to begin.
const PATIENCE: Duration = Duration::from_secs(60);
/// So many holders are named.
const NAMED: usize = 3;

/// How full the fullest visible device is.
#[derive(Clone, Debug, PartialEq)]
pub enum Vram {
    /// There is no GPU, or none that we may use.
    None,
    /// There is, and it cannot be said how full.
    Unknown(Why),
    /// In percent.
    Used {
        /// How much of it.
        percent: f64,
        /// Which: `GPU 0 (NVIDIA H200)`.
        device: String,
        /// Who holds it, largest first.
        holders: Vec<String>,
    },
}

impl Vram {
    /// In percent, where it is known.
    pub fn percent(&self) -> Option<f64> {
        match self {
            Vram::Used { percent, .. } => Some(*percent),
            Vram::None | Vram::Unknown(_) => None,
        }
    }

    /// What stands against using it, if more than `most` percent must not be in use.
    pub fn problem(&self, most: u8) -> Option<String> {
        match self {
            Vram::Used { percent, device, holders } if *percent > f64::from(most) => {
                let mut text = format!("VRAM {percent:.1}% used on {device}, more than {most}%");
                if !holders.is_empty() {
                    text.push_str(&format!("; most is held by {}", holders.join(", ")));
                }
                Some(text)
            }
            // No memory of its own, or nobody tells: it was never known, and will not be.
            Vram::Unknown(Why::NotSupported) => None,
            Vram::Unknown(why) => Some(format!("VRAM is not known: {why}")),
            Vram::None | Vram::Used { .. } => None,
        }
    }
}

/// Watches what this process may use.
pub fn watch() -> Result<Gpu, Error> {
    let variables = Variables::from_env(|name| std::env::var(name).ok());
    Gpu::watch(Places { variables, ..Places::default() })
        .map_err(|error| Error::new(format!("could not watch the GPUs: {error}")))
}

/// What a first look sees. Waits for it: some ms, seconds where cards must be woken.
pub fn first(gpu: &mut Gpu) -> Reading<&Sample> {
    gpu.read_now(clock::now().after(PATIENCE))
}

/// How full the fullest visible device is, with names.
pub fn vram(seen: Reading<&Sample>) -> Vram {
    let sample = match seen {
        Reading::Known(sample) => sample,
        Reading::Unknown(why) => return Vram::Unknown(why),
    };
    match sample.fullest(&sample.visible) {
        Reading::Unknown(Why::NoDriver) => Vram::None,
        Reading::Unknown(why) => Vram::Unknown(why),
        Reading::Known((place, percent)) => {
            let device = &sample.devices[place];
            Vram::Used { percent, device: name(device), holders: holders(device) }
        }
    }
}

/// How full it is, in percent. Allocates nothing.
pub fn percent(seen: Reading<&Sample>) -> Option<f64> {
    let sample = seen.known()?;
    sample.fullest(&sample.visible).known().map(|(_, percent)| percent)
}

/// `GPU 0 (NVIDIA H200)`, `GPU 0 instance 1 (NVIDIA H200 MIG 1g.18gb)`.
pub fn name(device: &Device) -> String {
    let kind = if device.card.is_some() { "GPU instance" } else { "GPU" };
    match device.name.as_str() {
        "" => format!("{kind} {}", device.index),
        name => format!("{kind} {} ({name})", device.index),
    }
}

/// `python (pid 4711, 3.2 GiB)`, those who hold most first.
pub fn holders(device: &Device) -> Vec<String> {
    let mut all = device.holders.clone().unwrap_or_default();
    all.sort_unstable_by_key(|holder| std::cmp::Reverse(holder.used.known().unwrap_or(Bytes::ZERO)));
    all.truncate(NAMED);
    let told = |pid: u32, used: Reading<Bytes>| {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let comm = if comm.trim().is_empty() { "a process of another namespace" } else { comm.trim() };
        match used {
            Reading::Known(used) => format!("{comm} (pid {pid}, {used})"),
            Reading::Unknown(_) => format!("{comm} (pid {pid})"),
        }
    };
    all.into_iter().map(|holder| told(holder.pid, holder.used)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_more_than_the_share_is_a_problem_and_so_is_not_knowing() {
        let used = |percent| Vram::Used {
            percent,
            device: "GPU 0 (H200)".to_owned(),
            holders: vec!["python (pid 7, 3 GiB)".to_owned()],
        };
        assert_eq!(used(80.0).problem(80), None);
        assert_eq!(
            used(81.0).problem(80).unwrap(),
            "VRAM 81.0% used on GPU 0 (H200), more than 80%; most is held by python (pid 7, 3 GiB)"
        );
        assert_eq!(Vram::None.problem(80), None);
        assert!(Vram::Unknown(Why::Mismatch).problem(80).unwrap().contains("different versions"));
    }
}
