//! What a world's engine was given, in the form that `oomguard replay` reads. It outlives the world that fails.

use std::cell::RefCell;
use std::rc::Rc;

use oomguard_core::recording::{Entry, Header, Machine, Made, VERSION};
use oomguard_core::{Bytes, Input, Instant};
use serde::Serialize;

/// The lines.
#[derive(Clone, Default)]
pub struct Tape(Rc<RefCell<Vec<u8>>>);

impl Tape {
    pub fn begin(&self, mono: Instant, total: Bytes, engine: Made) {
        let machine = Machine { kernel: "simulated".to_owned(), cores: 1, total };
        let (build, verb) = (env!("CARGO_PKG_VERSION").to_owned(), "simulate".to_owned());
        self.line(&Header { recording: VERSION, build, verb, mono, unix_ns: mono.0, machine, engine });
    }

    pub fn input(&self, now: Instant, input: Input<'_>) {
        self.line(&Entry::<_, ()>::In(now, input));
    }

    fn line(&self, line: &impl Serialize) {
        let mut bytes = self.0.borrow_mut();
        assert!(serde_json::to_writer(&mut *bytes, line).is_ok(), "it fits in memory");
        bytes.push(b'\n');
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.0.borrow().clone()
    }
}
