//! The run itself: which file starts in which slot, what its end means, what follows.
//!
//! A [`Verb`] over the guard's loop. Limits, the brake and the order of signals are the engine's; here is only what a
//! test file is.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use oomguard_core::{Bytes, Cause, Enforcement, Event, Exit, Input, Instant, JobId, Urgency};
use oomguard_sys::cgroup::{Leaf, Limits};
use oomguard_sys::clock;
use oomguard_sys::process::Signal;
use oomguard_sys::spawn::{Session, Spawn, SpawnError, Stream};
use oomguard_sys::wait::{Interest, Received};
use rustix::io::FdFlags;

use super::super::{Begun, Guard, Hand, JOB_OOM_SCORE, VERB_TOKENS, Verb, place};
use super::cover;
use super::gpu::{Gate, Gpus};
use super::plan::{self, Case, Plan};
use super::queue::{GpuRoom, Need, Next, Queue};
use super::slot::{Slot, Streams};
use super::verdict::End;
use super::zygote::{Child, Ready, Said, Wanted, Zygote};
use crate::config::test::{GpuFiles, Isolation, RetryOn};
use crate::error::{Error, FAILED, REFUSED};
use crate::outcome::{FileOutcome, Verdict};
use crate::record::{Entry, Notice, Record, Told};

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

/// Where the zygote stands.
enum Nursery {
    /// None is wanted.
    None,
    /// It is to be started.
    Wanted,
    /// It imports what it was told to.
    Starting(Zygote, Instant),
    /// It forks.
    Ready(Zygote, &'static str),
}

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
    zygote_leaf: Option<Leaf>,
    /// Where logs go.
    dir: PathBuf,
    /// How often each file was run.
    attempts: Vec<u32>,
    numbers: u64,
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
            zygote_leaf: None,
            numbers: 0,
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
        let name = format!("test-{}-zygote", std::process::id());
        self.zygote_leaf = guard.parent.as_ref().and_then(|parent| parent.leaf(&name).ok());
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
        let leaf = self.zygote_leaf.as_ref();
        let zygote = Zygote::start(&self.plan.python, &wanted, &env, &self.plan.cwd, leaf, file.into())?;
        guard.poller.add(zygote.as_fd(), Interest::Read, ZYGOTE);
        self.nursery = Nursery::Starting(zygote, clock::now().after(ZYGOTE_PATIENCE));
        Ok(())
    }

    /// Lets the zygote go and removes what was made for it.
    pub fn end(&mut self) {
        if let Nursery::Starting(zygote, _) | Nursery::Ready(zygote, _) =
            std::mem::replace(&mut self.nursery, Nursery::None)
        {
            zygote.end();
        }
        if let Some(leaf) = self.zygote_leaf.take() {
            let _ = leaf.kill();
            let _ = leaf.remove();
        }
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

    // --- files start ---------------------------------------------------------------------------------------

    /// Starts what can be started now.
    fn start_files(&mut self, guard: &mut Guard) {
        if matches!(self.nursery, Nursery::Wanted | Nursery::Starting(..)) || self.stopped.is_some() {
            return;
        }
        while let Some(free) = self.free_slot() {
            if !self.queue.is_empty() && !self.has_come_back(guard) {
                return;
            }
            let gpu = self.gpu_room(guard);
            match self.queue.next(room(guard), gpu) {
                Next::Start(case) => self.order(guard, free, case),
                Next::Wait | Next::Empty => return,
            }
        }
    }

    fn free_slot(&self) -> Option<usize> {
        self.slots.iter().zip(&self.lost).position(|(slot, lost)| slot.is_none() && !lost)
    }

    /// Whether so little RAM is used that a further file may start. While others run it is theirs; else it is waited
    /// for, and not for ever.
    fn has_come_back(&mut self, guard: &mut Guard) -> bool {
        let host = guard.host();
        let ram = super::percent_used(&host);
        if ram < f64::from(self.plan.ram_target) {
            self.waits = None;
            return true;
        }
        if !self.queue.is_idle() {
            return false;
        }
        let now = clock::now();
        let target = self.plan.ram_target;
        let since = *self.waits.get_or_insert_with(|| {
            guard.note(Notice::SuiteWaits { ram, target, delay: self.plan.wait });
            now
        });
        if now.since(since) >= self.plan.wait {
            let holders = super::preflight::holders().join(", ");
            let waited = self.plan.wait;
            let why = format!(
                "RAM {ram:.1}% used, not below {target}% after {waited:?}; most is held by {holders}"
            );
            self.stop(guard, why, Some(REFUSED));
            return false;
        }
        self.again_at = now.after(LOOK_AGAIN);
        false
    }

    /// Whether a file that uses a GPU may start. As with RAM it is waited for, where nothing else is left to be done, and
    /// not for ever.
    fn gpu_room(&mut self, guard: &mut Guard) -> GpuRoom {
        let Some(gpus) = &mut self.gpus else { return GpuRoom::Open(None) };
        let full = match gpus.gate(self.plan.vram_preflight, self.queue.gpu_is_used()) {
            Gate::Awaits => return GpuRoom::Closed,
            Gate::Full(why) => why,
            Gate::Open { room } => {
                self.vram_waits = None;
                // Those that run have theirs already.
                let held = self.slots.iter().flatten().filter_map(|slot| slot.gpu.as_ref()?.peak);
                return GpuRoom::Open(room.map(|room| held.fold(room, Bytes::plus)));
            }
        };
        let now = clock::now();
        gpus.look_soon(now);
        if !self.queue.waits_for_gpu() || !self.queue.is_idle() {
            return GpuRoom::Closed;
        }
        let wait = self.plan.wait;
        let since = *self.vram_waits.get_or_insert_with(|| {
            let text = format!("the files that use a GPU wait, {wait:?} at most: {full}");
            guard.note(Notice::Note { text });
            now
        });
        if now.since(since) >= wait {
            self.stop(guard, format!("{full}, and it has not come back after {wait:?}"), Some(REFUSED));
        }
        GpuRoom::Closed
    }

    /// What the GPUs' watcher has seen is booked, and who waited for it may start.
    fn look_at_gpus(&mut self, guard: &mut Guard) {
        let Some(gpus) = &mut self.gpus else { return };
        let now = clock::now();
        let mut texts: Vec<String> = gpus.hear().into_iter().collect();
        for (slot, hand) in self.slots.iter_mut().zip(&mut guard.hands) {
            if let Some(held) = slot.as_mut().and_then(|slot| slot.gpu.as_mut()) {
                gpus.book(held, |pid| hand.has(pid));
            }
        }
        texts.extend(gpus.settle(now));
        for text in texts {
            guard.note(Notice::Note { text });
        }
        self.start_files(guard);
    }

    fn order(&mut self, guard: &mut Guard, free: usize, case: usize) {
        let now = clock::now();
        self.numbers += 1;
        self.attempts[case] += 1;
        let attempt = self.attempts[case];
        let it = &self.plan.cases[case];
        let mut slot = match Slot::open(&self.dir, self.numbers, &it.name, case, attempt, now) {
            Ok(slot) => slot,
            Err(error) => {
                self.queue.ended(case);
                let why = format!("`{}` cannot be written: {error}", self.dir.display());
                return self.stop(guard, why, Some(FAILED));
            }
        };
        // The second chance of a file that memory killed: all that there is, unless somebody has set its limit.
        let whole = attempt > 1 && !it.limit_is_meant && self.was_killed(case);
        slot.limit = if whole { it.limit.map(|limit| limit.max(room(guard))) } else { it.limit };
        let (job, limit) = (JobId(free as u16), slot.limit);
        let name = format!("test-{}-{free}", std::process::id());
        let limits = limit.map(|limit| Limits { swap: Some(Bytes::ZERO), ..Limits::new(limit) });
        let mut hand = Hand::new(name, self.enforcement, limits);
        hand.leaves_nothing = true;
        if self.plan.command.is_none() {
            // pytest ends in good order, with its reports, on a KeyboardInterrupt.
            hand.stop_signal = Signal::INT;
        }
        hand.mark = Some((MARK.to_owned(), self.mark(slot.id)));
        guard.hands[free] = hand;
        let entry = Entry {
            name: it.name.clone(),
            label: it.name.clone(),
            limit,
            log: Some(slot.log.clone()),
            ..Entry::default()
        };
        guard.roster.set(job, entry);
        guard.poller.add(slot.as_fd(), Interest::Read, SLOT + free as u64);
        let policy = Plan::policy(it, limit, self.enforcement);
        let path = it.name.clone();
        slot.gpu = self.gpus.as_mut().filter(|_| it.need.gpu).map(Gpus::begins);
        self.slots[free] = Some(slot);
        let vram = self.gpus.as_mut().and_then(Gpus::percent);
        guard.note(Notice::FileStarted { job, path, attempt, limit, vram });
        guard.engine.handle(now, Input::Add(job, policy));
    }

    fn was_killed(&self, case: usize) -> bool {
        self.outcomes.get(&case).is_some_and(|outcome| outcome.verdict.is_memory())
    }

    /// A fresh process.
    fn spawn(&mut self, job: JobId, hand: &mut Hand) -> Result<Begun, SpawnError> {
        let Some(slot) = &mut self.slots[job.index()] else { return Err(nothing("start an empty slot")) };
        let case = &self.plan.cases[slot.case];
        let Some(Streams { output, details, beats }) = slot.take_streams() else {
            return Err(nothing("start a file twice"));
        };
        let errors =
            output.try_clone().map_err(|error| SpawnError::Other { doing: "share its log", error })?;
        let details = OwnedFd::from(details);
        let (id, args) = (slot.id, case.args.clone());
        let mut env = self.environment(&case.env);
        env.extend(case.vram_env.iter().map(|(key, value)| (key.into(), Some(value.into()))));
        env.push((MARK.into(), Some(self.mark(id).into())));
        let argv = match &self.plan.command {
            Some(words) => plan::command(words, &case.path),
            None => {
                for (name, fd) in [("OOMGUARD_TEST_FD", &beats), ("OOMGUARD_TEST_REPORT", &details)] {
                    inherit(fd).map_err(|error| SpawnError::Other { doing: "hand a pipe over", error })?;
                    env.push((name.into(), Some(fd.as_raw_fd().to_string().into())));
                }
                let fixed = ["-m", "pytest", "-p", PLUGIN].map(str::to_owned);
                let words = fixed.into_iter().chain(self.pytest_args()).chain(args).map(OsString::from);
                std::iter::once(self.plan.python.clone().into_os_string()).chain(words).collect()
            }
        };
        if let Some(file) = self.cover(id) {
            env.push(("COVERAGE_FILE".into(), Some(file.into())));
        }
        let spawn = Spawn {
            argv: &argv,
            env: &env,
            cwd: Some(self.plan.cwd.clone()),
            leaf: hand.leaf.as_ref(),
            rlimit_data: place::rlimit_data(hand.enforcement, hand.limits.map(|limits| limits.memory)),
            oom_score_adj: Some(JOB_OOM_SCORE),
            stdio: [Stream::Null, Stream::File(output.into()), Stream::File(errors.into())],
            session: Session::NewSession,
        };
        hand.end_is_told = false;
        spawn.start().map(Begun::Runs)
    }

    /// A child of the zygote; `None`: it has to be a fresh process.
    fn fork(&mut self, job: JobId, hand: &mut Hand) -> Option<Begun> {
        let Nursery::Ready(zygote, depth) = &self.nursery else { return None };
        let slot = self.slots[job.index()].as_mut()?;
        let case = &self.plan.cases[slot.case];
        if !can_fork(case) {
            return None;
        }
        let Streams { output, details, beats } = slot.take_streams()?;
        let mut env =
            BTreeMap::from([(MARK.to_owned(), Some(format!("{}-{}", std::process::id(), slot.id)))]);
        env.extend(case.vram_env.iter().map(|(key, value)| (key.clone(), Some(value.clone()))));
        if self.covers {
            let file = self.dir.join(format!("coverage.{}", slot.id));
            env.insert("COVERAGE_FILE".to_owned(), Some(file.to_string_lossy().into_owned()));
            self.coverage.push(file);
        }
        let child = Child {
            id: slot.id,
            args: &case.args,
            env: &env,
            oom_score_adj: Some(JOB_OOM_SCORE),
            rlimit_data: place::rlimit_data(hand.enforcement, hand.limits.map(|limits| limits.memory)),
            leaf: hand.leaf.as_ref(),
            streams: [output.as_fd(), output.as_fd(), beats.as_fd(), details.as_fd()],
        };
        if zygote.fork(&child).is_err() {
            return None;
        }
        slot.isolation = depth;
        hand.end_is_told = true;
        Some(Begun::Later)
    }

    fn cover(&mut self, id: u64) -> Option<PathBuf> {
        let file = self.covers.then(|| self.dir.join(format!("coverage.{id}")))?;
        self.coverage.push(file.clone());
        Some(file)
    }

    // --- the zygote speaks ---------------------------------------------------------------------------------

    fn hear_zygote(&mut self, guard: &mut Guard) {
        loop {
            let said = match &mut self.nursery {
                Nursery::Starting(zygote, _) | Nursery::Ready(zygote, _) => zygote.receive(),
                Nursery::None | Nursery::Wanted => return,
            };
            match said {
                None => return,
                Some(Said::Ready(ready)) => self.zygote_is_ready(guard, &ready),
                Some(Said::Unusable { why, output, exit }) => {
                    return self.without_zygote(guard, &why, &output, exit);
                }
                Some(Said::Gone) => {
                    let output = std::fs::read_to_string(self.dir.join("zygote.log")).unwrap_or_default();
                    // Python itself says why: a module is not there, a version is too old.
                    let exit = matches!(self.nursery, Nursery::Starting(..)).then_some(FAILED);
                    return self.without_zygote(
                        guard,
                        "the process that was to fork has died",
                        &output,
                        exit,
                    );
                }
                Some(Said::Forked(id, process)) => match self.job_of(id) {
                    Some(job) => guard.begun(job, Ok(process)),
                    None => drop(process.signal(Signal::KILL)),
                },
                Some(Said::Refused(id, why)) => self.refused(guard, id, &why),
                Some(Said::Exited(id, exit)) => {
                    if let Some(job) = self.job_of(id) {
                        guard.main_ended(job, exit);
                    }
                }
            }
        }
    }

    fn job_of(&self, id: u64) -> Option<JobId> {
        let of = |slot: &Option<Slot>| slot.as_ref().is_some_and(|slot| slot.id == id);
        self.slots.iter().position(of).map(|index| JobId(index as u16))
    }

    fn zygote_is_ready(&mut self, guard: &mut Guard, ready: &Ready) {
        let how = if ready.depth == "collection" { "fork-collection" } else { "fork-imports" };
        self.isolated(guard, how, ready.why.clone(), ready);
        for (module, why) in &ready.passed_over {
            guard.note(Notice::Note { text: format!("{module} is not imported beforehand: {why}") });
        }
        if let Nursery::Starting(zygote, _) = std::mem::replace(&mut self.nursery, Nursery::None) {
            self.nursery = Nursery::Ready(zygote, how);
        }
        self.start_files(guard);
    }

    fn isolated(&self, guard: &mut Guard, how: &str, why: Option<String>, ready: &Ready) {
        let known = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        guard.note(Notice::Isolated {
            how: how.to_owned(),
            why,
            preloaded: ready.preloaded.clone(),
            python: known(&ready.python),
            pytest: known(&ready.pytest),
        });
    }

    /// A child could not be forked: a fresh process then, unless a fork was demanded.
    fn refused(&mut self, guard: &mut Guard, id: u64, why: &str) {
        let Some(job) = self.job_of(id) else { return };
        if self.plan.isolation == Isolation::Fork {
            guard.begun(job, Err(format!("it cannot be forked: {why}")));
            return;
        }
        guard.note(Notice::Note { text: format!("a fresh process instead of a fork: {why}") });
        self.spawn_instead(guard, job);
    }

    fn spawn_instead(&mut self, guard: &mut Guard, job: JobId) {
        let index = job.index();
        if let Some(slot) = &mut self.slots[index] {
            // Its pipe and files went to the zygote.
            self.numbers += 1;
            let (case, attempt, limit, began) = (slot.case, slot.attempt, slot.limit, slot.began);
            let gpu = slot.gpu.take();
            guard.poller.remove(SLOT + index as u64);
            match Slot::open(&self.dir, self.numbers, &self.plan.cases[case].name, case, attempt, began) {
                Ok(fresh) => *slot = fresh,
                Err(error) => return guard.begun(job, Err(error.to_string())),
            }
            slot.limit = limit;
            slot.gpu = gpu;
            guard.poller.add(slot.as_fd(), Interest::Read, SLOT + index as u64);
        }
        let mut hand =
            std::mem::replace(&mut guard.hands[index], Hand::new(String::new(), self.enforcement, None));
        let begun = self.spawn(job, &mut hand);
        guard.hands[index] = hand;
        match begun {
            Ok(Begun::Runs(main)) => guard.begun(job, Ok(main)),
            Ok(Begun::Later) => {}
            Err(error) => guard.begun(job, Err(error.to_string())),
        }
    }

    /// There is no zygote (any more). What it has forked is ours to watch now; the rest gets fresh processes.
    /// `exit`: a fresh process would end in the same way, with this code.
    fn without_zygote(&mut self, guard: &mut Guard, why: &str, output: &str, exit: Option<u8>) {
        guard.poller.remove(ZYGOTE);
        let before = std::mem::replace(&mut self.nursery, Nursery::None);
        let began = matches!(before, Nursery::Ready(..));
        if let Nursery::Starting(zygote, _) | Nursery::Ready(zygote, _) = before {
            zygote.kill();
        }
        let demanded = Some(FAILED).filter(|_| self.plan.isolation == Isolation::Fork);
        if let Some(code) = exit.or(demanded).filter(|_| !began) {
            self.refusal = Some(output.trim().to_owned()).filter(|output| !output.is_empty());
            return self.stop(guard, why.to_owned(), Some(code));
        }
        self.isolated(guard, "spawn", Some(why.to_owned()), &Ready::default());
        for index in 0..self.slots.len() {
            let job = JobId(index as u16);
            match &self.slots[index] {
                Some(slot) if slot.isolation != "spawn" && guard.hands[index].main.is_some() => {
                    guard.watch_end(job)
                }
                Some(slot) if slot.isolation != "spawn" => self.spawn_instead(guard, job),
                _ => {}
            }
        }
        self.start_files(guard);
    }

    // --- files end -----------------------------------------------------------------------------------------

    fn ended(&mut self, guard: &mut Guard, job: JobId, cause: Cause, exit: Exit, age: Duration, peak: Bytes) {
        let Some(mut slot) = self.slots[job.index()].take() else { return };
        guard.poller.remove(SLOT + u64::from(job.0));
        slot.listen();
        self.queue.ended(slot.case);
        let hand = &guard.hands[job.index()];
        let left = hand.left.iter().map(|(pid, name)| format!("process {name} ({pid})"));
        slot.left.splice(0..0, left);
        let largest = hand.largest.as_ref().map(|(_, name, usage)| (name.clone(), *usage));
        let peak = peak.max(hand.charged_peak.minus(hand.charged_cache));
        let case = slot.case;
        let vram = self.gpus.as_mut().and_then(Gpus::percent);
        if let (Some(gpus), Some(held)) = (&mut self.gpus, &slot.gpu) {
            gpus.ended(&self.plan.cases[case].name, held);
        }
        let outcome = self.outcome(slot, cause, exit, age, peak, largest);
        let again = outcome.again;
        let memory = outcome.peak_ram.unwrap_or_default();
        if !again {
            self.failed_tests += failures(&outcome);
        }
        self.outcomes.insert(case, outcome.clone());
        guard.note(Notice::FileEnded { job: Some(job), vram, outcome: Box::new(outcome) });
        if again {
            self.queue.again(case, Need { memory, ..self.plan.cases[case].need });
        }
        if let Some(most) = self.plan.maxfail.filter(|most| self.failed_tests >= *most) {
            self.stop(guard, format!("stopped after {most} failure(s)"), None);
        }
        self.start_files(guard);
    }

    fn outcome(
        &self,
        slot: Slot,
        cause: Cause,
        exit: Exit,
        age: Duration,
        peak: Bytes,
        largest: Option<(String, Bytes)>,
    ) -> FileOutcome {
        let details = slot.details();
        let case = &self.plan.cases[slot.case];
        let running = slot.beats.running().map(str::to_owned);
        let end = End {
            cause,
            exit,
            announced: slot.beats.end(),
            pytest: self.plan.command.is_none(),
            running: running.as_deref(),
            limit: slot.limit,
            peak,
            timeout: case.timeout,
            available: slot.available,
            largest: largest.as_ref().map(|(name, usage)| (name.as_str(), *usage)),
        };
        let (verdict, message) = end.verdict();
        let died = end.was_left()
            || !matches!(
                verdict,
                Verdict::Passed | Verdict::Failed | Verdict::NoTests | Verdict::Usage | Verdict::Internal
            );
        let message = slot.error.clone().or(message);
        let seconds = age.as_secs_f64();
        let tests =
            slot.beats.tests(&details, died.then(|| (message.as_deref().unwrap_or_default(), seconds)));
        let silent = verdict == Verdict::Failed && !tests.iter().any(|test| test.outcome.is_failure());
        let message = message.or_else(|| silent.then(|| NO_TEST_FAILED.to_owned()));
        FileOutcome {
            path: case.name.clone(),
            verdict,
            again: self.stopped.is_none() && self.is_worth_another(slot.case, slot.attempt, verdict, cause),
            message,
            running: running.filter(|_| died),
            attempt: slot.attempt,
            seconds,
            peak_ram: Some(peak).filter(|peak| *peak > Bytes::ZERO),
            peak_vram: slot.gpu.as_ref().and_then(|held| held.peak),
            limit: slot.limit,
            isolation: if self.plan.command.is_some() { "command" } else { slot.isolation }.to_owned(),
            exit_code: if let Exit::Code(code) = exit { Some(code) } else { None },
            signal: if let Exit::Signal(signal) = exit { Some(signal) } else { None },
            left_behind: slot.left,
            log: Some(slot.log),
            tests,
        }
    }

    /// Killed by memory: once, alone, with all that there is; at its own limit only if that may be raised, or it would
    /// die of it again. Everything else as often as was asked for.
    fn is_worth_another(&self, case: usize, attempt: u32, verdict: Verdict, cause: Cause) -> bool {
        let asked = |what| self.plan.retry_on.contains(&what) && attempt <= self.plan.retries;
        match verdict {
            Verdict::MemoryReserve => attempt == 1 || asked(RetryOn::Memory),
            Verdict::MemoryLimit => {
                let may_be_raised = !self.plan.cases[case].limit_is_meant || cause != Cause::Limit;
                (attempt == 1 && may_be_raised) || asked(RetryOn::Memory)
            }
            Verdict::Crash => asked(RetryOn::Crash),
            Verdict::Timeout => asked(RetryOn::Timeout),
            Verdict::Failed => asked(RetryOn::Failure),
            _ => false,
        }
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

    fn signal(&mut self, guard: &mut Guard, signal: Received) {
        let name = match Signal::from_named_raw(signal.signal) {
            Some(Signal::USR1 | Signal::USR2) => return,
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

/// What all files together may use: what is available and what they use already, less the reserve.
fn room(guard: &Guard) -> Bytes {
    let used = guard.roster.iter().filter_map(|(_, entry)| entry.usage).fold(Bytes::ZERO, Bytes::plus);
    guard.host().available.plus(used).minus(guard.engine.host_policy().reserve)
}

/// Nothing of its own stands against a fork.
fn can_fork(case: &Case) -> bool {
    case.isolation != Isolation::Spawn && case.env.is_empty()
}

fn failures(outcome: &FileOutcome) -> u32 {
    let counts = outcome.counts();
    let tests = (counts.failed + counts.errors) as u32;
    tests.max(u32::from(!outcome.verdict.is_good()))
}

fn not_run(case: &Case, why: &str) -> FileOutcome {
    FileOutcome {
        path: case.name.clone(),
        verdict: Verdict::NotRun,
        message: Some(why.to_owned()),
        running: None,
        attempt: 0,
        again: false,
        seconds: 0.0,
        peak_ram: None,
        peak_vram: None,
        limit: case.limit,
        isolation: String::new(),
        exit_code: None,
        signal: None,
        left_behind: Vec::new(),
        log: None,
        tests: Vec::new(),
    }
}

fn inherit(fd: &OwnedFd) -> std::io::Result<()> {
    rustix::io::fcntl_setfd(fd, FdFlags::empty()).map_err(Into::into)
}

fn nothing(doing: &'static str) -> SpawnError {
    SpawnError::Other { doing, error: std::io::ErrorKind::InvalidInput.into() }
}
