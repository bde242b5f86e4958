//! The engine, with everything that comes in written down first where that was asked for. Decides nothing.

use std::ops::Deref;

use oomguard_core::{Effect, Engine, Event, HostPolicy, Input, Instant, JobId};

use crate::recording::Tape;

/// An engine that cannot be told anything behind the recording's back.
pub struct Recorded {
    engine: Engine,
    tape: Option<Tape>,
}

impl From<Engine> for Recorded {
    fn from(engine: Engine) -> Recorded {
        Recorded { engine, tape: None }
    }
}

impl Deref for Recorded {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

impl Recorded {
    /// From here on.
    pub fn record(&mut self, tape: Tape) {
        self.tape = Some(tape);
    }

    /// [`Engine::handle`].
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        if let Some(tape) = &self.tape {
            tape.input(now, input);
        }
        self.engine.handle(now, input);
    }

    /// [`Engine::set_host_policy`].
    pub fn set_host_policy(&mut self, policy: HostPolicy) {
        if let Some(tape) = &self.tape {
            tape.policy(policy);
        }
        self.engine.set_host_policy(policy);
    }

    /// [`Engine::recall`].
    pub fn recall(&mut self, job: JobId, failures: u32) {
        if let Some(tape) = &self.tape {
            tape.recall(job, failures);
        }
        self.engine.recall(job, failures);
    }

    /// [`Engine::effect`].
    pub fn effect(&mut self) -> Option<Effect> {
        self.engine.effect()
    }

    /// [`Engine::event`].
    pub fn event(&mut self) -> Option<Event> {
        self.engine.event()
    }

    /// Hands on what was written; after acting, and never waiting.
    pub fn flush(&self) {
        if let Some(tape) = &self.tape {
            tape.flush();
        }
    }
}
