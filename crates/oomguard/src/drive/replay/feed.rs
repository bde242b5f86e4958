//! A recording from its first line to its last, whatever kind of engine it is fed to.

use std::io::BufRead;

use oomguard_core::recording::Entry;
use oomguard_core::{HostPolicy, Instant, JobId};
use serde::de::DeserializeOwned;

use super::End;
use super::follow::Follow;
use crate::record::{self, Notice, Told};
use crate::recording::{Beside, Flaw, Recording};

/// What an engine is given next.
pub enum Step<I> {
    /// An input, at its time.
    Input(Instant, I),
    /// Other thresholds.
    Policy(HostPolicy),
    /// So often a job had failed before the run.
    Recall(JobId, u32),
    /// What the driver knows of a job.
    Job(JobId, record::Entry),
}

/// Reads up to `until`, tells what the run told, and hands the rest to `take`; its `Err` is why a line cannot be true.
pub fn feed<'a, I: DeserializeOwned>(
    mut recording: Recording<impl BufRead>,
    until: Instant,
    mut follow: Follow<'a>,
    mut take: impl FnMut(&mut Follow<'a>, Step<I>) -> Result<(), String>,
) -> End {
    let mut last = recording.header.mono;
    let flaw = loop {
        let entry = match recording.entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => break None,
            Err(flaw) => break Some(flaw),
        };
        let line = recording.number;
        let step = match entry {
            Entry::In(now, _) if now > until => break None,
            Entry::In(now, input) => {
                last = now;
                follow.pass();
                Step::Input(now, input)
            }
            Entry::Policy(policy) => Step::Policy(policy),
            Entry::Recall(job, failures) => Step::Recall(job, failures),
            Entry::Told(Beside::Job(job, entry)) => Step::Job(job, entry),
            Entry::Told(Beside::Record(record)) => {
                if let Told::Notice(Notice::Gpu { device, name, .. }) = &record.told {
                    follow.roster.set_gpu(*device, name);
                }
                follow.told(&record, line);
                continue;
            }
            Entry::Lost(lines) => {
                follow.part(line, format!("{lines} lines are missing"));
                continue;
            }
        };
        if let Err(why) = take(&mut follow, step) {
            break Some(Flaw { line, why, is_cut: false });
        }
    };
    follow.catch_up();
    End { flaw, last, parted: follow.parted }
}
