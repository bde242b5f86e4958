//! The decisions of oomguard.
//!
//! Pure: the same inputs give the same effects. It never reads a clock, a file or the environment, never
//! starts or signals anything, and once its jobs are known it never allocates. Whoever drives it reads the
//! sensors when [`engine::Engine::next_look`] says so, feeds [`effect::Input`]s, and performs the
//! [`effect::Effect`]s that come out.

mod brake;
pub mod clock;
pub mod effect;
pub mod engine;
pub mod event;
mod forecast;
pub mod job;
mod leak;
mod level;
mod lifecycle;
mod limit;
mod look;
pub mod policy;
pub mod pool;
pub mod recording;
pub mod sample;
mod timer;
mod trend;
pub mod units;
mod victim;
mod vram;
pub mod watch;

pub use clock::Instant;
pub use effect::{Effect, Exit, Input, JobId, LimitEvent, Urgency, Word};
pub use engine::Engine;
pub use event::{Cause, Event, Level, Parked, Pause, Reason, Vram};
pub use job::{Phase, View};
pub use leak::Leak;
pub use policy::{Enforcement, HostPolicy, JobPolicy, OnLimit, Restart};
pub use sample::{DeviceId, DeviceMemory, DeviceSample, HeldSample, HostSample, JobSample, Reading, Why};
pub use trend::{Confidence, Estimate, Trend};
pub use units::{Amount, Bytes};
pub use vram::{DeviceView, Holding};
