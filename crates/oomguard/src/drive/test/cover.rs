//! `--cov`: what the files' own processes measured becomes one report, as pytest-cov would have made it.
//!
//! Runs coverage's own code in the interpreter of the suite; nothing about coverage is known here.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;

/// What a part of the suite is told behind the user's options: what it has measured is neither shown nor judged.
pub const IN_PARTS: [&str; 2] = ["--cov-report=", "--cov-fail-under=0"];

/// Whether pytest's options ask for coverage.
pub fn is_wanted(options: &[String]) -> bool {
    let asks = |arg: &String| arg == "--cov" || arg.starts_with("--cov=");
    options.iter().any(asks) && !options.iter().any(|arg| arg == "--no-cov")
}

/// Combines and reports, on our own output; gives 1 if coverage is not good enough (`--cov-fail-under`).
pub fn report(python: &Path, data: &[PathBuf], options: &[String]) -> Result<u8, Error> {
    let data: Vec<&PathBuf> = data.iter().filter(|file| file.is_file()).collect();
    if data.is_empty() {
        return Ok(0);
    }
    let mut command = Command::new(python);
    // It knows which of the options are its own.
    command.args(["-m", "oomguard.pytest._coverage"]).args(data).arg("--").args(options);
    let done = command.status().map_err(|error| Error::io("run", python, &error))?;
    Ok(u8::from(!done.success()))
}
