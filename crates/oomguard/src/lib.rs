//! The guard: reads what was asked for, drives the engine, performs and tells.
//!
//! `drive` holds the loop and its verbs, `sink` the renderings of what happens, `config`, `state` and `control`
//! what a long-running guard needs. What is decided is decided in `oomguard-core`.

pub mod amount;
pub mod cli;
pub mod config;
pub mod control;
pub mod drive;
pub mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
pub mod notify;
pub mod outcome;
pub mod record;
pub mod recording;
pub mod sink;
pub mod state;
pub mod suite;
pub mod target;
pub mod worker_log;

/// A line on stderr. Where nobody can be told (a full disk, a closed pipe) the work is done all the same; `eprintln!`
/// would end it.
pub fn complain(line: &dyn std::fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A line on stdout. A reader that has gone away is no reason to fail.
pub(crate) fn say(line: &dyn std::fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{line}");
}
