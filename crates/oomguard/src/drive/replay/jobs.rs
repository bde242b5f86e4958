//! A recorded `run` or `up` through the engine.

use std::collections::VecDeque;
use std::io::BufRead;

use oomguard_core::recording::{Entry, Kept};
use oomguard_core::{Engine, Event, HostPolicy, Instant};

use super::{End, Teller, WhatIf};
use crate::record::{self, Record, Roster, Told};
use crate::recording::{Beside, Recording};

/// Feeds all of it to an engine, and tells what that says.
pub fn tell(
    mut recording: Recording<impl BufRead>,
    what_if: &WhatIf,
    policy: HostPolicy,
    seed: u64,
    teller: &mut Teller,
) -> End {
    let policy = what_if.host(policy);
    let mut play = Play {
        engine: Engine::new(policy, seed),
        roster: Roster::new(policy.reserve, policy.warning),
        own: VecDeque::new(),
        follows: !what_if.is_asked(),
        parted: None,
        teller,
    };
    let mut last = recording.header.mono;
    let flaw = loop {
        let entry = match recording.next::<Kept>() {
            Ok(Some(entry)) => entry,
            Ok(None) => break None,
            Err(flaw) => break Some(flaw),
        };
        match entry {
            Entry::In(now, _) if now > what_if.until => break None,
            Entry::In(now, mut input) => {
                last = now;
                if let Some(policy) = input.policy_mut() {
                    *policy = what_if.job(*policy);
                }
                play.take(now, &input);
            }
            Entry::Policy(policy) => play.set(what_if.host(policy)),
            Entry::Told(Beside::Job(job, entry)) => {
                let usage = play.roster.get(job).and_then(|entry| entry.usage);
                let limit = what_if.limit.or(entry.limit);
                play.roster.set(job, record::Entry { usage, limit, ..entry });
            }
            Entry::Told(Beside::Record(record)) => play.told(record, recording.number),
            Entry::Lost(lines) => play.part(recording.number, format!("{lines} lines are missing")),
        }
    };
    play.catch_up();
    End { flaw, last, parted: play.parted }
}

struct Play<'a> {
    engine: Engine,
    roster: Roster,
    /// What the engine has said and nobody has been told yet.
    own: VecDeque<(Instant, Event)>,
    /// Until now it has said what the run told.
    follows: bool,
    parted: Option<(u64, String)>,
    teller: &'a mut Teller,
}

impl Play<'_> {
    fn take(&mut self, now: Instant, input: &Kept) {
        if !self.follows {
            self.catch_up();
        }
        if let Kept::Sample(_, jobs) = input {
            for sample in jobs {
                if let Some(entry) = self.roster.get_mut(sample.job) {
                    entry.usage = sample.usage.known();
                }
            }
        }
        self.engine.handle(now, input.input());
        // Nobody performs them: the recording says what came of it.
        while self.engine.effect().is_some() {}
        while let Some(event) = self.engine.event() {
            self.own.push_back((now, event));
        }
    }

    fn set(&mut self, policy: HostPolicy) {
        self.engine.set_host_policy(policy);
        (self.roster.reserve, self.roster.warning) = (policy.reserve, policy.warning);
    }

    /// The run told this. As long as the engine says the same, it is told now, with the run's clock.
    fn told(&mut self, record: Record, line: u64) {
        self.teller.told(&record, &self.roster);
        let Told::Engine(then) = record.told else {
            if self.follows {
                self.teller.tell(&record, &self.roster);
            }
            return;
        };
        if !self.follows {
            return;
        }
        let now = self.own.front().map(|(_, event)| complete(*event, then));
        if now == Some(then) {
            self.own.pop_front();
            self.teller.tell(&record, &self.roster);
        } else {
            let now = now.map_or_else(|| "nothing".to_owned(), |event| format!("{event:?}"));
            self.part(line, format!("it told {then:?}, this oomguard says {now}"));
        }
    }

    fn part(&mut self, line: u64, why: String) {
        self.follows = false;
        self.parted.get_or_insert((line, why));
    }

    /// Tells what the run did not: at the time of the input that led to it.
    fn catch_up(&mut self) {
        while let Some((at, event)) = self.own.pop_front() {
            let record = Record { ts: self.teller.clock(at), mono: at, told: event.into() };
            self.teller.tell(&record, &self.roster);
        }
    }
}

/// The kernel's own high-water mark, which only the driver has read.
fn complete(event: Event, then: Event) -> Event {
    match (event, then) {
        (Event::Ended { job, cause, exit, age, peak }, Event::Ended { peak: charged, .. })
            if cause.is_memory() =>
        {
            Event::Ended { job, cause, exit, age, peak: peak.max(charged) }
        }
        _ => event,
    }
}
