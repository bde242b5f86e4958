//! Which file starts when, and how: as a child of the zygote or as a fresh process.
//!
//! Room for it is asked of the queue; limits are the engine's to hold.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use oomguard_core::{Bytes, Input, JobId};
use oomguard_sys::cgroup::{Leaf, Limits};
use oomguard_sys::clock;
use oomguard_sys::process::Signal;
use oomguard_sys::spawn::{Session, Spawn, SpawnError, Stream};
use oomguard_sys::wait::Interest;
use rustix::io::FdFlags;

use super::super::super::{Begun, Guard, Hand, JOB_OOM_SCORE, place};
use super::super::argv;
use super::super::gpu::{Gate, Gpus};
use super::super::plan::{Case, Plan};
use super::super::queue::{GpuRoom, Next};
use super::super::slot::{Slot, Streams};
use super::super::standby::Standby;
use super::super::zygote::Child;
use super::super::{percent_used, preflight};
use super::nursery::Nursery;
use super::{LOOK_AGAIN, MARK, PLUGIN, Runner, SLOT, leaf_name, room};
use crate::config::test::Isolation;
use crate::error::{FAILED, REFUSED};
use crate::record::{Entry, Notice};

impl Runner {
    /// Starts what can be started now.
    pub(super) fn start_files(&mut self, guard: &mut Guard) {
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

    /// Has as many children wait in their cgroups as there will be files at the same time: when one has begun, and
    /// nobody is kept waiting by that.
    pub(super) fn have_standbys(&mut self, guard: &Guard) {
        let (Nursery::Ready(zygote, _), Some(parent)) = (&self.nursery, &guard.parent) else { return };
        let wanted = usize::from(self.plan.jobs).min(self.queue.len());
        while self.standbys.len() < wanted {
            self.leaves += 1;
            match Standby::order(zygote, parent, self.leaves, leaf_name(self.leaves)) {
                Some(standby) => self.standbys.push_back(standby),
                None => return,
            }
        }
    }

    pub(super) fn free_slot(&self) -> Option<usize> {
        self.slots.iter().zip(&self.lost).position(|(slot, lost)| slot.is_none() && !lost)
    }

    /// Whether so little RAM is used that a further file may start. While others run it is theirs; else it is waited
    /// for, and not for ever.
    pub(super) fn has_come_back(&mut self, guard: &mut Guard) -> bool {
        let host = guard.host();
        let ram = percent_used(&host);
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
            let holders = preflight::holders().join(", ");
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
    pub(super) fn gpu_room(&mut self, guard: &mut Guard) -> GpuRoom {
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
    pub(super) fn look_at_gpus(&mut self, guard: &mut Guard) {
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

    pub(super) fn order(&mut self, guard: &mut Guard, free: usize, case: usize) {
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
        let standby = if can_fork(it) { self.standbys.pop_front() } else { None };
        slot.standby = standby.as_ref().map(|standby| standby.number);
        let (name, leaf) = match standby {
            Some(standby) => (standby.name, Some(standby.leaf)),
            None => {
                self.leaves += 1;
                (leaf_name(self.leaves), None)
            }
        };
        let limits = limit.map(|limit| Limits { swap: Some(Bytes::ZERO), ..Limits::new(limit) });
        let mut hand = Hand::new(name, self.enforcement, limits);
        hand.leaf = leaf;
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

    pub(super) fn was_killed(&self, case: usize) -> bool {
        self.outcomes.get(&case).is_some_and(|outcome| outcome.verdict.is_memory())
    }

    /// A fresh process.
    pub(super) fn spawn(&mut self, job: JobId, hand: &mut Hand) -> Result<Begun, SpawnError> {
        let Some(slot) = &mut self.slots[job.index()] else { return Err(nothing("start an empty slot")) };
        if slot.standby.take().is_some() {
            // It was to be a child of the zygote. Who waits for that in its cgroup waits for nothing.
            let _ = hand.leaf.as_ref().map(Leaf::kill);
        }
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
            Some(words) => argv::command(words, &case.path),
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
    pub(super) fn fork(&mut self, job: JobId, hand: &mut Hand) -> Option<Begun> {
        let Nursery::Ready(zygote, depth) = &self.nursery else { return None };
        let slot = self.slots[job.index()].as_mut()?;
        let case = &self.plan.cases[slot.case];
        if !can_fork(case) {
            return None;
        }
        let streams = slot.take_streams()?;
        let Streams { output, details, beats } = &streams;
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
            rlimit_data: place::rlimit_data(hand.enforcement, hand.limits.map(|limits| limits.memory)),
            leaf: hand.leaf.as_ref(),
            standby: slot.standby,
            streams: [output.as_fd(), output.as_fd(), beats.as_fd(), details.as_fd()],
        };
        if zygote.fork(&child).is_err() {
            slot.put_back(streams);
            return None;
        }
        slot.isolation = depth;
        hand.end_is_told = true;
        Some(Begun::Later)
    }

    pub(super) fn cover(&mut self, id: u64) -> Option<PathBuf> {
        let file = self.covers.then(|| self.dir.join(format!("coverage.{id}")))?;
        self.coverage.push(file.clone());
        Some(file)
    }
}

/// Nothing of its own stands against a fork.
pub(super) fn can_fork(case: &Case) -> bool {
    case.isolation != Isolation::Spawn && case.env.is_empty()
}

pub(super) fn inherit(fd: &OwnedFd) -> std::io::Result<()> {
    rustix::io::fcntl_setfd(fd, FdFlags::empty()).map_err(Into::into)
}

pub(super) fn nothing(doing: &'static str) -> SpawnError {
    SpawnError::Other { doing, error: std::io::ErrorKind::InvalidInput.into() }
}
