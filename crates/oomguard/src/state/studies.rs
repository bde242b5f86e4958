//! `studies.jsonl`: which studies the workers work on, as their own library wrote it down.
//!
//! Only read here. Lines that cannot be understood are counted: workers write this file, and die while they do.

use std::path::PathBuf;

use super::StateDir;
use super::tail::{MOST, Tail};
use serde::{Deserialize, Serialize};

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
        let tail = Tail::of(&self.file("studies.jsonl"), MOST).unwrap_or_default();
        // Of a file that no worker of ours could have written, what comes first counts as one line.
        let (mut studies, mut unreadable): (Vec<Study>, usize) = (Vec::new(), usize::from(tail.left_out));
        for line in tail.lines() {
            match serde_json::from_slice(line) {
                Ok(study) if !studies.contains(&study) => studies.push(study),
                Ok(_) => {}
                Err(_) => unreadable += 1,
            }
        }
        (studies, unreadable)
    }
}
