//! What follows the end of a worker: at once, after a pause, or never again.
//!
//! Decides the pause; the engine waits for it.

use std::time::Duration;

use crate::event::{Cause, Parked};
use crate::policy::{
    BACKOFF_FIRST, BACKOFF_MAX, EARLY_DEATH, HEALTHY_AFTER, JobPolicy, PARK_AFTER_EARLY_MEMORY_DEATHS,
    PARK_AFTER_FAILURES, Restart,
};

/// The failures of one slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// In a row, without a healthy life between them.
    pub in_row: u32,
    /// Memory deaths in a row, each right after the start.
    pub early_memory: u32,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Start again now.
    Now,
    /// Start again after this.
    After(Duration),
    /// Give the slot up.
    Park(Parked),
    /// It is done.
    Over,
}

impl Failures {
    /// Books the end of a job that lived for `age`, and says what follows. `jitter` is a random number.
    pub fn after(&mut self, policy: &JobPolicy, cause: Cause, age: Duration, jitter: u64) -> Next {
        if age >= HEALTHY_AFTER {
            *self = Failures::default();
        }
        match (policy.restart, cause) {
            (Restart::Never, _) | (Restart::OnFailure, Cause::Finished) => return Next::Over,
            (_, cause) if cause.is_planned() => return Next::Now,
            // Restarting what ends at once by itself is a storm too, but no failure.
            (Restart::Always, Cause::Finished) => {
                return if age < BACKOFF_MAX { Next::After(BACKOFF_MAX - age) } else { Next::Now };
            }
            _ => {}
        }
        self.in_row += 1;
        self.early_memory = if cause.is_memory() && age < EARLY_DEATH { self.early_memory + 1 } else { 0 };
        if self.early_memory >= PARK_AFTER_EARLY_MEMORY_DEATHS {
            Next::Park(Parked::EarlyMemoryDeaths)
        } else if self.in_row >= PARK_AFTER_FAILURES {
            Next::Park(Parked::Failures)
        } else {
            Next::After(backoff(self.in_row, jitter))
        }
    }
}

/// 1 s doubling to 60 s, and up to a quarter more so that workers which failed together do not return together.
fn backoff(failures: u32, jitter: u64) -> Duration {
    let doubled = BACKOFF_FIRST.saturating_mul(1 << (failures - 1).min(16)).min(BACKOFF_MAX);
    (doubled + doubled / 4 * (jitter % 1024) as u32 / 1024).min(BACKOFF_MAX)
}

/// SplitMix64: small, seeded, and the same on every machine.
#[derive(Clone, Copy, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The extra age of worker `index` of `count` in its first life, so that planned restarts never meet. Random
/// jitter does not prevent that (4 workers with 60 s of it: 94 % within 10 s of each other).
pub fn stagger(max_age: Duration, index: u32, count: u32) -> Duration {
    max_age * index / count.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Enforcement;

    const SHORT: Duration = Duration::from_secs(5);

    fn worker() -> JobPolicy {
        JobPolicy::worker(Enforcement::Cgroup2)
    }

    #[test]
    fn failures_double_the_pause_until_the_slot_is_parked() {
        let mut failures = Failures::default();
        let mut pauses = Vec::new();
        let parked = loop {
            match failures.after(&worker(), Cause::Crash, SHORT, 0) {
                Next::After(pause) => pauses.push(pause.as_secs()),
                other => break other,
            }
        };
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(parked, Next::Park(Parked::Failures));
    }

    #[test]
    fn jitter_lengthens_a_pause_by_at_most_a_quarter_and_never_beyond_the_longest() {
        for failures in 1..20 {
            for jitter in [0, 1, 511, 1023, u64::MAX] {
                let plain = backoff(failures, 0);
                let pause = backoff(failures, jitter);
                assert!(
                    pause >= plain && pause <= (plain + plain / 4).min(BACKOFF_MAX),
                    "{failures} {jitter}"
                );
            }
        }
    }

    #[test]
    fn a_healthy_life_forgives() {
        let mut failures = Failures::default();
        for _ in 0..5 {
            failures.after(&worker(), Cause::Crash, SHORT, 0);
        }
        assert_eq!(failures.after(&worker(), Cause::Crash, HEALTHY_AFTER, 0), Next::After(BACKOFF_FIRST));
    }

    #[test]
    fn three_memory_deaths_right_after_the_start_say_that_the_limit_is_wrong() {
        let mut failures = Failures::default();
        failures.after(&worker(), Cause::Limit, SHORT, 0);
        failures.after(&worker(), Cause::Reserve, SHORT, 0);
        assert_eq!(failures.after(&worker(), Cause::Limit, SHORT, 0), Next::Park(Parked::EarlyMemoryDeaths));
    }

    #[test]
    fn planned_restarts_never_count() {
        let mut failures = Failures::default();
        for _ in 0..50 {
            assert_eq!(failures.after(&worker(), Cause::Age, SHORT, 0), Next::Now);
        }
        assert_eq!(failures, Failures::default());
    }

    #[test]
    fn success_ends_a_slot_unless_it_is_to_run_for_ever() {
        let mut failures = Failures::default();
        assert_eq!(failures.after(&worker(), Cause::Finished, SHORT, 0), Next::Over);
        let always = JobPolicy { restart: Restart::Always, ..worker() };
        assert!(matches!(failures.after(&always, Cause::Finished, SHORT, 0), Next::After(_)));
    }

    #[test]
    fn workers_are_spread_evenly_over_one_age() {
        let hour = Duration::from_secs(3600);
        let ages: Vec<u64> = (0..4).map(|i| stagger(hour, i, 4).as_secs()).collect();
        assert_eq!(ages, [0, 900, 1800, 2700]);
    }
}
