//! What is read about the whole machine at every look.
//!
//! Reads only. A sensor that is missing is said once by whoever opens this; afterwards it is unknown.

use std::path::Path;

use oomguard_core::{Bytes, HostSample, Reading, Why};
use oomguard_sys::cgroup::{Ancestors, Parent};
use oomguard_sys::error::reading;
use oomguard_sys::meminfo::{Meminfo, Memory};
use oomguard_sys::psi::Psi;
use oomguard_sys::zoneinfo::PerCpuPages;

use crate::error::Error;

/// The open files.
pub struct Sensors {
    meminfo: Meminfo,
    per_cpu: Option<PerCpuPages>,
    ancestors: Option<Ancestors>,
    limited: Option<usize>,
    psi: Result<Psi, Why>,
    last: Memory,
}

const PROC: &str = "/proc";

impl Sensors {
    /// Opens what there is. Only `MemAvailable` is indispensable.
    pub fn open() -> Result<Sensors, Error> {
        let proc_root = Path::new(PROC);
        let mut meminfo = Meminfo::open(proc_root)
            .map_err(|e| Error::new(format!("could not read the machine's memory: {e}")))?;
        let last =
            meminfo.read().map_err(|e| Error::new(format!("could not read the machine's memory: {e}")))?;
        Ok(Sensors {
            meminfo,
            last,
            per_cpu: PerCpuPages::open(proc_root).ok(),
            limited: None,
            ancestors: Ancestors::open(proc_root, Path::new("/")).ok(),
            psi: Psi::open(proc_root).map_err(|e| e.why()),
        })
    }

    /// Why there is no reading of pressure, if there is none.
    pub fn pressure(&self) -> Result<(), Why> {
        self.psi.as_ref().map(|_| ()).map_err(|why| *why)
    }

    /// The machine alone, before there are jobs.
    pub fn machine(&mut self) -> HostSample {
        self.host(None)
    }

    /// How many steps above our own cgroup the limit stands under which less was available at the last look than on
    /// the whole machine.
    pub fn limited(&self) -> Option<usize> {
        self.limited
    }

    /// Swap that can still take pages, as far as anybody can say: under a cgroup limit of ours, none.
    pub fn swap_room(&self, host: &HostSample) -> Bytes {
        if host.total < self.last.total { Bytes::ZERO } else { host.swap_free }
    }

    /// Something has been swapped out.
    pub fn swap_is_used(&self) -> bool {
        self.last.swap_free < self.last.swap_total
    }

    /// One look: about 10 us. Allocates nothing. If the kernel fails us, the last memory stands.
    pub fn host(&mut self, parent: Option<&Parent>) -> HostSample {
        if let Ok(memory) = self.meminfo.read() {
            self.last = memory;
        }
        let mut available = self.last.available;
        let mut total = self.last.total;
        // Pages on per-CPU lists are free, yet not in MemAvailable: half of a dead job's for seconds. They only
        // matter where memory is short, and cost four times a look.
        if available < Bytes(total.0 / 4) {
            let hidden = self.per_cpu.as_mut().and_then(|pages| pages.read().ok());
            available = available.plus(hidden.unwrap_or_default());
        }
        self.limited = None;
        if let Some(ancestors) = &mut self.ancestors
            && let Some((room, limit)) = ancestors.headroom()
        {
            self.limited = ancestors.tightest().filter(|_| room < available);
            available = available.min(room);
            total = total.min(limit);
        }
        let charged = match parent {
            Some(parent) => reading(parent.used()),
            None => Reading::Unknown(Why::NotSupported),
        };
        let stalled_us = match &mut self.psi {
            Ok(psi) => psi.read().map_or_else(|e| Reading::Unknown(e.why()), |s| Reading::Known(s.full_us)),
            Err(why) => Reading::Unknown(*why),
        };
        HostSample { available, total, swap_free: self.last.swap_free, charged, stalled_us }
    }
}

/// Cores that may run our jobs.
pub fn cores() -> u64 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u64)
}
