//! A recorded `watch` through the host guard.

use std::io::BufRead;

use oomguard_core::watch::recording::Kept;
use oomguard_core::watch::{Event, Policy, Row, Watch};
use oomguard_core::{Instant, JobId};

use super::super::watch::told;
use super::feed::{Step, feed};
use super::follow::Follow;
use super::{End, Teller, WhatIf};
use crate::record::Roster;
use crate::recording::Recording;

/// Feeds all of it to a host guard, and tells what that says.
pub fn tell(
    recording: Recording<impl BufRead>,
    what_if: &WhatIf,
    policy: Policy,
    teller: &mut Teller,
) -> End {
    let host = what_if.host(policy.host);
    let policy = Policy { host, grace: what_if.grace.unwrap_or(policy.grace), ..policy };
    let mut play = Play { watch: Watch::new(policy), rows: Vec::new(), job: told::NOBODY };
    let follow = Follow::new(Roster::new(host.reserve, host.warning), !what_if.is_asked(), teller);
    feed(recording, what_if.until, follow, |follow, step| {
        match step {
            Step::Input(now, input) => play.take(follow, now, &input),
            // Its thresholds never change, and it has no slots.
            Step::Policy(_) | Step::Recall(..) => {}
            Step::Job(job, entry) => follow.roster.set(job, entry),
        }
        Ok(())
    })
}

struct Play {
    watch: Watch,
    /// All processes as of the last scan.
    rows: Vec<Row>,
    /// The present victim.
    job: JobId,
}

impl Play {
    fn take(&mut self, follow: &mut Follow<'_>, now: Instant, input: &Kept) {
        match input {
            // What it wants scanned was scanned then, or never.
            Kept::Look(host, remains) => {
                self.watch.look(now, host, *remains);
            }
            Kept::Scan(scan) => {
                scan.apply(&mut self.rows);
                self.watch.scan(now, scan.cost(), &self.rows);
            }
            Kept::Swept => self.watch.swept(),
        }
        while self.watch.poll_effect().is_some() {}
        while let Some(event) = self.watch.poll_event() {
            let mut cgroup = String::new();
            if let Event::Chosen { choice, .. } = event {
                self.job = told::next(self.job);
                let leader = choice.family.leader;
                let row = self.rows.iter().find(|row| row.who == leader);
                follow.roster.set(self.job, told::entry(leader, row, choice.family.usage));
                cgroup = row.map_or_else(String::new, |row| format!("cgroup number {}", row.cgroup));
            }
            follow.say(now, told::told(event, self.job, &self.rows, cgroup));
        }
    }
}
