//! What is told: the engine's events and the driver's own notices, to the verb's books and to the sinks.

use oomguard_core::Event;
use oomguard_sys::clock;

use super::{Guard, Verb};
use crate::record::{Notice, Record};

impl Guard {
    /// Tells what the engine had to say; whether it had anything.
    pub(super) fn tell_all(&mut self, verb: &mut impl Verb) -> bool {
        let mut told = false;
        loop {
            while let Some(record) = self.noted.pop_front() {
                verb.told(self, &record);
            }
            let Some(event) = self.engine.event() else { return told };
            told = true;
            // The engine knows of no jobs any more, the verb does.
            if matches!(event, Event::Done) && !verb.has_finished() {
                continue;
            }
            if let Event::Relieved { .. } | Event::Resume { .. } | Event::Ended { .. } = event {
                self.gpus.ask();
            }
            let record = Record::now(clock::now(), self.complete(event, verb));
            // The books first: who reads of a start may rely on the next guard knowing of it, too.
            verb.told(self, &record);
            self.sinks.tell(&record, &self.roster);
        }
    }

    /// Where memory ended a job, the kernel's own high-water mark is the truth: a spike fits between two looks.
    fn complete(&self, event: Event, verb: &impl Verb) -> Event {
        match event {
            Event::Started { job, attempt, adopted } => {
                Event::Started { job, attempt: verb.attempt(job).unwrap_or(attempt), adopted }
            }
            Event::Ended { job, cause, exit, age, peak } if cause.is_memory() => {
                let peak = peak.max(self.hands[job.index()].charged_peak);
                Event::Ended { job, cause, exit, age, peak }
            }
            event => event,
        }
    }

    /// Tells something that only the driver knows.
    pub fn note(&mut self, notice: Notice) {
        let record = Record::now(clock::now(), notice);
        self.sinks.tell(&record, &self.roster);
        self.noted.push_back(record);
    }
}
