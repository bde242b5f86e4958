//! When all processes are looked at: what it costs decides how often, unless a shortage is in sight.
//!
//! Only data; the cost is what the driver has measured.

use std::time::Duration;

use crate::clock::Instant;
use crate::units::Bytes;

/// At ease, where a scan costs next to nothing (it takes 4 to 17 us a process) or memory has moved since the last.
const IDLE: Duration = Duration::from_secs(10);
/// At ease a scan may cost one part of so many: 0.05 % of a core.
const IDLE_PARTS: u32 = 2000;
/// Nor is everybody left alone for longer than this.
const RARELY: Duration = Duration::from_secs(300);
/// Below the warning threshold, where a scan costs next to nothing.
const WARNED: Duration = Duration::from_secs(2);
/// And else one part of so many: 1 %.
const WARNED_PARTS: u32 = 100;
/// At this growth the shortage is so near that everybody is looked at before it begins.
const CLOSE: Duration = Duration::from_millis(100);
/// And again after this.
const AGAIN: Duration = Duration::from_millis(50);
/// A scan this old is believed in a shortage, if it knows who has taken what is gone: the one of the last moment is.
const FRESH: Duration = Duration::from_millis(150);

/// The last scan.
#[derive(Debug, Default)]
pub(super) struct Scans {
    last: Option<Instant>,
    cost: Duration,
    /// Available then.
    seen: Bytes,
}

impl Scans {
    /// Everybody was looked at, which was begun `now` and took so much of a core.
    pub(super) fn note(&mut self, now: Instant, cost: Duration, available: Bytes) {
        *self = Scans { last: Some(now), cost, seen: available };
    }

    /// How much less is available than there was then.
    pub(super) fn vanished(&self, available: Bytes) -> Bytes {
        self.seen.minus(available)
    }

    /// It is time for the next, with nothing in sight.
    pub(super) fn is_due(&self, now: Instant, available: Bytes, warning: Bytes) -> bool {
        // Who has grown is asked only of memory that is gone: what was known of everybody at ease is what growth is
        // counted from, and while nothing moves it stays true.
        let moved = self.seen.minus(available).max(available.minus(self.seen));
        let every = if available < warning {
            (self.cost * WARNED_PARTS).clamp(WARNED, IDLE)
        } else if moved >= Bytes(warning.0 / 4) {
            IDLE
        } else {
            (self.cost * IDLE_PARTS).clamp(IDLE, RARELY)
        };
        self.is_older(now, every)
    }

    /// Too old for a shortage. One that has just ended began as long ago as it took.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        self.is_older(now, FRESH + self.cost)
    }

    /// With so little time left it is the last moment for one that is over before the shortage begins.
    pub(super) fn is_last_moment(&self, left: Duration) -> bool {
        left < CLOSE + self.cost && left >= self.cost
    }

    /// In that last moment another may begin.
    pub(super) fn may_be_repeated(&self, now: Instant) -> bool {
        self.is_older(now, AGAIN.max(self.cost * 2))
    }

    fn is_older(&self, now: Instant, age: Duration) -> bool {
        self.last.is_none_or(|last| now.since(last) >= age)
    }
}
