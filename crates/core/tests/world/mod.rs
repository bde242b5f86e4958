//! A simulated machine under a virtual clock, and the driver that a guard would be on it.
//!
//! Jumps from one happening to the next, performs what the engine decides with the delays that were measured
//! on real machines, keeps the story for failure messages, and holds every step against [`rules`].

pub mod kind;
mod process;
mod rules;
mod story;

use std::time::Duration;

use oomguard_core::sample::{JobSample, Reading, Why};
use oomguard_core::{
    Bytes, Cause, Effect, Engine, Enforcement, Event, Exit, HostPolicy, HostSample, Input, Instant, JobId,
    JobPolicy, LimitEvent, OnLimit, Phase, Urgency, Word,
};

pub use kind::{FOREVER, Kind, Order, Term};
use process::{Life, Process};
use rules::Rules;
pub use story::{Line, Story};

/// What the guard itself needs for one look and for one act.
const LOOK: Duration = Duration::from_micros(150);
const ACT: Duration = Duration::from_micros(60);

/// Memory that the rest of the machine uses.
#[derive(Clone, Debug)]
pub struct Stranger {
    pub used: f64,
    pub rate: f64,
    pub most: f64,
}

#[derive(Clone, Debug)]
struct Slot {
    policy: JobPolicy,
    kind: Kind,
    process: Option<Process>,
}

/// What is going to happen to the tree with this number.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Started,
    StartFailed,
    TakesTerm,
    MainExits(Exit),
    Dies,
    TellExited,
    TellEmptied,
    Tell(LimitEvent),
    Says(Word),
    Prunes,
    Relieves,
}

/// The machine, its guard and the story so far.
pub struct World {
    pub now: Instant,
    pub engine: Engine,
    pub story: Story,
    pub total: Bytes,
    pub strangers: Vec<Stranger>,
    /// Share of the time for which all tasks stall on memory.
    pub stalled_percent: u64,
    /// Of what the dead return, this share is not counted as available for `hides_for`.
    pub hides_percent: u64,
    pub hides_for: Duration,
    /// The least that was really left, and how often the kernel had to kill for want of memory.
    pub least: Bytes,
    pub exhausted: u32,
    /// How often the engine was called because it wanted to be.
    pub wakes: u64,
    pub looks: u64,
    slots: Vec<Slot>,
    happenings: Vec<(Instant, u64, JobId, u64, Happening)>,
    count: u64,
    ceiling: f64,
    stalled_us: f64,
    hidden: Vec<(Instant, f64)>,
    rules: Rules,
    calls: (Instant, u32),
}

pub fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}
pub fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}
/// A worker with the defaults.
pub fn worker(enforcement: Enforcement) -> JobPolicy {
    JobPolicy::worker(enforcement)
}
/// A job of `run`, with a limit.
pub fn run(enforcement: Enforcement, limit: Bytes) -> JobPolicy {
    JobPolicy { limit: Some(limit), ..JobPolicy::once(enforcement) }
}

// --- making one --------------------------------------------------------------------------------------------

impl World {
    /// A machine with this much memory and eight cores, nothing running.
    pub fn new(total: Bytes) -> World {
        World::with(total, HostPolicy::for_machine(total, 8))
    }

    pub fn with(total: Bytes, policy: HostPolicy) -> World {
        World {
            now: Instant(1_000_000_000),
            engine: Engine::new(policy, 1),
            story: Story::default(),
            total,
            strangers: Vec::new(),
            stalled_percent: 0,
            hides_percent: 0,
            hides_for: Duration::ZERO,
            least: total,
            exhausted: 0,
            wakes: 0,
            looks: 0,
            slots: Vec::new(),
            happenings: Vec::new(),
            count: 0,
            ceiling: f64::INFINITY,
            stalled_us: 0.0,
            hidden: Vec::new(),
            rules: Rules::default(),
            calls: (Instant(0), 0),
        }
    }

    /// Somebody else's memory, growing by `rate` a second.
    pub fn stranger(&mut self, used: Bytes, rate: Bytes) -> usize {
        let stranger = Stranger { used: used.0 as f64, rate: rate.0 as f64, most: f64::INFINITY };
        self.strangers.push(stranger);
        self.strangers.len() - 1
    }

    /// Somebody else takes memory at 2 GiB a second until only this much is available.
    pub fn crowd(&mut self, available: Bytes) {
        let used = self.available().minus(available).0 as f64;
        self.strangers.push(Stranger { used: 0.0, rate: Bytes::gib(2).0 as f64, most: used });
        self.run_for(Duration::from_secs_f64(used / Bytes::gib(2).0 as f64));
    }

    pub fn add(&mut self, policy: JobPolicy, kind: Kind) -> JobId {
        let job = JobId(self.slots.len() as u16);
        self.slots.push(Slot { policy, kind, process: None });
        self.input(Input::Add(job, policy));
        job
    }

    /// A job that an earlier guard left behind.
    pub fn adopt(&mut self, policy: JobPolicy, kind: Kind, age: Duration, attempt: u32) -> JobId {
        let job = JobId(self.slots.len() as u16);
        let process = Process::new(kind.clone(), self.next_number(), policy.limit);
        self.slots.push(Slot { policy, kind, process: Some(process) });
        self.input(Input::Adopt(job, policy, age, attempt));
        job
    }

    /// What the slot runs from its next start on.
    pub fn runs_next(&mut self, job: JobId, kind: Kind) {
        self.slots[job.index()].kind = kind;
    }

    pub fn change(&mut self, job: JobId, policy: JobPolicy) {
        self.slots[job.index()].policy = policy;
        if self.slots[job.index()].process.is_some() {
            self.rules.changed(self.now, job);
        }
        self.input(Input::Change(job, policy));
    }
}

// --- asking ------------------------------------------------------------------------------------------------

impl World {
    pub fn phase(&self, job: JobId) -> Phase {
        self.engine.view(job, self.now).map_or(Phase::Over, |view| view.phase)
    }

    pub fn policy(&self, job: JobId) -> Option<JobPolicy> {
        self.slots.get(job.index()).map(|slot| slot.policy)
    }

    /// The engine may rightly believe that it has processes.
    pub fn may_be_alive(&self, job: JobId) -> bool {
        self.slots.get(job.index()).is_some_and(|slot| slot.process.is_some())
    }

    pub fn is_starting(&self, job: JobId) -> bool {
        self.phase(job) == Phase::Starting
    }

    pub fn used(&self, job: JobId) -> Bytes {
        Bytes(self.slots[job.index()].process.as_ref().map_or(0.0, |p| p.used) as u64)
    }

    pub fn ceiling(&self) -> Bytes {
        Bytes(self.ceiling as u64)
    }

    /// What is really left, and what the kernel says is.
    fn left(&self) -> f64 {
        let strangers: f64 = self.strangers.iter().map(|s| s.used).sum();
        self.total.0 as f64 - strangers - self.charged()
    }

    fn charged(&self) -> f64 {
        self.slots.iter().filter_map(|s| s.process.as_ref()).map(|p| p.used).sum()
    }

    pub fn available(&self) -> Bytes {
        let hidden: f64 = self.hidden.iter().map(|(_, bytes)| bytes).sum();
        Bytes((self.left() - hidden).max(0.0) as u64)
    }

    /// Bytes per second by which everything grows together.
    fn growth(&self) -> f64 {
        let jobs: f64 = self.slots.iter().filter_map(|s| s.process.as_ref()).map(|p| p.rate().max(0.0)).sum();
        jobs + self.strangers.iter().map(|s| s.rate).sum::<f64>()
    }

    fn has_cgroups(&self) -> bool {
        self.slots.iter().any(|s| s.policy.enforcement.holds_the_tree())
    }

    fn is_populated(&self, job: JobId) -> bool {
        self.slots[job.index()].process.as_ref().is_some_and(|p| p.populated)
    }
}

// --- time --------------------------------------------------------------------------------------------------

impl World {
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.now.after(time));
    }

    /// Lets the world go on until `end`, or until `done` says so.
    pub fn run_until(&mut self, end: Instant) {
        let mut steps = 0u64;
        loop {
            steps += 1;
            if steps > 3_000_000 {
                self.fail("the world does not get on");
            }
            self.happen();
            let wanted = self.engine.deadline();
            if wanted <= self.now {
                self.wake();
                continue;
            }
            let next = wanted.min(self.next_happening()).min(end);
            if next >= end && self.now >= end {
                return;
            }
            self.flow_to(next);
        }
    }

    /// Runs until this event was said; returns when. Fails after `limit`.
    pub fn until(&mut self, limit: Duration, what: &str, wanted: impl Fn(&Event) -> bool) -> Instant {
        let from = self.story.lines.len();
        let end = self.now.after(limit);
        loop {
            let found = self.story.lines[from..].iter().find_map(|(at, line)| match line {
                Line::Said(event) if wanted(event) => Some(*at),
                _ => None,
            });
            if let Some(at) = found {
                return at;
            }
            if self.now >= end {
                self.fail(&format!("within {limit:?} there was no {what}"));
            }
            let next = self.engine.deadline().min(self.next_happening()).min(end).max(self.now);
            self.run_until(next);
        }
    }

    fn next_happening(&self) -> Instant {
        let scheduled = self.happenings.iter().map(|h| h.0).min().unwrap_or(Instant::NEVER);
        scheduled.min(self.next_change()).max(Instant(self.now.0 + 1))
    }

    /// When some memory meets a mark or changes its course.
    fn next_change(&self) -> Instant {
        let processes = self.slots.iter().filter_map(|s| s.process.as_ref());
        let changes = processes.map(|p| p.next_change(self.now)).min().unwrap_or(Instant::NEVER);
        let unhide = self.hidden.iter().map(|h| h.0).min().unwrap_or(Instant::NEVER);
        let growth = self.growth();
        let full = self.time_to(self.left(), growth).min(self.time_to(self.ceiling - self.charged(), growth));
        changes.min(unhide).min(full).max(Instant(self.now.0 + 1))
    }

    fn time_to(&self, room: f64, rate: f64) -> Instant {
        let left = room.max(0.0) / rate;
        if left.is_finite() && left < 1e9 && rate > 0.0 {
            self.now.after(Duration::from_secs_f64(left) + Duration::from_micros(10))
        } else {
            Instant::NEVER
        }
    }

    fn flow_to(&mut self, to: Instant) {
        let seconds = to.since(self.now).as_secs_f64();
        for process in self.slots.iter_mut().filter_map(|s| s.process.as_mut()) {
            let used = process.used;
            process.flow(seconds);
            let freed = (used - process.used).max(0.0);
            if freed > 0.0 && process.life == Life::Dies && self.hides_percent > 0 {
                let until = to.after(self.hides_for);
                self.hidden.push((until, freed * self.hides_percent as f64 / 100.0));
            }
        }
        for stranger in &mut self.strangers {
            stranger.used = (stranger.used + stranger.rate * seconds).clamp(0.0, stranger.most);
            if stranger.used >= stranger.most || stranger.used <= 0.0 {
                stranger.rate = 0.0;
            }
        }
        self.stalled_us += seconds * 1e4 * self.stalled_percent as f64;
        self.now = self.now.max(to);
        let now = self.now;
        self.hidden.retain(|(until, _)| *until > now);
        self.least = self.least.min(Bytes(self.left().max(0.0) as u64));
        self.rules.flowed(now, self.growth());
    }

    fn pass(&mut self, time: Duration) {
        // Nothing that the engine sees happens while the guard is at work; growth goes on.
        let end = self.now.after(time);
        let mut steps = 0;
        while self.now < end {
            steps += 1;
            if steps > 10_000 {
                self.fail("the world does not get on while the guard works");
            }
            self.flow_to(self.next_change().min(end));
            self.cross();
        }
    }

    fn wake(&mut self) {
        self.wakes += 1;
        if self.engine.next_look() <= self.now { self.look() } else { self.input(Input::Tick) }
    }

    /// Reads the sensors and gives them to the engine.
    pub fn look(&mut self) {
        self.looks += 1;
        let host = HostSample {
            available: self.available(),
            total: self.total,
            swap_free: Bytes::ZERO,
            charged: match self.has_cgroups() {
                true => Reading::Known(Bytes(self.charged() as u64)),
                false => Reading::Unknown(Why::NotSupported),
            },
            stalled_us: Reading::Known(self.stalled_us as u64),
        };
        let ids = (0..self.slots.len()).map(|i| JobId(i as u16));
        let samples: Vec<JobSample> = ids
            .zip(&self.slots)
            .filter_map(|(job, slot)| slot.process.as_ref().map(|p| (job, p.used as u64)))
            .map(|(job, used)| JobSample { job, usage: Reading::Known(Bytes(used)) })
            .collect();
        self.story.push(self.now, Line::Look(host.available));
        self.call(Input::Sample(&host, &samples));
        self.pass(LOOK);
        self.perform();
    }

    /// Anything else that comes in.
    pub fn input(&mut self, input: Input<'_>) {
        if !matches!(input, Input::Tick) {
            self.story.push(self.now, Line::In(format!("{input:?}").chars().take(70).collect()));
        }
        self.call(input);
        self.perform();
    }

    fn call(&mut self, input: Input<'_>) {
        self.calls = if self.calls.0 == self.now { (self.now, self.calls.1 + 1) } else { (self.now, 1) };
        if self.calls.1 > 40 + 10 * self.slots.len() as u32 {
            self.fail("the engine is called again and again at the same moment");
        }
        self.rules.input(self.now, &input);
        self.engine.handle(self.now, input);
    }

    fn perform(&mut self) {
        let mut effects = Vec::new();
        let mut events = Vec::new();
        while let Some(effect) = self.engine.effect() {
            effects.push(effect);
        }
        while let Some(event) = self.engine.event() {
            events.push(event);
        }
        for effect in &effects {
            self.story.push(self.now, Line::Did(*effect));
        }
        for event in &events {
            self.story.push(self.now, Line::Said(*event));
        }
        if effects.is_empty() && events.is_empty() {
            if let Err(rule) = self.rules.pass(self.now) {
                self.fail(&rule);
            }
            return;
        }
        self.hold_to_rules(&effects, &events);
        for effect in effects {
            self.act(effect);
            self.pass(ACT);
        }
    }

    fn hold_to_rules(&mut self, effects: &[Effect], events: &[Event]) {
        let truth = rules::Truth {
            now: self.now,
            available: self.available(),
            level: self.engine.level(),
            reserve: self.engine.host_policy().reserve,
            below_ceiling: if self.has_cgroups() { self.ceiling - self.charged() } else { f64::MAX },
            populated: (0..self.slots.len()).map(|i| self.is_populated(JobId(i as u16))).collect(),
            used: (0..self.slots.len()).map(|i| self.used(JobId(i as u16))).collect(),
            policies: self.slots.iter().map(|s| s.policy).collect(),
        };
        let mut rules = std::mem::take(&mut self.rules);
        let broken = rules.check(&truth, effects, events);
        self.rules = rules;
        if let Err(rule) = broken {
            self.fail(&rule);
        }
    }

    /// Ends everything and checks that every start had its end.
    pub fn finish(mut self) -> Story {
        self.input(Input::Shutdown(Urgency::Now));
        self.run_for(secs(60));
        if let Err(rule) = self.rules.at_end() {
            self.fail(&rule);
        }
        if !self.engine.is_done() && !self.engine.is_empty() {
            self.fail("a minute after the last shutdown it is not done");
        }
        self.story
    }

    pub fn fail(&self, what: &str) -> ! {
        panic!("{what}\nat {}\n{}", story::moment(self.now), self.story);
    }
}

// --- what the machine does ---------------------------------------------------------------------------------

impl World {
    fn next_number(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    fn process(&mut self, job: JobId) -> Option<&mut Process> {
        self.slots.get_mut(job.index())?.process.as_mut()
    }

    fn schedule(&mut self, job: JobId, after: Duration, happening: Happening) {
        let number = self.process(job).map_or(0, |p| p.number);
        let order = self.next_number();
        self.happenings.push((self.now.after(after), order, job, number, happening));
    }

    /// Everything that is due now, in order.
    fn happen(&mut self) {
        for _ in 0..10_000 {
            self.cross();
            let due = self.happenings.iter().enumerate().filter(|(_, h)| h.0 <= self.now);
            let Some((index, _)) = due.min_by_key(|(_, h)| (h.0, h.1)) else { return };
            let (_, _, job, number, happening) = self.happenings.remove(index);
            if self.process(job).map_or(0, |p| p.number) == number {
                self.happens(job, happening);
            }
        }
        self.fail("the world does not get on: something happens again and again");
    }

    fn happens(&mut self, job: JobId, happening: Happening) {
        let now = self.now;
        match happening {
            Happening::Started => self.begin(job),
            Happening::StartFailed => self.input(Input::StartFailed(job)),
            Happening::Tell(event) => self.input(Input::Limit(job, event)),
            Happening::Says(word) => self.input(Input::Heard(job, word)),
            Happening::TellExited => {
                let Some(exit) = self.process(job).map(|p| p.exit) else { return };
                self.input(Input::Exited(job, exit));
            }
            Happening::TellEmptied => {
                let Some(process) = self.process(job) else { return };
                process.populated = false;
                self.input(Input::Emptied(job));
            }
            Happening::TakesTerm => self.take_term(job),
            Happening::MainExits(exit) => self.main_exits(job, exit),
            Happening::Dies => self.dies(job),
            Happening::Prunes => {
                let Some(process) = self.process(job).filter(|p| p.works()) else { return };
                if process.frozen_since.is_some() {
                    process.prune_pending = true;
                } else if let Some((_, to)) = process.kind.prunes {
                    process.begin_again(now, to);
                    self.input(Input::Heard(job, Word::Trial(Some(1))));
                }
            }
            Happening::Relieves => {
                let Some(process) = self.process(job).filter(|p| p.works()) else { return };
                let caches = std::mem::take(&mut process.kind.relieves).0 as f64;
                process.used = (process.used - caches).max(process.used / 2.0);
            }
        }
    }

    fn begin(&mut self, job: JobId) {
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

    fn take_term(&mut self, job: JobId) {
        let Some(process) = self.process(job).filter(|p| p.works()) else { return };
        if process.frozen_since.is_some() {
            process.term_pending = true;
        } else if let Term::Exits(after) = process.kind.term {
            let exit = if process.main_gone { process.exit } else { Exit::Signal(15) };
            self.schedule(job, after, Happening::MainExits(exit));
        }
    }

    /// The main process ends; children that ignore SIGTERM stay behind with their share.
    fn main_exits(&mut self, job: JobId, exit: Exit) {
        let Some(process) = self.process(job).filter(|p| p.works()) else { return };
        if process.frozen_since.is_some() {
            // It ends when it may run again.
            self.schedule(job, millis(50), Happening::MainExits(exit));
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

    fn dies(&mut self, job: JobId) {
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
    fn cross(&mut self) {
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
    fn meet_end(&mut self) {
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

    fn starve(&mut self, starved: bool) {
        for process in self.slots.iter_mut().filter_map(|s| s.process.as_mut()) {
            process.starved = starved;
        }
    }

    fn meets_wall(&mut self, job: JobId, enforcement: Enforcement) {
        if enforcement == Enforcement::JobObject {
            self.main_exits(job, Exit::Code(1));
        } else {
            self.kernel_kill(job, LimitEvent::KilledAtLimit);
        }
    }

    /// The largest one goes.
    fn kernel_kills(&mut self, event: LimitEvent) {
        let working = self.slots.iter().enumerate().filter_map(|(i, s)| Some((i, s.process.as_ref()?)));
        let largest = working.filter(|(_, p)| p.works()).max_by(|a, b| a.1.used.total_cmp(&b.1.used));
        if let Some(job) = largest.map(|(i, _)| JobId(i as u16)) {
            self.kernel_kill(job, event);
        }
    }

    fn kernel_kill(&mut self, job: JobId, event: LimitEvent) {
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

    fn has_died(&mut self, job: JobId) {
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

    fn act(&mut self, effect: Effect) {
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
            Effect::Clean(job, cause) => self.clean(job, cause),
        }
    }

    fn thaw(&mut self, job: JobId) {
        let now = self.now;
        let Some(process) = self.process(job) else { return };
        process.thaw(now);
        if std::mem::take(&mut process.term_pending) {
            self.take_term(job);
        }
        if self.process(job).is_some_and(|p| std::mem::take(&mut p.prune_pending)) {
            self.happens(job, Happening::Prunes);
        }
    }

    fn clean(&mut self, job: JobId, cause: Cause) {
        let Some(process) = self.slots[job.index()].process.take() else { return };
        if !cause.is_memory() && process.used > 0.0 {
            self.strangers.push(Stranger { used: process.used, rate: 0.0, most: process.used });
        }
    }
}
