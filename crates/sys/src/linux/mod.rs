//! Linux: procfs, cgroup v1 and v2, pidfds.
//!
//! Every module begins with what it touches and ends with what it never does.

pub mod cgroup;
pub mod clock;
pub mod error;
pub mod folder;
pub mod footprint;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
pub mod held;
pub mod kmsg;
pub mod meminfo;
pub mod oneself;
pub mod page;
pub mod peer;
pub mod process;
pub mod processes;
pub mod psi;
pub mod reaper;
pub mod shm;
pub mod spawn;
pub mod systemd;
pub mod thread;
pub mod tree;
pub mod wait;
pub mod zoneinfo;

mod kept;
mod open_shm;
mod procfs;
mod text;

pub use error::{Error, Result};
