//! Which job goes when the host is short: only data, and the reason with it.
//!
//! Only guarded jobs are ever candidates; whole families, never single processes.

use std::time::Duration;

use crate::effect::JobId;
use crate::event::Reason;
use crate::units::Bytes;

/// Growth below this is not what fills the machine.
const GROWING: Bytes = Bytes::mib(32);
/// A job smaller than this cannot help.
const LEAST_USEFUL: Bytes = Bytes::mib(16);

/// A job that could go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub job: JobId,
    /// What it uses.
    pub usage: Bytes,
    /// How fast it grows, bytes per second.
    pub rate: Bytes,
    /// What it may use.
    pub limit: Option<Bytes>,
    /// Work that would be lost: time since its last checkpoint, or since its trial began.
    pub unsaved: Duration,
}

/// The one that goes, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// It.
    pub victim: Candidate,
    /// Why.
    pub reason: Reason,
}

/// Chooses among `candidates` for a shortage of `deficit`. `None` when ending any of them would not help: a
/// stranger holds the memory, and killing small jobs on its account saves nobody.
pub fn choose(candidates: impl Iterator<Item = Candidate> + Clone, deficit: Bytes) -> Option<Choice> {
    let floor = LEAST_USEFUL.max(Bytes(deficit.0 / 8));
    // What is small and fills the machine is worth stopping: it counts for what it will use within a second.
    let useful = candidates.filter(move |c| c.usage.plus(c.rate) >= floor);
    let first = useful.clone().next()?;
    if useful.clone().count() == 1 {
        return Some(Choice { victim: first, reason: Reason::OnlyOne });
    }
    let over = |c: &Candidate| c.limit.is_some_and(|limit| c.usage > limit);
    if let Some(victim) = useful.clone().filter(over).max_by_key(|c| (c.usage, c.job)) {
        return Some(Choice { victim, reason: Reason::OverLimit });
    }
    if let Some(victim) = useful.clone().filter(|c| c.rate >= GROWING).max_by_key(|c| (c.rate, c.job)) {
        return Some(Choice { victim, reason: Reason::FastestGrowth });
    }
    let victim = useful.min_by_key(|c| (lost_per_gib(c), std::cmp::Reverse((c.usage, c.job))))?;
    Some(Choice { victim, reason: Reason::LeastWorkLost })
}

/// Milliseconds of lost work for each GiB that comes back.
fn lost_per_gib(c: &Candidate) -> u128 {
    c.unsaved.as_millis() * u128::from(Bytes::gib(1).0) / u128::from(c.usage.0.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(id: u16, usage: Bytes, rate: Bytes, unsaved_s: u64) -> Candidate {
        let unsaved = Duration::from_secs(unsaved_s);
        Candidate { job: JobId(id), usage, rate, limit: Some(Bytes::gib(8)), unsaved }
    }

    fn chosen(candidates: &[Candidate]) -> Option<(u16, Reason)> {
        choose(candidates.iter().copied(), Bytes::mib(100)).map(|c| (c.victim.job.0, c.reason))
    }

    #[test]
    fn over_its_limit_comes_before_growth_and_growth_before_size() {
        let steady = job(0, Bytes::gib(7), Bytes::ZERO, 10);
        let grower = job(1, Bytes::gib(2), Bytes::gib(1), 5000);
        let over = job(2, Bytes::gib(9), Bytes::ZERO, 5000);
        assert_eq!(chosen(&[steady, grower, over]), Some((2, Reason::OverLimit)));
        assert_eq!(chosen(&[steady, grower]), Some((1, Reason::FastestGrowth)));
    }

    #[test]
    fn among_steady_jobs_the_least_lost_work_per_byte_goes() {
        let old = job(0, Bytes::gib(4), Bytes::ZERO, 3600);
        let young = job(1, Bytes::gib(2), Bytes::ZERO, 60);
        assert_eq!(chosen(&[old, young]), Some((1, Reason::LeastWorkLost)));
    }

    #[test]
    fn nobody_goes_for_a_shortage_that_is_not_theirs() {
        assert_eq!(choose([].into_iter(), Bytes::gib(1)), None);
        let tiny = job(0, Bytes::mib(60), Bytes::ZERO, 1);
        assert_eq!(choose([tiny].into_iter(), Bytes::gib(1)), None);
        assert!(choose([tiny].into_iter(), Bytes::mib(100)).is_some());
        let young = job(1, Bytes::mib(60), Bytes::gib(4), 1);
        assert!(choose([young].into_iter(), Bytes::gib(1)).is_some(), "small, but it is why");
    }
}
