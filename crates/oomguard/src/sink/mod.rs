//! Where records go: the terminal, `watchdog.log`, `events.jsonl`, the report of `run`. Each sink is one rendering.
//!
//! A sink that cannot write (disk full) says so once through the others, counts what is lost and goes on when it
//! can. Nothing here decides anything, and no failure here ever stops the guard.

mod file;
pub mod human;
pub mod jsonl;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod report;
pub mod suite;
mod terminal;

use std::cell::RefCell;
use std::rc::Rc;

use crate::record::{Notice, Record, Roster};

pub use file::LogFile;
pub(crate) use file::{numbered, open_append, shift};
pub use human::Human;
pub use jsonl::JsonLines;
pub use report::Report;

/// A report that its driver still holds: it is written when the run is over.
impl Sink for Rc<RefCell<Report>> {
    fn tell(&mut self, record: &Record, roster: &Roster) {
        if let Ok(mut report) = self.try_borrow_mut() {
            report.note(record, roster);
        }
    }
}

/// One rendering of records.
pub trait Sink {
    /// Renders one record. Never blocks on a full disk, never fails.
    fn tell(&mut self, record: &Record, roster: &Roster);

    /// What the others should know about this one (it cannot write; it can again; its file was rotated).
    fn trouble(&mut self) -> Option<Notice> {
        None
    }

    /// Opens its file again, after somebody else has moved it aside.
    fn reopen(&mut self) {}

    /// Gives a reader a last moment to take what is left.
    fn finish(&mut self) {}
}

/// The sinks that were chosen.
#[derive(Default)]
pub struct Sinks {
    sinks: Vec<Box<dyn Sink>>,
}

impl Sinks {
    /// None.
    pub fn new() -> Sinks {
        Sinks::default()
    }

    /// With one more.
    pub fn add(&mut self, sink: impl Sink + 'static) -> &mut Sinks {
        self.sinks.push(Box::new(sink));
        self
    }

    /// Tells all of them, and tells the others when one has trouble.
    pub fn tell(&mut self, record: &Record, roster: &Roster) {
        for sink in &mut self.sinks {
            sink.tell(record, roster);
        }
        for troubled in 0..self.sinks.len() {
            while let Some(notice) = self.sinks[troubled].trouble() {
                // Once it can write again, what it has missed is said in its own text, too.
                let resumed = matches!(notice, Notice::SinkResumed { .. });
                let record = Record { ts: record.ts, mono: record.mono, told: notice.into() };
                for (index, sink) in self.sinks.iter_mut().enumerate() {
                    if index != troubled || resumed {
                        sink.tell(&record, roster);
                    }
                }
            }
        }
    }

    /// Opens all files again (SIGHUP).
    pub fn reopen(&mut self) {
        for sink in &mut self.sinks {
            sink.reopen();
        }
    }

    /// Before the guard ends: what is left is written, for a second at most each.
    pub fn finish(&mut self) {
        for sink in &mut self.sinks {
            sink.finish();
        }
    }
}
