//! The reading side: line by line, as far as they make sense, and then where and why no further.
//!
//! Never trusts a length or a number of a file, and never holds more than one line.

use std::io::{self, BufRead, Read as _};

use oomguard_core::recording::{Entry, Header, VERSION};
use serde::de::DeserializeOwned;

use super::Beside;
use crate::error::{Error, in_words};

/// No line comes near this: a scan of ten thousand processes is 3 MB.
const LONGEST: u64 = 64 << 20;

/// A recording that is being read.
pub struct Recording<R> {
    /// Its first line.
    pub header: Header,
    from: R,
    line: Vec<u8>,
    /// The number of the line that was read last, from 1.
    pub number: u64,
}

/// Where a recording makes no sense any more, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// The line, from 1.
    pub line: u64,
    /// Why.
    pub why: String,
    /// It only ends before its time: its guard was killed, or still runs.
    pub is_cut: bool,
}

impl<R: BufRead> Recording<R> {
    /// Reads the first line. `name` is how errors call it.
    pub fn open(from: R, name: &str) -> Result<Recording<R>, Error> {
        let mut line = Vec::new();
        let mut from = from;
        let no = |why: String| {
            Error::new(format!("`{name}` is not a recording: {why}"))
                .hint("`oomguard run`, `up` and `watch` write one with `--record FILE`")
        };
        read_line(&mut from, &mut line).map_err(|error| no(in_words(&error)))?;
        let version = serde_json::from_slice(&line).ok().and_then(|line: serde_json::Value| {
            line.get("recording").and_then(serde_json::Value::as_u64)
        });
        match version {
            Some(version) if version != u64::from(VERSION) => {
                return Err(Error::new(format!(
                    "`{name}` is a recording of form {version}; this oomguard reads form {VERSION}"
                ))
                .hint("replay it with the version that wrote it: `build` in its first line"));
            }
            _ => {}
        }
        let header = serde_json::from_slice(&line).map_err(|error| no(error.to_string()))?;
        Ok(Recording { header, from, line, number: 1 })
    }

    /// The next line; `None` at the end.
    pub fn next<I: DeserializeOwned>(&mut self) -> Result<Option<Entry<I, Beside>>, Flaw> {
        let read = read_line(&mut self.from, &mut self.line);
        if matches!(read, Ok(0)) {
            return Ok(None);
        }
        self.number += 1;
        let flaw = |why: String, is_cut| Flaw { line: self.number, why, is_cut };
        if let Err(error) = read {
            return Err(flaw(in_words(&error), false));
        }
        let ends = self.line.last() == Some(&b'\n');
        match serde_json::from_slice(&self.line) {
            Ok(entry) if ends => Ok(Some(entry)),
            _ if !ends && (self.line.len() as u64) < LONGEST => {
                Err(flaw("the line was not written to its end".to_owned(), true))
            }
            Err(error) => Err(flaw(error.to_string(), false)),
            Ok(_) => Err(flaw(format!("it is longer than {LONGEST} bytes"), false)),
        }
    }
}

fn read_line(from: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<usize> {
    line.clear();
    from.by_ref().take(LONGEST).read_until(b'\n', line)
}
