//! The engine's events in sentences: one exhaustive match, one line an event (two for a leak, as people know it).
//!
//! Only wording. Whether a line is coloured, timed or written at all is decided elsewhere.

use oomguard_core::{Bytes, Cause, Event, Exit, JobId, Level, Parked, Pause, Reason};

use super::units::{gb, gb2, pace, rate, span, threshold};
use super::{Line, Tone, vram};
use crate::record::{Entry, Roster};

/// `Worker 1`.
pub(super) fn label(roster: &Roster, job: JobId) -> String {
    match roster.get(job) {
        Some(entry) => entry.label.clone(),
        None => format!("job {}", job.0),
    }
}

/// `Worker 1 (PID 17650)`.
fn who(roster: &Roster, job: JobId) -> String {
    match roster.get(job).and_then(|entry| entry.pid) {
        Some(pid) => format!("{} (PID {pid})", label(roster, job)),
        None => label(roster, job),
    }
}

/// ` (limit: 8.0GB)`.
fn in_brackets(roster: &Roster, job: JobId) -> String {
    let limit = roster.get(job).and_then(|entry| entry.limit);
    limit.map_or(String::new(), |limit| format!(" (limit: {})", gb(limit)))
}

/// `, Worker 1: 2.8GB, Worker 2: 1.1GB`.
fn everybody(roster: &Roster) -> String {
    let one = |entry: &Entry| Some(format!(", {}: {}", entry.label, gb(entry.usage?)));
    roster.iter().filter_map(|(_, entry)| one(entry)).collect()
}

/// Why, as the middle of a sentence.
pub(super) fn why(cause: Cause) -> &'static str {
    match cause {
        Cause::Finished => "it finished",
        Cause::Crash => "it failed",
        Cause::StartFailed => "it could not be started",
        Cause::Limit => "it reached its memory limit",
        Cause::Leak => "it leaks memory",
        Cause::Reserve => "system memory is critical",
        Cause::Vram => "GPU memory is short",
        Cause::Age => "it reached its maximum age",
        Cause::Timeout => "it ran into its time limit",
        Cause::Requested => "it was asked for",
    }
}

pub(super) fn why_this_one(reason: Reason) -> &'static str {
    match reason {
        Reason::OverLimit => "it is over its limit",
        Reason::NearLimit => "it is about to reach its limit",
        Reason::FastestGrowth => "it grows fastest",
        Reason::LeastWorkLost => "it loses the least work",
        Reason::Largest => "it is the largest",
        Reason::OnlyOne => "there is no other",
    }
}

fn how(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exit code {code}"),
        Exit::Signal(9) => "SIGKILL".to_owned(),
        Exit::Signal(15) => "SIGTERM".to_owned(),
        Exit::Signal(signal) => format!("signal {signal}"),
        Exit::Unknown => "exit code unknown".to_owned(),
    }
}

fn level(to: Level, from: Level, available: Bytes, roster: &Roster) -> Line {
    let now = gb(available);
    let (warning, reserve) = (threshold(roster.warning), threshold(roster.reserve));
    let all = everybody(roster);
    match (to, from) {
        (Level::Normal, _) => Tone::Good.line(format!("✅ System memory back at {now} (warning: {warning})")),
        (Level::Warning, _) => {
            Tone::Warn.line(format!("⚠️  System memory at {now} (warning: {warning}){all}"))
        }
        (Level::Critical, _) => {
            Tone::Bad.line(format!("🛑 System memory at {now} (critical: {reserve}){all}"))
        }
    }
}

/// What `event` is in words.
pub(super) fn lines(event: &Event, roster: &Roster) -> Vec<Line> {
    let who = |job: &JobId| who(roster, *job);
    let name = |job: &JobId| label(roster, *job);
    let line = match event {
        Event::Level { from, to, available } => level(*to, *from, *available, roster),
        // The notice of the takeover says it, with the age.
        Event::Started { adopted: true, .. } => return Vec::new(),
        Event::Started { job, attempt: 0 | 1, .. } => Tone::Good.line(format!("🚀 {} started", who(job))),
        Event::Started { job, attempt, .. } => {
            Tone::Good.line(format!("♻️  {} started again (start {attempt})", who(job)))
        }
        Event::Waiting { job, pause: Pause::Backoff, delay, failures } => Tone::Warn.line(format!(
            "⏳ {} starts again in {} (failures in a row: {failures})",
            name(job),
            span(*delay)
        )),
        Event::Waiting { job, pause: Pause::Memory, .. } => {
            Tone::Warn.line(format!("⏳ {} waits until there is memory for it", name(job)))
        }
        Event::Waiting { job, pause: Pause::Vram, .. } => {
            Tone::Warn.line(format!("⏳ {} waits until there is GPU memory for it", name(job)))
        }
        Event::Health { job, age, max_age, usage, vram, .. } => {
            let pid = roster.get(*job).and_then(|entry| entry.pid);
            let pid = pid.map_or("?".to_owned(), |pid| pid.to_string());
            let mut used = usage.map_or("unknown".to_owned(), gb2);
            if let Some(vram) = vram {
                used.push_str(&format!(", {}", vram::share(vram.percent())));
            }
            let age = age.as_secs();
            let times = match max_age.map(|max| max.as_secs()) {
                Some(max) => format!("age: {age}s/{max}s, mem: {used}, restart in {}s", max.saturating_sub(age)),
                None => format!("age: {age}s, mem: {used}"),
            };
            Tone::Good.line(format!("✅ {} PID {pid} healthy ({times})", name(job)))
        }
        Event::Leak { job, slope, confidence, reaches_limit_in, .. } => Tone::Warn.line(format!(
            "📈 {} leaks {} (sure: {} %), reaches {} in about {}",
            name(job),
            pace(*slope),
            confidence.percent(),
            roster.get(*job).and_then(|entry| entry.limit).map_or("its limit".to_owned(), gb),
            span(*reaches_limit_in)
        )),
        Event::Relieve { job, usage } => {
            Tone::Plain.line(format!("🧹 {} asked to give back caches (mem: {})", name(job), gb2(*usage)))
        }
        Event::Relieved { job, freed } => {
            Tone::Plain.line(format!("🧹 {} gave back {}", name(job), gb2(*freed)))
        }
        Event::Brake { job, cause, usage, limit, .. }
            if cause.is_own_footprint() =>
        {
            let limit = limit.map_or(String::new(), |limit| format!(", limit: {}", gb(limit)));
            Tone::Warn.line(format!("📈 {} is near its memory limit (using {}{limit})", who(job), gb(*usage)))
        }
        Event::Brake { job, cause, reason, usage, rate: growth, limit, available } => Tone::Bad.line(format!(
            "🛑 Braking {}: {} ({} available); {} (using {}, growing {}{})",
            who(job),
            why(*cause),
            gb(*available),
            why_this_one(*reason),
            gb(*usage),
            rate(*growth),
            limit.map_or(String::new(), |limit| format!(", limit: {}", gb(limit)))
        )),
        Event::NoVictim { available } => Tone::Bad.line(format!(
            "🛑 System memory at {} (critical: {}) and no job of ours can give enough back",
            gb(*available),
            threshold(roster.reserve)
        )),
        Event::Prune { job, cause, usage } => Tone::Warn.line(format!(
            "✂️  {} asked to stop its present work: {} (using {})",
            who(job),
            if *cause == Cause::Limit { "it nears its memory limit" } else { why(*cause) },
            gb(*usage)
        )),
        Event::Resume { job, usage } => {
            Tone::Good.line(format!("👍 {} need not stop any more (using {})", name(job), gb(*usage)))
        }
        Event::Freeze { job } => Tone::Warn.line(format!("❄️  {} frozen", who(job))),
        Event::Thaw { job } => Tone::Good.line(format!("🔥 {} thawed", who(job))),
        Event::Terminate { job, cause: Cause::Age, grace, .. } => Tone::Plain.line(format!(
            "🔄 {} reached its maximum age - restarting (SIGTERM, grace {})",
            who(job),
            span(*grace)
        )),
        Event::Terminate { job, cause, usage, grace } => {
            let line = Tone::Bad.line(format!(
                "✋ {} gets SIGTERM: {}{} (grace {})",
                who(job),
                why(*cause),
                usage.map_or(String::new(), |usage| format!(", using {}", gb(usage))),
                span(*grace)
            ));
            return match usage.filter(|_| cause.is_own_footprint()) {
                Some(usage) => leaking(roster, *job, usage).into_iter().chain([line]).collect(),
                None => vec![line],
            };
        }
        Event::Kill { job, cause, usage, available, after_grace } => Tone::Bad.line(format!(
            "💀 {} killed: {}{} ({}{} available)",
            who(job),
            why(*cause),
            usage.map_or(String::new(), |usage| format!(", using {}", gb(usage))),
            if *after_grace { "its grace is over, " } else { "" },
            gb(*available)
        )),
        Event::KernelKill { job, cause: Cause::Limit } => return killed_at_limit(roster, *job),
        Event::KernelKill { job, .. } => {
            Tone::Bad.line(format!("💀 {} killed by the kernel: the machine was full", who(job)))
        }
        Event::MemoryBack { job, after, complete: true } => {
            Tone::Plain.line(format!("💧 Memory of {} came back after {}", name(job), span(*after)))
        }
        Event::MemoryBack { job, after, complete: false } => {
            Tone::Warn.line(format!("⚠️  Memory of {} has not come back after {}", name(job), span(*after)))
        }
        Event::Ended { job, cause, exit, age, peak } => ended(&name(job), *cause, *exit, &facts(*exit, *age, *peak)),
        Event::Unkillable { job, after } => Tone::Bad.line(format!(
            "🧟 {} has not died of SIGKILL after {}: its slot stays empty",
            who(job),
            span(*after)
        )),
        Event::Parked { job, parked: Parked::CannotStart, .. } => Tone::Bad.line(format!(
            "🅿️  {} parked: it cannot be started as it is configured; `oomguard restart` tries again",
            name(job)
        )),
        Event::Parked { job, parked: Parked::Failures, failures } => {
            Tone::Bad.line(format!("🅿️  {} parked: it failed {failures} times in a row", name(job)))
        }
        Event::Parked { job, parked: Parked::EarlyMemoryDeaths, failures } => Tone::Bad.line(format!(
            "🅿️  {} parked: it ran out of memory right after its start {failures} times in a row; its limit, or this machine, is too small for it{}",
            name(job),
            in_brackets(roster, *job)
        )),
        Event::VramShort { device, free, total, reserve } => Tone::Bad.line(format!(
            "🛑 {} at {} free of {} (reserve: {})",
            roster.gpu(*device),
            gb2(*free),
            gb(*total),
            gb2(*reserve)
        )),
        Event::VramEnough { device, free } => {
            Tone::Good.line(format!("✅ {} back at {} free", roster.gpu(*device), gb2(*free)))
        }
        Event::VramNear { job, device, used, limit } => {
            vram::near(&who(job), &roster.gpu(*device), *used, *limit)
        }
        Event::VramRelieve { job, device, used } => Tone::Plain.line(format!(
            "🧹 {} asked to give back GPU memory (using {} of {})",
            name(job),
            gb2(*used),
            roster.gpu(*device)
        )),
        Event::VramBrake { job, device, reason, used, limit, free } => {
            vram::brake(&who(job), &roster.gpu(*device), *reason, *used, *limit, *free)
        }
        Event::VramNoVictim { device, free } => Tone::Bad.line(format!(
            "🛑 {} at {} free, and no job of ours can give enough back",
            roster.gpu(*device),
            gb2(*free)
        )),
        Event::VramUnknown { device, job, why } => {
            vram::unknown(*device, job.as_ref().map(name), *why, roster)
        }
        Event::VramKnown { device, job } => vram::known(*device, job.as_ref().map(name), roster),
        Event::VramBack { job, after, complete: true } => {
            Tone::Plain.line(format!("💧 GPU memory of {} came back after {}", name(job), span(*after)))
        }
        Event::VramBack { job, after, complete: false } => Tone::Warn.line(format!(
            "⚠️  Whether the GPU memory of {} has come back is not known after {}; it is not waited for any longer",
            name(job),
            span(*after)
        )),
        Event::VramStuck { job, device, held, after } => Tone::Bad.line(format!(
            "🧟 {} is dead for {} and still holds {} of {}: nothing is started there until that is back",
            name(job),
            span(*after),
            gb2(*held),
            roster.gpu(*device)
        )),
        Event::Done => Tone::Good.line("👋 All jobs have ended".to_owned()),
    };
    vec![line]
}

/// The two lines by which people find leaks. They are said for workers only: nothing else is restarted.
fn leaking(roster: &Roster, job: JobId, usage: Bytes) -> Vec<Line> {
    let Some(entry) = roster.get(job).filter(|entry| entry.restarts) else { return Vec::new() };
    let pid = entry.pid.map_or("?".to_owned(), |pid| pid.to_string());
    let limit = entry.limit.map_or("none".to_owned(), gb);
    let (name, used) = (label(roster, job), gb(usage));
    vec![
        Tone::Bad.line(format!("🔄 {name} memory leak detected - restarting")),
        Tone::Bad.line(format!("{name} (PID {pid}) using {used} (limit: {limit})")),
    ]
}

/// The kernel was faster than the guard: the job had reached exactly its limit.
fn killed_at_limit(roster: &Roster, job: JobId) -> Vec<Line> {
    let limit = roster.get(job).and_then(|entry| entry.limit).unwrap_or_default();
    let line = Tone::Bad.line(format!(
        "💀 {} killed by the kernel at its own limit{}",
        who(roster, job),
        in_brackets(roster, job)
    ));
    leaking(roster, job, limit).into_iter().chain([line]).collect()
}

fn facts(exit: Exit, age: std::time::Duration, peak: Bytes) -> String {
    format!("{}, age: {}s, peak: {}", how(exit), age.as_secs(), gb2(peak))
}

fn ended(name: &str, cause: Cause, exit: Exit, facts: &str) -> Line {
    match (cause, exit) {
        (Cause::Finished, _) => Tone::Good.line(format!("🏁 {name} finished ({facts})")),
        (Cause::Crash, Exit::Code(_) | Exit::Unknown) => {
            Tone::Bad.line(format!("❌ {name} failed ({facts})"))
        }
        (Cause::Crash, Exit::Signal(_)) => Tone::Bad.line(format!("❌ {name} crashed ({facts})")),
        (Cause::StartFailed, _) => Tone::Bad.line(format!("❌ {name} could not be started")),
        _ if cause.is_planned() => Tone::Plain.line(format!("🏁 {name} ended: {} ({facts})", why(cause))),
        _ => Tone::Bad.line(format!("❌ {name} ended: {} ({facts})", why(cause))),
    }
}
