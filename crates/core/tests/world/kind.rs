//! What a simulated job does with memory and how it takes being told to stop. Only data.

use std::time::Duration;

use oomguard_core::Bytes;

use super::gpus::OnGpu;

/// How it takes SIGTERM.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Term {
    /// Exits after this.
    Exits(Duration),
    /// Goes on.
    Ignores,
}

/// In which order its end is seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Order {
    /// Its memory is back, then its main process is gone, then its tree is empty.
    MemoryExitedEmptied,
    /// As a zombie whose threads still free memory.
    ExitedMemoryEmptied,
    /// As read by a guard that looks at the tree before it reaps.
    MemoryEmptiedExited,
    /// Memory that somebody else still frees.
    ExitedEmptiedMemory,
}

/// What a job does.
#[derive(Clone, Debug)]
pub struct Kind {
    /// It takes this long to start.
    pub starts_in: Duration,
    /// It cannot be started.
    pub fails: bool,
    /// ... and nobody need try again.
    pub hopeless: bool,
    /// It fills this first, at `fill` a second.
    pub base: Bytes,
    /// See `base`.
    pub fill: Bytes,
    /// Then: for how long it grows how much a second (shrinks, below zero).
    pub steps: Vec<(Duration, i64)>,
    /// The steps come again and again.
    pub repeats: bool,
    /// It never grows beyond.
    pub most: Bytes,
    /// Of what it uses, in percent: stays until it is cleaned up.
    pub shm_percent: u64,
    /// Processes besides its main one, each with an equal share.
    pub children: u32,
    /// It takes SIGTERM like this.
    pub term: Term,
    /// Its memory returns this slowly.
    pub dies_per_gib: Duration,
    /// In D state for this long after SIGKILL.
    pub stuck: Duration,
    /// Says that it reads its page.
    pub checks: bool,
    /// Answers a prune after this, and falls to that.
    pub prunes: Option<(Duration, Bytes)>,
    /// Gives back this much when asked.
    pub relieves: Bytes,
    /// Removing what it left in shared memory takes this long.
    pub sweeps_in: Duration,
    /// What it does with a GPU.
    pub gpu: Option<OnGpu>,
    /// Ends by itself after this, with this code.
    pub ends: Option<(Duration, i32)>,
    /// How its end is seen.
    pub order: Order,
    /// Each part of its end is told twice.
    pub echoes: bool,
}

pub const FOREVER: Duration = Duration::from_secs(1 << 30);

impl Kind {
    /// Fills `base` and works on.
    pub fn steady(base: Bytes) -> Kind {
        Kind {
            starts_in: Duration::from_millis(20),
            fails: false,
            hopeless: false,
            base,
            fill: Bytes::gib(1),
            steps: Vec::new(),
            repeats: false,
            most: Bytes::MAX,
            shm_percent: 0,
            children: 0,
            term: Term::Exits(Duration::from_millis(300)),
            dies_per_gib: Duration::from_millis(200),
            stuck: Duration::ZERO,
            checks: false,
            prunes: None,
            relieves: Bytes::ZERO,
            sweeps_in: Duration::from_millis(300),
            gpu: None,
            ends: None,
            order: Order::MemoryExitedEmptied,
            echoes: false,
        }
    }
    /// Grows for ever, this much a second, once it has worked for `after`.
    pub fn grows(base: Bytes, after: Duration, rate: Bytes) -> Kind {
        Kind { steps: vec![(after, 0), (FOREVER, rate.0 as i64)], ..Kind::steady(base) }
    }
    /// As fast as NumPy dirties memory.
    pub fn spikes(base: Bytes, after: Duration) -> Kind {
        Kind::grows(base, after, Bytes::gib(8))
    }
    /// Up and down by `swing` a second.
    pub fn breathes(base: Bytes, swing: Bytes, half: Duration) -> Kind {
        let swing = swing.0 as i64;
        Kind { steps: vec![(half, swing), (half, -swing)], repeats: true, ..Kind::steady(base) }
    }
    /// Ends by itself.
    pub fn ends(self, after: Duration, code: i32) -> Kind {
        Kind { ends: Some((after, code)), ..self }
    }
    /// Cannot be started.
    pub fn fails() -> Kind {
        Kind { fails: true, ..Kind::steady(Bytes::ZERO) }
    }
    /// Reads its page and answers a prune by falling to its base.
    pub fn cooperates(self) -> Kind {
        let to = self.base;
        Kind { checks: true, prunes: Some((Duration::from_millis(200), to)), ..self }
    }
    /// Reads its page, it said, and never answers.
    pub fn promises(self) -> Kind {
        Kind { checks: true, prunes: None, ..self }
    }
    pub fn ignores_term(self) -> Kind {
        Kind { term: Term::Ignores, ..self }
    }
    pub fn exits_in(self, after: Duration) -> Kind {
        Kind { term: Term::Exits(after), ..self }
    }
    pub fn stuck(self, stuck: Duration) -> Kind {
        Kind { stuck, ..self }
    }
    pub fn shm(self, percent: u64) -> Kind {
        Kind { shm_percent: percent, ..self }
    }
    pub fn sweeps_in(self, sweeps_in: Duration) -> Kind {
        Kind { sweeps_in, ..self }
    }
    pub fn children(self, children: u32) -> Kind {
        Kind { children, ..self }
    }
    pub fn order(self, order: Order) -> Kind {
        Kind { order, ..self }
    }
    pub fn on_gpu(self, gpu: OnGpu) -> Kind {
        Kind { gpu: Some(gpu), ..self }
    }
    pub fn fills(self, fill: Bytes) -> Kind {
        Kind { fill, ..self }
    }
}
