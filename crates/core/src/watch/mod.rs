//! The host guard: what goes when the machine is short and nobody has asked oomguard to start anything.
//!
//! Decides when to look, whether the machine is short, which family goes, and SIGTERM or SIGKILL. Never reads a
//! clock or a process; one shortage, one victim; and without [`Policy::enforce`] it only says whom it would choose.

mod choose;
mod family;
pub mod recording;
mod row;
mod scans;
mod shortage;
mod words;

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Instant;
use crate::event::Level;
use crate::forecast::{Growth, time_to_use};
use crate::policy::{HostPolicy, MEMORY_BACK_WAIT};
use crate::sample::HostSample;
use crate::units::Bytes;

pub use choose::Choice;
pub use family::{Families, Family, newcomers};
pub use row::{Row, Standing, Who, expose};
pub use shortage::Shortage;
pub use words::{Effect, Event, Policy, Remains};

use choose::choose;
use scans::Scans;
use shortage::Gauge;

/// SIGTERM is worth while if the machine lasts at least this long.
const TIME_TO_TERMINATE: Duration = Duration::from_secs(1);
/// With less than this left, SIGKILL, whatever grace remains.
const NO_TIME: Duration = Duration::from_millis(500);
/// The edge.
const SOONEST: Duration = Duration::from_millis(1);
/// Idle.
const LATEST: Duration = Duration::from_secs(2);
/// Below the warning threshold, so that a window of pressure is about a second.
const LATEST_WARNED: Duration = Duration::from_millis(250);
/// While a victim is on its way out.
const WHILE_BRAKING: Duration = Duration::from_millis(5);
/// Below the reserve with nothing to be done about it.
const WHILE_LOW: Duration = Duration::from_millis(100);
/// The job of another oomguard is left to that one for so long, as long as half of the reserve is left.
const LEFT_TO_OTHERS: Duration = Duration::from_secs(10);
/// Families that did not die, remembered so that none is chosen twice.
const MOST_SPENT: usize = 64;

/// The victim of this shortage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Victim {
    leader: Who,
    /// How many it was.
    processes: u32,
    /// When it was signalled last.
    since: Instant,
    /// When some of its memory was last seen to come back.
    moved: Instant,
    held: Bytes,
    /// Available once all of it is back.
    expected: Bytes,
    /// The most that was available since it was gone.
    best: Bytes,
    sweep: Sweep,
}

/// Where the removal of its shared memory stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sweep {
    NotAsked,
    UnderWay,
    Done,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Idle,
    /// Short, and this one is to go, if it still is at the next look, which comes at once.
    Confirm(Choice),
    /// SIGTERM was sent.
    Acting(Victim),
    /// SIGKILL was sent, or it ended by itself: its memory is awaited.
    Settle(Victim),
    /// Said whom it would choose, or that there is nobody: nothing more in this shortage.
    Said { helpless: bool },
}

/// The state of the guard.
#[derive(Debug)]
pub struct Watch {
    policy: Policy,
    gauge: Gauge,
    families: Families,
    growth: Growth,
    level: Level,
    available: Bytes,
    stage: Stage,
    looked: Option<Instant>,
    scans: Scans,
    /// When the present shortage began.
    short_since: Option<Instant>,
    spent: VecDeque<Who>,
    effects: VecDeque<Effect>,
    events: VecDeque<Event>,
}

impl Watch {
    /// A guard that has seen nothing.
    pub fn new(policy: Policy) -> Watch {
        Watch {
            policy,
            gauge: Gauge::default(),
            families: Families::default(),
            growth: Growth::default(),
            level: Level::Normal,
            available: Bytes::MAX,
            stage: Stage::Idle,
            looked: None,
            scans: Scans::default(),
            short_since: None,
            spent: VecDeque::with_capacity(MOST_SPENT),
            effects: VecDeque::with_capacity(8),
            events: VecDeque::with_capacity(16),
        }
    }

    /// When the host is to be looked at again.
    pub fn next_look(&self) -> Instant {
        self.looked.map_or(Instant(0), |looked| looked.after(self.wait()))
    }

    fn wait(&self) -> Duration {
        let HostPolicy { reserve, warning, worst_rate, .. } = self.policy.host;
        let latest = if self.available < warning { LATEST_WARNED } else { LATEST };
        match self.stage {
            Stage::Confirm(_) => Duration::ZERO,
            Stage::Acting(_) | Stage::Settle(_) => WHILE_BRAKING,
            Stage::Said { .. } => {
                (time_to_use(self.available, worst_rate) / 2).clamp(WHILE_BRAKING, WHILE_LOW)
            }
            // Below the reserve while swap takes it.
            Stage::Idle if self.available <= reserve => {
                (time_to_use(self.available, worst_rate) / 2).clamp(WHILE_BRAKING, WHILE_LOW)
            }
            Stage::Idle => time_to_use(self.available.minus(reserve), worst_rate).clamp(SOONEST, latest),
        }
    }

    /// The families as of the last scan.
    pub fn families(&self) -> &Families {
        &self.families
    }

    /// Memory is short now.
    pub fn is_short(&self) -> bool {
        self.gauge.short().is_some()
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// The next thing to say.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The host was read, and what is left of the victim, if one is held. Whether a scan of all processes is wanted
    /// before anything else is decided: [`Watch::scan`] is to follow at once.
    pub fn look(&mut self, now: Instant, host: &HostSample, remains: Option<Remains>) -> bool {
        self.looked = Some(now);
        self.available = host.available;
        self.growth.update(now, host.total.minus(host.available));
        self.gauge.update(now, host, &self.policy.host);
        self.follow_level();
        if let Some(remains) = remains {
            self.follow_victim(now, remains);
        }
        if self.gauge.short().is_none() {
            self.short_since = None;
            if matches!(self.stage, Stage::Confirm(_) | Stage::Said { .. }) {
                self.stage = Stage::Idle;
            }
        } else if self.short_since.is_none() {
            self.short_since = Some(now);
        }
        let wants_scan = self.wants_scan(now);
        if !wants_scan {
            self.step(now);
        }
        wants_scan
    }

    fn wants_scan(&mut self, now: Instant) -> bool {
        let is_due = self.scans.is_due(now, self.available, self.policy.host.warning);
        match self.stage {
            Stage::Idle if self.gauge.short().is_some() => self.scans.is_stale(now) || self.is_outrun(),
            Stage::Idle => is_due || (self.is_close() && self.scans.may_be_repeated(now)),
            Stage::Said { .. } => is_due,
            Stage::Confirm(_) | Stage::Acting(_) | Stage::Settle(_) => false,
        }
    }

    /// More has vanished since the last scan than whoever would be chosen is known to have taken: a family that nobody
    /// has seen yet may have it.
    fn is_outrun(&mut self) -> bool {
        let vanished = self.scans.vanished(self.available);
        self.choice().is_none_or(|choice| vanished > choice.family.took)
    }

    /// A shortage is about to begin.
    fn is_close(&self) -> bool {
        let HostPolicy { reserve, warning, .. } = self.policy.host;
        let (room, rate) = (self.available.minus(reserve), self.growth.rate());
        self.available < warning && room > Bytes::ZERO && self.scans.is_last_moment(time_to_use(room, rate))
    }

    /// All processes, in order of their ids, and what it took of a core to find out about them; a step is taken.
    pub fn scan(&mut self, now: Instant, cost: Duration, rows: &[Row]) {
        self.scans.note(now, cost, self.available);
        let at_ease = self.available >= self.policy.host.warning;
        self.families.update(now, rows, at_ease);
        self.spent.retain(|who| rows.binary_search_by_key(who, |row| row.who).is_ok());
        self.step(now);
    }

    /// In a shortage: chooses, and acts on what was chosen at the look before.
    fn step(&mut self, now: Instant) {
        let Some(shortage) = self.gauge.short() else { return };
        self.stage = match self.stage {
            Stage::Confirm(choice) => self.brake(now, shortage, choice),
            Stage::Idle => match self.choice() {
                Some(choice) if self.is_left_to_others(now, &choice.family) => Stage::Idle,
                Some(choice) => Stage::Confirm(choice),
                None => {
                    self.events.push_back(Event::NoVictim { available: self.available });
                    Stage::Said { helpless: true }
                }
            },
            // Somebody who can help has turned up.
            Stage::Said { helpless: true } => self.choice().map_or(self.stage, Stage::Confirm),
            stage => stage,
        };
    }

    /// Another guard is about to end it. Half of its reserve is where that guard's jobs meet the kernel's wall.
    fn is_left_to_others(&self, now: Instant, family: &Family) -> bool {
        let in_time = self.short_since.is_some_and(|since| now.since(since) < LEFT_TO_OTHERS);
        family.guarded && in_time && self.available >= Bytes(self.policy.host.reserve.0 / 2)
    }

    fn choice(&mut self) -> Option<Choice> {
        let HostPolicy { reserve, warning, .. } = self.policy.host;
        let enough = match self.gauge.short() {
            Some(Shortage::Thrash) => warning,
            _ => reserve.plus(reserve.percent(10)),
        };
        choose(self.families.list(), enough.minus(self.available), self.spent.make_contiguous())
    }

    fn brake(&mut self, now: Instant, shortage: Shortage, choice: Choice) -> Stage {
        let window = self.families.window(now).as_millis().max(1);
        let rate = Bytes(u64::try_from(u128::from(choice.family.took.0) * 1000 / window).unwrap_or(u64::MAX));
        let (enforced, available) = (self.policy.enforce, self.available);
        self.events.push_back(Event::Chosen { choice, shortage, rate, available, enforced });
        if !enforced {
            return Stage::Said { helpless: false };
        }
        let Family { leader, usage, processes, .. } = choice.family;
        if self.spent.len() == MOST_SPENT {
            self.spent.pop_front();
        }
        self.spent.push_back(leader);
        self.effects.push_back(Effect::Hold(leader));
        let victim = Victim {
            leader,
            processes,
            since: now,
            moved: now,
            held: usage,
            expected: available.plus(usage),
            best: Bytes::ZERO,
            sweep: Sweep::NotAsked,
        };
        if self.time_left() <= TIME_TO_TERMINATE || self.policy.grace == Duration::ZERO {
            return self.kill(now, victim, usage, false);
        }
        self.effects.push_back(Effect::Terminate);
        self.events.push_back(Event::Terminate { usage, grace: self.policy.grace });
        Stage::Acting(victim)
    }

    fn kill(&mut self, now: Instant, victim: Victim, usage: Bytes, after_grace: bool) -> Stage {
        self.effects.push_back(Effect::Kill);
        self.events.push_back(Event::Kill { usage, available: self.available, after_grace });
        Stage::Settle(Victim { since: now, moved: now, held: usage, ..victim })
    }

    fn follow_victim(&mut self, now: Instant, remains: Remains) {
        let short = self.gauge.short().is_some();
        self.stage = match self.stage {
            Stage::Acting(victim) if remains.processes == 0 => Stage::Settle(Victim { moved: now, ..victim }),
            // Some of it have ended, which was enough: the others are on their way.
            Stage::Acting(victim) if !short && remains.processes < victim.processes => {
                Stage::Settle(Victim { moved: now, ..victim })
            }
            Stage::Acting(victim) if !short => self.release(now, victim, false),
            Stage::Acting(victim) => {
                let after_grace = now.since(victim.since) >= self.policy.grace;
                if after_grace || self.time_left() <= NO_TIME {
                    self.kill(now, victim, remains.usage, after_grace)
                } else {
                    Stage::Acting(victim)
                }
            }
            other => other,
        };
        if let Stage::Settle(victim) = self.stage {
            self.stage = self.settle(now, victim, remains, short);
        }
    }

    fn settle(&mut self, now: Instant, mut victim: Victim, remains: Remains, short: bool) -> Stage {
        if remains.usage.plus(Bytes::mib(16)) <= victim.held {
            (victim.held, victim.moved) = (remains.usage, now);
        }
        let gone = remains.processes == 0;
        if gone && victim.sweep == Sweep::NotAsked {
            (victim.moved, victim.best, victim.sweep) = (now, self.available, Sweep::UnderWay);
            self.effects.push_back(Effect::Sweep);
        } else if gone && self.available >= victim.best.plus(Bytes::mib(64)) {
            (victim.moved, victim.best) = (now, self.available);
        }
        let patient = now.since(victim.moved) < MEMORY_BACK_WAIT;
        // Gone, but the kernel does not count all of its pages yet, unless somebody else has taken them.
        let hidden = short && victim.expected >= self.policy.host.reserve && self.time_left() > NO_TIME;
        match (gone, patient) {
            (false, true) => Stage::Settle(victim),
            (true, true) if hidden || victim.sweep == Sweep::UnderWay => Stage::Settle(victim),
            _ => self.release(now, victim, gone),
        }
    }

    /// What the victim left in shared memory is removed, as far as it could be.
    pub fn swept(&mut self) {
        if let Stage::Settle(victim) = &mut self.stage {
            victim.sweep = Sweep::Done;
        }
    }

    fn release(&mut self, now: Instant, victim: Victim, complete: bool) -> Stage {
        self.effects.push_back(Effect::Release);
        self.events.push_back(Event::Back { after: now.since(victim.since), complete });
        Stage::Idle
    }

    /// Until nothing at all is left, at the growth in sight.
    fn time_left(&self) -> Duration {
        let room = self.available.minus(Bytes(self.policy.host.reserve.0 / 8));
        time_to_use(room, self.growth.rate())
    }

    fn follow_level(&mut self) {
        let HostPolicy { warning, .. } = self.policy.host;
        let leave = warning.plus(warning.percent(10));
        let warned = self.available < if self.level == Level::Normal { warning } else { leave };
        let to = match (self.gauge.short(), warned) {
            (Some(_), _) => Level::Critical,
            (None, true) => Level::Warning,
            (None, false) => Level::Normal,
        };
        if to != self.level {
            self.events.push_back(Event::Level { from: self.level, to, available: self.available });
            self.level = to;
        }
    }
}
