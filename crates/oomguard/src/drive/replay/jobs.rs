//! A recorded `run` or `up` through the engine.

use std::io::BufRead;

use oomguard_core::recording::Kept;
use oomguard_core::{Engine, HostPolicy, Instant};

use super::feed::{Step, feed};
use super::follow::Follow;
use super::{End, Teller, WhatIf};
use crate::record::{Entry, Roster};
use crate::recording::Recording;

/// Slots are numbered as they come.
const GAP: usize = 64;

/// Feeds all of it to an engine, and tells what that says.
pub fn tell(
    recording: Recording<impl BufRead>,
    what_if: &WhatIf,
    policy: HostPolicy,
    seed: u64,
    teller: &mut Teller,
) -> End {
    let policy = what_if.host(policy);
    let mut engine = Engine::new(policy, seed);
    let follow = Follow::new(Roster::new(policy.reserve, policy.warning), !what_if.is_asked(), teller);
    feed(recording, what_if.until, follow, |follow, step| {
        match step {
            Step::Input(now, mut input) => {
                if let Kept::Add(job, _) | Kept::Adopt(job, ..) = input
                    && job.index() > engine.len() + GAP
                {
                    return Err(format!("job {} where there are {}", job.0, engine.len()));
                }
                if let Some(policy) = input.policy_mut() {
                    *policy = what_if.job(*policy);
                }
                take(&mut engine, follow, now, &input);
            }
            Step::Policy(policy) => {
                let policy = what_if.host(policy);
                engine.set_host_policy(policy);
                (follow.roster.reserve, follow.roster.warning) = (policy.reserve, policy.warning);
            }
            Step::Recall(job, failures) => engine.recall(job, failures),
            Step::Job(job, entry) => {
                let usage = follow.roster.get(job).and_then(|entry| entry.usage);
                let limit = what_if.limit.or(entry.limit);
                follow.roster.set(job, Entry { usage, limit, ..entry });
            }
        }
        Ok(())
    })
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
