//! Every deadline of a job, one variant each. The earliest of all is when the engine wants to be called.

use crate::clock::Instant;

/// What a job can be waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// To be started.
    Start,
    /// Its planned restart.
    Age,
    /// The end of its allowed time.
    Timeout,
    /// The end of the patience after it was asked to stop by itself.
    Prune,
    /// SIGKILL after SIGTERM.
    Grace,
    /// To be gone after SIGKILL.
    KillWait,
    /// Its memory to be back.
    MemoryBack,
    /// The end of a throttle, or its return.
    Soft,
    /// The next health line.
    Health,
    /// The VRAM of its last job to be back.
    VramBack,
}

const ALL: [Timer; 10] = [
    Timer::Start,
    Timer::Age,
    Timer::Timeout,
    Timer::Prune,
    Timer::Grace,
    Timer::KillWait,
    Timer::MemoryBack,
    Timer::Soft,
    Timer::Health,
    Timer::VramBack,
];

/// The deadlines of one job.
#[derive(Clone, Copy, Debug)]
pub struct Timers([Instant; ALL.len()]);

impl Default for Timers {
    fn default() -> Timers {
        Timers([Instant::NEVER; ALL.len()])
    }
}

impl Timers {
    /// Sets or moves a deadline.
    pub fn set(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize] = at;
    }
    /// Forgets it.
    pub fn stop(&mut self, timer: Timer) {
        self.set(timer, Instant::NEVER);
    }
    /// When it is due.
    pub fn get(&self, timer: Timer) -> Instant {
        self.0[timer as usize]
    }
    /// Forgets all.
    pub fn clear(&mut self) {
        *self = Timers::default();
    }
    /// The earliest.
    pub fn earliest(&self) -> Instant {
        self.0.iter().copied().min().unwrap_or(Instant::NEVER)
    }
    /// Takes one that is due, if any.
    pub fn take_due(&mut self, now: Instant) -> Option<Timer> {
        let due = ALL.into_iter().find(|t| self.get(*t) <= now)?;
        self.stop(due);
        Some(due)
    }
}
