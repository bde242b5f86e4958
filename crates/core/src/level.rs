//! How short memory is, with hysteresis, and whether the machine thrashes.
//!
//! Decides the level and nothing else; what follows from it is the brake's business.

use std::time::Duration;

use crate::clock::{Instant, nanos};
use crate::event::Level;
use crate::policy::HostPolicy;
use crate::sample::HostSample;
use crate::units::Bytes;

/// Stalled for this share of the time while memory is low: the machine does nothing but page (survival
/// baseline: 33 % in a working set of 125 % of RAM; heavy file I/O with free memory reaches 40 % and is fine,
/// which is why pressure alone never counts).
const THRASH_PERCENT: u64 = 30;
/// Stall time is judged over at least this long.
const THRASH_WINDOW: Duration = Duration::from_secs(1);

/// Follows the host's level.
#[derive(Debug, Default)]
pub struct Levels {
    level: Level,
    anchor: Option<(Instant, u64)>,
    thrashing: bool,
}

impl Levels {
    /// The present level.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Takes a sample; returns the level before if it changed.
    pub fn update(&mut self, now: Instant, sample: &HostSample, policy: &HostPolicy) -> Option<Level> {
        self.follow_stalls(now, sample, policy);
        let before = self.level;
        self.level = if self.thrashing { Level::Critical } else { next(before, sample.available, policy) };
        (self.level != before).then_some(before)
    }

    fn follow_stalls(&mut self, now: Instant, sample: &HostSample, policy: &HostPolicy) {
        let Some(stalled) = sample.stalled_us.known() else { return };
        let Some((since, before)) = self.anchor else {
            self.anchor = Some((now, stalled));
            return;
        };
        let elapsed = now.since(since);
        if elapsed >= THRASH_WINDOW {
            let share = stalled.saturating_sub(before).saturating_mul(100) / (nanos(elapsed) / 1000).max(1);
            self.thrashing = share >= THRASH_PERCENT && sample.available < policy.warning;
            self.anchor = Some((now, stalled));
        }
        // The memory is back: do not wait for the window to end.
        self.thrashing &= sample.available < policy.warning;
    }
}

/// A level is left only when there is a tenth more than what it takes to enter it.
fn next(level: Level, available: Bytes, policy: &HostPolicy) -> Level {
    let leave_critical = policy.reserve.plus(policy.reserve.percent(10));
    let leave_warning = policy.warning.plus(policy.warning.percent(10));
    if available < policy.reserve || (level == Level::Critical && available < leave_critical) {
        Level::Critical
    } else if available < policy.warning || (level >= Level::Warning && available < leave_warning) {
        Level::Warning
    } else {
        Level::Normal
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Reading, Why};

    const POLICY: HostPolicy = HostPolicy {
        reserve: Bytes::gib(2),
        warning: Bytes::gib(4),
        worst_rate: Bytes::gib(8),
        vram_reserve: None,
    };

    fn host(available: Bytes) -> HostSample {
        HostSample {
            available,
            total: Bytes::gib(32),
            swap_free: Bytes::ZERO,
            charged: Reading::Unknown(Why::NotYet),
            stalled_us: Reading::Unknown(Why::NotSupported),
        }
    }

    #[test]
    fn a_level_is_entered_at_its_threshold_and_left_a_tenth_above() {
        let mut levels = Levels::default();
        let mut at = |available| {
            levels.update(Instant(0), &host(available), &POLICY);
            levels.level()
        };
        assert_eq!(at(Bytes::gib(4)), Level::Normal);
        assert_eq!(at(Bytes::mib(4095)), Level::Warning);
        assert_eq!(at(Bytes::mib(4200)), Level::Warning, "not left yet");
        assert_eq!(at(Bytes::mib(4600)), Level::Normal);
        assert_eq!(at(Bytes::mib(2047)), Level::Critical);
        assert_eq!(at(Bytes::mib(2100)), Level::Critical, "not left yet");
        assert_eq!(at(Bytes::mib(2300)), Level::Warning);
        assert_eq!(at(Bytes::gib(10)), Level::Normal);
    }

    #[test]
    fn thrashing_needs_pressure_and_low_memory_together() {
        let sample =
            |available, stalled| HostSample { stalled_us: Reading::Known(stalled), ..host(available) };
        let second = |n: u64| Instant(n * 1_000_000_000);
        let mut levels = Levels::default();
        levels.update(second(0), &sample(Bytes::gib(3), 0), &POLICY);
        levels.update(second(1), &sample(Bytes::gib(3), 500_000), &POLICY);
        assert_eq!(levels.level(), Level::Critical, "half the time stalled with little left");
        levels.update(second(2), &sample(Bytes::gib(3), 510_000), &POLICY);
        assert_eq!(levels.level(), Level::Warning, "over");

        // A counter gone mad is a stall, and no reason to fall.
        levels.update(second(3), &sample(Bytes::gib(3), u64::MAX), &POLICY);
        assert_eq!(levels.level(), Level::Critical);

        let mut levels = Levels::default();
        levels.update(second(0), &sample(Bytes::gib(10), 0), &POLICY);
        levels.update(second(1), &sample(Bytes::gib(10), 900_000), &POLICY);
        assert_eq!(levels.level(), Level::Normal, "pressure alone is file I/O");
    }
}
