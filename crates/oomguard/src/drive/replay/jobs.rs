//! A recorded `run` or `up` through the engine.

use std::io::BufRead;

use oomguard_core::recording::{Entry, Kept};
use oomguard_core::{Engine, HostPolicy, Instant};

use super::follow::Follow;
use super::{End, Teller, WhatIf};
use crate::record::{self, Notice, Roster, Told};
use crate::recording::{Beside, Flaw, Recording};

/// Slots are numbered as they come.
const GAP: usize = 64;

/// Feeds all of it to an engine, and tells what that says.
pub fn tell(
    mut recording: Recording<impl BufRead>,
    what_if: &WhatIf,
    policy: HostPolicy,
    seed: u64,
    teller: &mut Teller,
) -> End {
    let policy = what_if.host(policy);
    let mut engine = Engine::new(policy, seed);
    let mut follow = Follow::new(Roster::new(policy.reserve, policy.warning), !what_if.is_asked(), teller);
    let mut last = recording.header.mono;
    let flaw = loop {
        let entry = match recording.entry::<Kept>() {
            Ok(Some(entry)) => entry,
            Ok(None) => break None,
            Err(flaw) => break Some(flaw),
        };
        match entry {
            Entry::In(now, _) if now > what_if.until => break None,
            Entry::In(now, mut input) => {
                last = now;
                if let Kept::Add(job, _) | Kept::Adopt(job, ..) = input
                    && job.index() > engine.len() + GAP
                {
                    let why = format!("job {} where there are {}", job.0, engine.len());
                    break Some(Flaw { line: recording.number, why, is_cut: false });
                }
                if let Some(policy) = input.policy_mut() {
                    *policy = what_if.job(*policy);
                }
                follow.pass();
                take(&mut engine, &mut follow, now, &input);
            }
            Entry::Policy(policy) => {
                let policy = what_if.host(policy);
                engine.set_host_policy(policy);
                (follow.roster.reserve, follow.roster.warning) = (policy.reserve, policy.warning);
            }
            Entry::Recall(job, failures) => engine.recall(job, failures),
            Entry::Told(Beside::Job(job, entry)) => {
                let usage = follow.roster.get(job).and_then(|entry| entry.usage);
                let limit = what_if.limit.or(entry.limit);
                follow.roster.set(job, record::Entry { usage, limit, ..entry });
            }
            Entry::Told(Beside::Record(record)) => {
                if let Told::Notice(Notice::Gpu { device, name, .. }) = &record.told {
                    follow.roster.set_gpu(*device, name);
                }
                follow.told(&record, recording.number);
            }
            Entry::Lost(lines) => follow.part(recording.number, format!("{lines} lines are missing")),
        }
    };
    follow.catch_up();
    End { flaw, last, parted: follow.parted }
}

fn take(engine: &mut Engine, follow: &mut Follow<'_>, now: Instant, input: &Kept) {
    if let Kept::Sample(_, jobs) = input {
        for sample in jobs {
            if let Some(entry) = follow.roster.get_mut(sample.job) {
                entry.usage = sample.usage.known();
            }
        }
    }
    engine.handle(now, input.input());
    // Nobody performs them: the recording says what came of it.
    while engine.effect().is_some() {}
    while let Some(event) = engine.event() {
        follow.say(now, event);
    }
}
