//! What the guard's loop asks of a verb. Nothing about limits or braking is asked.

use oomguard_core::{Instant, JobId};
use oomguard_sys::process::Process;
use oomguard_sys::spawn::SpawnError;
use oomguard_sys::wait::Received;

use super::{Guard, Hand};
use crate::record::Record;

/// What is different between `run` and `up`: how a job is started, and what is done about signals, own
/// descriptors and what has been told.
pub trait Verb {
    /// Starts the job of this slot, inside `hand.leaf`.
    fn start(&mut self, job: JobId, attempt: u32, hand: &mut Hand) -> Result<Begun, SpawnError>;

    /// The how-manieth start of what is in this slot it was, where a slot has not one job all its life.
    fn attempt(&self, job: JobId) -> Option<u32> {
        let _ = job;
        None
    }

    /// A signal came for the guard.
    fn signal(&mut self, guard: &mut Guard, signal: Received);

    /// A descriptor that the verb registered has something to say.
    fn ready(&mut self, guard: &mut Guard, token: u64) {
        let _ = (guard, token);
    }

    /// A turn of the loop begins.
    fn turn(&mut self, guard: &mut Guard, now: Instant) {
        let _ = (guard, now);
    }

    /// The sensors have just been read.
    fn looked(&mut self, guard: &mut Guard) {
        let _ = guard;
    }

    /// Nothing will be started any more, so that the guard may go once no slot does anything.
    fn has_finished(&self) -> bool {
        true
    }

    /// When the verb wants its turn, whatever the engine wants.
    fn deadline(&self) -> Instant {
        Instant::NEVER
    }

    /// A record is being told. What the engine says is booked here before the sinks have it.
    fn told(&mut self, guard: &mut Guard, record: &Record) {
        let _ = (guard, record);
    }
}

/// What became of an order to start.
pub enum Begun {
    /// It runs.
    Runs(Process),
    /// Somebody else starts it; `Guard::begun` is called when that is done.
    Later,
}
