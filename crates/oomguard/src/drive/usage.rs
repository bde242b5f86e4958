//! What one job uses, when the exact figure is too dear to be read at every look: the dear part is read now and then, and
//! growth since counts in full.
//!
//! Reads only. Decides how old the dear part may be, and nothing else.

use std::time::Duration;

use oomguard_core::{Bytes, Instant, Reading};
use oomguard_sys::cgroup::{Leaf, Limits};
use oomguard_sys::clock;

/// What a leaf uses, without file cache: the cache is dear to read (four times and more the charge) and changes
/// slowly, so at short intervals the last known one is taken off the charge.
#[derive(Debug, Default)]
pub(super) struct Charge {
    cache: Bytes,
    read: Instant,
}

/// How old the last known cache may be.
const CACHE_STANDS: Duration = Duration::from_millis(20);

impl Charge {
    pub(super) fn read(&mut self, leaf: &Leaf, now: Instant) -> Reading<Bytes> {
        let charged = match leaf.charged() {
            Ok(charged) => charged,
            Err(error) => return Reading::Unknown(error.why()),
        };
        if now.since(self.read) < CACHE_STANDS {
            return Reading::Known(charged.minus(self.cache));
        }
        match leaf.cache() {
            Ok(cache) => {
                (self.cache, self.read) = (cache, now);
                Reading::Known(charged.minus(cache))
            }
            Err(error) => Reading::Unknown(error.why()),
        }
    }
}

/// What the processes of a job have in common: dear to read (15 to 27 ms per GiB, and nobody else runs on our core) and
/// slow to change, so the last known is taken off what they have resident.
#[derive(Debug, Default)]
pub(super) struct Shared {
    bytes: Bytes,
    read: Instant,
    stands: Duration,
    /// How many processes there were.
    among: usize,
}

/// It stands at least this long.
const SHARED_STANDS: Duration = Duration::from_millis(200);
/// In percent of the limit: from here on it is worth its price.
const EXACT: u64 = 80;
/// The part of the time that reading it may take: one in so many.
const SHARED_COST: u32 = 20;

impl Shared {
    /// `rss` counts shared pages for each of `among` processes; `pss` once. Growth counts in full, but a process that was
    /// forked since is no growth: nobody is over his limit for what it only shares.
    pub(super) fn count_once(
        &mut self,
        now: Instant,
        rss: Bytes,
        limits: Option<Limits>,
        among: usize,
        pss: impl FnOnce() -> Bytes,
    ) -> Bytes {
        let Some(limit) = limits.map(|limits| limits.memory) else { return rss };
        if among < 2 || rss <= limit.percent(EXACT) {
            return rss;
        }
        let others = among != self.among && rss.minus(self.bytes) > limit;
        if others || now.since(self.read) >= self.stands {
            let bytes = rss.minus(pss());
            let cost = clock::now().since(now);
            *self = Shared { bytes, read: now, stands: SHARED_STANDS.max(cost * SHARED_COST), among };
        }
        rss.minus(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_is_read_rarely_and_growth_counts_in_full() {
        let limits = Some(Limits::new(Bytes::gib(10)));
        let at = |ms: u64| clock::now().after(Duration::from_millis(ms));
        let mut shared = Shared::default();
        let mut reads = 0;
        let mut count = |now, gib, among, pss: u64| {
            let used = shared.count_once(now, Bytes::gib(gib), limits, among, || {
                reads += 1;
                Bytes::gib(pss)
            });
            (used, reads)
        };
        assert_eq!(count(at(0), 7, 2, 1), (Bytes::gib(7), 0), "far from the limit");
        assert_eq!(count(at(0), 12, 1, 1), (Bytes::gib(12), 0), "a single process shares with nobody");
        assert_eq!(count(at(0), 12, 2, 5), (Bytes::gib(5), 1));
        assert_eq!(count(at(1), 14, 2, 5), (Bytes::gib(7), 1), "its growth, without asking again");
        assert_eq!(
            count(at(2), 16, 3, 5),
            (Bytes::gib(9), 1),
            "one more, and it would be within the limit anyhow"
        );
        assert_eq!(count(at(3), 18, 3, 6), (Bytes::gib(6), 2), "over it only because one was forked");
        assert_eq!(count(at(4), 24, 3, 7), (Bytes::gib(12), 2), "over it by growth: at once");
        assert_eq!(count(at(60_000), 24, 3, 9), (Bytes::gib(9), 3));
    }
}
