//! Whether the machine is short, and of what: memory that nobody can give, or time lost in paging.
//!
//! Pressure alone is never a shortage (heavy file I/O raises it with memory to spare), and low memory alone is none
//! while swap takes pages without anybody waiting for them. Decides that and nothing else.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Instant, nanos};
use crate::policy::HostPolicy;
use crate::sample::HostSample;
use crate::units::Bytes;

/// Stalled for this share of the time below the warning threshold, the machine only pages (survival baseline: 33 %
/// with a working set of 125 % of RAM).
const THRASH_PERCENT: u64 = 30;
/// Below the reserve this much is enough: swap has room, but it is too slow.
const SLOW_SWAP_PERCENT: u64 = 10;
/// Stall time is judged over at least this long.
const WINDOW: Duration = Duration::from_secs(1);
/// And where next to nothing is available, which is when everybody stands still: a second is for them to feel.
const LAST_WINDOW: Duration = Duration::from_millis(25);

/// What is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shortage {
    /// Less than the reserve is available, and swap has no room for more.
    Memory,
    /// Everybody waits for pages, with little available.
    Thrash,
}

/// Follows the host.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    anchor: Option<(Instant, u64)>,
    /// Percent of the last window.
    stalled: u64,
    low: bool,
    /// Next to nothing is available.
    last: bool,
    short: Option<Shortage>,
}

impl Gauge {
    pub(super) fn short(&self) -> Option<Shortage> {
        self.short
    }

    pub(super) fn update(&mut self, now: Instant, host: &HostSample, policy: &HostPolicy) {
        self.follow_stalls(now, host, policy);
        let enough = policy.reserve.plus(policy.reserve.percent(10));
        self.low = host.available < if self.low { enough } else { policy.reserve };
        let warned = host.available < policy.warning;
        let swap_has_room = host.swap_free >= policy.reserve && policy.reserve > Bytes::ZERO;
        // In a window as short as the last one, so little is nothing.
        let slow = if self.last { THRASH_PERCENT } else { SLOW_SWAP_PERCENT };
        self.short = if self.low && !swap_has_room {
            Some(Shortage::Memory)
        } else if (warned && self.stalled >= THRASH_PERCENT) || (self.low && self.stalled >= slow) {
            Some(Shortage::Thrash)
        } else {
            None
        };
    }

    fn follow_stalls(&mut self, now: Instant, host: &HostSample, policy: &HostPolicy) {
        if host.available >= policy.warning {
            // Stalls with memory to spare say nothing about those to come without.
            (self.anchor, self.stalled, self.last) = (None, 0, false);
            return;
        }
        let Some(stalled) = host.stalled_us.known() else { return };
        let last = host.available < Bytes(policy.reserve.0 / if self.last { 8 } else { 16 });
        if std::mem::replace(&mut self.last, last) != last {
            // What is known was judged by another measure.
            (self.anchor, self.stalled) = (Some((now, stalled)), 0);
            return;
        }
        let Some((since, before)) = self.anchor else {
            self.anchor = Some((now, stalled));
            return;
        };
        let elapsed = now.since(since);
        if elapsed >= if last { LAST_WINDOW } else { WINDOW } {
            self.stalled = stalled.saturating_sub(before) * 100 / (nanos(elapsed) / 1000).max(1);
            self.anchor = Some((now, stalled));
        }
    }
}
