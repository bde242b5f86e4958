//! The driver's notices in sentences: one exhaustive match.
//!
//! Only wording; texts from outside are made harmless where lines are written.

use oomguard_core::JobId;
use oomguard_core::watch::Shortage;

use super::event::{label, why_this_one};
use super::units::{gb, rate, threshold};
use super::{Line, Tone};
use crate::record::{Notice, Roster};

fn of(job: &Option<JobId>, roster: &Roster) -> String {
    job.map_or(String::new(), |job| format!(" of {}", label(roster, job)))
}

/// What `notice` is in words.
pub(super) fn lines(notice: &Notice, roster: &Roster) -> Vec<Line> {
    let line = match notice {
        Notice::Armed { .. } => return armed(notice),
        Notice::Adopted { job, pid, age } => Tone::Good.line(format!(
            "🤝 {} PID {pid} taken over from an earlier guard (age: {}s)",
            label(roster, *job),
            age.as_secs()
        )),
        Notice::OrphanEnded { name, pid, why } => {
            Tone::Warn.line(format!("🧹 {name} (PID {pid}) of an earlier guard ended: {why}"))
        }
        Notice::Refused { what, why } => Tone::Bad.line(format!("🛑 {what} refused: {why}")),
        Notice::Gpu { device, name, total, .. } => Tone::Plain.line(format!(
            "🎮 {name} is watched as number {}{}",
            device.0,
            total.map_or(String::new(), |total| format!(", {}", gb(total)))
        )),
        Notice::StartError { job, error } => {
            Tone::Bad.line(format!("❌ {} could not be started: {error}", label(roster, *job)))
        }
        Notice::ConfigReloaded { path, changes } if changes.is_empty() => {
            Tone::Plain.line(format!("📄 {} read again: nothing has changed", path.display()))
        }
        Notice::ConfigReloaded { path, changes } => {
            let first = Tone::Plain.line(format!("📄 {} read again", path.display()));
            let rest = changes.iter().map(|change| Tone::Plain.line(format!("📄 {change}")));
            return std::iter::once(first).chain(rest).collect();
        }
        Notice::ConfigRefused { path, error } => {
            let first = format!("🛑 {} is wrong; the old configuration stays in force", path.display());
            let rest = error.lines().map(|line| Tone::Bad.line(format!("   {line}")));
            return std::iter::once(Tone::Bad.line(first)).chain(rest).collect();
        }
        Notice::Asked { request, target, uid } => {
            let target = target.as_ref().map_or(String::new(), |target| format!(" {target}"));
            Tone::Plain.line(format!("📨 User {uid} asks: {request}{target}"))
        }
        Notice::WorkerStatus { job, text } => Tone::Plain.line(format!("💬 {}: {text}", label(roster, *job))),
        Notice::ShmRemoved { job, files, bytes } => Tone::Good.line(format!(
            "🧹 {files} shared-memory files{} removed: {} came back",
            of(job, roster),
            gb(*bytes)
        )),
        Notice::LogRotated { path } => {
            Tone::Plain.line(format!("📄 {} was full, begun anew", path.display()))
        }
        Notice::EffectFailed { job, effect, error } => {
            let job = job.map_or(String::new(), |job| format!(" {}", label(roster, job)));
            Tone::Bad.line(format!("⚠️  Could not {effect}{job}: {error}"))
        }
        Notice::SensorUnknown { sensor, why } => {
            Tone::Warn.line(format!("⚠️  No reading of {sensor}: {why}"))
        }
        Notice::Unheld { job, error } => Tone::Bad.line(format!(
            "⚠️  The kernel holds {} no longer ({error}): the guard adds up its processes",
            label(roster, *job)
        )),
        Notice::TrialsReaped { job, study, trials } => {
            let numbers = trials.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
            Tone::Plain.line(format!("✂️  Trials {numbers}{} marked as pruned in {study}", of(job, roster)))
        }
        Notice::StateDamaged { path, error, workers: 1.. } => Tone::Warn.line(format!(
            "⚠️  State is damaged: {error}, going on with the workers that can be read (kept as {})",
            path.display()
        )),
        Notice::StateDamaged { path, error, workers: 0 } => Tone::Warn
            .line(format!("⚠️  State is damaged: {error}, starting without it (kept as {})", path.display())),
        Notice::SinkFailed { path, error } => Tone::Bad
            .line(format!("⚠️  Could not write {}: {error}; the guard goes on without it", path.display())),
        Notice::SinkResumed { path, lost } => {
            Tone::Good.line(format!("✅ {} can be written again; {lost} lines are missing", path.display()))
        }
        Notice::Chosen { .. } => return chosen(notice, roster),
        Notice::GuardStopping { why, now: false } => {
            Tone::Warn.line(format!("🛑 Stopping all jobs ({why}); once more to kill them"))
        }
        Notice::GuardStopping { why, now: true } => Tone::Bad.line(format!("🛑 Killing all jobs ({why})")),
        Notice::SuiteFound { rootdir, files, jobs, .. } => {
            Tone::Plain.line(format!("🧪 {files} test files in {}, {jobs} at a time", rootdir.display()))
        }
        Notice::Isolated { how, why, .. } => {
            let why = why.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
            Tone::Plain.line(format!("🧪 Files are kept apart by {how}{why}"))
        }
        Notice::FileStarted { path, attempt, .. } => {
            let again = if *attempt > 1 { format!(" (run {attempt})") } else { String::new() };
            Tone::Plain.line(format!("🧪 {path} starts{again}"))
        }
        Notice::FileEnded { outcome, .. } => {
            let why = outcome.message.as_ref().map_or_else(String::new, |why| format!(": {why}"));
            let tone = if outcome.verdict.is_good() { Tone::Good } else { Tone::Bad };
            tone.line(format!("🧪 {} {}{why}", outcome.path, outcome.verdict.word()))
        }
        Notice::SuiteWaits { ram, target, delay } => Tone::Warn
            .line(format!("⏳ RAM {ram:.1}% used: waiting {delay:?} at most for it to fall below {target}%")),
        Notice::SuiteEnded { seconds, exit_code, .. } => {
            Tone::Plain.line(format!("🧪 All files have ended after {seconds:.1}s (exit code {exit_code})"))
        }
        Notice::Note { text } => Tone::Plain.line(text.clone()),
    };
    vec![line]
}

fn chosen(notice: &Notice, roster: &Roster) -> Vec<Line> {
    let Notice::Chosen {
        job,
        enforced,
        shortage,
        reason,
        processes,
        uid,
        cgroup,
        usage,
        took,
        rate: growth,
        available,
    } = notice
    else {
        return Vec::new();
    };
    let (verb, end) = if *enforced { ("Ending", "") } else { ("Would end", " (dry run)") };
    let short = match shortage {
        Shortage::Memory => "system memory is short",
        Shortage::Thrash => "the machine does little but page",
    };
    let others = match processes.saturating_sub(1) {
        0 => String::new(),
        1 => " and 1 process of its family".to_owned(),
        many => format!(" and {many} processes of its family"),
    };
    vec![Tone::Bad.line(format!(
        "🛑 {verb} {}{others}: {short} ({} available); {} (using {}, {} of it new, growing {}; user {uid}, cgroup {cgroup}){end}",
        label(roster, *job),
        gb(*available),
        why_this_one(*reason),
        gb(*usage),
        gb(*took),
        rate(*growth),
    ))]
}

fn armed(notice: &Notice) -> Vec<Line> {
    let Notice::Armed {
        verb,
        version,
        guard_pid,
        enforcement,
        notes,
        parent,
        total,
        available,
        reserve,
        warning,
    } = notice
    else {
        return Vec::new();
    };
    let parent = parent.as_ref().map_or(String::new(), |parent| format!(" under {parent}"));
    let first = Tone::Good.line(format!(
        "🛡️  oomguard {version} {verb} armed (PID {guard_pid}): limits held by {}{parent}; system memory {} of {} available (warning: {}, critical: {})",
        enforcement.name(),
        gb(*available),
        gb(*total),
        threshold(*warning),
        threshold(*reserve)
    ));
    let rest = notes.iter().map(|note| Tone::Warn.line(format!("ℹ️  {note}")));
    std::iter::once(first).chain(rest).collect()
}
