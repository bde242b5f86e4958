//! `studies.jsonl`: which studies the workers work on, as their own library wrote it down.
//!
//! Only read here. Lines that cannot be understood are left out: workers write this file, and die while they do.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use std::fs;

use super::StateDir;

/// Where a study can be reached, and the interpreter that has its libraries.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Study {
    /// The interpreter.
    pub python: PathBuf,
    /// The storage's address.
    pub storage: String,
    /// The study's name.
    pub study: String,
    /// Where a relative storage address starts.
    pub cwd: PathBuf,
}

impl StateDir {
    /// Every study once, in the order in which they first appear.
    pub fn studies(&self) -> Vec<Study> {
        let bytes = fs::read(self.file("studies.jsonl")).unwrap_or_default();
        let mut studies: Vec<Study> = Vec::new();
        for line in bytes.split(|byte| *byte == b'\n') {
            if let Ok(study) = serde_json::from_slice(line)
                && !studies.contains(&study)
            {
                studies.push(study);
            }
        }
        studies
    }
}
