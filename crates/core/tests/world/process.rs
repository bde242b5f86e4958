//! One simulated process tree: how its memory moves between two moments.

use std::time::Duration;

use oomguard_core::{Bytes, Exit, Instant};

use super::kind::Kind;

/// Where its life stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Life {
    Works,
    /// After SIGKILL or its exit: its memory returns.
    Dies,
    /// No process left; at most shared memory.
    Dead,
}

/// A tree between `Started` and `Clean`. Memory in bytes, as a float so that small steps lose nothing.
#[derive(Clone, Debug)]
pub struct Process {
    pub kind: Kind,
    /// Tells happenings of this tree from those of its predecessors.
    pub number: u64,
    pub used: f64,
    pub life: Life,
    pub populated: bool,
    hangs: bool,
    pub exit: Exit,
    pub main_gone: bool,
    pub frozen_since: Option<Instant>,
    /// What came while it was frozen.
    pub term_pending: bool,
    pub prune_pending: bool,
    pub exit_pending: Option<Exit>,
    pub soft: Option<f64>,
    pub soft_told: bool,
    /// The throttle bites since then.
    pub throttled_since: Option<Instant>,
    pub limit: Option<f64>,
    /// There is nothing to give; it waits in the allocator.
    pub starved: bool,
    /// Of its memory, this stays until it is cleaned up.
    pub shm: f64,
    filled: bool,
    step: usize,
    step_ends: Instant,
}

impl Process {
    pub fn new(kind: Kind, number: u64, limit: Option<Bytes>) -> Process {
        Process {
            kind,
            number,
            used: 0.0,
            life: Life::Works,
            populated: true,
            hangs: false,
            exit: Exit::Signal(9),
            main_gone: false,
            frozen_since: None,
            term_pending: false,
            prune_pending: false,
            exit_pending: None,
            soft: None,
            soft_told: false,
            throttled_since: None,
            limit: limit.map(|l| l.0 as f64),
            starved: false,
            shm: 0.0,
            filled: false,
            step: 0,
            step_ends: Instant::NEVER,
        }
    }

    pub fn works(&self) -> bool {
        self.life == Life::Works
    }

    /// SIGKILL was sent, and it is still in the kernel's hands.
    pub fn is_stuck(&self) -> bool {
        self.hangs && self.life == Life::Works
    }

    /// Bytes per second, now.
    pub fn rate(&self) -> f64 {
        match self.life {
            Life::Dead => 0.0,
            Life::Dies => {
                let gib = Bytes::gib(1).0 as f64;
                if self.used > self.shm { -gib / self.kind.dies_per_gib.as_secs_f64().max(1e-6) } else { 0.0 }
            }
            Life::Works if self.frozen_since.is_some() || self.main_gone => 0.0,
            Life::Works => {
                let wanted = self.wanted();
                let full = self.starved || self.throttled_since.is_some() || self.used >= self.most();
                let held = wanted > 0.0 && full;
                if held || (wanted < 0.0 && self.used <= 0.0) { 0.0 } else { wanted }
            }
        }
    }

    fn most(&self) -> f64 {
        if self.kind.most == Bytes::MAX { f64::INFINITY } else { self.kind.most.0 as f64 }
    }

    fn wanted(&self) -> f64 {
        if !self.filled {
            return self.kind.fill.0 as f64;
        }
        self.kind.steps.get(self.step).map_or(0.0, |(_, rate)| *rate as f64)
    }

    /// The next moment at which its growth changes by itself, counted from `now`.
    pub fn next_change(&self, now: Instant) -> Instant {
        let rate = self.rate();
        let mut next =
            if self.works() && self.frozen_since.is_none() { self.step_ends } else { Instant::NEVER };
        let mut reach = |target: f64| {
            let left = (target - self.used) / rate;
            if (0.0..1e9).contains(&left) {
                next = next.min(now.after(Duration::from_secs_f64(left) + Duration::from_nanos(1)));
            }
        };
        if rate > 0.0 {
            if !self.filled {
                reach(self.kind.base.0 as f64);
            }
            reach(self.most());
            for mark in [self.limit, self.soft].into_iter().flatten().filter(|mark| self.used < *mark) {
                reach(mark);
            }
        } else if rate < 0.0 {
            reach(if self.life == Life::Dies { self.shm } else { 0.0 });
        }
        next
    }

    /// Lets `seconds` pass.
    pub fn flow(&mut self, seconds: f64) {
        let floor = if self.life == Life::Dies { self.shm.min(self.used) } else { 0.0 };
        self.used = (self.used + self.rate() * seconds).max(floor).min(self.most().max(self.used));
        if self.life == Life::Dies && self.used - self.shm < 4096.0 {
            self.used = self.shm;
        }
    }

    /// Takes up its next work if its present one is over.
    pub fn turn(&mut self, now: Instant) {
        if !self.works() || self.frozen_since.is_some() {
            return;
        }
        if !self.filled && self.used + 4096.0 >= self.kind.base.0 as f64 {
            self.filled = true;
            self.begin_step(now, 0);
        }
        while self.step_ends <= now {
            let next = self.step + 1;
            let wraps = self.kind.repeats && next == self.kind.steps.len();
            self.begin_step(now, if wraps { 0 } else { next });
        }
    }

    fn begin_step(&mut self, now: Instant, step: usize) {
        self.step = step;
        self.step_ends = self.kind.steps.get(step).map_or(Instant::NEVER, |(time, _)| now.after(*time));
    }

    /// A new trial: down to `used`, and its work from the start.
    pub fn begin_again(&mut self, now: Instant, used: Bytes) {
        self.used = self.used.min(used.0 as f64);
        self.filled = true;
        self.begin_step(now, 0);
    }

    /// The time it stood still does not count as work.
    pub fn thaw(&mut self, now: Instant) {
        if let Some(since) = self.frozen_since.take()
            && self.step_ends != Instant::NEVER
        {
            self.step_ends = self.step_ends.after(now.since(since));
        }
    }

    /// Killed, but in the kernel's hands: it neither grows nor goes.
    pub fn hang(&mut self) {
        self.hangs = true;
        self.frozen_since = None;
        self.kind.steps.clear();
        self.filled = true;
        self.begin_step(Instant(0), 0);
    }

    /// From here on its memory returns.
    pub fn die(&mut self) {
        self.shm = self.used * self.kind.shm_percent as f64 / 100.0;
        self.life = Life::Dies;
    }
}
