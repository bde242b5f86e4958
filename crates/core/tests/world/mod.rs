//! A simulated machine under a virtual clock, and the driver that a guard would be on it.
//!
//! Jumps from one happening to the next, performs what the engine decides with the delays that were measured
//! on real machines, keeps the story for failure messages, and holds every step against [`rules`].

pub mod gpus;
pub mod kind;
mod machine;
mod process;
mod rules;
mod story;
mod tape;
mod time;

use std::time::Duration;

use oomguard_core::recording::Made;
use oomguard_core::{
    Bytes, Enforcement, Engine, Exit, HostPolicy, Input, Instant, JobId, JobPolicy, LimitEvent, Phase, Word,
};

pub use kind::{FOREVER, Kind, Order, Term};
use process::{Life, Process};
use rules::Rules;
pub use story::{Line, Story};
pub use tape::Tape;

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
    MainExits(Exit),
    Dies,
    TellExited,
    TellEmptied,
    Swept,
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
    seen: (Bytes, Vec<Bytes>),
    slots: Vec<Slot>,
    happenings: Vec<(Instant, u64, JobId, u64, Happening)>,
    count: u64,
    ceiling: f64,
    stalled_us: f64,
    hidden: Vec<(Instant, f64)>,
    rules: Rules,
    calls: (Instant, u32),
    /// Where every input is written, as `oomguard replay` reads it.
    tape: Option<Tape>,
    pub driver: gpus::Driver,
}

pub fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}
pub const fn millis(n: u64) -> Duration {
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

impl World {
    /// A machine with this much memory and eight cores, nothing running.
    pub fn new(total: Bytes) -> World {
        World::with(total, HostPolicy::for_machine(total, 8))
    }

    pub fn with(total: Bytes, policy: HostPolicy) -> World {
        World {
            now: Instant(100_000_000_000_000),
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
            seen: (total, Vec::new()),
            slots: Vec::new(),
            happenings: Vec::new(),
            count: 0,
            ceiling: f64::INFINITY,
            stalled_us: 0.0,
            hidden: Vec::new(),
            rules: Rules::default(),
            calls: (Instant(0), 0),
            tape: None,
            driver: gpus::Driver::default(),
        }
    }

    /// The engine spreads restarts by `seed`, and what it is given is written to `tape`, if there is one.
    pub fn make_engine(&mut self, seed: u64, tape: Option<Tape>) {
        let policy = *self.engine.host_policy();
        self.engine = Engine::new(policy, seed);
        if let Some(tape) = &tape {
            tape.begin(self.now, self.total, Made::Jobs { policy, seed });
        }
        self.tape = tape;
    }

    /// Somebody else's memory, growing by `rate` a second.
    pub fn stranger(&mut self, used: Bytes, rate: Bytes) -> usize {
        let stranger = Stranger { used: used.0 as f64, rate: rate.0 as f64, most: f64::INFINITY };
        self.strangers.push(stranger);
        self.strangers.len() - 1
    }

    /// Somebody else takes memory at 2 GiB a second until only this much is available.
    pub fn crowd(&mut self, available: Bytes) {
        self.crowd_at(Bytes::gib(2), available);
    }

    pub fn crowd_at(&mut self, rate: Bytes, available: Bytes) {
        let (used, rate) = (self.available().minus(available).0 as f64, rate.0 as f64);
        self.strangers.push(Stranger { used: 0.0, rate, most: used });
        self.run_for(Duration::from_secs_f64(used / rate));
    }

    pub fn add(&mut self, policy: JobPolicy, kind: Kind) -> JobId {
        let job = JobId(self.slots.len() as u16);
        self.slots.push(Slot { policy, kind, process: None });
        self.input(Input::Add(job, policy));
        job
    }

    /// Another job in a slot that is over.
    pub fn add_again(&mut self, job: JobId, policy: JobPolicy, kind: Kind) {
        (self.slots[job.index()].policy, self.slots[job.index()].kind) = (policy, kind);
        self.rules.forget(job);
        self.input(Input::Add(job, policy));
    }

    /// A job that an earlier guard left behind.
    pub fn adopt(&mut self, policy: JobPolicy, kind: Kind, age: Duration, attempt: u32) -> JobId {
        let job = JobId(self.slots.len() as u16);
        let mut process = Process::new(kind.clone(), self.next_number(), policy.limit);
        process.used = kind.base.0 as f64;
        self.slots.push(Slot { policy, kind, process: Some(process) });
        self.input(Input::Adopt(job, policy, age, attempt));
        job
    }

    /// Its processes are gone, and nobody has reaped them.
    pub fn vanish(&mut self, job: JobId) {
        if let Some(process) = self.process(job) {
            (process.life, process.populated, process.used) = (Life::Dead, false, 0.0);
            self.input(Input::Emptied(job));
        }
    }

    /// What the slot runs from its next start on.
    pub fn runs_next(&mut self, job: JobId, kind: Kind) {
        self.slots[job.index()].kind = kind;
    }

    pub fn change(&mut self, job: JobId, policy: JobPolicy) {
        self.slots[job.index()].policy = policy;
        self.input(Input::Change(job, policy));
    }
}

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

    /// The kernel lets go of a job: no wall, no tripwire.
    pub fn unplug(&mut self, job: JobId) {
        let slot = &mut self.slots[job.index()];
        slot.policy.enforcement = Enforcement::WatchOnly;
        if let Some(process) = &mut slot.process {
            (process.limit, process.soft, process.soft_told, process.throttled_since) =
                (None, None, false, None);
        }
        self.input(Input::Unheld(job));
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
        jobs + self.strangers.iter().map(|s| s.rate.max(0.0)).sum::<f64>()
    }

    fn has_cgroups(&self) -> bool {
        self.slots.iter().any(|s| s.policy.enforcement.holds_the_tree())
    }

    fn is_populated(&self, job: JobId) -> bool {
        self.slots[job.index()].process.as_ref().is_some_and(|p| p.populated)
    }
}
