//! The zygote speaks: it is ready, has forked, refuses, has died. What it cannot do fresh processes do.

use std::os::fd::AsFd;

use oomguard_core::{Instant, JobId};
use oomguard_sys::process::Signal;
use oomguard_sys::wait::Interest;

use super::super::super::{Begun, Guard, Hand};
use super::super::slot::Slot;
use super::super::standby::Standby;
use super::super::zygote::{Ready, Said, Zygote};
use super::{Runner, SLOT, ZYGOTE};
use crate::config::test::Isolation;
use crate::error::FAILED;
use crate::record::Notice;

impl Runner {
    pub(super) fn hear_zygote(&mut self, guard: &mut Guard) {
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
                Some(Said::Forked(id, process)) => {
                    match self.job_of(id) {
                        Some(job) => guard.begun(job, Ok(process)),
                        None => drop(process.signal(Signal::KILL)),
                    }
                    self.have_standbys(guard);
                }
                Some(Said::WontStandBy(number)) => {
                    // A file's own order will be refused, too, and that says why.
                    let gone = self.standbys.iter().position(|standby| standby.number == number);
                    let _ = gone.and_then(|index| self.standbys.remove(index)).map(Standby::dismiss);
                }
                Some(Said::Refused(id, why)) => self.refused(guard, id, &why),
                Some(Said::Exited(id, exit)) => {
                    if let Some(job) = self.job_of(id) {
                        guard.main_ended(job, exit);
                    }
                }
            }
        }
    }

    pub(super) fn job_of(&self, id: u64) -> Option<JobId> {
        let of = |slot: &Option<Slot>| slot.as_ref().is_some_and(|slot| slot.id == id);
        self.slots.iter().position(of).map(|index| JobId(index as u16))
    }

    pub(super) fn zygote_is_ready(&mut self, guard: &mut Guard, ready: &Ready) {
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

    pub(super) fn isolated(&self, guard: &mut Guard, how: &str, why: Option<String>, ready: &Ready) {
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
    pub(super) fn refused(&mut self, guard: &mut Guard, id: u64, why: &str) {
        let Some(job) = self.job_of(id) else { return };
        if self.plan.isolation == Isolation::Fork {
            guard.begun(job, Err(format!("it cannot be forked: {why}")));
            return;
        }
        guard.note(Notice::Note { text: format!("a fresh process instead of a fork: {why}") });
        self.spawn_instead(guard, job);
    }

    pub(super) fn spawn_instead(&mut self, guard: &mut Guard, job: JobId) {
        let index = job.index();
        if let Some(slot) = &mut self.slots[index] {
            // Its pipe and files went to the zygote.
            self.numbers += 1;
            let (case, attempt, limit, began) = (slot.case, slot.attempt, slot.limit, slot.began);
            let (gpu, standby) = (slot.gpu.take(), slot.standby);
            guard.poller.remove(SLOT + index as u64);
            match Slot::open(&self.dir, self.numbers, &self.plan.cases[case].name, case, attempt, began) {
                Ok(fresh) => *slot = fresh,
                Err(error) => return guard.begun(job, Err(error.to_string())),
            }
            slot.limit = limit;
            (slot.gpu, slot.standby) = (gpu, standby);
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
    pub(super) fn without_zygote(&mut self, guard: &mut Guard, why: &str, output: &str, exit: Option<u8>) {
        guard.poller.remove(ZYGOTE);
        self.standbys.drain(..).for_each(Standby::dismiss);
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
}

/// Where the zygote stands.
pub(super) enum Nursery {
    /// None is wanted.
    None,
    /// It is to be started.
    Wanted,
    /// It imports what it was told to.
    Starting(Zygote, Instant),
    /// It forks.
    Ready(Zygote, &'static str),
}
