//! `--cov`: what the files' own processes measured becomes one report, as pytest-cov would have made it.
//!
//! Runs coverage's own code in the interpreter of the suite; nothing about coverage is known here.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;

/// Combines and reports, on our own output; gives 1 if coverage is not good enough (`--cov-fail-under`).
pub fn report(python: &Path, data: &[PathBuf], pytest: &[String], is_pytest: bool) -> Result<u8, Error> {
    let data: Vec<&PathBuf> = data.iter().filter(|file| file.is_file()).collect();
    if data.is_empty() || !is_pytest {
        return Ok(0);
    }
    let mut command = Command::new(python);
    // It knows which of them are its own.
    command.args(["-m", "oomguard.pytest._coverage"]).args(data).arg("--").args(pytest);
    let done = command.status().map_err(|error| Error::io("run", python, &error))?;
    Ok(u8::from(!done.success()))
}
