//! The documented example that `oomguard init` writes.
//!
//! Every value in it is the default where there is one: a test reads it and compares.

/// The text of an `oomguard.toml` with every key, its meaning and its default.
pub const EXAMPLE: &str = include_str!("example.toml");
