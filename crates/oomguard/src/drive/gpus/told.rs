//! What workers say that torch holds of their GPUs: asked for where no driver tells who holds what, and believed no longer
//! than it is fresh.
//!
//! Less than the truth (what CUDA needs for itself is not torch's), and never more: who is braked for it is over his limit.

use std::time::Duration;

use oomguard_core::{Instant, JobId, Reading, Why};
use oomguard_sys::gpu::{Device, Memory, Variables, Vendor, visible};
use oomguard_sys::process::Process;

use crate::notify::TorchVram;

/// A worker tells every second. What it has not said again after so long is not known any more.
const FRESH: Duration = Duration::from_secs(5);
/// More processes with torch on more GPUs than any machine has.
const MOST: usize = 1024;

/// All that was said.
#[derive(Debug, Default)]
pub struct Told {
    rows: Vec<Row>,
}

/// What one process said of one GPU.
#[derive(Debug)]
pub struct Row {
    /// Whose it is.
    pub job: JobId,
    /// What it said.
    pub torch: TorchVram,
    process: Process,
    at: Instant,
}

impl Told {
    /// Keeps what a process says, instead of what it said before.
    pub fn hear(&mut self, at: Instant, job: JobId, pid: u32, torch: TorchVram) {
        let Ok(process) = Process::open(pid) else { return };
        let is_old = |row: &Row| row.process.pid() == pid && row.torch.place == torch.place;
        self.rows.retain(|row| !is_old(row));
        if self.rows.len() < MOST {
            self.rows.push(Row { job, torch, process, at });
        }
    }

    /// Forgets what is too old, and what the dead have said.
    pub fn forget(&mut self, now: Instant) {
        self.rows.retain(|row| now.since(row.at) < FRESH && row.process.is_alive());
    }

    /// Forgets what this slot's last job has said.
    pub fn begins(&mut self, job: JobId) {
        self.rows.retain(|row| row.job != job);
    }

    /// What there is.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// When the oldest of it was said.
    pub fn since(&self) -> Option<Instant> {
        self.rows.iter().map(|row| row.at).min()
    }
}

impl Row {
    /// Which of a driver's `devices` it means: by its UUID, or by its place among those that the job may use.
    pub fn find(&self, devices: &[Device], sees: &Variables) -> Option<usize> {
        let TorchVram { place, uuid, .. } = &self.torch;
        let named = devices.iter().position(|it| !uuid.is_empty() && it.uuid.eq_ignore_ascii_case(uuid));
        let nth = || {
            let nth = *visible(devices, sees).get(usize::from(*place))?;
            let is_it = devices[nth].uuid.is_empty() || uuid.is_empty();
            (devices[nth].vendor == Vendor::Nvidia && is_it).then_some(nth)
        };
        named.or_else(nth)
    }

    /// The device as far as torch knows it, for where no driver knows any.
    pub fn device(&self, sees: &Variables) -> Device {
        let TorchVram { place, uuid, name, free, total, .. } = self.torch.clone();
        let numbers = sees.cuda.as_deref().unwrap_or_default();
        let number = numbers.split(',').nth(place.into()).and_then(|it| it.trim().parse().ok());
        Device {
            vendor: Vendor::Nvidia,
            index: number.unwrap_or(place.into()),
            card: None,
            divided: false,
            uuid,
            name,
            bus: String::new(),
            memory: Reading::Known(Memory { total, used: total.minus(free), free }),
            holders: Err(Why::NotSupported),
        }
    }
}

#[cfg(test)]
mod tests {
    use oomguard_core::Bytes;

    use super::*;

    const JOB: JobId = JobId(0);

    fn torch(place: u16, uuid: &str) -> TorchVram {
        let (used, free, total) = (Bytes::gib(5), Bytes::gib(9), Bytes::gib(16));
        TorchVram { place, uuid: uuid.to_owned(), name: "NVIDIA T".to_owned(), used, free, total }
    }

    fn heard(torch: TorchVram) -> Told {
        let mut told = Told::default();
        told.hear(Instant(0), JOB, std::process::id(), torch);
        told
    }

    fn sees(cuda: &str) -> Variables {
        Variables { cuda: Some(cuda.to_owned()), ..Variables::default() }
    }

    #[test]
    fn a_device_is_found_by_its_uuid_or_by_its_place_in_the_jobs_own_order() {
        let card = |index, uuid: &str| Device {
            index,
            uuid: uuid.to_owned(),
            ..only(&heard(torch(0, ""))).device(&sees(""))
        };
        let cards = [card(0, "GPU-aa"), card(1, "GPU-bb"), card(2, "")];
        let find = |place, uuid: &str, cuda: &str| only(&heard(torch(place, uuid))).find(&cards, &sees(cuda));
        assert_eq!(find(0, "GPU-BB", "0,1"), Some(1), "CUDA may number them otherwise");
        assert_eq!(find(0, "", "1,0"), Some(1));
        assert_eq!(find(1, "GPU-cc", "0,2"), Some(2), "a driver that gives no UUID");
        assert_eq!(find(0, "GPU-cc", "0"), None, "that place is somebody else's");
        assert_eq!(find(2, "", "0,1"), None);
    }

    #[test]
    fn without_a_driver_a_device_is_what_torch_knows_of_it() {
        let of = |place, cuda: &str| only(&heard(torch(place, ""))).device(&sees(cuda)).index;
        assert_eq!((of(1, "4,7"), of(1, ""), of(0, "GPU-aa")), (7, 1, 0));
        let memory = only(&heard(torch(0, ""))).device(&Variables::default()).memory.known().unwrap();
        assert_eq!((memory.used, memory.free), (Bytes::gib(7), Bytes::gib(9)));
    }

    #[test]
    fn what_is_said_replaces_what_was_said_and_is_forgotten_in_time() {
        let mut told = heard(torch(0, ""));
        told.hear(Instant(0), JOB, std::process::id(), torch(1, ""));
        told.hear(Instant(0).after(FRESH / 2), JOB, std::process::id(), torch(0, "GPU-aa"));
        assert_eq!((told.rows().len(), told.since()), (2, Some(Instant(0))));
        told.forget(Instant(0).after(FRESH));
        assert_eq!(only(&told).torch, torch(0, "GPU-aa"));
        told.begins(JOB);
        assert!(told.rows().is_empty());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        told.hear(Instant(0), JOB, child.id(), torch(0, ""));
        told.forget(Instant(0));
        assert_eq!(told.rows().len(), 1);
        child.kill().unwrap();
        child.wait().unwrap();
        told.forget(Instant(0));
        assert!(told.rows().is_empty(), "the dead hold nothing that they could tell");
    }

    fn only(told: &Told) -> &Row {
        assert_eq!(told.rows().len(), 1);
        &told.rows()[0]
    }
}
