//! Keeps a replay beside the run: as long as the engine says what was told then, it is told with the run's own clock.

use std::collections::VecDeque;

use oomguard_core::{Event, Instant};

use super::Teller;
use crate::record::{Notice, Record, Roster, Told};

/// What the engine says, beside what was told.
pub struct Follow<'a> {
    /// Names and thresholds.
    pub roster: Roster,
    /// What the engine has said and nobody has been told yet.
    own: VecDeque<(Instant, Told)>,
    /// Until now it has said what the run told.
    follows: bool,
    /// Where they parted, and why.
    pub parted: Option<(u64, String)>,
    teller: &'a mut Teller,
}

impl<'a> Follow<'a> {
    /// Side by side, or from the beginning apart.
    pub fn new(roster: Roster, follows: bool, teller: &'a mut Teller) -> Follow<'a> {
        Follow { roster, own: VecDeque::new(), follows, parted: None, teller }
    }

    /// The next input is about to be taken: names that belong to what was said before it are known by now.
    pub fn pass(&mut self) {
        if !self.follows {
            self.catch_up();
        }
    }

    /// The engine says this now.
    pub fn say(&mut self, at: Instant, told: impl Into<Told>) {
        self.own.push_back((at, told.into()));
    }

    /// The run told this, in this line.
    pub fn told(&mut self, record: &Record, line: u64) {
        self.teller.told(record, &self.roster);
        if !self.follows {
            return;
        }
        if is_the_engines(&record.told) {
            let now = self.own.pop_front().map(|(at, told)| (at, complete(told, &record.told)));
            match now {
                Some((_, told)) if told == record.told => {}
                other => {
                    let now =
                        other.as_ref().map_or_else(|| "nothing".to_owned(), |(_, told)| format!("{told:?}"));
                    other.into_iter().for_each(|other| self.own.push_front(other));
                    let then = &record.told;
                    return self.part(line, format!("it told {then:?}, this oomguard says {now}"));
                }
            }
        }
        self.teller.tell(record, &self.roster);
    }

    /// From here on it goes its own way.
    pub fn part(&mut self, line: u64, why: String) {
        self.follows = false;
        self.parted.get_or_insert((line, why));
    }

    /// Tells what the run did not, at the time of the input that led to it.
    pub fn catch_up(&mut self) {
        while let Some((at, told)) = self.own.pop_front() {
            let record = Record { ts: self.teller.clock(at), mono: at, told };
            self.teller.tell(&record, &self.roster);
        }
    }
}

/// Told because an engine said so; all else only the driver knows.
pub fn is_the_engines(told: &Told) -> bool {
    matches!(told, Told::Engine(_) | Told::Notice(Notice::Chosen { .. }))
}

/// With what only the driver has read: the kernel's own high-water mark, the name of a cgroup.
fn complete(told: Told, then: &Told) -> Told {
    match (told, then) {
        (
            Told::Engine(Event::Ended { job, cause, exit, age, peak }),
            Told::Engine(Event::Ended { peak: charged, .. }),
        ) if cause.is_memory() => Event::Ended { job, cause, exit, age, peak: peak.max(*charged) }.into(),
        (Told::Notice(mut notice), Told::Notice(Notice::Chosen { cgroup: theirs, .. })) => {
            if let Notice::Chosen { cgroup, .. } = &mut notice {
                cgroup.clone_from(theirs);
            }
            notice.into()
        }
        (told, _) => told,
    }
}
