//! Lets time pass: the clock jumps to whatever comes first, the engine is called when it wants to be.

use std::time::Duration;

use oomguard_core::sample::{JobSample, Reading, Why};
use oomguard_core::{Bytes, Effect, Event, HostSample, Input, Instant, JobId, Phase, Urgency};

use super::process::Life;
use super::rules::Rules;
use super::story::moment;
use super::{ACT, LOOK, Line, Story, World, millis, rules, secs};

impl World {
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.now.after(time));
    }

    /// Lets the world go on until `end`, or until `done` says so.
    pub fn run_until(&mut self, end: Instant) {
        let mut steps = 0u64;
        loop {
            steps += 1;
            if steps > 3_000_000 {
                self.fail("the world does not get on");
            }
            self.happen();
            self.read_gpus();
            let wanted = self.engine.deadline();
            if wanted <= self.now {
                self.wake();
                continue;
            }
            let next = wanted.min(self.next_happening()).min(self.next_reading()).min(end);
            if next >= end && self.now >= end {
                return;
            }
            self.flow_to(next);
        }
    }

    /// Runs until this event was said; returns when. Fails after `limit`.
    pub fn until(&mut self, limit: Duration, what: &str, wanted: impl Fn(&Event) -> bool) -> Instant {
        let from = self.story.lines.len();
        let end = self.now.after(limit);
        loop {
            let found = self.story.lines[from..].iter().find_map(|(at, line)| match line {
                Line::Said(event) if wanted(event) => Some(*at),
                _ => None,
            });
            if let Some(at) = found {
                return at;
            }
            if self.now >= end {
                self.fail(&format!("within {limit:?} there was no {what}"));
            }
            let happens = self.next_happening().min(self.next_reading());
            let next = self.engine.deadline().min(happens).min(end).max(self.now);
            self.run_until(next);
        }
    }

    pub(super) fn next_happening(&self) -> Instant {
        let scheduled = self.happenings.iter().map(|h| h.0).min().unwrap_or(Instant::NEVER);
        scheduled.min(self.next_change()).max(Instant(self.now.0 + 1))
    }

    /// When some memory meets a mark or changes its course.
    pub(super) fn next_change(&self) -> Instant {
        let processes = self.slots.iter().filter_map(|s| s.process.as_ref());
        let changes = processes.map(|p| p.next_change(self.now)).min().unwrap_or(Instant::NEVER);
        let unhide = self.hidden.iter().map(|h| h.0).min().unwrap_or(Instant::NEVER);
        let growth = self.growth();
        let full = self.time_to(self.left(), growth).min(self.time_to(self.ceiling - self.charged(), growth));
        changes.min(unhide).min(full).max(Instant(self.now.0 + 1))
    }

    pub(super) fn time_to(&self, room: f64, rate: f64) -> Instant {
        let left = room.max(0.0) / rate;
        if left.is_finite() && left < 1e9 && rate > 0.0 {
            self.now.after(Duration::from_secs_f64(left) + Duration::from_micros(10))
        } else {
            Instant::NEVER
        }
    }

    pub(super) fn flow_to(&mut self, to: Instant) {
        let seconds = to.since(self.now).as_secs_f64();
        for process in self.slots.iter_mut().filter_map(|s| s.process.as_mut()) {
            let used = process.used;
            process.flow(seconds);
            let freed = (used - process.used).max(0.0);
            if freed > 0.0 && process.life == Life::Dies && self.hides_percent > 0 {
                let until = to.after(self.hides_for);
                let bytes = freed * self.hides_percent as f64 / 100.0;
                // Drawn together: each of them is a moment at which the world stops.
                match self.hidden.last_mut() {
                    Some((last, sum)) if until.since(*last) < millis(10) => *sum += bytes,
                    _ => self.hidden.push((until, bytes)),
                }
            }
        }
        for stranger in &mut self.strangers {
            stranger.used = (stranger.used + stranger.rate * seconds).clamp(0.0, stranger.most);
            if stranger.used >= stranger.most || stranger.used <= 0.0 {
                stranger.rate = 0.0;
            }
        }
        self.stalled_us += seconds * 1e4 * self.stalled_percent as f64;
        self.now = self.now.max(to);
        let now = self.now;
        if self.hidden.first().is_some_and(|(until, _)| *until <= now) {
            self.hidden.retain(|(until, _)| *until > now);
        }
        self.least = self.least.min(Bytes(self.left().max(0.0) as u64));
        self.rules.flowed(now, self.growth());
    }

    pub(super) fn pass(&mut self, time: Duration) {
        // Nothing that the engine sees happens while the guard is at work; growth goes on.
        let end = self.now.after(time);
        let mut steps = 0;
        while self.now < end {
            steps += 1;
            if steps > 10_000 {
                self.fail("the world does not get on while the guard works");
            }
            self.flow_to(self.next_change().min(end));
            self.cross();
        }
    }

    pub(super) fn wake(&mut self) {
        self.wakes += 1;
        if self.engine.next_look() <= self.now { self.look() } else { self.input(Input::Tick) }
    }

    /// Reads the sensors and gives them to the engine.
    pub fn look(&mut self) {
        self.looks += 1;
        let host = HostSample {
            available: self.available(),
            total: self.total,
            swap_free: Bytes::ZERO,
            charged: match self.has_cgroups() {
                true => Reading::Known(Bytes(self.charged() as u64)),
                false => Reading::Unknown(Why::NotSupported),
            },
            stalled_us: Reading::Known(self.stalled_us as u64),
        };
        let ids = (0..self.slots.len()).map(|i| JobId(i as u16));
        let samples: Vec<JobSample> = ids
            .zip(&self.slots)
            .filter_map(|(job, slot)| slot.process.as_ref().map(|p| (job, p.used as u64)))
            .map(|(job, used)| JobSample { job, usage: Reading::Known(Bytes(used)) })
            .collect();
        let used = (0..self.slots.len()).map(|i| self.used(JobId(i as u16))).collect();
        self.seen = (host.available, used);
        self.story.push(self.now, Line::Look(host.available));
        self.call(Input::Sample(&host, &samples));
        let away = self.engine.next_look().since(self.now);
        if let Err(rule) =
            Rules::looks_away(away, host.available, self.engine.level(), self.engine.host_policy())
        {
            self.fail(&rule);
        }
        self.pass(LOOK);
        self.perform();
    }

    /// Anything else that comes in.
    pub fn input(&mut self, input: Input<'_>) {
        if !matches!(input, Input::Tick) {
            self.story.push(self.now, Line::In(format!("{input:?}").chars().take(70).collect()));
        }
        self.call(input);
        self.perform();
    }

    /// Nothing is going to happen to a job any more.
    fn is_still(&self) -> bool {
        let dying = |p: &super::process::Process| p.life == Life::Dies;
        self.happenings.is_empty() && !self.slots.iter().any(|s| s.process.as_ref().is_some_and(dying))
    }

    pub(super) fn call(&mut self, input: Input<'_>) {
        self.calls = if self.calls.0 == self.now { (self.now, self.calls.1 + 1) } else { (self.now, 1) };
        if self.calls.1 > 40 + 10 * self.slots.len() as u32 {
            self.fail("the engine is called again and again at the same moment");
        }
        self.rules.input(self.now, &input);
        if let Some(tape) = &self.tape {
            tape.input(self.now, input);
        }
        self.engine.handle(self.now, input);
    }

    pub(super) fn perform(&mut self) {
        let mut effects = Vec::new();
        let mut events = Vec::new();
        while let Some(effect) = self.engine.effect() {
            effects.push(effect);
        }
        while let Some(event) = self.engine.event() {
            events.push(event);
        }
        for effect in &effects {
            self.story.push(self.now, Line::Did(*effect));
        }
        for event in &events {
            self.story.push(self.now, Line::Said(*event));
        }
        if effects.is_empty() && events.is_empty() {
            if let Err(rule) = self.rules.pass(self.now) {
                self.fail(&rule);
            }
            return;
        }
        self.hold_to_rules(&effects, &events);
        for effect in effects {
            self.act(effect);
            self.pass(ACT);
        }
    }

    pub(super) fn hold_to_rules(&mut self, effects: &[Effect], events: &[Event]) {
        let truth = rules::Truth {
            now: self.now,
            available: self.available(),
            seen_available: self.seen.0,
            seen_used: self.seen.1.clone(),
            level: self.engine.level(),
            reserve: self.engine.host_policy().reserve,
            below_ceiling: if self.has_cgroups() { self.ceiling - self.charged() } else { f64::MAX },
            populated: (0..self.slots.len()).map(|i| self.is_populated(JobId(i as u16))).collect(),
            used: (0..self.slots.len()).map(|i| self.used(JobId(i as u16))).collect(),
            policies: self.slots.iter().map(|s| s.policy).collect(),
            vram: self.driver.told.clone(),
            vram_reserve: self.engine.host_policy().vram_reserve,
            candidates: (0..self.slots.len()).map(|i| self.candidate(JobId(i as u16))).collect(),
        };
        let mut rules = std::mem::take(&mut self.rules);
        let broken = rules.check(&truth, effects, events);
        self.rules = rules;
        if let Err(rule) = broken {
            self.fail(&rule);
        }
    }

    fn candidate(&self, job: JobId) -> Option<(Bytes, Bytes)> {
        let view = self.engine.view(job, self.now)?;
        let works = matches!(view.phase, Phase::Running | Phase::Terminating);
        view.usage.filter(|_| works).map(|usage| (usage, view.rate))
    }

    /// Ends everything and checks that every start had its end.
    pub fn finish(mut self) -> Story {
        self.input(Input::Shutdown(Urgency::Now));
        // A guard goes home when its engine is done. Nobody learns from how it looks at an empty machine.
        for _ in 0..60 {
            if self.engine.is_done() && self.is_still() {
                break;
            }
            self.run_for(secs(1));
        }
        if let Err(rule) = self.rules.at_end() {
            self.fail(&rule);
        }
        if !self.engine.is_done() && !self.engine.is_empty() {
            self.fail("a minute after the last shutdown it is not done");
        }
        self.story
    }

    pub fn fail(&self, what: &str) -> ! {
        panic!("{what}\nat {}\n{}", moment(self.now), self.story);
    }
}
