//! The events of the host guard in the words of all events, and the names that its victims go by.

use oomguard_core::watch::{Event, Family, Row, Who};
use oomguard_core::{Bytes, Cause, Event as Said, JobId};

use crate::record::{Entry, Notice, Told};

/// Names for what is told; the oldest are used again.
const NAMES: u16 = 64;
/// Before the first victim.
pub const NOBODY: JobId = JobId(NAMES - 1);

/// The name of the next victim.
pub fn next(job: JobId) -> JobId {
    JobId((job.0 + 1) % NAMES)
}

/// What is known about a family by its oldest process.
pub fn entry(leader: Who, row: Option<&Row>, usage: Bytes) -> Entry {
    let name = row.map_or_else(|| "?".to_owned(), |row| String::from_utf8_lossy(row.name()).into_owned());
    Entry {
        label: format!("{name} (PID {})", leader.pid),
        name,
        pid: Some(leader.pid),
        usage: Some(usage),
        ..Entry::default()
    }
}

/// The event as it is told of `job`, the present victim, whose cgroup only the scanner knows by name.
pub fn told(event: Event, job: JobId, rows: &[Row], cgroup: String) -> Told {
    let cause = Cause::Reserve;
    match event {
        Event::Level { from, to, available } => Said::Level { from, to, available }.into(),
        Event::NoVictim { available } => Said::NoVictim { available }.into(),
        Event::Terminate { usage, grace } => Said::Terminate { job, cause, usage: Some(usage), grace }.into(),
        Event::Kill { usage, available, after_grace } => {
            Said::Kill { job, cause, usage: Some(usage), available, after_grace }.into()
        }
        Event::Back { after, complete } => Said::MemoryBack { job, after, complete }.into(),
        Event::Chosen { choice, shortage, rate, available, enforced } => {
            let Family { leader, processes, usage, took, .. } = choice.family;
            let uid = rows.iter().find(|row| row.who == leader).map_or(u32::MAX, |row| row.uid);
            let reason = choice.reason;
            Notice::Chosen {
                job,
                enforced,
                shortage,
                reason,
                processes,
                uid,
                cgroup,
                usage,
                took,
                rate,
                available,
            }
            .into()
        }
    }
}
