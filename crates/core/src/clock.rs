//! Time as the core sees it: a number of nanoseconds that somebody else read from a monotonic clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment on a monotonic clock, in nanoseconds since an arbitrary start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Instant(pub u64);

impl Instant {
    /// The end of time: "no deadline".
    pub const NEVER: Instant = Instant(u64::MAX);

    /// The moment `d` later, or `NEVER`.
    pub fn after(self, d: Duration) -> Instant {
        Instant(self.0.saturating_add(nanos(d)))
    }
    /// Time since `earlier`, zero if that lies ahead.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Whole nanoseconds of `d`, saturating.
pub fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}
