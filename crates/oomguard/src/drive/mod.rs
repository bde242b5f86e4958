//! The guard: reads the sensors when the engine says so, performs what it decides, tells what happened.
//!
//! `run`, `up` and whatever comes later are [`Verb`]s over this one loop. Nothing about limits or braking is
//! decided here or in them.

pub mod check;
pub mod doctor;
mod ends;
mod frameworks;
mod gpus;
mod hand;
pub mod init;
pub mod install;
mod perform;
mod place;
mod prepare;
mod recorded;
pub mod replay;
pub mod run;
mod sensors;
mod sweep;
pub mod talk;
mod tell;
pub mod test;
pub mod up;
mod usage;
mod verb;
mod vram;
pub mod watch;

use std::collections::VecDeque;
use std::path::Path;

use oomguard_core::recording::Made;
use oomguard_core::{Bytes, Enforcement, HostSample, Input, Instant, JobId, JobSample, Urgency};
use oomguard_sys::cgroup::{Parent, ParentOptions};
use oomguard_sys::clock;
use oomguard_sys::kmsg::Kmsg;
use oomguard_sys::reaper::Reaper;
use oomguard_sys::wait::{Interest, Poller, Signals};

use crate::error::Error;
use crate::record::{Notice, Record, Roster};
use crate::recording::{Tape, header};
use crate::sink::Sinks;

use gpus::Gpus;
pub use hand::Hand;
pub use place::Place;
pub use recorded::Recorded;
pub use sensors::Sensors;
pub(crate) use sensors::cores;
use sweep::Sweeper;
pub use verb::{Begun, Verb};

/// Jobs are the first that the kernel may kill, whatever the guard does.
pub const JOB_OOM_SCORE: i32 = 500;
/// Tokens below this are the loop's own; verbs number theirs from here.
pub const VERB_TOKENS: u64 = 1 << 48;
const SIGNALS: u64 = 0;
const SWEPT: u64 = 1;
const GPUS: u64 = 2;
const EXIT: u64 = 1 << 32;
const EMPTY: u64 = 2 << 32;
const LIMIT: u64 = 3 << 32;

/// Everything that a guard holds.
pub struct Guard {
    /// What decides.
    pub engine: Recorded,
    /// What reads.
    pub sensors: Sensors,
    /// The cgroup around all jobs, where there is one.
    pub parent: Option<Parent>,
    /// What acts, one a slot.
    pub hands: Vec<Hand>,
    /// What tells.
    pub sinks: Sinks,
    /// Names for what is told.
    pub roster: Roster,
    /// What is waited for.
    pub poller: Poller,
    signals: Signals,
    reaper: Reaper,
    sweeper: Sweeper,
    gpus: Gpus,
    starts: VecDeque<JobId>,
    /// The kernel's log, where we may read it.
    kmsg: Option<Kmsg>,
    samples: Vec<JobSample>,
    host: HostSample,
    /// To find the parent again, and the ceiling that it is to have.
    options: ParentOptions,
    ceiling: Option<Bytes>,
    /// Told to the sinks, but not yet to the verb.
    noted: VecDeque<Record>,
    /// What holds a job here.
    pub enforcement: Enforcement,
}

impl Guard {
    /// A guard without jobs.
    pub fn new(
        engine: impl Into<Recorded>,
        mut sensors: Sensors,
        place: Place,
        sinks: Sinks,
        roster: Roster,
    ) -> Result<Guard, Error> {
        let fail = |what: &str, error: oomguard_sys::Error| Error::new(format!("could not {what}: {error}"));
        let signals = Signals::block().map_err(|e| fail("watch for signals", e))?;
        let reaper = Reaper::start().map_err(|e| fail("start the helper that takes memory back", e))?;
        let sweeper = Sweeper::new()?;
        let mut poller = Poller::new();
        poller.add(signals.fd(), Interest::Read, SIGNALS);
        poller.add(sweeper.fd(), Interest::Read, SWEPT);
        let host = sensors.machine();
        Ok(Guard {
            host,
            enforcement: place.enforcement,
            engine: engine.into(),
            sensors,
            parent: place.parent,
            hands: Vec::new(),
            sinks,
            roster,
            poller,
            signals,
            reaper,
            sweeper,
            gpus: Gpus::default(),
            options: place.options,
            ceiling: None,
            noted: VecDeque::new(),
            starts: VecDeque::new(),
            kmsg: Kmsg::open().ok(),
            samples: Vec::new(),
        })
    }

    /// From here on everything that comes in, and what is told, is written to `path`. `seed` is the engine's own.
    pub fn record(&mut self, path: &Path, verb: &str, seed: u64) -> Result<(), Error> {
        let made = Made::Jobs { policy: *self.engine.host_policy(), seed };
        let tape = Tape::start(path, &header(verb, &self.host, made)).inspect_err(|_| {
            // Nothing has begun, so nothing is left.
            let _ = self.parent.take().map(Parent::remove);
        })?;
        self.sinks.add(tape.clone());
        self.engine.record(tape);
        Ok(())
    }

    /// Guards until no slot will do anything any more, and the verb starts nothing more.
    pub fn guard(&mut self, verb: &mut impl Verb) -> Result<(), Error> {
        while !((self.turn(verb) || self.engine.is_empty()) && verb.has_finished()) {
            self.wait(verb)?;
        }
        Ok(())
    }

    /// Looks if that is due, acts, talks; whether all is over. Does not wait.
    pub fn turn(&mut self, verb: &mut impl Verb) -> bool {
        let now = clock::now();
        verb.turn(self, now);
        if self.engine.next_look() <= now {
            self.look(now);
            verb.looked(self);
        } else {
            self.engine.handle(now, Input::Tick);
        }
        self.follow_gpus(now);
        // First act, then talk: a kill never waits for a line of text. A start does: what ended before it is
        // told while its slot still has its name and number. What the verb does about what it is told is done
        // before we sleep, too.
        while self.perform_all() | self.tell_all(verb) | self.start_next(verb) {}
        self.engine.flush();
        self.engine.is_done()
    }

    /// Reads all sensors and gives them to the engine. Allocates nothing.
    pub fn look(&mut self, now: Instant) {
        self.samples.clear();
        for (index, hand) in self.hands.iter_mut().enumerate() {
            let job = JobId(index as u16);
            if let Some(usage) = hand.usage(now) {
                self.samples.push(JobSample { job, usage });
                if let Some(entry) = self.roster.get_mut(job) {
                    entry.usage = usage.known();
                }
            }
        }
        self.host = self.sensors.host(self.parent.as_ref());
        self.engine.handle(now, Input::Sample(&self.host, &self.samples));
        // Nothing stands between a decision and its kill.
        self.perform_all();
        self.publish(now);
        self.find_empty(now);
    }

    /// Writes what was seen into the pages of all jobs.
    fn publish(&mut self, now: Instant) {
        let policy = self.engine.host_policy();
        for (index, hand) in self.hands.iter_mut().enumerate() {
            let Some(page) = &mut hand.page else { continue };
            page.ask_for_vram(self.gpus.must_be_told());
            page.host(self.engine.level(), self.host.available, self.host.total);
            page.thresholds(policy.reserve, policy.warning);
            if let Some(view) = self.engine.view(JobId(index as u16), now) {
                page.job(view.limit, view.usage.unwrap_or_default());
            }
            page.beat(now);
        }
    }

    /// Sleeps until the engine wants to be called or something has happened, and takes in what has.
    fn wait(&mut self, verb: &mut impl Verb) -> Result<(), Error> {
        let deadline = self.engine.deadline().min(verb.deadline()).min(self.gpus.deadline());
        let ready = self.poller.wait(deadline).map_err(|e| Error::new(format!("could not wait: {e}")))?;
        let mut tokens = [0u64; 64];
        let count = ready.len().min(tokens.len());
        for (token, ready) in tokens.iter_mut().zip(ready) {
            *token = ready.token;
        }
        // What the kernel says about a limit comes before the deaths that follow from it.
        for token in tokens[..count].iter().filter(|t| (LIMIT..VERB_TOKENS).contains(*t)) {
            self.read_limit_events(JobId(*token as u16));
        }
        self.perform_all();
        for &token in &tokens[..count] {
            match token {
                SIGNALS => self.take_signals(verb)?,
                SWEPT => self.swept(),
                GPUS => self.hear_gpus(),
                EXIT..EMPTY => self.exited(JobId(token as u16)),
                EMPTY..LIMIT => self.hands[JobId(token as u16).index()].quiet(),
                LIMIT..VERB_TOKENS => {}
                _ => verb.ready(self, token),
            }
        }
        self.find_empty(clock::now());
        Ok(())
    }

    /// The machine as it was last seen.
    pub fn host(&self) -> HostSample {
        self.host
    }

    /// The job that a process belongs to.
    pub fn job_of(&mut self, pid: u32) -> Option<JobId> {
        self.hands.iter_mut().position(|hand| hand.has(pid)).map(|index| JobId(index as u16))
    }

    /// Ends everything.
    pub fn shut_down(&mut self, urgency: Urgency, why: String) {
        self.note(Notice::GuardStopping { why, now: urgency == Urgency::Now });
        self.engine.handle(clock::now(), Input::Shutdown(urgency));
    }
}
