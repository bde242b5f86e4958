//! The monotonic clock and the identity of this boot.
//!
//! Touches `CLOCK_MONOTONIC`, `CLOCK_THREAD_CPUTIME_ID` and `/proc/sys/kernel/random/boot_id`. Never the wall clock.

use std::path::Path;

use oomguard_core::Instant;
use rustix::time::{ClockId, clock_gettime};

use super::error::{Error, Result};

/// Now, in nanoseconds of `CLOCK_MONOTONIC`. A vDSO call: some 25 ns.
pub fn now() -> Instant {
    read(ClockId::Monotonic)
}

/// How long this thread has been on a core. A system call: some 200 ns.
pub fn of_this_thread() -> Instant {
    read(ClockId::ThreadCPUTime)
}

fn read(clock: ClockId) -> Instant {
    let time = clock_gettime(clock);
    Instant((time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64))
}

/// The identity of this boot (a UUID): process ids and start times mean nothing beyond it.
pub fn boot_id() -> Result<String> {
    boot_id_in(Path::new("/proc"))
}

/// The same, from another procfs.
pub fn boot_id_in(proc_root: &Path) -> Result<String> {
    let path = proc_root.join("sys/kernel/random/boot_id");
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, &e))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn time_goes_on_and_the_boot_has_a_name() {
        let before = super::now();
        assert!(super::now() >= before && before.0 > 0);
        let before = super::of_this_thread();
        while super::of_this_thread() == before {}
        assert!(super::of_this_thread().since(before) <= super::now().since(super::Instant(0)));
        assert_eq!(super::boot_id().unwrap().len(), 36);
    }
}
