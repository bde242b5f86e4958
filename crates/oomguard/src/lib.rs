//! The guard: drives the engine.

pub mod amount;
pub mod cli;
pub mod config;
pub mod error;
pub mod record;
pub mod sink;
pub mod state;
