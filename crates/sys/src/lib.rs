//! Observes and acts: sensors that read memory, and actuators that limit, freeze, kill and start process trees.
//!
//! The only crate of the workspace with unsafe code. It never decides anything: what to do and when is said by
//! `oomguard-core` and carried out by the driver. The operating system is chosen here, once, and nowhere else:
//! every system offers modules of the same names.

#[cfg(target_os = "linux")]
#[path = "linux/mod.rs"]
mod os;

#[cfg(feature = "gpu")]
pub mod gpu;

pub use os::*;
