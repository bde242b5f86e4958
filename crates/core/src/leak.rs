//! Whether a job leaks: its floor rises, window after window.
//!
//! A training loop breathes (trials, garbage collection), so the lowest usage of each window is what counts.
//! Says a slope and nothing about its cause.

use std::time::Duration;

use crate::clock::Instant;
use crate::forecast::time_to_use;
use crate::units::Bytes;

/// One window.
const WINDOW: Duration = Duration::from_secs(30);
/// Windows that must rise one after another: five minutes without one step down.
const WINDOWS: usize = 10;
/// Less growth than this over all windows is breathing.
const LEAST_GROWTH: Bytes = Bytes::mib(32);

/// Follows one job.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeakWatch {
    floors: [Bytes; WINDOWS],
    filled: usize,
    window_ends: Option<Instant>,
    floor: Option<Bytes>,
}

impl LeakWatch {
    /// Takes the usage at `now`; returns bytes per second at the end of a window if the floor has risen all along.
    pub fn update(&mut self, now: Instant, usage: Bytes) -> Option<Bytes> {
        let ends = *self.window_ends.get_or_insert(now.after(WINDOW));
        let floor = self.floor.map_or(usage, |floor| floor.min(usage));
        if now < ends {
            self.floor = Some(floor);
            return None;
        }
        self.floor = None;
        self.window_ends = Some(now.after(WINDOW));
        self.push(floor);
        self.slope()
    }

    fn push(&mut self, floor: Bytes) {
        if self.filled == WINDOWS {
            self.floors.rotate_left(1);
            self.filled -= 1;
        }
        self.floors[self.filled] = floor;
        self.filled += 1;
    }

    fn slope(&self) -> Option<Bytes> {
        let floors = &self.floors[..self.filled];
        let rising = floors.windows(2).all(|pair| pair[1] > pair[0]);
        if self.filled < WINDOWS || !rising {
            return None;
        }
        let grown = floors[WINDOWS - 1].minus(floors[0]);
        let seconds = WINDOW.as_secs() * (WINDOWS as u64 - 1);
        (grown >= LEAST_GROWTH).then_some(Bytes(grown.0 / seconds))
    }
}

/// Until a leak of `slope` bytes per second reaches `limit`.
pub fn reaches(limit: Bytes, usage: Bytes, slope: Bytes) -> Duration {
    time_to_use(limit.minus(usage), slope)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Instant {
        Instant(n * 1_000_000_000)
    }

    fn follow(usage: impl Fn(u64) -> Bytes) -> Option<Bytes> {
        let mut watch = LeakWatch::default();
        (0..=360).filter_map(|s| watch.update(seconds(s), usage(s))).last()
    }

    #[test]
    fn a_rising_floor_under_breathing_is_a_leak() {
        let slope = follow(|s| Bytes::mib(1000 + s + if s % 20 < 10 { 300 } else { 0 })).unwrap();
        assert!(slope >= Bytes::kib(900) && slope <= Bytes::kib(1150), "{slope}");
        assert_eq!(reaches(Bytes::gib(8), Bytes::gib(4), Bytes::mib(1)), Duration::from_secs(4096));
    }

    #[test]
    fn breathing_warming_up_and_noise_are_not() {
        assert_eq!(follow(|s| Bytes::mib(1000 + (s % 45) * 20)), None, "a saw");
        assert_eq!(follow(|s| Bytes::mib(1000 + (s * 10).min(1500))), None, "warms up, then stands");
        assert_eq!(follow(|s| Bytes(Bytes::gib(1).0 + s)), None, "bytes");
    }
}
