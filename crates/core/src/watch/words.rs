//! What goes into the host guard and comes out of it. Only data.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::choose::Choice;
use super::row::Who;
use super::shortage::Shortage;
use crate::event::Level;
use crate::policy::HostPolicy;
use crate::units::Bytes;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The thresholds.
    pub host: HostPolicy,
    /// From SIGTERM to SIGKILL, if there is so much time.
    pub grace: Duration,
    /// Act; else only say.
    pub enforce: bool,
}

/// What is left of the victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remains {
    /// Its processes that live.
    pub processes: u32,
    /// What these still use.
    pub usage: Bytes,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Take hold of this family; [`super::Watch::look`] is told of its remains from now on.
    Hold(Who),
    /// SIGTERM to all of it.
    Terminate,
    /// SIGKILL to all of it, and to what it has started meanwhile.
    Kill,
    /// It is gone: remove the shared-memory files that only it has used. [`super::Watch::swept`] is the answer.
    Sweep,
    /// Let it be: it is gone, or the shortage is over without it.
    Release,
}

/// What there is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The level changed.
    Level {
        /// Before.
        from: Level,
        /// Now.
        to: Level,
        /// Available now.
        available: Bytes,
    },
    /// A family was chosen.
    Chosen {
        /// Which, and why this one.
        choice: Choice,
        /// What is short.
        shortage: Shortage,
        /// Bytes per second that it took.
        rate: Bytes,
        /// Available now.
        available: Bytes,
        /// It is also acted on.
        enforced: bool,
    },
    /// It was sent SIGTERM.
    Terminate {
        /// What it uses.
        usage: Bytes,
        /// Until SIGKILL at the latest.
        grace: Duration,
    },
    /// It was sent SIGKILL.
    Kill {
        /// What it uses.
        usage: Bytes,
        /// Available now.
        available: Bytes,
        /// It had its SIGTERM and all of its grace.
        after_grace: bool,
    },
    /// The wait for its memory is over.
    Back {
        /// Since SIGKILL, or since SIGTERM if that was enough.
        after: Duration,
        /// All of it is gone.
        complete: bool,
    },
    /// Short, and nobody who may go could help.
    NoVictim {
        /// Available now.
        available: Bytes,
    },
}
