//! `studies.jsonl`: which studies the workers work on, as their own library wrote it down.
//!
//! Only read here. Lines that cannot be understood are counted: workers write this file, and die while they do.

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
    /// Every study once, in the order in which they first appear, and how many lines could not be read.
    pub fn studies(&self) -> (Vec<Study>, usize) {
        let bytes = fs::read(self.file("studies.jsonl")).unwrap_or_default();
        let (mut studies, mut unreadable): (Vec<Study>, usize) = (Vec::new(), 0);
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(study) if !studies.contains(&study) => studies.push(study),
                Ok(_) => {}
                Err(_) => unreadable += 1,
            }
        }
        (studies, unreadable)
    }
}
