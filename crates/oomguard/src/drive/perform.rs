//! One arm for every effect, and no decisions: what the engine said is done, and what came of it is said.

use std::time::SystemTime;

use oomguard_core::{Bytes, Cause, Effect, Holding, Input, JobId};
use oomguard_sys::cgroup::Limits;
use oomguard_sys::page::{self, Stop};
use oomguard_sys::process::{Process, Signal};
use oomguard_sys::spawn::SpawnError;
use oomguard_sys::{Error, clock};

use super::place::{GONE, open_parent};
use super::sweep::{self, Swept};
use super::{Begun, Guard, Verb};
use crate::record::Notice;

/// A job may grow so much between our reading of its charge and our writing of a limit.
const HEADWAY: Bytes = Bytes::mib(4);

impl Guard {
    /// Performs until the engine has nothing more to say; whether it had anything. Starts are only noted.
    pub fn perform_all(&mut self) -> bool {
        let mut performed = false;
        while let Some(effect) = self.engine.effect() {
            self.perform(effect);
            performed = true;
        }
        performed
    }

    /// Starts the next job that is due; whether there was one.
    pub(super) fn start_next(&mut self, verb: &mut impl Verb) -> bool {
        let next = self.starts.pop_front();
        if let Some(job) = next {
            self.start(job, verb);
        }
        next.is_some()
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Start(job) => self.starts.push_back(job),
            Effect::Relieve(job) => self.with_page(job, |page| page.relieve()),
            Effect::Prune(job, cause) => self.ask_to_stop(job, Stop::Prune, cause),
            Effect::Resume(job) => self.with_page(job, |page| page.stop(Stop::GoOn, None)),
            Effect::Terminate(job, cause) => {
                self.ask_to_stop(job, Stop::Terminate, cause);
                self.signal_main(job);
            }
            Effect::TerminateTree(job) => self.signal_tree(job),
            Effect::Kill(job, _) => self.kill(job),
            Effect::Freeze(job) => self.freeze(job, true),
            Effect::Thaw(job) => self.freeze(job, false),
            Effect::SetSoft(job, mark) => self.set_soft(job, mark),
            Effect::SetLimit(job, limit) => self.set_limit(job, limit),
            Effect::SetCeiling(ceiling) => self.set_ceiling(ceiling),
            Effect::Sweep(job) => self.sweep(job),
            Effect::Clean(job) => self.clean(job),
        }
    }

    fn start(&mut self, job: JobId, verb: &mut impl Verb) {
        let attempt = self.next_attempt(job);
        let hand = &mut self.hands[job.index()];
        hand.born = SystemTime::now();
        let mut leaf = hand.make_leaf(self.parent.as_ref());
        if leaf.as_ref().is_err_and(|error| error.errno() == Some(GONE)) && self.find_parent_again() {
            let hand = &mut self.hands[job.index()];
            hand.leaf = None;
            leaf = hand.make_leaf(self.parent.as_ref());
        }
        let hand = &mut self.hands[job.index()];
        let begun = match leaf {
            Ok(()) => {
                verb.start(job, attempt, hand).map_err(|error| (error.to_string(), is_hopeless(&error)))
            }
            Err(error) => Err((error.to_string(), false)),
        };
        match begun {
            Ok(Begun::Runs(main)) => self.begun(job, Ok(main)),
            Ok(Begun::Later) => {}
            Err((error, hopeless)) => self.not_begun(job, error, hopeless),
        }
    }

    /// A job that was ordered runs, or could not be started.
    pub(super) fn begun(&mut self, job: JobId, begun: Result<Process, String>) {
        match begun {
            Ok(main) => {
                let attempt = self.next_attempt(job);
                if let Some(entry) = self.roster.get_mut(job) {
                    (entry.pid, entry.attempt, entry.usage) = (Some(main.pid()), attempt, None);
                }
                self.gpus.begins(job);
                self.hold(job, main);
                self.engine.handle(clock::now(), Input::Started(job));
            }
            Err(error) => self.not_begun(job, error, false),
        }
    }

    fn not_begun(&mut self, job: JobId, error: String, hopeless: bool) {
        self.note(Notice::StartError { job, error });
        let failed = if hopeless { Input::CannotStart(job) } else { Input::StartFailed(job) };
        self.engine.handle(clock::now(), failed);
    }

    fn next_attempt(&self, job: JobId) -> u32 {
        self.engine.view(job, clock::now()).map_or(1, |view| view.attempt.saturating_add(1))
    }

    /// Somebody has removed the parent while no job was in it; whether there is one again.
    fn find_parent_again(&mut self) -> bool {
        let Ok(parent) = open_parent(&self.options) else { return false };
        self.parent = Some(parent);
        if let Some(ceiling) = self.ceiling {
            self.set_ceiling(ceiling);
        }
        true
    }

    /// Takes a job in hand and watches it.
    pub(super) fn hold(&mut self, job: JobId, main: Process) {
        self.hands[job.index()].hold(main);
        self.watch(job);
        self.samples.reserve(self.hands.len());
    }

    fn ask_to_stop(&mut self, job: JobId, stop: Stop, cause: Cause) {
        let about = self.engine.view(job, clock::now()).and_then(|view| view.vram_brake);
        if let Some(Holding { device, used, limit }) = about.filter(|_| cause == Cause::Vram) {
            let name = self.roster.gpu(device);
            self.with_page(job, |page| page.gpu(&name, used, limit));
        }
        self.with_page(job, |page| page.stop(stop, Some(cause)));
    }

    fn with_page(&mut self, job: JobId, act: impl FnOnce(&mut page::Writer)) {
        if let Some(page) = &mut self.hands[job.index()].page {
            act(page);
        }
    }

    fn signal_main(&mut self, job: JobId) {
        let hand = &self.hands[job.index()];
        if let Some(main) = hand.main.as_ref().filter(|_| hand.has_main()) {
            // It may have ended this moment; its exit is on the way to us.
            let _ = main.signal(hand.stop_signal);
        }
    }

    fn signal_tree(&mut self, job: JobId) {
        let done = self.hands[job.index()].signal_all(Signal::TERM);
        self.failed(job, "terminate-tree", done);
    }

    fn kill(&mut self, job: JobId) {
        let hand = &mut self.hands[job.index()];
        let done = hand.kill(&self.reaper);
        self.failed(job, "kill", done);
    }

    fn freeze(&mut self, job: JobId, freeze: bool) {
        let done = self.hands[job.index()].freeze(freeze);
        self.failed(job, if freeze { "freeze" } else { "thaw" }, done);
    }

    fn set_soft(&mut self, job: JobId, mark: Option<Bytes>) {
        let Some(leaf) = &mut self.hands[job.index()].leaf else { return };
        // The same here; and a mark that is passed already needs no tripwire.
        if let (Some(mark), Ok(charged)) = (mark, leaf.charged())
            && mark < charged.plus(HEADWAY)
        {
            return;
        }
        let done = leaf.set_soft(mark);
        self.failed(job, "set-soft", done);
    }

    fn set_limit(&mut self, job: JobId, limit: Bytes) {
        let hand = &mut self.hands[job.index()];
        let limits = Limits { memory: limit, ..hand.limits.unwrap_or(Limits::new(limit)) };
        hand.limits = Some(limits);
        let Some(leaf) = &mut hand.leaf else { return };
        let done = leaf.set_limit(&limits).map(|_| ());
        self.failed(job, "set-limit", done);
    }

    fn set_ceiling(&mut self, ceiling: Bytes) {
        let Some(parent) = &mut self.parent else { return };
        self.ceiling = Some(ceiling);
        let ceiling = parent.inherited_limit().map_or(ceiling, |limit| ceiling.min(limit));
        // Set below the charge, the kernel would reclaim in our own time, for seconds, instead of in the jobs'.
        if parent.charged().is_ok_and(|charged| ceiling < charged.plus(HEADWAY)) {
            return;
        }
        if let Err(error) = parent.set_ceiling(ceiling) {
            self.note(Notice::EffectFailed {
                job: None,
                effect: "set-ceiling".to_owned(),
                error: error.to_string(),
            });
        }
    }

    /// Has shared memory that a dead job left removed. Without a cgroup nothing tells whose it is, and it stays.
    fn sweep(&mut self, job: JobId) {
        let hand = &self.hands[job.index()];
        let left = hand.leaf.as_ref().filter(|leaf| sweep::is_worth_it(leaf)).and(self.parent.as_ref());
        let grip = left.and_then(|parent| parent.leaf(&hand.name).ok());
        let begun =
            grip.map_or(Ok(false), |leaf| self.sweeper.sweep_leaf(job, leaf, hand.born).map(|()| true));
        if let Err(error) = &begun {
            self.note(Notice::EffectFailed {
                job: Some(job),
                effect: "sweep".to_owned(),
                error: error.to_string(),
            });
        }
        if !begun.unwrap_or(false) {
            self.engine.handle(clock::now(), Input::Swept(job));
        }
    }

    /// What the sweepers have done.
    pub(super) fn swept(&mut self) {
        while let Some(Swept { job, files, bytes }) = self.sweeper.heard() {
            if files > 0 {
                self.note(Notice::ShmRemoved { job: Some(job), files, bytes });
            }
            self.engine.handle(clock::now(), Input::Swept(job));
        }
    }

    /// Removes a dead job's cgroup.
    fn clean(&mut self, job: JobId) {
        self.unwatch(job);
        let hand = &mut self.hands[job.index()];
        hand.release();
        let done = hand.leaf.take().map_or(Ok(()), |leaf| leaf.remove());
        self.failed(job, "clean", done);
        if let Some(entry) = self.roster.get_mut(job) {
            entry.usage = None;
        }
    }

    pub(super) fn failed(&mut self, job: JobId, effect: &str, done: Result<(), Error>) {
        if let Err(error) = done {
            let (effect, error) = (effect.to_owned(), error.to_string());
            self.note(Notice::EffectFailed { job: Some(job), effect, error });
        }
    }
}

/// No later try finds what the configuration names wrongly; somebody has to mend it.
fn is_hopeless(error: &SpawnError) -> bool {
    match error {
        SpawnError::NotFound(_) | SpawnError::NotExecutable { .. } | SpawnError::NoCwd { .. } => true,
        SpawnError::Other { .. } => false,
    }
}
