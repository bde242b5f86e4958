//! The guard: reads the sensors when the engine says so, performs what it decides, tells what happened.
//!
//! `run`, `up` and whatever comes later are [`Verb`]s over this one loop. Nothing about limits or braking is
//! decided here or in them.

pub mod check;
pub mod doctor;
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
pub mod test;
pub mod up;
mod usage;
mod vram;
pub mod watch;

use std::collections::VecDeque;
use std::path::Path;

use oomguard_core::recording::Made;
use oomguard_core::{
    Bytes, Enforcement, Event, Exit, HostSample, Input, Instant, JobId, JobSample, LimitEvent, Urgency,
};
use oomguard_sys::cgroup::{Parent, ParentOptions};
use oomguard_sys::kmsg::Kmsg;
use oomguard_sys::process::{Process, Signal};
use oomguard_sys::reaper::Reaper;
use oomguard_sys::spawn::SpawnError;
use oomguard_sys::wait::{Interest, Poller, Received, Signals, reap};
use oomguard_sys::{Error as SysError, clock};

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

/// What is different between `run` and `up`: how a job is started, and what is done about signals, own
/// descriptors and what has been told.
pub trait Verb {
    /// Starts the job of this slot, inside `hand.leaf`.
    fn start(&mut self, job: JobId, attempt: u32, hand: &mut Hand) -> Result<Begun, SpawnError>;

    /// The how-manieth start of what is in this slot it was, where a slot has not one job all its life.
    fn attempt(&self, job: JobId) -> Option<u32> {
        let _ = job;
        None
    }

    /// A signal came for the guard.
    fn signal(&mut self, guard: &mut Guard, signal: Received);

    /// A descriptor that the verb registered has something to say.
    fn ready(&mut self, guard: &mut Guard, token: u64) {
        let _ = (guard, token);
    }

    /// A turn of the loop begins.
    fn turn(&mut self, guard: &mut Guard, now: Instant) {
        let _ = (guard, now);
    }

    /// The sensors have just been read.
    fn looked(&mut self, guard: &mut Guard) {
        let _ = guard;
    }

    /// Nothing will be started any more, so that the guard may go once no slot does anything.
    fn has_finished(&self) -> bool {
        true
    }

    /// When the verb wants its turn, whatever the engine wants.
    fn deadline(&self) -> Instant {
        Instant::NEVER
    }

    /// A record is being told. What the engine says is booked here before the sinks have it.
    fn told(&mut self, guard: &mut Guard, record: &Record) {
        let _ = (guard, record);
    }
}

/// What became of an order to start.
pub enum Begun {
    /// It runs.
    Runs(Process),
    /// Somebody else starts it; `Guard::begun` is called when that is done.
    Later,
}

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

    fn take_signals(&mut self, verb: &mut impl Verb) -> Result<(), Error> {
        while let Some(signal) =
            self.signals.receive().map_err(|e| Error::new(format!("could not read signals: {e}")))?
        {
            if signal.signal == Signal::CHILD.as_raw() {
                self.reap();
            } else {
                verb.signal(self, signal);
            }
        }
        Ok(())
    }

    /// Our own child has an exit code; the end of one that was taken over is told to somebody else.
    fn exited(&mut self, job: JobId) {
        self.reap();
        if self.hands[job.index()].has_main() {
            self.main_ended(job, Exit::Unknown);
        }
    }

    fn reap(&mut self) {
        let mut ended = [(0u32, Exit::Unknown); 64];
        loop {
            let mut count = 0;
            let _ = reap(|pid, exit| {
                if count < ended.len() {
                    ended[count] = (pid, exit);
                    count += 1;
                }
            });
            for &(pid, exit) in &ended[..count] {
                let of = |hand: &Hand| hand.main.as_ref().is_some_and(|main| main.pid() == pid);
                if let Some(index) = self.hands.iter().position(of) {
                    self.main_ended(JobId(index as u16), exit);
                }
            }
            if count < ended.len() {
                return;
            }
        }
    }

    /// The main process of a job has ended. Whether its limit was the reason is asked first.
    pub(super) fn main_ended(&mut self, job: JobId, exit: Exit) {
        self.poller.remove(EXIT | u64::from(job.0));
        self.read_limit_events(job);
        let hand = &mut self.hands[job.index()];
        if hand.has_main() {
            hand.main_has_ended();
            hand.see_who_is_left();
            self.engine.handle(clock::now(), Input::Exited(job, exit));
        }
    }

    fn read_limit_events(&mut self, job: JobId) {
        let now = clock::now();
        match self.hands[job.index()].limit_event() {
            Ok(Some(event)) => {
                // Who it was is asked when all is over: reading the log takes memory and time.
                self.hands[job.index()].kernel_killed |= event != LimitEvent::Soft;
                self.engine.handle(now, Input::Limit(job, event));
            }
            Ok(None) => {}
            Err(error) => self.let_go_by_the_kernel(now, job, &error),
        }
    }

    /// The memory controller was taken away from under the job. What cannot be read stays ready for ever, and a guard
    /// that runs before everybody else would turn round in it until the machine stands still.
    fn let_go_by_the_kernel(&mut self, now: Instant, job: JobId, error: &SysError) {
        if self.poller.remove(LIMIT | u64::from(job.0)) {
            self.hands[job.index()].count_processes();
            self.note(Notice::Unheld { job, error: error.to_string() });
            self.engine.handle(now, Input::Unheld(job));
        }
    }

    /// Tells the engine which trees have no process left.
    fn find_empty(&mut self, now: Instant) {
        for index in 0..self.hands.len() {
            if self.hands[index].has_become_empty() {
                let job = JobId(index as u16);
                self.read_limit_events(job);
                if std::mem::take(&mut self.hands[index].kernel_killed) {
                    self.hands[index].name_the_killed(self.kmsg.as_mut());
                }
                self.poller.remove(EMPTY | u64::from(job.0));
                self.engine.handle(now, Input::Emptied(job));
            }
        }
    }

    /// Registers what is to be waited for about a job that runs.
    fn watch(&mut self, job: JobId) {
        let hand = &self.hands[job.index()];
        let number = u64::from(job.0);
        // SIGCHLD is for the orphans that come back to us.
        if let Some(main) = hand.main.as_ref().filter(|_| !hand.end_is_told) {
            self.poller.add(main.fd(), Interest::Read, EXIT | number);
        }
        let Some(leaf) = &hand.leaf else { return };
        if let Some(fd) = leaf.populated_fd() {
            self.poller.add(fd, Interest::Priority, EMPTY | number);
        }
        for (fd, interest) in leaf.event_fds().into_iter().flatten() {
            self.poller.add(fd, interest, LIMIT | number);
        }
    }

    /// Whoever was to tell the end of this job's main process cannot any more: from now on it is our own to see.
    pub(super) fn watch_end(&mut self, job: JobId) {
        let hand = &mut self.hands[job.index()];
        hand.end_is_told = false;
        if let Some(main) = hand.main.as_ref().filter(|_| hand.has_main()) {
            self.poller.add(main.fd(), Interest::Read, EXIT | u64::from(job.0));
        }
    }

    fn unwatch(&mut self, job: JobId) {
        for kind in [EXIT, EMPTY, LIMIT] {
            self.poller.remove(kind | u64::from(job.0));
        }
    }

    /// Tells what the engine had to say; whether it had anything.
    fn tell_all(&mut self, verb: &mut impl Verb) -> bool {
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
