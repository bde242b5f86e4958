//! Is there room to begin? And if not, who has it.
//!
//! Reads the machine and its processes; decides nothing but that.

use oomguard_core::{Bytes, HostSample};
use oomguard_sys::footprint;

use super::super::vram::Vram;
use super::percent_used;
use super::plan::Plan;
use crate::error::{Error, REFUSED};

/// So many holders are named.
const NAMED: usize = 3;

/// Refuses to begin on a machine that is full already.
pub fn check(plan: &Plan, host: &HostSample, vram: &Vram) -> Result<(), Error> {
    let (ram, most) = (percent_used(host), plan.ram_preflight);
    if ram > f64::from(most) {
        let holders = holders().join(", ");
        return Err(Error::new(format!(
            "no room: RAM {ram:.1}% used, more than {most}%; most is held by {holders}"
        ))
        .hint("end something first, or raise `--ram-preflight`")
        .code(REFUSED));
    }
    match vram.problem(plan.vram_preflight) {
        // A driver that does not work is said, and the files that need it say so themselves.
        Some(problem) if vram.percent().is_some() => Err(Error::new(format!("no room: {problem}"))
            .hint("end something first, or raise `--vram-preflight`")
            .code(REFUSED)),
        _ => Ok(()),
    }
}

/// The processes that hold most, largest first: `python (pid 4711, 3.2GiB)`. Reads every process once.
pub fn holders() -> Vec<String> {
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut all: Vec<(Bytes, u32)> =
        pids.filter_map(|pid| Some((footprint::resident_of(pid)?, pid))).collect();
    all.sort_unstable_by_key(|(resident, _)| std::cmp::Reverse(*resident));
    all.truncate(NAMED);
    let name = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    all.into_iter()
        .map(|(resident, pid)| format!("{} (pid {pid}, {resident})", name(pid).trim_end()))
        .collect()
}
