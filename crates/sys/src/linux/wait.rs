//! All the waiting there is: one `ppoll` over descriptors, signals among them, with a deadline in nanoseconds.
//!
//! Touches the calling thread's signal mask (until the process ends) and its children's exit codes. Never sleeps,
//! and never allocates once everything is registered.

mod poller;
mod reap;
mod signals;

pub use poller::{Interest, Poller, Ready};
pub use reap::{reap, reap_one};
pub use signals::{Received, Signals};

pub(crate) use poller::until_ready;
pub(crate) use signals::original_mask;
