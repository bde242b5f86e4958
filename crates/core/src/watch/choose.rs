//! Which family goes: what people said, then who took the memory, then the largest.
//!
//! Only data. Never a family that could not help, and never one that was chosen before.

use super::family::Family;
use super::row::{Standing, Who};
use crate::event::Reason;
use crate::units::Bytes;

/// A family smaller than this cannot help.
const LEAST_USEFUL: Bytes = Bytes::mib(16);
/// Growth below this is not what fills the machine.
const LEAST_TAKEN: Bytes = Bytes::mib(32);

/// The one that goes, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// It.
    pub family: Family,
    /// Why.
    pub reason: Reason,
}

/// Chooses for a shortage of `deficit`; `spent` are leaders of families that were ended before and are still there.
pub(super) fn choose(families: &[Family], deficit: Bytes, spent: &[Who]) -> Option<Choice> {
    let floor = LEAST_USEFUL.max(Bytes(deficit.0 / 8));
    let useful = |family: &&Family| {
        family.usage >= floor && family.standing != Standing::Never && !spent.contains(&family.leader)
    };
    let best = families.iter().filter(useful).map(|family| family.standing).min()?;
    let candidates = families.iter().filter(useful).filter(|family| family.standing == best);
    if families.iter().filter(useful).count() == 1 {
        return candidates.map(|family| Choice { family: *family, reason: Reason::OnlyOne }).next();
    }
    let taken = families.iter().fold(Bytes::ZERO, |sum, family| sum.plus(family.took));
    // Who took a small part of what is gone is not why.
    let blame = LEAST_TAKEN.max(Bytes(taken.0 / 8));
    let grower = candidates.clone().filter(|family| family.took >= blame).max_by_key(|f| (f.took, f.leader));
    if let Some(family) = grower {
        return Some(Choice { family: *family, reason: Reason::FastestGrowth });
    }
    let largest = candidates.max_by_key(|family| (family.usage, family.leader))?;
    Some(Choice { family: *largest, reason: Reason::Largest })
}
