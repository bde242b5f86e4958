//! What the machine does: jobs begin, take signals and die, amounts meet their marks, effects are performed.

use std::time::Duration;

use oomguard_core::{Bytes, Effect, Enforcement, Exit, Input, JobId, LimitEvent, OnLimit, Word};

use super::process::{Life, Process};
use super::{FOREVER, Happening, Order, Stranger, Term, World, millis};

impl World {
    pub(super) fn next_number(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    pub(super) fn process(&mut self, job: JobId) -> Option<&mut Process> {
        self.slots.get_mut(job.index())?.process.as_mut()
    }

    pub(super) fn schedule(&mut self, job: JobId, after: Duration, happening: Happening) {
        let number = self.process(job).map_or(0, |p| p.number);
        let order = self.next_number();
        self.happenings.push((self.now.after(after), order, job, number, happening));
    }

    /// Everything that is due now, in order.
    pub(super) fn happen(&mut self) {
        for _ in 0..10_000 {
            self.cross();
            let due = self.happenings.iter().enumerate().filter(|(_, h)| h.0 <= self.now);
            let Some((index, _)) = due.min_by_key(|(_, h)| (h.0, h.1)) else { return };
            let (_, _, job, number, happening) = self.happenings.remove(index);
            // A start is about nobody that is there yet; what is left of the one before may go meanwhile.
            let begins = matches!(happening, Happening::Started | Happening::StartFailed);
            if begins || self.process(job).map_or(0, |p| p.number) == number {
                self.happens(job, happening);
            }
        }
        self.fail("the world does not get on: something happens again and again");
    }

    pub(super) fn happens(&mut self, job: JobId, happening: Happening) {
        let now = self.now;
        match happening {
            Happening::Started => self.begin(job),
            Happening::StartFailed if self.slots[job.index()].kind.hopeless => {
                self.input(Input::CannotStart(job));
            }
            Happening::StartFailed => self.input(Input::StartFailed(job)),
            Happening::Tell(event) => self.input(Input::Limit(job, event)),
            Happening::Says(word) => self.input(Input::Heard(job, word)),
            Happening::Swept => {
                if let Some(process) = self.process(job) {
                    process.used -= process.shm.min(process.used);
                    process.shm = 0.0;
                }
                self.input(Input::Swept(job));
            }
            Happening::TellExited => {
                let Some(exit) = self.process(job).map(|p| p.exit) else { return };
                let echoes = self.echoes(job);
                self.input(Input::Exited(job, exit));
                if echoes {
                    self.input(Input::Exited(job, Exit::Unknown));
                }
            }
            Happening::TellEmptied => {
                let Some(process) = self.process(job) else { return };
                process.populated = false;
                let echoes = self.echoes(job);
                self.input(Input::Emptied(job));
                if echoes {
                    self.input(Input::Emptied(job));
                }
            }
            Happening::MainExits(exit) => self.main_exits(job, exit),
            Happening::Dies => self.dies(job),
            Happening::Prunes => {
                let Some(process) = self.process(job).filter(|p| p.works()) else { return };
                if process.frozen_since.is_some() {
                    process.prune_pending = true;
                } else if let Some((_, to)) = process.kind.prunes {
                    process.begin_again(now, to);
                    self.prune_vram(job);
                    self.input(Input::Heard(job, Word::Trial(Some(1))));
                }
            }
            Happening::Relieves => {
                let Some(process) = self.process(job).filter(|p| p.works()) else { return };
                let caches = std::mem::take(&mut process.kind.relieves).0 as f64;
                let before = process.used;
                process.used = (process.used - caches).max(process.used / 2.0);
                let freed = Bytes((before - process.used) as u64);
                self.relieve_vram(job);
                self.input(Input::Heard(job, Word::Relieved(freed)));
            }
        }
    }

    fn echoes(&self, job: JobId) -> bool {
        self.slots[job.index()].kind.echoes
    }

    pub(super) fn begin(&mut self, job: JobId) {
        let number = self.next_number();
        let slot = &mut self.slots[job.index()];
        let process = Process::new(slot.kind.clone(), number, slot.policy.limit);
        let kind = process.kind.clone();
        slot.process = Some(process);
        self.input(Input::Started(job));
        if kind.checks {
            self.schedule(job, millis(10), Happening::Says(Word::Checks));
        }
        if let Some((after, code)) = kind.ends {
            self.schedule(job, after, Happening::MainExits(Exit::Code(code)));
        }
    }

    pub(super) fn take_term(&mut self, job: JobId) {
        let Some(process) = self.process(job).filter(|p| p.works()) else { return };
        if process.frozen_since.is_some() {
            process.term_pending = true;
        } else if let Term::Exits(after) = process.kind.term {
            let exit = if process.main_gone { process.exit } else { Exit::Signal(15) };
            self.schedule(job, after, Happening::MainExits(exit));
        }
    }

    /// The main process ends; children that ignore SIGTERM stay behind with their share.
    pub(super) fn main_exits(&mut self, job: JobId, exit: Exit) {
        let Some(process) = self.process(job).filter(|p| p.works()) else { return };
        if process.frozen_since.is_some() {
            // It ends when it may run again.
            process.exit_pending = Some(exit);
            return;
        }
        let alone = process.kind.children == 0 || process.main_gone;
        if !process.main_gone {
            process.exit = exit;
        }
        if alone {
            self.dies(job);
        } else {
            process.main_gone = true;
            process.used -= process.used / f64::from(process.kind.children + 1);
            self.schedule(job, Duration::ZERO, Happening::TellExited);
        }
    }

    pub(super) fn dies(&mut self, job: JobId) {
        let Some(process) = self.process(job).filter(|p| p.works()) else { return };
        process.die();
        let (order, told) = (process.kind.order, process.main_gone);
        if !told && matches!(order, Order::ExitedMemoryEmptied | Order::ExitedEmptiedMemory) {
            self.schedule(job, Duration::ZERO, Happening::TellExited);
        }
        if order == Order::ExitedEmptiedMemory {
            self.schedule(job, Duration::from_micros(100), Happening::TellEmptied);
        }
    }

    /// What happens when amounts meet their marks.
    pub(super) fn cross(&mut self) {
        let now = self.now;
        for index in 0..self.slots.len() {
            let job = JobId(index as u16);
            let enforcement = self.slots[index].policy.enforcement;
            let Some(process) = self.process(job) else { continue };
            process.turn(now);
            if process.life == Life::Dies && process.used <= process.shm {
                self.has_died(job);
                continue;
            }
            if !process.works() {
                continue;
            }
            let over = |mark: Option<f64>| mark.is_some_and(|mark| process.used >= mark);
            let (at_limit, at_soft) = (over(process.limit), over(process.soft));
            if at_soft && !process.soft_told && enforcement.holds_the_tree() {
                process.soft_told = true;
                if enforcement == Enforcement::Cgroup2 {
                    process.throttled_since = Some(now);
                }
                self.schedule(job, Duration::ZERO, Happening::Tell(LimitEvent::Soft));
            } else if process.soft_told && !at_soft {
                (process.soft_told, process.throttled_since) = (false, None);
            }
            if at_limit && enforcement.holds_the_tree() {
                self.meets_wall(job, enforcement);
            }
        }
        self.meet_end();
    }

    /// Where nothing is left, all wait and the kernel kills.
    pub(super) fn meet_end(&mut self) {
        let room = self.left().min(if self.has_cgroups() { self.ceiling - self.charged() } else { f64::MAX });
        let starved = self.slots.iter().filter_map(|s| s.process.as_ref()).any(|p| p.starved);
        if room > 0.0 && !(starved && room < Bytes::mib(16).0 as f64) {
            if starved {
                self.starve(false);
            }
            return;
        }
        if self.left() <= 0.0 {
            self.least = Bytes::ZERO;
            for stranger in &mut self.strangers {
                stranger.rate = stranger.rate.min(0.0);
            }
        }
        self.starve(true);
        let processes = || self.slots.iter().filter_map(|s| s.process.as_ref());
        if room <= 0.0 && processes().all(|p| p.life != Life::Dies) && processes().any(Process::works) {
            self.exhausted += u32::from(self.left() <= 0.0);
            self.kernel_kills(LimitEvent::KilledAbove);
        }
    }

    pub(super) fn starve(&mut self, starved: bool) {
        for process in self.slots.iter_mut().filter_map(|s| s.process.as_mut()) {
            process.starved = starved;
        }
    }

    pub(super) fn meets_wall(&mut self, job: JobId, enforcement: Enforcement) {
        if enforcement == Enforcement::JobObject {
            self.main_exits(job, Exit::Code(1));
        } else {
            self.kernel_kill(job, LimitEvent::KilledAtLimit);
        }
    }

    /// The largest one goes.
    pub(super) fn kernel_kills(&mut self, event: LimitEvent) {
        let working = self.slots.iter().enumerate().filter_map(|(i, s)| Some((i, s.process.as_ref()?)));
        let largest = working.filter(|(_, p)| p.works()).max_by(|a, b| a.1.used.total_cmp(&b.1.used));
        if let Some(job) = largest.map(|(i, _)| JobId(i as u16)) {
            self.kernel_kill(job, event);
        }
    }

    pub(super) fn kernel_kill(&mut self, job: JobId, event: LimitEvent) {
        let policy = self.slots[job.index()].policy;
        let whole = policy.enforcement == Enforcement::Cgroup2 && policy.on_limit == OnLimit::Job;
        let Some(process) = self.process(job) else { return };
        let processes = process.kind.children + u32::from(!process.main_gone);
        if whole || processes <= 1 {
            process.exit = if process.main_gone { process.exit } else { Exit::Signal(9) };
            self.dies(job);
        } else {
            process.kind.children -= 1;
            process.used -= process.used / f64::from(processes);
        }
        if policy.enforcement.holds_the_tree() {
            self.schedule(job, Duration::ZERO, Happening::Tell(event));
        }
    }

    pub(super) fn has_died(&mut self, job: JobId) {
        let Some(process) = self.process(job) else { return };
        process.life = Life::Dead;
        let (order, told) = (process.kind.order, process.main_gone);
        let step = Duration::from_micros(100);
        match order {
            Order::MemoryExitedEmptied | Order::ExitedMemoryEmptied => {
                if !told && order == Order::MemoryExitedEmptied {
                    self.schedule(job, Duration::ZERO, Happening::TellExited);
                }
                self.schedule(job, step, Happening::TellEmptied);
            }
            Order::MemoryEmptiedExited => {
                self.schedule(job, Duration::ZERO, Happening::TellEmptied);
                if !told {
                    self.schedule(job, step, Happening::TellExited);
                }
            }
            Order::ExitedEmptiedMemory => {}
        }
    }

    pub(super) fn act(&mut self, effect: Effect) {
        let now = self.now;
        match effect {
            Effect::Start(job) => {
                let kind = &self.slots[job.index()].kind;
                let how = if kind.fails { Happening::StartFailed } else { Happening::Started };
                let after = kind.starts_in;
                self.schedule(job, after, how);
            }
            Effect::Relieve(job) => self.schedule(job, millis(5), Happening::Relieves),
            Effect::Prune(job, _) => {
                if let Some((after, _)) = self.process(job).and_then(|p| p.kind.prunes) {
                    self.schedule(job, after, Happening::Prunes);
                }
            }
            Effect::Resume(_) => {}
            Effect::Freeze(job) => {
                if let Some(process) = self.process(job).filter(|p| p.works()) {
                    process.frozen_since.get_or_insert(now);
                }
            }
            Effect::Thaw(job) => self.thaw(job),
            Effect::Terminate(job, _) | Effect::TerminateTree(job) => self.take_term(job),
            Effect::Kill(job, _) => {
                if let Some(process) = self.process(job).filter(|p| p.works()) {
                    let stuck = process.kind.stuck;
                    process.exit = if process.main_gone { process.exit } else { Exit::Signal(9) };
                    process.hang();
                    if stuck < FOREVER {
                        self.schedule(job, stuck, Happening::Dies);
                    }
                    if stuck == Duration::ZERO {
                        self.dies(job);
                    }
                }
            }
            Effect::SetLimit(job, limit) => {
                if let Some(process) = self.process(job) {
                    process.limit = Some(limit.0 as f64);
                }
            }
            Effect::SetSoft(job, mark) => {
                if let Some(process) = self.process(job) {
                    process.soft = mark.map(|mark| mark.0 as f64);
                    (process.soft_told, process.throttled_since) = (false, None);
                }
            }
            Effect::SetCeiling(ceiling) => self.ceiling = ceiling.0 as f64,
            Effect::Sweep(job) => {
                if let Some(after) =
                    self.process(job).map(|p| p.kind.sweeps_in).filter(|after| *after < FOREVER)
                {
                    self.schedule(job, after, Happening::Swept);
                }
            }
            Effect::Clean(job) => self.clean(job),
        }
    }

    pub(super) fn thaw(&mut self, job: JobId) {
        let now = self.now;
        let Some(process) = self.process(job) else { return };
        process.thaw(now);
        if let Some(exit) = process.exit_pending.take() {
            self.schedule(job, Duration::ZERO, Happening::MainExits(exit));
        }
        let Some(process) = self.process(job) else { return };
        if std::mem::take(&mut process.term_pending) {
            self.take_term(job);
        }
        if self.process(job).is_some_and(|p| std::mem::take(&mut p.prune_pending)) {
            self.happens(job, Happening::Prunes);
        }
    }

    /// What nobody has removed stays for ever.
    pub(super) fn clean(&mut self, job: JobId) {
        let Some(process) = self.slots[job.index()].process.take() else { return };
        if process.used > 0.0 {
            self.strangers.push(Stranger { used: process.used, rate: 0.0, most: process.used });
        }
    }
}
