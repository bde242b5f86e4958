//! What `oomguard status` is told: a picture of one moment.
//!
//! Plain data with units in the names. `null` is "not known" or "none", never zero.

use oomguard_core::{Bytes, Enforcement, Level};
use serde::{Deserialize, Serialize};

/// Everything at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The guard.
    pub guard: GuardStatus,
    /// The machine.
    pub host: HostStatus,
    /// The workers, in the order of their slots.
    pub workers: Vec<WorkerStatus>,
}

/// The guard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuardStatus {
    /// Its process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// How long it has been running.
    pub uptime_s: f64,
    /// What holds workers to their limit.
    pub enforcement: Enforcement,
    /// What is missing on this machine and what replaces it.
    pub notes: Vec<String>,
    /// The configuration it follows.
    pub config: Option<String>,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostStatus {
    /// Memory that can still be given.
    pub available: Bytes,
    /// RAM, or the smallest cgroup limit above us.
    pub total: Bytes,
    /// How short memory is.
    pub level: Level,
    /// Available memory that must never be used.
    pub reserve: Bytes,
    /// Below it people are warned.
    pub warning: Bytes,
    /// Its GPUs, where a rule has them watched.
    #[serde(default)]
    pub gpus: Vec<GpuStatus>,
}

/// A GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GpuStatus {
    /// Its number in events.
    pub device: u16,
    /// What people call it.
    pub name: String,
    /// Its memory.
    pub total: Option<Bytes>,
    /// What is left of it.
    pub free: Option<Bytes>,
    /// In use, percent.
    pub used_percent: Option<f64>,
    /// Why that is not known.
    pub unknown: Option<String>,
    /// Less than the reserve is left.
    pub short: bool,
    /// A worker that is dead and still holds some of it.
    pub stuck: Option<String>,
}

/// Where a worker is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It waits for its start.
    Waiting,
    /// It runs.
    Running,
    /// It was asked to stop its present work.
    Pruning,
    /// It is stopped in its tracks.
    Frozen,
    /// It is being ended.
    Stopping,
    /// It does not die.
    Unkillable,
    /// It is not started any more.
    Parked,
    /// It ended, and nothing follows.
    Done,
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its name.
    pub name: String,
    /// Its slot.
    pub slot: u16,
    /// Where it is in its life.
    pub phase: Phase,
    /// Its main process.
    pub pid: Option<u32>,
    /// Since its start.
    pub age_s: Option<f64>,
    /// When it is due for its planned restart.
    pub max_age_s: Option<f64>,
    /// What it uses.
    pub usage: Option<Bytes>,
    /// The most it used since its start.
    pub peak: Option<Bytes>,
    /// What it may use.
    pub limit: Option<Bytes>,
    /// The how-manieth start.
    pub attempt: u32,
    /// Failures in a row.
    pub failures: u32,
    /// When it is started again.
    pub next_start_in_s: Option<f64>,
    /// The trial it works on.
    pub trial: Option<u32>,
    /// What it last said about itself.
    pub status_text: Option<String>,
    /// When it reaches its limit if it goes on growing like this.
    pub leak_eta_s: Option<f64>,
    /// By how many bytes per second it grows for good.
    #[serde(default)]
    pub leak_slope: Option<Bytes>,
    /// How sure that is, 0 to 1.
    #[serde(default)]
    pub leak_confidence: Option<f64>,
    /// What it holds of the GPU where that counts most.
    #[serde(default)]
    pub vram: Option<Bytes>,
    /// What it may hold of that.
    #[serde(default)]
    pub vram_limit: Option<Bytes>,
    /// Which GPU that is.
    #[serde(default)]
    pub gpu: Option<String>,
}
