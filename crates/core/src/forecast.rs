//! How fast something grows, and how long until it has used what is left.
//!
//! Only arithmetic over what was sampled; it never guesses a rate that was not seen (the worst case that has
//! not been seen yet is [`crate::policy::HostPolicy::worst_rate`], which decides when to look again).

use std::time::Duration;

use crate::clock::Instant;
use crate::units::Bytes;

/// Smoothing of the quick estimate: long enough to ignore one burst of page faults.
const QUICK: f64 = 0.02;
/// Smoothing of the slow one: remembers a spike that pauses between two looks.
const SLOW: f64 = 0.5;

/// The growth of one quantity.
#[derive(Clone, Copy, Debug, Default)]
pub struct Growth {
    last: Option<(Instant, Bytes)>,
    quick: f64,
    slow: f64,
}

impl Growth {
    /// Takes the value at `now`.
    pub fn update(&mut self, now: Instant, value: Bytes) {
        let Some((before, old)) = self.last else {
            self.last = Some((now, value));
            return;
        };
        let dt = now.since(before).as_secs_f64();
        if dt <= 0.0 {
            return;
        }
        let rate = (value.0 as f64 - old.0 as f64) / dt;
        self.quick += (rate - self.quick) * dt / (dt + QUICK);
        self.slow += (rate - self.slow) * dt / (dt + SLOW);
        self.last = Some((now, value));
    }

    /// Bytes per second that it has kept up for a while and still does, the slower of the two estimates: a burst at
    /// the start of a trial is not a spike.
    pub(crate) fn sustained(&self) -> Bytes {
        Bytes(self.quick.min(self.slow).max(0.0) as u64)
    }

    /// Bytes per second, the faster of the two estimates; zero while it shrinks.
    pub fn rate(&self) -> Bytes {
        Bytes(self.quick.max(self.slow).max(0.0) as u64)
    }
}

/// Until `room` is used up at `rate` per second. No room is no time, whatever the rate: where nothing is left,
/// everything stands in the allocator and nothing grows.
pub fn time_to_use(room: Bytes, rate: Bytes) -> Duration {
    if room == Bytes::ZERO {
        return Duration::ZERO;
    }
    if rate == Bytes::ZERO {
        return Duration::MAX;
    }
    // Beyond a year it does not matter; this also keeps the float in range.
    Duration::from_secs_f64((room.0 as f64 / rate.0 as f64).min(31_536_000.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Instant {
        Instant(n * 1_000_000)
    }

    #[test]
    fn steady_growth_is_measured_within_a_few_looks() {
        let mut growth = Growth::default();
        for i in 0..20 {
            growth.update(ms(i * 50), Bytes::mib(100 * i));
        }
        let rate = growth.rate().0 as f64 / Bytes::mib(2000).0 as f64;
        assert!((0.95..1.05).contains(&rate), "{rate}");
        assert_eq!(time_to_use(Bytes::mib(4000), Bytes::mib(2000)), Duration::from_secs(2));
    }

    #[test]
    fn a_burst_is_fast_and_not_sustained() {
        let mut growth = Growth::default();
        growth.update(ms(0), Bytes::mib(100));
        growth.update(ms(50), Bytes::mib(200));
        assert!(growth.rate() > Bytes::mib(1000), "{}", growth.rate());
        assert!(growth.sustained() < Bytes::mib(200), "{}", growth.sustained());
    }

    #[test]
    fn what_shrinks_or_stands_still_never_fills_up() {
        let mut growth = Growth::default();
        growth.update(ms(0), Bytes::gib(2));
        growth.update(ms(100), Bytes::gib(1));
        assert_eq!(growth.rate(), Bytes::ZERO);
        assert_eq!(time_to_use(Bytes::gib(1), growth.rate()), Duration::MAX);
    }

    #[test]
    fn two_looks_at_the_same_moment_do_not_divide_by_zero() {
        let mut growth = Growth::default();
        growth.update(ms(5), Bytes::gib(1));
        growth.update(ms(5), Bytes::gib(2));
        assert_eq!(growth.rate(), Bytes::ZERO);
    }
}
