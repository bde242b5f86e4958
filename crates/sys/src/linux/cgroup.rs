//! Control groups: where we are, what is above us, one parent around all jobs, one leaf for each job.
//!
//! Touches the memory hierarchy (v2 `memory.*`, v1 `memory.*_in_bytes`), the v2 or freezer hierarchy beside it, and
//! nothing outside the directories it makes, with one exception: on v2, when we are the only process of our own
//! cgroup, we are moved to a child of it, since only leaves may hold processes. Never changes a limit above the
//! parent, never kills anything outside a leaf.

mod ancestors;
mod dirs;
mod join;
mod leaf;
mod members;
mod memory;
mod memory1;
mod memory2;
mod mounts;
mod parent;
mod place;
mod probe;
mod refusal;
mod stop;

pub use ancestors::Ancestors;
pub use join::Joined;
pub use leaf::{EventFds, Leaf};
pub use memory::{Counters, Limits};
pub use mounts::{Hierarchy, Mounts};
pub use parent::{Parent, ParentOptions};
pub use refusal::{Attempt, Refusal};
pub use stop::{How, Killed};

#[cfg(any(test, fuzzing))]
pub(super) use {memory1::cache as cache1, memory2::cache as cache2};
