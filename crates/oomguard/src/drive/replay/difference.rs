//! What a run told and what its replay tells, side by side: only what differs.
//!
//! Two lines are the same if the event is; when it was said does not count.

use oomguard_core::{Bytes, Event};
use similar::{Algorithm, DiffOp, capture_diff_slices};

use super::follow::is_the_engines;
use crate::record::{Notice, Record, Told};

/// Both tellings so far.
#[derive(Default)]
pub struct Difference {
    then: Vec<Line>,
    now: Vec<Line>,
}

struct Line {
    event: String,
    text: String,
}

impl Line {
    /// Only what an engine said: a replay has no notices of its own.
    fn of(record: &Record, text: String) -> Option<Line> {
        let mut told = Some(record.told.clone()).filter(is_the_engines)?;
        match &mut told {
            // How much the kernel saw a job use before it killed it, no engine knows; nor what a cgroup is called.
            Told::Engine(Event::Ended { cause, peak, .. }) if cause.is_memory() => *peak = Bytes::ZERO,
            Told::Notice(Notice::Chosen { cgroup, .. }) => cgroup.clear(),
            _ => {}
        }
        Some(Line { event: serde_json::to_string(&told).ok()?, text })
    }
}

impl Difference {
    /// This was told then.
    pub fn then(&mut self, record: &Record, text: String) {
        self.then.extend(Line::of(record, text));
    }

    /// This is told now.
    pub fn now(&mut self, record: &Record, text: String) {
        self.now.extend(Line::of(record, text));
    }

    /// `-` and `+` lines; nothing where both tell the same.
    pub fn text(&self) -> String {
        let events = |lines: &'_ [Line]| lines.iter().map(|line| line.event.clone()).collect::<Vec<_>>();
        let mut text = String::new();
        let mut show = |sign: char, lines: &[Line]| {
            for line in lines.iter().flat_map(|line| line.text.lines()) {
                text.push_str(&format!("{sign} {line}\n"));
            }
        };
        for op in capture_diff_slices(Algorithm::Myers, &events(&self.then), &events(&self.now)) {
            if !matches!(op, DiffOp::Equal { .. }) {
                show('-', &self.then[op.old_range()]);
                show('+', &self.now[op.new_range()]);
            }
        }
        text
    }
}
