//! The report of one run (`run --report FILE`): a single JSON document, collected while records pass.
//!
//! Decides what a run comes down to: how it ended, why, which limit, how much. Written once, at the end, whole or
//! not at all. It never grows without bound: of very many events the first and the last are kept.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use oomguard_core::{Bytes, Cause, Event};
use serde_json::{Map, Value, json};

use super::jsonl;
use crate::error::Error;
use crate::record::{Notice, Record, Roster, Told};
use crate::state::{can_write_beside, write_whole};

/// Events kept from the start, and again from the end.
const KEPT: usize = 2000;

/// What is known so far about one run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    command: Vec<String>,
    first: Vec<Map<String, Value>>,
    last: VecDeque<Map<String, Value>>,
    left_out: u64,
    armed: Option<Map<String, Value>>,
    cause: Option<Cause>,
    decided: Option<Map<String, Value>>,
    exit: Value,
    age: Option<Duration>,
    peak: Option<Bytes>,
    limit: Option<Bytes>,
}

/// What only the driver knows when the run is over.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Closing {
    /// The exit code that `oomguard run` returns.
    pub exit_code: u8,
    /// The process that used most, where it was looked up: its pid, name and usage.
    pub largest: Option<(u32, String, Bytes)>,
}

impl Report {
    /// The report of this command.
    pub fn new(command: &[String]) -> Report {
        Report { command: command.to_vec(), ..Report::default() }
    }

    /// Takes note of a record.
    pub fn note(&mut self, record: &Record, roster: &Roster) {
        let object = jsonl::object(record, roster);
        match &record.told {
            Told::Notice(Notice::Armed { .. }) => self.armed = Some(object.clone()),
            Told::Engine(Event::Brake { job, limit, .. }) => {
                self.limit = limit.or_else(|| roster.get(*job).and_then(|entry| entry.limit));
                self.decided = Some(object.clone());
            }
            Told::Engine(Event::VramBrake { limit, .. }) => {
                self.limit = *limit;
                self.decided = Some(object.clone());
            }
            Told::Engine(Event::KernelKill { job, .. }) => {
                self.limit = roster.get(*job).and_then(|entry| entry.limit);
                self.decided = Some(object.clone());
            }
            Told::Engine(Event::Ended { job, cause, age, peak, .. }) => {
                self.cause = Some(*cause);
                self.age = Some(*age);
                self.peak = Some(*peak).max(self.peak);
                self.limit = self.limit.or_else(|| roster.get(*job).and_then(|entry| entry.limit));
                self.exit = object.get("exit").cloned().unwrap_or_default();
            }
            _ => {}
        }
        self.keep(object);
    }

    fn keep(&mut self, object: Map<String, Value>) {
        if self.first.len() < KEPT {
            return self.first.push(object);
        }
        if self.last.len() == KEPT {
            self.last.pop_front();
            self.left_out += 1;
        }
        self.last.push_back(object);
    }

    /// The whole document.
    pub fn document(&self, closing: &Closing) -> Value {
        let armed = |key: &str| self.armed.as_ref().and_then(|armed| armed.get(key)).cloned();
        let which = self.cause.filter(|cause| cause.is_memory()).map(|cause| match cause {
            Cause::Limit | Cause::Leak => "limit",
            Cause::Vram => "vram",
            _ => "reserve",
        });
        let largest = closing.largest.as_ref();
        json!({
            "schema": jsonl::SCHEMA,
            "command": self.command,
            "exit_code": closing.exit_code,
            "exit": self.exit,
            "cause": self.cause,
            "which_limit": which,
            "limit": self.limit,
            "peak": self.peak,
            "reserve": armed("reserve"),
            "total": armed("total"),
            "duration_s": self.age.map(|age| age.as_secs_f64()),
            "enforcement": armed("enforcement"),
            "notes": armed("notes"),
            "version": armed("version"),
            "decided_by": self.decided,
            "largest_process": largest.map(|(pid, name, usage)| json!({"pid": pid, "name": name, "usage": usage})),
            "events": self.first.iter().chain(&self.last).collect::<Vec<_>>(),
            "events_left_out": self.left_out,
        })
    }

    /// Refuses a path that could not be written in the end. Touches a file beside it, for a moment.
    pub fn can_be_written(path: &Path) -> Result<(), Error> {
        let error = match std::fs::symlink_metadata(path) {
            Ok(meta) if meta.is_dir() => Err(std::io::ErrorKind::IsADirectory.into()),
            _ => can_write_beside(path),
        };
        error.map_err(|error| Error::io("write the report", path, &error))
    }

    /// Writes the document to `path`, whole or not at all.
    pub fn write(&self, path: &Path, closing: &Closing) -> Result<(), Error> {
        let text = format!("{:#}\n", self.document(closing));
        write_whole(path, text.as_bytes(), 0o644).map_err(|error| Error::io("write the report", path, &error))
    }
}
