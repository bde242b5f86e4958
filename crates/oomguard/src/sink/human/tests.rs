use std::time::Duration;

use jiff::Timestamp;
use oomguard_core::{
    Bytes, Cause, Confidence, DeviceId, Enforcement, Event, Exit, Instant, JobId, Level, Parked, Pause,
    Reason, Vram, Why,
};

use super::*;
use crate::record::Entry;

const W1: JobId = JobId(0);
const RUN: JobId = JobId(2);
const GPU: DeviceId = DeviceId(0);

fn gib(gib: f64) -> Bytes {
    Bytes((gib * f64::from(1 << 30)) as u64)
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn roster() -> Roster {
    let mut roster = Roster::new(Bytes::gib(2), Bytes::gib(4));
    let worker = Entry {
        name: "worker-1".to_owned(),
        label: "Worker 1".to_owned(),
        pid: Some(12345),
        limit: Some(Bytes::gib(8)),
        usage: Some(gib(2.8)),
        attempt: 1,
        restarts: true,
        log: None,
    };
    let second =
        Entry { name: "worker-2".to_owned(), label: "Worker 2".to_owned(), usage: None, ..worker.clone() };
    let run = Entry {
        name: "python".to_owned(),
        label: "python".to_owned(),
        restarts: false,
        usage: None,
        ..worker.clone()
    };
    roster.set(W1, worker);
    roster.set(JobId(1), second);
    roster.set(RUN, run);
    roster.set_gpu(GPU, "GPU 0 (NVIDIA H200)");
    roster
}

fn said(told: impl Into<Told>) -> String {
    let record = Record { ts: Timestamp::UNIX_EPOCH, mono: Instant(0), told: told.into() };
    lines(&record, &roster()).into_iter().map(|line| line.text).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_lines_that_people_search_for_are_exactly_those() {
    let record = Record {
        ts: "2026-01-02T01:23:31Z".parse().unwrap(),
        mono: Instant(0),
        told: Event::Health {
            job: W1,
            age: s(74),
            max_age: Some(s(3600)),
            usage: Some(gib(2.27)),
            available: Bytes::gib(9),
            vram: None,
        }
        .into(),
    };
    let mut roster = roster();
    roster.get_mut(W1).unwrap().pid = Some(17650);
    assert_eq!(
        render(&record, &roster, &TimeZone::UTC, false),
        "[01:23:31] ✅ Worker 1 PID 17650 healthy (age: 74s/3600s, mem: 2.27GB, restart in 3526s)\n"
    );
    assert_eq!(
        said(Event::Level { from: Level::Normal, to: Level::Warning, available: gib(3.5) }),
        "⚠️  System memory at 3.5GB (warning: 4GB), Worker 1: 2.8GB"
    );
    let stop = |job, cause| Event::Terminate { job, cause, usage: Some(gib(8.2)), grace: s(120) };
    for (cause, why) in [(Cause::Limit, "it reached its memory limit"), (Cause::Leak, "it leaks memory")] {
        assert_eq!(
            said(stop(W1, cause)),
            format!(
                "🔄 Worker 1 memory leak detected - restarting\nWorker 1 (PID 12345) using 8.2GB (limit: 8.0GB)\n\
                 ✋ Worker 1 (PID 12345) gets SIGTERM: {why}, using 8.2GB (grace 2m)"
            )
        );
    }
    assert_eq!(
        said(stop(RUN, Cause::Limit)),
        "✋ python (PID 12345) gets SIGTERM: it reached its memory limit, using 8.2GB (grace 2m)",
        "nothing is restarted"
    );
}

#[test]
fn both_lines_of_a_leak_have_the_clock() {
    let event = Event::KernelKill { job: W1, cause: Cause::Limit };
    let record = Record { ts: "2026-01-02T23:59:59Z".parse().unwrap(), mono: Instant(0), told: event.into() };
    assert_eq!(
        render(&record, &roster(), &TimeZone::UTC, false),
        "[23:59:59] 🔄 Worker 1 memory leak detected - restarting\n\
         [23:59:59] Worker 1 (PID 12345) using 8.0GB (limit: 8.0GB)\n\
         [23:59:59] 💀 Worker 1 (PID 12345) killed by the kernel at its own limit (limit: 8.0GB)\n"
    );
}

#[test]
fn every_event_has_its_line() {
    let (job, usage, available) = (W1, gib(2.5), gib(1.9));
    let ended = |cause, exit| Event::Ended { job, cause, exit, age: s(74), peak: gib(3.0) };
    for (event, want) in [
        (
            Event::Level { from: Level::Warning, to: Level::Critical, available },
            "🛑 System memory at 1.9GB (critical: 2GB), Worker 1: 2.8GB",
        ),
        (
            Event::Level { from: Level::Critical, to: Level::Normal, available: gib(9.0) },
            "✅ System memory back at 9.0GB (warning: 4GB)",
        ),
        (Event::Started { job, attempt: 1, adopted: false }, "🚀 Worker 1 (PID 12345) started"),
        (
            Event::Started { job, attempt: 3, adopted: false },
            "♻️  Worker 1 (PID 12345) started again (start 3)",
        ),
        (Event::Started { job, attempt: 3, adopted: true }, ""),
        (
            Event::Waiting { job, pause: Pause::Backoff, delay: s(4), failures: 3 },
            "⏳ Worker 1 starts again in 4s (failures in a row: 3)",
        ),
        (
            Event::Waiting { job, pause: Pause::Memory, delay: s(4), failures: 0 },
            "⏳ Worker 1 waits until there is memory for it",
        ),
        (
            Event::Health { job, age: s(9), max_age: None, usage: None, available, vram: None },
            "✅ Worker 1 PID 12345 healthy (age: 9s, mem: unknown)",
        ),
        (
            Event::Health {
                job,
                age: s(9),
                max_age: Some(s(60)),
                usage: Some(usage),
                available,
                vram: Some(Vram { device: GPU, used: Bytes::mib(1968), total: Bytes::gib(16) }),
            },
            "✅ Worker 1 PID 12345 healthy (age: 9s/60s, mem: 2.50GB, VRAM: 12.0%, restart in 51s)",
        ),
        (
            Event::Waiting { job, pause: Pause::Vram, delay: s(4), failures: 0 },
            "⏳ Worker 1 waits until there is GPU memory for it",
        ),
        (
            Event::VramShort { device: GPU, free: usage, total: Bytes::gib(16), reserve: Bytes::gib(3) },
            "🛑 GPU 0 (NVIDIA H200) at 2.50GB free of 16.0GB (reserve: 3.00GB)",
        ),
        (Event::VramEnough { device: GPU, free: usage }, "✅ GPU 0 (NVIDIA H200) back at 2.50GB free"),
        (
            Event::VramNear { job, device: GPU, used: usage, limit: Bytes::gib(3) },
            "📈 Worker 1 (PID 12345) is near its VRAM limit on GPU 0 (NVIDIA H200) (using 2.50GB, limit: 3.0GB)",
        ),
        (
            Event::VramRelieve { job, device: DeviceId(7), used: usage },
            "🧹 Worker 1 asked to give back GPU memory (using 2.50GB of GPU number 7)",
        ),
        (
            Event::VramBrake {
                job,
                device: GPU,
                reason: Reason::OverLimit,
                used: usage,
                limit: Some(Bytes::gib(2)),
                free: Some(Bytes::gib(1)),
            },
            "🛑 Braking Worker 1 (PID 12345) on GPU 0 (NVIDIA H200): it is over its VRAM limit (using 2.50GB, limit: 2.00GB, 1.00GB free)",
        ),
        (
            Event::VramBrake {
                job,
                device: GPU,
                reason: Reason::FastestGrowth,
                used: usage,
                limit: None,
                free: None,
            },
            "🛑 Braking Worker 1 (PID 12345) on GPU 0 (NVIDIA H200): GPU memory is short; it grows fastest (using 2.50GB)",
        ),
        (
            Event::VramNoVictim { device: GPU, free: Bytes::mib(100) },
            "🛑 GPU 0 (NVIDIA H200) at 100MB free, and no job of ours can give enough back",
        ),
        (
            Event::VramUnknown { device: Some(GPU), job: Some(job), why: Why::NoPermission },
            "⚠️  The VRAM that Worker 1 uses on GPU 0 (NVIDIA H200) is not known, and nobody is braked for it: not shown to us; run as root, or in the host's process namespace (`--pid=host`)",
        ),
        (
            Event::VramKnown { device: Some(GPU), job: None },
            "✅ The VRAM of GPU 0 (NVIDIA H200) is known again",
        ),
        (Event::VramKnown { device: None, job: None }, "✅ The VRAM is known again"),
        (
            Event::VramBack { job, after: Duration::from_millis(340), complete: true },
            "💧 GPU memory of Worker 1 came back after 0.3s",
        ),
        (
            Event::VramBack { job, after: s(10), complete: false },
            "⚠️  Whether the GPU memory of Worker 1 has come back is not known after 10s; it is not waited for any longer",
        ),
        (
            Event::VramStuck { job, device: GPU, held: usage, after: s(10) },
            "🧟 Worker 1 is dead for 10s and still holds 2.50GB of GPU 0 (NVIDIA H200): nothing is started there until that is back",
        ),
        (
            Event::Leak {
                job,
                slope: Bytes::mib(2),
                at_least: Bytes::mib(1),
                confidence: Confidence(997),
                reaches_limit_in: s(725),
            },
            "📈 Worker 1 leaks 120MB/min (sure: 99 %), reaches 8.0GB in about 12m",
        ),
        (Event::Relieve { job, usage }, "🧹 Worker 1 asked to give back caches (mem: 2.50GB)"),
        (Event::Relieved { job, freed: Bytes::mib(512) }, "🧹 Worker 1 gave back 512MB"),
        (
            Event::Brake {
                job,
                cause: Cause::Reserve,
                reason: Reason::FastestGrowth,
                usage,
                rate: Bytes::gib(3),
                limit: None,
                available,
            },
            "🛑 Braking Worker 1 (PID 12345): system memory is critical (1.9GB available); it grows fastest (using 2.5GB, growing 3.0GB/s)",
        ),
        (
            Event::NoVictim { available },
            "🛑 System memory at 1.9GB (critical: 2GB) and no job of ours can give enough back",
        ),
        (
            Event::Prune { job, cause: Cause::Reserve, usage },
            "✂️  Worker 1 (PID 12345) asked to stop its present work: system memory is critical (using 2.5GB)",
        ),
        (Event::Resume { job, usage }, "👍 Worker 1 need not stop any more (using 2.5GB)"),
        (Event::Freeze { job }, "❄️  Worker 1 (PID 12345) frozen"),
        (Event::Thaw { job }, "🔥 Worker 1 (PID 12345) thawed"),
        (
            Event::Terminate { job, cause: Cause::Age, usage: None, grace: s(120) },
            "🔄 Worker 1 (PID 12345) reached its maximum age - restarting (SIGTERM, grace 2m)",
        ),
        (
            Event::Terminate { job, cause: Cause::Requested, usage: Some(usage), grace: s(90) },
            "✋ Worker 1 (PID 12345) gets SIGTERM: it was asked for, using 2.5GB (grace 90s)",
        ),
        (
            Event::Kill { job, cause: Cause::Reserve, usage: Some(usage), available, after_grace: false },
            "💀 Worker 1 (PID 12345) killed: system memory is critical, using 2.5GB (1.9GB available)",
        ),
        (
            Event::Kill { job, cause: Cause::Age, usage: None, available, after_grace: true },
            "💀 Worker 1 (PID 12345) killed: it reached its maximum age (its grace is over, 1.9GB available)",
        ),
        (
            Event::KernelKill { job: RUN, cause: Cause::Limit },
            "💀 python (PID 12345) killed by the kernel at its own limit (limit: 8.0GB)",
        ),
        (
            Event::KernelKill { job, cause: Cause::Reserve },
            "💀 Worker 1 (PID 12345) killed by the kernel: the machine was full",
        ),
        (
            Event::MemoryBack { job, after: Duration::from_millis(340), complete: true },
            "💧 Memory of Worker 1 came back after 0.3s",
        ),
        (
            Event::MemoryBack { job, after: s(3), complete: false },
            "⚠️  Memory of Worker 1 has not come back after 3s",
        ),
        (ended(Cause::Finished, Exit::Code(0)), "🏁 Worker 1 finished (exit code 0, age: 74s, peak: 3.00GB)"),
        (ended(Cause::Crash, Exit::Code(1)), "❌ Worker 1 failed (exit code 1, age: 74s, peak: 3.00GB)"),
        (ended(Cause::Crash, Exit::Signal(11)), "❌ Worker 1 crashed (signal 11, age: 74s, peak: 3.00GB)"),
        (
            ended(Cause::Limit, Exit::Signal(9)),
            "❌ Worker 1 ended: it reached its memory limit (SIGKILL, age: 74s, peak: 3.00GB)",
        ),
        (
            ended(Cause::Age, Exit::Signal(15)),
            "🏁 Worker 1 ended: it reached its maximum age (SIGTERM, age: 74s, peak: 3.00GB)",
        ),
        (ended(Cause::StartFailed, Exit::Unknown), "❌ Worker 1 could not be started"),
        (
            Event::Unkillable { job, after: s(10) },
            "🧟 Worker 1 (PID 12345) has not died of SIGKILL after 10s: its slot stays empty",
        ),
        (
            Event::Parked { job, parked: Parked::CannotStart, failures: 1 },
            "🅿️  Worker 1 parked: it cannot be started as it is configured; `oomguard restart` tries again",
        ),
        (
            Event::Parked { job, parked: Parked::Failures, failures: 10 },
            "🅿️  Worker 1 parked: it failed 10 times in a row",
        ),
        (
            Event::Parked { job, parked: Parked::EarlyMemoryDeaths, failures: 3 },
            "🅿️  Worker 1 parked: it ran out of memory right after its start 3 times in a row; its limit, or this machine, is too small for it (limit: 8.0GB)",
        ),
        (Event::Done, "👋 All jobs have ended"),
    ] {
        assert_eq!(said(event), want);
    }
}

#[test]
fn every_notice_has_its_line() {
    let path = std::path::PathBuf::from("/x/y");
    for (notice, want) in [
        (
            Notice::Gpu {
                device: GPU,
                name: "GPU 0 (NVIDIA H200)".to_owned(),
                uuid: "GPU-1".to_owned(),
                total: Some(Bytes::gib(141)),
            },
            "🎮 GPU 0 (NVIDIA H200) is watched as number 0, 141.0GB",
        ),
        (
            Notice::Armed {
                verb: "up".to_owned(),
                version: "0.1.0".to_owned(),
                guard_pid: 9,
                enforcement: Enforcement::Cgroup2,
                notes: vec!["no PSI".to_owned()],
                parent: Some("/g".to_owned()),
                total: Bytes::gib(64),
                available: gib(12.3),
                reserve: Bytes::gib(2),
                warning: Bytes::gib(4),
            },
            "🛡️  oomguard 0.1.0 up armed (PID 9): limits held by cgroup2 under /g; system memory 12.3GB of 64.0GB available (warning: 4GB, critical: 2GB)\nℹ️  no PSI",
        ),
        (
            Notice::Adopted { job: W1, pid: 7, age: s(90) },
            "🤝 Worker 1 PID 7 taken over from an earlier guard (age: 90s)",
        ),
        (
            Notice::OrphanEnded { name: "worker-3".to_owned(), pid: 7, why: "its slot is gone".to_owned() },
            "🧹 worker-3 (PID 7) of an earlier guard ended: its slot is gone",
        ),
        (
            Notice::Refused { what: "Start".to_owned(), why: "no room".to_owned() },
            "🛑 Start refused: no room",
        ),
        (
            Notice::StartError { job: W1, error: "no such file".to_owned() },
            "❌ Worker 1 could not be started: no such file",
        ),
        (
            Notice::ConfigReloaded { path: path.clone(), changes: vec![] },
            "📄 /x/y read again: nothing has changed",
        ),
        (
            Notice::ConfigReloaded { path: path.clone(), changes: vec!["a".to_owned()] },
            "📄 /x/y read again\n📄 a",
        ),
        (
            Notice::ConfigRefused { path: path.clone(), error: "error: a\n --> b".to_owned() },
            "🛑 /x/y is wrong; the old configuration stays in force\n   error: a\n    --> b",
        ),
        (
            Notice::Asked { request: "restart".to_owned(), target: Some("worker-1".to_owned()), uid: 1000 },
            "📨 User 1000 asks: restart worker-1",
        ),
        (Notice::WorkerStatus { job: W1, text: "epoch 3".to_owned() }, "💬 Worker 1: epoch 3"),
        (
            Notice::ShmRemoved { job: Some(W1), files: 2, bytes: gib(1.5) },
            "🧹 2 shared-memory files of Worker 1 removed: 1.5GB came back",
        ),
        (Notice::LogRotated { path: path.clone() }, "📄 /x/y was full, begun anew"),
        (
            Notice::EffectFailed {
                job: Some(W1),
                effect: "freeze".to_owned(),
                error: "permission denied".to_owned(),
            },
            "⚠️  Could not freeze Worker 1: permission denied",
        ),
        (
            Notice::SensorUnknown { sensor: "PSI".to_owned(), why: "not in this kernel".to_owned() },
            "⚠️  No reading of PSI: not in this kernel",
        ),
        (
            Notice::TrialsReaped { job: Some(W1), study: "s".to_owned(), trials: vec![4, 7] },
            "✂️  Trials 4, 7 of Worker 1 marked as pruned in s",
        ),
        (
            Notice::StateDamaged {
                path: path.clone(),
                error: "`state.json` is empty".to_owned(),
                workers: 0,
            },
            "⚠️  State is damaged: `state.json` is empty, starting without it (kept as /x/y)",
        ),
        (
            Notice::SinkFailed { path: path.clone(), error: "full".to_owned() },
            "⚠️  Could not write /x/y: full; the guard goes on without it",
        ),
        (Notice::SinkResumed { path, lost: 3 }, "✅ /x/y can be written again; 3 lines are missing"),
        (
            Notice::GuardStopping { why: "SIGTERM".to_owned(), now: false },
            "🛑 Stopping all jobs (SIGTERM); once more to kill them",
        ),
        (Notice::GuardStopping { why: "SIGINT".to_owned(), now: true }, "🛑 Killing all jobs (SIGINT)"),
        (Notice::Note { text: "hello".to_owned() }, "hello"),
    ] {
        assert_eq!(said(notice), want);
    }
}

#[test]
fn nobody_can_forge_a_line_or_a_colour() {
    let forged =
        Notice::WorkerStatus { job: W1, text: "ok\n[00:00:00] ✅ Worker 2 healthy\u{1b}[31m".to_owned() };
    let record = Record { ts: Timestamp::UNIX_EPOCH, mono: Instant(0), told: forged.into() };
    let text = render(&record, &roster(), &TimeZone::UTC, true);
    assert_eq!(text, "[00:00:00] 💬 Worker 1: ok\\n[00:00:00] ✅ Worker 2 healthy\\u{1b}[31m\n");
}

#[test]
fn colour_is_only_there_when_asked_for() {
    let record =
        Record { ts: Timestamp::UNIX_EPOCH, mono: Instant(0), told: Event::Freeze { job: W1 }.into() };
    assert_eq!(
        render(&record, &roster(), &TimeZone::UTC, true),
        "[00:00:00] \u{1b}[33m❄️  Worker 1 (PID 12345) frozen\u{1b}[0m\n"
    );
}

#[test]
fn a_job_that_nobody_knows_has_a_number() {
    assert_eq!(said(Event::Freeze { job: JobId(77) }), "❄️  job 77 frozen");
}
