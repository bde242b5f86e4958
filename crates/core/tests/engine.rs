//! The engine on a simulated machine: scenarios by subject, and random worlds.

mod brake;
mod lifecycle;
mod limit;
mod look;
mod pool;
mod random;
mod vram;
mod watch;
mod world;
