//! What came in, what was decided and what was said, in order: the page that a failed test prints.

use std::fmt;
use std::time::Duration;

use oomguard_core::{Bytes, Effect, Event, Instant, JobId};

#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    In(String),
    /// The sensors were read, and said that this much is available.
    Look(Bytes),
    Did(Effect),
    Said(Event),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Story {
    pub lines: Vec<(Instant, Line)>,
}

/// How many lines a failure shows.
const SHOWN: usize = 250;

impl Story {
    pub fn push(&mut self, at: Instant, line: Line) {
        self.lines.push((at, line));
    }

    /// When effects like this were decided.
    pub fn did(&self, wanted: impl Fn(&Effect) -> bool) -> Vec<Instant> {
        let when = |(at, line): &(Instant, Line)| match line {
            Line::Did(effect) if wanted(effect) => Some(*at),
            _ => None,
        };
        self.lines.iter().filter_map(when).collect()
    }

    /// When events like this were said.
    pub fn said(&self, wanted: impl Fn(&Event) -> bool) -> Vec<Instant> {
        let when = |(at, line): &(Instant, Line)| match line {
            Line::Said(event) if wanted(event) => Some(*at),
            _ => None,
        };
        self.lines.iter().filter_map(when).collect()
    }

    pub fn events(&self) -> impl Iterator<Item = (Instant, Event)> {
        self.lines.iter().filter_map(|(at, line)| match line {
            Line::Said(event) => Some((*at, *event)),
            _ => None,
        })
    }

    /// The stages of a job, by name and in order: its effects without those about limits.
    pub fn stages(&self, job: JobId) -> Vec<&'static str> {
        let stage = |line: &Line| match line {
            Line::Did(effect) => stage(*effect, job),
            _ => None,
        };
        self.lines.iter().filter_map(|(_, line)| stage(line)).collect()
    }
}

fn stage(effect: Effect, wanted: JobId) -> Option<&'static str> {
    let (job, name) = match effect {
        Effect::Start(job) => (job, "start"),
        Effect::Relieve(job) => (job, "relieve"),
        Effect::Prune(job, _) => (job, "prune"),
        Effect::Resume(job) => (job, "resume"),
        Effect::Freeze(job) => (job, "freeze"),
        Effect::Thaw(job) => (job, "thaw"),
        Effect::Terminate(job, _) => (job, "terminate"),
        Effect::TerminateTree(job) => (job, "terminate-tree"),
        Effect::Kill(job, _) => (job, "kill"),
        Effect::Clean(job) => (job, "clean"),
        Effect::SetLimit(..) | Effect::SetSoft(..) | Effect::SetCeiling(_) | Effect::Sweep(_) => return None,
    };
    (job == wanted).then_some(name)
}

pub fn moment(at: Instant) -> String {
    format!("{:>12.6} s", Duration::from_nanos(at.0).as_secs_f64())
}

impl fmt::Display for Story {
    /// The last lines, with runs of looks that led to nothing drawn together.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = Vec::new();
        let mut looks = 0;
        for (index, (at, line)) in self.lines.iter().enumerate() {
            let idle = |line: Option<&(Instant, Line)>| matches!(line, Some((_, Line::Look(_))));
            if idle(Some(&(*at, line.clone()))) && idle(self.lines.get(index + 1)) {
                looks += 1;
                continue;
            }
            if looks > 0 {
                shown.push(format!("{:>14}   ... {looks} looks", ""));
                looks = 0;
            }
            shown.push(match line {
                Line::In(input) => format!("{} > {input}", moment(*at)),
                Line::Look(available) => format!("{} > look: {available} available", moment(*at)),
                Line::Did(effect) => format!("{}     do  {effect:?}", moment(*at)),
                Line::Said(event) => format!("{}     say {event:?}", moment(*at)),
            });
        }
        let skip = shown.len().saturating_sub(SHOWN);
        shown[skip..].iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}
