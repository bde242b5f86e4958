//! The run itself: which file starts in which slot, what its end means, what follows.
//!
//! A [`Verb`] over the guard's loop. Limits, the brake and the order of signals are the engine's; here is only what a
//! test file is.

mod finish;
mod nursery;
mod start;

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use oomguard_core::{Bytes, Cause, Enforcement, Event, Exit, Input, Instant, JobId, Urgency};
use oomguard_sys::cgroup::Parent;
use oomguard_sys::clock;
use oomguard_sys::process::Signal;
use oomguard_sys::spawn::SpawnError;
use oomguard_sys::wait::{Interest, Received};

use super::super::{Begun, Guard, Hand, VERB_TOKENS, Verb};
use super::cover;
use super::gpu::Gpus;
use super::keeper;
use super::plan::Plan;
use super::queue::Queue;
use super::slot::Slot;
use super::standby::Standby;
use super::zygote::{Ready, Wanted, Zygote};
use crate::config::test::{GpuFiles, Isolation};
use crate::error::{Error, FAILED};
use crate::outcome::FileOutcome;
use crate::record::{Notice, Record, Told};

use finish::not_run;
use nursery::Nursery;
use start::can_fork;

/// The variable that the members of one file's tree are known by.
const MARK: &str = "OOMGUARD_TEST";
/// How long the zygote may take to import what it is told to.
const ZYGOTE_PATIENCE: Duration = Duration::from_secs(120);
/// How often it is looked whether memory has come back.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
const ZYGOTE: u64 = VERB_TOKENS;
const GPU: u64 = VERB_TOKENS + 1;
const SLOT: u64 = VERB_TOKENS + 16;
/// Why a file failed, where no test of it did.
const NO_TEST_FAILED: &str = "pytest failed though no test did; its log says why";
/// The plugin that tells us what pytest does.
const PLUGIN: &str = "oomguard.pytest._heartbeat";

/// The run.
pub struct Runner {
    plan: Plan,
    enforcement: Enforcement,
    queue: Queue,
    slots: Vec<Option<Slot>>,
    /// Slots whose last file did not die of SIGKILL: nothing is started in them any more.
    lost: Vec<bool>,
    gpus: Option<Gpus>,
    /// Since when files wait for VRAM.
    vram_waits: Option<Instant>,
    nursery: Nursery,
    /// Who waits for an order, the longest first.
    standbys: VecDeque<Standby>,
    /// Where logs go.
    dir: PathBuf,
    /// How often each file was run.
    attempts: Vec<u32>,
    numbers: u64,
    /// How many cgroups were made.
    leaves: u64,
    failed_tests: u32,
    /// Since when files wait for memory to come back.
    waits: Option<Instant>,
    again_at: Instant,
    interrupts: u32,
    /// Why no more files are started.
    pub stopped: Option<String>,
    /// The exit code, where it is not what the files say.
    pub code: Option<u8>,
    /// What pytest or Python wrote, where nothing could be run because of it.
    pub refusal: Option<String>,
    /// The last outcome of every file that ended.
    pub outcomes: BTreeMap<usize, FileOutcome>,
    /// Somebody has pressed Ctrl-C.
    pub interrupted: bool,
    /// Files of coverage data.
    pub coverage: Vec<PathBuf>,
    covers: bool,
}

impl Runner {
    /// A run that has not begun.
    pub fn new(plan: Plan, dir: PathBuf, enforcement: Enforcement, gpus: Option<Gpus>) -> Runner {
        let needs = plan.cases.iter().map(|case| case.need).enumerate();
        let forks = plan.command.is_none() && plan.isolation != Isolation::Spawn;
        let anybody = plan.cases.iter().any(can_fork);
        Runner {
            queue: Queue::new(needs, plan.gpu == GpuFiles::Packed),
            slots: (0..plan.jobs).map(|_| None).collect(),
            lost: vec![false; usize::from(plan.jobs)],
            nursery: if forks && anybody { Nursery::Wanted } else { Nursery::None },
            attempts: vec![0; plan.cases.len()],
            covers: plan.command.is_none() && cover::is_wanted(&plan.options),
            standbys: VecDeque::new(),
            numbers: 0,
            leaves: 0,
            failed_tests: 0,
            waits: None,
            gpus,
            vram_waits: None,
            again_at: Instant::NEVER,
            interrupts: 0,
            stopped: None,
            refusal: None,
            code: None,
            outcomes: BTreeMap::new(),
            interrupted: false,
            coverage: Vec::new(),
            enforcement,
            dir,
            plan,
        }
    }

    /// Starts the zygote, or the first files.
    pub fn begin(&mut self, guard: &mut Guard) -> Result<(), Error> {
        if let Some(gpus) = &self.gpus {
            guard.poller.add(gpus.fd(), Interest::Read, GPU);
        }
        if !matches!(self.nursery, Nursery::Wanted) {
            let how = if self.plan.command.is_some() { "command" } else { "spawn" };
            self.isolated(guard, how, None, &Ready::default());
            self.start_files(guard);
            return Ok(());
        }
        let name = leaf_name("zygote");
        let leaf = guard.parent.as_ref().and_then(|parent| parent.leaf(&name).ok());
        let log = self.dir.join("zygote.log");
        let file = File::create_new(&log).map_err(|error| Error::io("create", &log, &error))?;
        let wanted = Wanted {
            v: 1,
            args: self.pytest_args(),
            paths: self.plan.paths.clone(),
            preload: self.plan.preload.clone(),
            depth: "auto",
        };
        let env = self.environment(&BTreeMap::new());
        let zygote =
            Zygote::start(&self.plan.python, &wanted, &env, &self.plan.cwd, leaf.as_ref(), file.into())?;
        guard.poller.add(zygote.as_fd(), Interest::Read, ZYGOTE);
        self.nursery = Nursery::Starting(zygote, clock::now().after(ZYGOTE_PATIENCE));
        Ok(())
    }

    /// Lets the zygote go and removes what was made for it, and for files that it did not come to.
    pub fn end(&mut self, parent: Option<&Parent>) {
        if let Nursery::Starting(zygote, _) | Nursery::Ready(zygote, _) =
            std::mem::replace(&mut self.nursery, Nursery::None)
        {
            zygote.end();
        }
        if let Some(parent) = parent {
            keeper::end_leaves(parent, &leaf_name(""));
        }
    }

    /// Whether tests of this file may have been left out.
    pub fn is_narrowed(&self, case: usize) -> bool {
        self.plan.is_narrowed(case)
    }

    /// All arguments of pytest but the file.
    fn pytest_args(&self) -> Vec<String> {
        let mut args = self.plan.pytest.clone();
        if self.covers {
            args.extend(cover::IN_PARTS.map(str::to_owned));
        }
        args
    }

    fn environment(&self, own: &BTreeMap<String, String>) -> Vec<(OsString, Option<OsString>)> {
        let all = self.plan.env.iter().chain(own);
        let mark = std::iter::once((OsString::from(MARK), Some(OsString::from(self.mark(0)))));
        mark.chain(all.map(|(key, value)| (key.into(), Some(value.into())))).collect()
    }

    fn mark(&self, id: u64) -> String {
        format!("{}-{id}", std::process::id())
    }

    /// Starts nothing any more, and ends what runs.
    fn stop(&mut self, guard: &mut Guard, why: String, code: Option<u8>) {
        self.code = self.code.or(code);
        if self.stopped.is_none() {
            self.stopped = Some(why.clone());
        }
        for case in self.queue.drain() {
            // One that waited for its second chance has an outcome already.
            if !self.outcomes.contains_key(&case) {
                let outcome = not_run(&self.plan.cases[case], &why);
                self.outcomes.insert(case, outcome.clone());
                guard.note(Notice::FileEnded { job: None, vram: None, outcome: Box::new(outcome) });
            }
        }
        if let Nursery::Starting(zygote, _) = &self.nursery {
            zygote.kill();
            guard.poller.remove(ZYGOTE);
            self.nursery = Nursery::None;
        }
        self.end_all(guard, Urgency::Graceful);
    }

    fn end_all(&mut self, guard: &mut Guard, urgency: Urgency) {
        let now = clock::now();
        for index in 0..self.slots.len() {
            if self.slots[index].is_some() {
                guard.engine.handle(now, Input::Remove(JobId(index as u16), urgency));
            }
        }
    }
}

impl Verb for Runner {
    fn start(&mut self, job: JobId, _: u32, hand: &mut Hand) -> Result<Begun, SpawnError> {
        match self.fork(job, hand) {
            Some(begun) => Ok(begun),
            None => self.spawn(job, hand),
        }
    }

    fn attempt(&self, job: JobId) -> Option<u32> {
        Some(self.slots.get(job.index())?.as_ref()?.attempt)
    }

    fn signal(&mut self, guard: &mut Guard, signal: Received) {
        let name = match Signal::from_named_raw(signal.signal) {
            Some(Signal::USR1 | Signal::USR2) => return,
            // nohup: the terminal may go.
            Some(Signal::HUP) if guard.signals.was_ignored(signal.signal) => return,
            Some(Signal::INT) => "Ctrl-C".to_owned(),
            Some(Signal::TERM) => "SIGTERM".to_owned(),
            _ => format!("signal {}", signal.signal),
        };
        self.interrupts += 1;
        self.interrupted = true;
        if self.interrupts == 1 {
            self.stop(guard, format!("interrupted ({name})"), Some(2));
        } else {
            self.end_all(guard, Urgency::Now);
        }
        guard.note(Notice::GuardStopping { why: name, now: self.interrupts > 1 });
    }

    fn ready(&mut self, guard: &mut Guard, token: u64) {
        if token == ZYGOTE {
            return self.hear_zygote(guard);
        }
        if token == GPU {
            return self.look_at_gpus(guard);
        }
        let index = (token - SLOT) as usize;
        if let Some(slot) = self.slots.get_mut(index).and_then(Option::as_mut)
            && !slot.listen()
        {
            guard.poller.remove(token);
        }
    }

    fn turn(&mut self, guard: &mut Guard, now: Instant) {
        if now >= self.again_at {
            self.again_at = Instant::NEVER;
            // What stands in the last sample may be old.
            guard.look(now);
            self.start_files(guard);
        }
        if self.gpus.as_ref().is_some_and(|gpus| now >= gpus.deadline()) {
            self.look_at_gpus(guard);
        }
        if let Nursery::Starting(_, until) = &self.nursery
            && now >= *until
        {
            self.without_zygote(
                guard,
                &format!("it was not ready to fork within {ZYGOTE_PATIENCE:?}"),
                "",
                None,
            );
        }
    }

    fn deadline(&self) -> Instant {
        let gpus = self.gpus.as_ref().map_or(Instant::NEVER, Gpus::deadline);
        match &self.nursery {
            Nursery::Starting(_, until) => self.again_at.min(*until).min(gpus),
            _ => self.again_at.min(gpus),
        }
    }

    fn has_finished(&self) -> bool {
        let starting = matches!(self.nursery, Nursery::Wanted | Nursery::Starting(..));
        !starting && self.queue.is_empty() && self.slots.iter().all(Option::is_none)
    }

    fn told(&mut self, guard: &mut Guard, record: &Record) {
        match &record.told {
            Told::Engine(Event::Ended { job, cause, exit, age, peak }) => {
                self.ended(guard, *job, *cause, *exit, *age, *peak);
            }
            Told::Engine(Event::Brake { job, available, .. } | Event::Kill { job, available, .. }) => {
                if let Some(slot) = &mut self.slots[job.index()] {
                    slot.available = Some(*available);
                }
            }
            Told::Engine(Event::Unkillable { job, .. }) => {
                self.lost[job.index()] = true;
                if self.lost.iter().all(|lost| *lost) {
                    let why = "what was killed does not end, and holds every slot".to_owned();
                    self.stop(guard, why, Some(FAILED));
                }
                self.ended(guard, *job, Cause::Requested, Exit::Unknown, Duration::ZERO, Bytes::ZERO);
            }
            Told::Notice(Notice::ShmRemoved { job: Some(job), files, bytes }) => {
                if let Some(slot) = &mut self.slots[job.index()] {
                    slot.left.push(format!("{bytes} in {files} file(s) of /dev/shm"));
                }
            }
            Told::Notice(Notice::StartError { job, error }) => {
                if let Some(slot) = &mut self.slots[job.index()] {
                    slot.error = Some(error.clone());
                }
            }
            _ => {}
        }
    }
}

/// What the cgroups of this run are called; each file's has a number.
fn leaf_name(of: impl std::fmt::Display) -> String {
    format!("test-{}-{of}", std::process::id())
}

/// What all files together may use: what is available and what they use already, less the reserve.
fn room(guard: &Guard) -> Bytes {
    let used = guard.roster.iter().filter_map(|(_, entry)| entry.usage).fold(Bytes::ZERO, Bytes::plus);
    guard.host().available.plus(used).minus(guard.engine.host_policy().reserve)
}
