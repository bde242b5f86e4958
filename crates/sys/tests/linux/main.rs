//! Sensors on folders that hold the kernel's bytes, and actuators on real processes and cgroups. One file for each
//! module of `src/linux`.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "what fails in a test should end it where it fails")]

#[path = "../support/mod.rs"]
mod support;

mod ancestors;
mod cgroup;
mod cgroup_v2;
mod folder;
mod footprint;
mod held;
mod meminfo;
mod mounts;
mod page;
mod place;
mod process;
mod processes;
mod psi;
mod reaper;
mod shm;
mod spawn;
mod tree;
mod wait;
mod zoneinfo;
