//! What must hold in every world, checked at every step against what is really so.

use std::time::Duration;

use oomguard_core::policy::{
    BACKOFF_FIRST, BACKOFF_MAX, HEALTHY_AFTER, KILL_WAIT, LEFTOVER_GRACE, MEMORY_BACK_WAIT, VRAM_BACK_WAIT,
    VRAM_FRESH, VRAM_RELIEF_WAIT,
};
use oomguard_core::{
    Amount, Bytes, Cause, Effect, Event, HeldSample, HostPolicy, Input, Instant, JobId, JobPolicy, Level,
    LimitEvent, Restart, Urgency,
};

use super::gpus::Told;

/// How the world stands when the engine has decided.
pub struct Truth {
    pub now: Instant,
    pub available: Bytes,
    /// What was available when the engine last looked, and what each job used.
    pub seen_available: Bytes,
    pub seen_used: Vec<Bytes>,
    pub reserve: Bytes,
    pub level: Level,
    /// Until the jobs together meet their ceiling.
    pub below_ceiling: f64,
    pub populated: Vec<bool>,
    pub used: Vec<Bytes>,
    pub policies: Vec<JobPolicy>,
    /// What was last told of GPUs, and how much must be left of each.
    pub vram: Told,
    pub vram_reserve: Option<Amount>,
    /// Who may be chosen: how much it is seen to use, and to grow in a second.
    pub candidates: Vec<Option<(Bytes, Bytes)>>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    alive: bool,
    starting: bool,
    start_at: Option<Instant>,
    started_at: Option<Instant>,
    starts: u32,
    start_failures: u32,
    ends: u32,
    ended_at: Option<Instant>,
    pause: Duration,
    failures: u32,
    terminated: Option<(Instant, Cause)>,
    killed: Option<Instant>,
    exited: Option<Instant>,
    kernel_kill: bool,
    frozen: Option<Instant>,
    throttled: bool,
    /// The soft mark has been touched while a throttle was in force, since then.
    touched: Option<Instant>,
    /// It is known to hold more VRAM than it may, since then.
    over_vram: Option<Instant>,
    /// Dead, it is known to hold VRAM, since then.
    dead_holds: Option<Instant>,
    asked: Option<Cause>,
    asks: Vec<Instant>,
    answer_by: Instant,
    removed: Option<Urgency>,
    planned: bool,
    over: bool,
}

/// The rule book and what it has seen.
#[derive(Default)]
pub struct Rules {
    seen: Vec<Seen>,
    /// Growth of the last seconds: the highest of each.
    growth: Vec<(Instant, f64)>,
    /// When GPUs were read last.
    read: Option<Instant>,
    woken: std::collections::VecDeque<Instant>,
    shutdown: bool,
}

/// A grace counts from the look that led to it, and the look takes time.
const SLACK: Duration = Duration::from_millis(2);

/// What is due is done with the next call.
const LATE: Duration = Duration::from_millis(100);

/// Beyond its patience the brake may be busy with what else is on its way.
const PATIENCE: Duration = Duration::from_secs(8);

type Broken = Result<(), String>;

macro_rules! hold {
    ($what:expr, $($why:tt)*) => {
        if !$what {
            return Err(format!($($why)*));
        }
    };
}

fn is_ending(seen: &Seen) -> bool {
    seen.killed.is_some() || seen.exited.is_some()
}

/// Nobody who grows faster is spared, unless the victim is over its own limit.
fn right_victim(truth: &Truth, victim: JobId, rate: Bytes, is_over: bool) -> Broken {
    let growing = Bytes::mib(32).max(rate);
    let faster = |(index, seen): (usize, &Option<(Bytes, Bytes)>)| {
        let (usage, rate) = (*seen)?;
        let missing = truth.reserve.plus(truth.reserve.percent(10)).minus(truth.seen_available);
        let useful = usage.plus(rate) >= Bytes(missing.0 / 8).max(Bytes::mib(16));
        (index != victim.index() && rate > growing && useful).then_some(index)
    };
    let spared = truth.candidates.iter().enumerate().find_map(faster);
    hold!(is_over || spared.is_none(), "{victim:?} braked, and {spared:?}, which grows faster, was spared");
    Ok(())
}

impl Rules {
    /// Growth counts for a while, since a forecast remembers.
    pub fn flowed(&mut self, now: Instant, growth: f64) {
        match self.growth.last_mut() {
            Some((at, most)) if now.since(*at) < Duration::from_millis(100) => *most = most.max(growth),
            _ => self.growth.push((now, growth)),
        }
        if self.growth.len() > 400 {
            self.growth.retain(|(at, _)| now.since(*at) < Duration::from_secs(20));
        }
    }

    pub fn input(&mut self, now: Instant, input: &Input<'_>) {
        self.woken.push_back(now);
        while self.woken.front().is_some_and(|at| now.since(*at) >= Duration::from_secs(1)) {
            self.woken.pop_front();
        }
        match *input {
            Input::Vram(at, _, held) => {
                let known = now.since(at) <= VRAM_FRESH;
                let gap = self.read.replace(now).is_none_or(|read| now.since(read) > Duration::from_secs(1));
                for (index, seen) in self.seen.iter_mut().enumerate() {
                    let holds = |row: &&HeldSample| {
                        row.job.index() == index && row.used.known().is_some_and(|used| used > Bytes::ZERO)
                    };
                    let dead = if seen.alive {
                        seen.killed.is_some() && seen.exited.is_none()
                    } else {
                        seen.ended_at.is_some()
                    };
                    let since = seen.dead_holds.filter(|_| !gap).or(Some(now));
                    seen.dead_holds = since.filter(|_| known && dead && held.iter().any(|row| holds(&row)));
                }
            }
            Input::VramUnknown(_) => self.seen.iter_mut().for_each(|seen| seen.dead_holds = None),
            Input::Add(job, _) | Input::Adopt(job, ..) => {
                while self.seen.len() <= job.index() {
                    self.seen.push(Seen::default());
                }
            }
            Input::Exited(job, _) => {
                if let Some(seen) = self.alive(job) {
                    seen.exited.get_or_insert(now);
                }
            }
            Input::Emptied(job) => {
                if let Some(seen) = self.alive(job) {
                    // What is frozen is gone.
                    seen.frozen = None;
                    seen.exited.get_or_insert(now);
                }
            }
            Input::Limit(job, LimitEvent::KilledAtLimit | LimitEvent::KilledAbove) => {
                if let Some(seen) = self.alive(job) {
                    seen.kernel_kill = true;
                }
            }
            Input::Limit(job, LimitEvent::Soft) => {
                if let Some(seen) = self.alive(job).filter(|seen| seen.throttled) {
                    seen.touched.get_or_insert(now);
                }
            }
            Input::Restart(job) => {
                if let Some(seen) = self.seen.get_mut(job.index()).filter(|_| !self.shutdown) {
                    (seen.pause, seen.failures, seen.over) = (Duration::ZERO, 0, false);
                    // The last word counts.
                    seen.removed = None;
                }
            }
            Input::Remove(job, urgency) => self.remove(job, urgency),
            Input::Shutdown(urgency) => {
                self.shutdown = true;
                for index in 0..self.seen.len() {
                    self.remove(JobId(index as u16), urgency);
                }
            }
            _ => {}
        }
    }

    /// The slot is made anew.
    pub fn forget(&mut self, job: JobId) {
        self.seen[job.index()] = Seen::default();
    }

    fn remove(&mut self, job: JobId, urgency: Urgency) {
        if let Some(seen) = self.seen.get_mut(job.index()) {
            // A slot that only waits is over at once.
            seen.planned &= seen.alive || seen.starting;
            seen.removed = Some(if seen.removed == Some(Urgency::Now) { Urgency::Now } else { urgency });
        }
    }

    fn alive(&mut self, job: JobId) -> Option<&mut Seen> {
        self.seen.get_mut(job.index()).filter(|seen| seen.alive)
    }

    /// Holds one answer of the engine against the rules.
    pub fn check(&mut self, truth: &Truth, effects: &[Effect], events: &[Event]) -> Broken {
        // What the engine has set aside when its slots were made; more would allocate.
        let most = 16 + 8 * (self.seen.len() + truth.vram.devices.len());
        hold!(effects.len().max(events.len()) <= most, "one input brought more than {most} answers");
        let enters = |event: &Event| matches!(event, Event::Level { to: Level::Critical, .. });
        let at_first_sight = events.iter().any(enters);
        for event in events {
            match *event {
                Event::Brake { job, cause: Cause::Reserve, usage, rate, limit, .. } => {
                    hold!(!at_first_sight, "{job:?} braked at the first look, unconfirmed");
                    let is_over = limit.is_some_and(|limit| usage > limit);
                    right_victim(truth, job, rate, is_over)?;
                }
                Event::Started { job, .. } => self.began(truth, job)?,
                Event::Parked { job, .. } => {
                    (self.seen[job.index()].over, self.seen[job.index()].planned) = (true, false);
                }
                // Nor does one that nobody follows.
                Event::Ended { job, .. } => {
                    let alone = truth.policies[job.index()].restart == Restart::Never;
                    let seen = &mut self.seen[job.index()];
                    seen.planned &= !alone && seen.removed.is_none();
                }
                // A tree that does not die does not hold up the others.
                Event::Unkillable { job, .. } => self.seen[job.index()].planned = false,
                _ => {}
            }
        }
        for effect in effects {
            self.effect(truth, *effect)?;
        }
        self.vram_in_time(truth)?;
        for event in events {
            if let Event::Ended { job, cause, .. } = *event {
                self.ended(truth, job, cause)?;
            }
        }
        self.in_time(truth)?;
        self.pass(truth.now)
    }

    /// What was promised for a time happens at that time.
    fn in_time(&self, truth: &Truth) -> Broken {
        for (index, (seen, policy)) in self.seen.iter().zip(&truth.policies).enumerate() {
            if !seen.alive || is_ending(seen) {
                continue;
            }
            let told = seen.terminated.map_or(Duration::ZERO, |(at, _)| truth.now.since(at));
            hold!(
                told <= policy.grace.saturating_add(LATE),
                "{index} was told to end {told:?} ago, and its grace is over"
            );
            let age = seen.started_at.map_or(Duration::ZERO, |at| truth.now.since(at));
            let allowed = policy.timeout.filter(|_| seen.terminated.is_none());
            hold!(
                allowed.is_none_or(|most| age <= most.saturating_add(LATE)),
                "{index} is {age:?} old, beyond its timeout"
            );
        }
        Ok(())
    }

    /// The next look comes before the fastest growth could have used what is left above the reserve.
    pub fn looks_away(away: Duration, available: Bytes, level: Level, policy: &HostPolicy) -> Broken {
        let headroom = available.minus(policy.reserve).0 as f64 / policy.worst_rate.0 as f64;
        // While a victim is on its way a look is 5 ms apart; where there is none, nothing could be done in time.
        let least = Duration::from_millis(if level == Level::Critical { 100 } else { 5 });
        let most = Duration::from_secs_f64(headroom).clamp(least, Duration::from_secs(2));
        hold!(away <= most + SLACK, "looks away for {away:?} with {available} available");
        Ok(())
    }

    /// Time has passed: it was not called too often, and nothing has been in force for too long.
    pub fn pass(&self, now: Instant) -> Broken {
        // A thousand looks a second at the edge, and room for what the world itself says.
        hold!(self.woken.len() < 2500, "called {} times within a second", self.woken.len());
        self.in_force(now)
    }

    fn began(&mut self, truth: &Truth, job: JobId) -> Broken {
        let seen = &mut self.seen[job.index()];
        hold!(!seen.alive, "{job:?} was said to have started twice");
        *seen = Seen {
            alive: true,
            started_at: Some(truth.now),
            starts: seen.starts + 1,
            ends: seen.ends,
            start_failures: seen.start_failures,
            failures: seen.failures,
            removed: seen.removed,
            ..Seen::default()
        };
        Ok(())
    }

    fn ended(&mut self, truth: &Truth, job: JobId, cause: Cause) -> Broken {
        let policy = truth.policies[job.index()];
        let seen = &mut self.seen[job.index()];
        if cause == Cause::StartFailed {
            seen.start_failures += 1;
        } else {
            hold!(seen.alive, "{job:?} ended and was not alive");
            seen.ends += 1;
        }
        hold!(seen.frozen.is_none() || seen.killed.is_some(), "{job:?} ended frozen");
        let age = seen.started_at.filter(|_| seen.alive).map_or(Duration::ZERO, |at| truth.now.since(at));
        if age >= HEALTHY_AFTER {
            seen.failures = 0;
        }
        let is_success = cause == Cause::Finished && policy.restart == Restart::OnFailure;
        seen.over |= policy.restart == Restart::Never || is_success || seen.removed.is_some();
        if !cause.is_planned() && cause != Cause::Finished {
            seen.failures += 1;
            seen.pause = BACKOFF_FIRST.saturating_mul(1 << (seen.failures - 1).min(16)).min(BACKOFF_MAX);
        } else {
            seen.pause = Duration::ZERO;
        }
        // Its successor may have been ordered in the same breath.
        (seen.alive, seen.starting) = (false, seen.start_at == Some(truth.now));
        seen.planned &= !seen.over;
        seen.ended_at = Some(truth.now);
        (seen.frozen, seen.throttled, seen.touched) = (None, false, None);
        Ok(())
    }

    fn effect(&mut self, truth: &Truth, effect: Effect) -> Broken {
        let now = truth.now;
        match effect {
            Effect::Start(job) => self.start(truth, job),
            Effect::SetCeiling(_) => Ok(()),
            Effect::Sweep(job) => {
                self.must_live(job, "sweep")?;
                hold!(!truth.populated[job.index()], "{job:?} swept while processes are left");
                Ok(())
            }
            Effect::Clean(job) => {
                let seen = &self.seen[job.index()];
                hold!(seen.alive || seen.starting, "{job:?} cleaned without a job");
                hold!(!truth.populated[job.index()], "{job:?} cleaned while processes are left");
                Ok(())
            }
            Effect::Terminate(job, cause) => self.terminate(truth, job, cause),
            Effect::Kill(job, cause) => self.kill(truth, job, cause),
            Effect::TerminateTree(job) => {
                let seen = self.must_live(job, "terminate-tree")?;
                hold!(seen.exited.is_some(), "{job:?}: SIGTERM to its tree while its main process lives");
                Ok(())
            }
            Effect::Freeze(job) => {
                let seen = self.must_live(job, "freeze")?;
                hold!(seen.frozen.is_none(), "{job:?} frozen twice");
                hold!(seen.killed.is_none(), "{job:?} frozen after its kill");
                seen.frozen = Some(now);
                Ok(())
            }
            Effect::Thaw(job) => {
                let seen = self.must_live(job, "thaw")?;
                hold!(seen.frozen.take().is_some(), "{job:?} thawed and was not frozen");
                Ok(())
            }
            Effect::Relieve(job) => self.must_live(job, "relieve").map(|_| ()),
            Effect::Prune(job, cause) => {
                let patience = truth.policies[job.index()].prune_patience;
                if cause == Cause::Vram {
                    self.right_gpu(truth, job, false)?;
                }
                let seen = self.must_live(job, "prune")?;
                hold!(seen.terminated.is_none() && seen.killed.is_none(), "{job:?} pruned while it ends");
                hold!(seen.asked != Some(cause), "{job:?} asked twice without an answer between");
                seen.asked = Some(cause);
                seen.answer_by = now.after(patience + PATIENCE);
                seen.asks.push(now);
                seen.asks.retain(|at| now.since(*at) < Duration::from_secs(1));
                // A job that gives back 50 MiB and takes them again at 1.2 GiB/s is asked every 40 ms, each time with
                // reason; who is asked and released at every second look is asked every 10.
                hold!(seen.asks.len() <= 50, "{job:?} asked and released in a flutter");
                Ok(())
            }
            Effect::Resume(job) => {
                let seen = self.must_live(job, "resume")?;
                hold!(seen.asked.take().is_some(), "{job:?} resumed and was not asked");
                Ok(())
            }
            Effect::SetLimit(job, _) => self.must_live(job, "set-limit").map(|_| ()),
            Effect::SetSoft(job, mark) => {
                let seen = self.must_live(job, "set-soft")?;
                seen.throttled = mark.is_some();
                seen.touched = None;
                Ok(())
            }
        }
    }

    fn must_live(&mut self, job: JobId, what: &str) -> Result<&mut Seen, String> {
        match self.seen.get_mut(job.index()) {
            Some(seen) if seen.alive => Ok(seen),
            _ => Err(format!("{what} for {job:?}, which has no job")),
        }
    }

    fn start(&mut self, truth: &Truth, job: JobId) -> Broken {
        hold!(!truth.populated[job.index()], "{job:?} started while its old tree has processes");
        let seen = &mut self.seen[job.index()];
        // Its end may be said in the same breath.
        hold!(!seen.starting || seen.ended_at.is_some(), "{job:?} started twice");
        hold!(seen.removed.is_none(), "{job:?} started after it was removed");
        hold!(!seen.over, "{job:?} started after it was over");
        self.vram_is_free(truth, job)?;
        let seen = &mut self.seen[job.index()];
        let waits = truth.policies[job.index()].restart != Restart::Never && truth.level == Level::Critical;
        hold!(!waits, "{job:?} started into a shortage");
        let since = seen.ended_at.map_or(Duration::MAX, |at| truth.now.since(at));
        hold!(
            seen.alive || since.saturating_add(SLACK) >= seen.pause,
            "{job:?} started {since:?} after a failure: restart storm"
        );
        seen.starting = true;
        seen.start_at = Some(truth.now);
        seen.planned = false;
        Ok(())
    }

    fn terminate(&mut self, truth: &Truth, job: JobId, cause: Cause) -> Broken {
        let removed = self.seen[job.index()].removed.is_some();
        let planned = cause.is_planned() && !removed;
        if planned {
            let other = self.seen.iter().position(|seen| seen.planned);
            hold!(other.is_none(), "{job:?}: a second planned restart while that of {other:?} is in flight");
        }
        if cause == Cause::Reserve {
            self.one_victim(truth, job)?;
        }
        if cause == Cause::Vram {
            self.right_gpu(truth, job, true)?;
        }
        let seen = self.must_live(job, "terminate")?;
        hold!(seen.terminated.is_none(), "{job:?} got SIGTERM twice");
        hold!(seen.killed.is_none(), "{job:?} got SIGTERM after SIGKILL");
        hold!(seen.frozen.is_none(), "{job:?} got SIGTERM while frozen");
        seen.terminated = Some((truth.now, cause));
        seen.asked = None;
        seen.planned = planned;
        Ok(())
    }

    fn kill(&mut self, truth: &Truth, job: JobId, cause: Cause) -> Broken {
        let may = self.may_kill(truth, job, cause);
        let seen = &self.seen[job.index()];
        // The kernel's choice, somebody's wish and the end of a grace are no new choice of the brake.
        let chosen = !seen.kernel_kill && seen.removed != Some(Urgency::Now) && seen.terminated.is_none();
        if cause == Cause::Reserve && chosen {
            self.one_victim(truth, job)?;
        }
        let seen = self.must_live(job, "kill")?;
        hold!(seen.killed.is_none(), "{job:?} got SIGKILL twice");
        seen.killed = Some(truth.now);
        seen.frozen = None;
        seen.asked = None;
        may
    }

    /// TERM comes before KILL by the grace, or there is a reason.
    fn may_kill(&self, truth: &Truth, job: JobId, cause: Cause) -> Broken {
        let (seen, policy) = (&self.seen[job.index()], truth.policies[job.index()]);
        let now = truth.now;
        let had_grace = seen.terminated.is_some_and(|(at, _)| now.since(at) + SLACK >= policy.grace);
        let leftover = seen.exited.is_some_and(|at| now.since(at) + SLACK >= LEFTOVER_GRACE);
        let seen_used = truth.seen_used.get(job.index()).copied().unwrap_or_default();
        let over = policy.limit.is_some_and(|limit| seen_used >= limit.percent(99));
        let held_by_us = !policy.enforcement.holds_the_tree() && cause == Cause::Limit && over;
        let available = truth.available.min(truth.seen_available);
        let room = available.minus(Bytes(truth.reserve.0 / 8)).0 as f64;
        let room = room.min(truth.below_ceiling);
        let growth = self.growth.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
        let no_time = room <= growth * 1.1;
        hold!(
            had_grace
                || leftover
                || seen.removed == Some(Urgency::Now)
                || seen.kernel_kill
                || held_by_us
                || (truth.level == Level::Critical && no_time),
            "{job:?} killed for {cause:?} without its grace: {} available, growth {growth:.0}, {:.0} below the ceiling, {seen:?}",
            truth.available,
            truth.below_ceiling,
        );
        Ok(())
    }

    /// While the memory of a victim is on its way, nobody else goes.
    fn one_victim(&self, truth: &Truth, job: JobId) -> Broken {
        for (index, seen) in self.seen.iter().enumerate().filter(|(index, _)| *index != job.index()) {
            let told = seen.terminated.filter(|(_, cause)| *cause == Cause::Reserve).map(|(at, _)| at);
            let Some(at) = seen.killed.or(told).filter(|_| seen.alive) else { continue };
            let on_its_way = truth.populated[index] && truth.used[index] > Bytes::mib(64);
            let waited = truth.now.since(at);
            hold!(
                !on_its_way || waited >= MEMORY_BACK_WAIT,
                "{job:?} is a second victim {waited:?} after {index}, which still holds {}",
                truth.used[index]
            );
        }
        Ok(())
    }

    /// Only who is known to hold something of a short GPU, or more than it may, and one at a time.
    fn right_gpu(&self, truth: &Truth, job: JobId, is_end: bool) -> Broken {
        let told = &truth.vram;
        let age = told.at.map_or(Duration::MAX, |at| truth.now.since(at));
        hold!(age <= VRAM_FRESH, "{job:?} braked for VRAM by a reading that is {age:?} old");
        if told.is_over(job, truth.policies[job.index()].vram_limit) {
            return Ok(());
        }
        let ends = |other: JobId| {
            let seen = &self.seen[other.index()];
            // Who does not die is waited for no longer.
            let stuck = seen.killed.is_some_and(|at| truth.now.since(at) >= KILL_WAIT);
            other != job && seen.alive && !stuck && (seen.terminated.is_some() || is_ending(seen))
        };
        let holds = |other: JobId, on| told.of(other).any(|(id, used, _)| id == on && used > Bytes::ZERO);
        let others = || (0..self.seen.len() as u16).map(JobId);
        let mut short = told.short_of(job, truth.vram_reserve).peekable();
        hold!(short.peek().is_some(), "{job:?} braked for VRAM, of which it holds none that is short");
        let alone = |device| !others().any(|other| ends(other) && holds(other, device));
        hold!(!is_end || short.any(alone), "{job:?} is a second victim for the same GPU");
        Ok(())
    }

    /// Nothing is started where a dead job is known to hold VRAM.
    fn vram_is_free(&self, truth: &Truth, job: JobId) -> Broken {
        let told = &truth.vram;
        let is_worker = |job: JobId| truth.policies[job.index()].restart != Restart::Never;
        let age = told.at.map_or(Duration::MAX, |at| truth.now.since(at));
        if !is_worker(job) || age.saturating_add(SLACK) > VRAM_FRESH {
            return Ok(());
        }
        let own = told.of(job).any(|(_, used, _)| used > Bytes::ZERO);
        let seen = &self.seen[job.index()];
        // Who was not looked at since its end is waited for, and then let be.
        let let_be = seen
            .ended_at
            .is_some_and(|end| told.at < Some(end) && truth.now.since(end) + SLACK >= VRAM_BACK_WAIT);
        hold!(!own || seen.starts == 0 || let_be, "{job:?} started while its VRAM is not back");
        for row in &told.held {
            let (other, seen) = (row.job, &self.seen[row.job.index()]);
            // Its slot has begun to wait when its end was told.
            let since = seen.dead_holds.max(seen.dead_holds.and(seen.ended_at));
            let since = since.map_or(Duration::ZERO, |at| truth.now.since(at));
            let holds = row.used.known().is_some_and(|used| used > Bytes::ZERO);
            let long = since > VRAM_BACK_WAIT.max(KILL_WAIT) + Duration::from_secs(1);
            let waits = !seen.over && seen.removed.is_none();
            let mine = told.held.iter().any(|it| it.job == job && it.device == row.device);
            hold!(
                !(mine
                    && holds
                    && long
                    && waits
                    && is_worker(other)
                    && other != job
                    && age < Duration::from_secs(1)),
                "{job:?} started on a GPU of which dead {other:?} holds some for {since:?}"
            );
        }
        Ok(())
    }

    /// A limit that is exceeded leads somewhere; and where there is no rule, nothing is said.
    fn vram_in_time(&mut self, truth: &Truth) -> Broken {
        let fresh = truth.vram.at.is_some_and(|at| truth.now.since(at) < Duration::from_secs(1));
        for (index, (seen, policy)) in self.seen.iter_mut().zip(&truth.policies).enumerate() {
            let works = seen.alive && seen.terminated.is_none() && !is_ending(seen);
            let over = fresh && works && truth.vram.is_over(JobId(index as u16), policy.vram_limit);
            seen.over_vram = if over { seen.over_vram.or(Some(truth.now)) } else { None };
            let since = seen.over_vram.map_or(Duration::ZERO, |at| truth.now.since(at));
            let most = VRAM_RELIEF_WAIT + policy.prune_patience * 2 + Duration::from_secs(3);
            hold!(since <= most, "{index} over its VRAM limit for {since:?}, and nothing follows");
        }
        Ok(())
    }

    fn in_force(&self, now: Instant) -> Broken {
        for (index, seen) in self.seen.iter().enumerate().filter(|(_, seen)| seen.alive) {
            let waits = seen.asked == Some(Cause::Reserve) && !is_ending(seen);
            hold!(!waits || now < seen.answer_by, "{index} asked for the reserve, and nothing followed");
            let frozen = seen.frozen.map_or(Duration::ZERO, |at| now.since(at));
            hold!(frozen < Duration::from_secs(30), "{index} frozen for {frozen:?}");
            let touched =
                seen.touched.filter(|_| !is_ending(seen)).map_or(Duration::ZERO, |at| now.since(at));
            hold!(touched < Duration::from_millis(2100), "{index} throttled for {touched:?}");
        }
        Ok(())
    }

    /// Once all is over: every start had one end.
    pub fn at_end(&self) -> Broken {
        for (index, seen) in self.seen.iter().enumerate() {
            let stuck = u32::from(seen.alive && seen.killed.is_some());
            hold!(seen.starts == seen.ends + stuck, "{index}: {} starts, {} ends", seen.starts, seen.ends);
            hold!(stuck == 1 || seen.frozen.is_none(), "{index} is left frozen");
        }
        Ok(())
    }
}
