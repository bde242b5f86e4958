//! The table of `oomguard status`.
//!
//! Only layout: a line for the machine, a line for each worker, hints below. Texts of workers are made harmless.

use std::fmt::Write;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use oomguard_core::{Bytes, Level};

use super::{GpuStatus, Phase, Status, WorkerStatus};
use crate::sink::human::{one_line, pace, span, vram_share};

const HEADS: [&str; 9] = ["WORKER", "PHASE", "PID", "AGE", "RESTART", "MEMORY", "PEAK", "STARTS", "STATUS"];

/// The table, with its last line feed.
pub fn render_table(status: &Status, color: bool) -> String {
    let mut text = String::new();
    let _ = head(&mut text, status, color);
    let rows: Vec<[String; 9]> = status.workers.iter().map(row).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([HEADS[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..HEADS.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let bold = if color { Style::new().bold() } else { Style::new() };
    let _ = writeln!(text, "{bold}{}{bold:#}", line(&HEADS.map(str::to_owned)));
    for (worker, row) in status.workers.iter().zip(&rows) {
        let style = if color { style_of(worker.phase) } else { Style::new() };
        let _ = writeln!(text, "{style}{}{style:#}", line(row));
    }
    if status.workers.is_empty() {
        text.push_str("(no workers)\n");
    }
    text
}

fn head(text: &mut String, status: &Status, color: bool) -> std::fmt::Result {
    let (guard, host) = (&status.guard, &status.host);
    let style = match host.level {
        _ if !color => Style::new(),
        Level::Normal => AnsiColor::Green.on_default(),
        Level::Warning => AnsiColor::Yellow.on_default(),
        Level::Critical => AnsiColor::Red.on_default().bold(),
    };
    let level = match host.level {
        Level::Normal => "normal",
        Level::Warning => "warning",
        Level::Critical => "critical",
    };
    let up = seconds(guard.uptime_s);
    let held = guard.enforcement.name();
    writeln!(text, "guard    PID {}, up {up}, oomguard {}, limits held by {held}", guard.pid, guard.version)?;
    writeln!(
        text,
        "memory   {style}{level}{style:#}: {} of {} available (warning: {}, reserve: {})",
        host.available, host.total, host.warning, host.reserve
    )?;
    for gpu in &host.gpus {
        writeln!(text, "gpu      {}", one_line(&line_of(gpu)))?;
    }
    for note in &guard.notes {
        writeln!(text, "note     {}", one_line(note))?;
    }
    writeln!(text)
}

/// `GPU 0 (NVIDIA H200): VRAM: 12.3%, 100 GiB of 139.8 GiB free`, and what is wrong with it.
fn line_of(gpu: &GpuStatus) -> String {
    let known = gpu.used_percent.zip(gpu.free).zip(gpu.total);
    let mut text = match known {
        Some(((percent, free), total)) => {
            format!("{}: {}, {free} of {total} free", gpu.name, vram_share(percent))
        }
        None => format!("{}: VRAM: {}", gpu.name, gpu.unknown.as_deref().unwrap_or("unknown")),
    };
    if gpu.short {
        text.push_str(", less than the reserve");
    }
    if let Some(stuck) = &gpu.stuck {
        text.push_str(&format!(", held by {stuck}, which is dead: not used again"));
    }
    text
}

fn row(worker: &WorkerStatus) -> [String; 9] {
    let none = || "-".to_owned();
    let memory = match (worker.usage, worker.limit) {
        (Some(usage), Some(limit)) => format!("{usage} / {limit}"),
        (Some(usage), None) => usage.to_string(),
        (None, Some(limit)) => format!("? / {limit}"),
        (None, None) => none(),
    };
    let restart = match (worker.age_s, worker.max_age_s, worker.next_start_in_s) {
        (_, _, Some(next)) => format!("starts in {}", seconds(next)),
        (Some(age), Some(max), None) => format!("in {}", seconds((max - age).max(0.0))),
        _ => none(),
    };
    [
        one_line(&worker.name),
        phase(worker.phase).to_owned(),
        worker.pid.map_or_else(none, |pid| pid.to_string()),
        worker.age_s.map_or_else(none, seconds),
        restart,
        memory,
        worker.peak.map_or_else(none, |peak: Bytes| peak.to_string()),
        worker.attempt.to_string(),
        remarks(worker),
    ]
}

/// What the worker says, and what there is to say about it.
fn remarks(worker: &WorkerStatus) -> String {
    let mut parts = Vec::new();
    if worker.failures > 0 {
        parts.push(format!("{} failures in a row", worker.failures));
    }
    if let Some(eta) = worker.leak_eta_s {
        let slope = worker.leak_slope.map_or(String::new(), |slope| format!(" {}", pace(slope)));
        let sure = worker
            .leak_confidence
            .map_or(String::new(), |sure| format!(" (sure: {:.0} %)", (sure * 100.0).floor()));
        parts.push(format!("leaks{slope}{sure}: at its limit in about {}", seconds(eta)));
    }
    if let Some((vram, gpu)) = worker.vram.zip(worker.gpu.as_ref()).filter(|(vram, _)| *vram > Bytes::ZERO) {
        let limit = worker.vram_limit.map_or(String::new(), |limit| format!(" / {limit}"));
        parts.push(format!("VRAM {vram}{limit} of {gpu}"));
    }
    if let Some(trial) = worker.trial {
        parts.push(format!("trial {trial}"));
    }
    if let Some(text) = &worker.status_text {
        parts.push(one_line(text).chars().take(60).collect());
    }
    parts.join(", ")
}

fn seconds(seconds: f64) -> String {
    span(Duration::from_secs(Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs()))
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Waiting => "waiting",
        Phase::Running => "running",
        Phase::Pruning => "pruning",
        Phase::Frozen => "frozen",
        Phase::Stopping => "stopping",
        Phase::Unkillable => "unkillable",
        Phase::Parked => "parked",
        Phase::Done => "done",
    }
}

fn style_of(phase: Phase) -> Style {
    match phase {
        Phase::Running | Phase::Done => Style::new(),
        Phase::Waiting | Phase::Pruning | Phase::Frozen | Phase::Stopping => AnsiColor::Yellow.on_default(),
        Phase::Unkillable | Phase::Parked => AnsiColor::Red.on_default(),
    }
}

#[cfg(test)]
mod tests {
    use oomguard_core::Enforcement;

    use super::super::{GpuStatus, GuardStatus, HostStatus};
    use super::*;

    fn worker(name: &str, phase: Phase) -> WorkerStatus {
        WorkerStatus {
            name: name.to_owned(),
            slot: 0,
            phase,
            pid: None,
            age_s: None,
            max_age_s: None,
            usage: None,
            peak: None,
            limit: Some(Bytes::gib(8)),
            attempt: 1,
            failures: 0,
            next_start_in_s: None,
            trial: None,
            status_text: None,
            leak_eta_s: None,
            leak_slope: None,
            leak_confidence: None,
            vram: None,
            vram_limit: None,
            gpu: None,
        }
    }

    #[test]
    fn the_table_says_what_people_ask() {
        let running = WorkerStatus {
            pid: Some(17650),
            age_s: Some(74.3),
            max_age_s: Some(3600.0),
            usage: Some(Bytes::mib(2324)),
            peak: Some(Bytes::gib(3)),
            trial: Some(17),
            status_text: Some("epoch 3\u{1b}[2J".to_owned()),
            ..worker("worker-1", Phase::Running)
        };
        let waiting = WorkerStatus {
            attempt: 4,
            failures: 3,
            next_start_in_s: Some(8.0),
            ..worker("worker-2", Phase::Waiting)
        };
        let status = Status {
            guard: GuardStatus {
                pid: 9,
                version: "0.1.0".to_owned(),
                uptime_s: 5400.0,
                enforcement: Enforcement::Cgroup2,
                notes: vec!["no PSI: swapping is seen late".to_owned()],
                config: None,
            },
            host: HostStatus {
                available: Bytes::mib(3584),
                total: Bytes::gib(32),
                level: Level::Warning,
                reserve: Bytes::gib(2),
                warning: Bytes::gib(4),
                gpus: Vec::new(),
            },
            workers: vec![running, waiting],
        };
        assert_eq!(
            render_table(&status, false),
            "guard    PID 9, up 90m, oomguard 0.1.0, limits held by cgroup2\n\
             memory   warning: 3.5 GiB of 32 GiB available (warning: 4 GiB, reserve: 2 GiB)\n\
             note     no PSI: swapping is seen late\n\
             \n\
             WORKER    PHASE    PID    AGE  RESTART       MEMORY           PEAK   STARTS  STATUS\n\
             worker-1  running  17650  74s  in 58m        2.3 GiB / 8 GiB  3 GiB  1       trial 17, epoch 3\\u{1b}[2J\n\
             worker-2  waiting  -      -    starts in 8s  ? / 8 GiB        -      4       3 failures in a row\n"
        );
        assert!(render_table(&status, true).contains("\u{1b}[33mwarning\u{1b}[0m"));
    }

    #[test]
    fn gpus_have_a_line_each_and_workers_what_they_hold_of_them() {
        let gpu = GpuStatus {
            device: 0,
            name: "GPU 0 (NVIDIA H200)".to_owned(),
            total: Some(Bytes::gib(100)),
            free: Some(Bytes::gib(88)),
            used_percent: Some(12.0),
            unknown: None,
            short: false,
            stuck: None,
        };
        assert_eq!(line_of(&gpu), "GPU 0 (NVIDIA H200): VRAM: 12.0%, 88 GiB of 100 GiB free");
        let stuck = GpuStatus { short: true, stuck: Some("worker-2".to_owned()), ..gpu.clone() };
        assert!(
            line_of(&stuck)
                .ends_with(", less than the reserve, held by worker-2, which is dead: not used again")
        );
        let unknown = Some("the device is lost, or must be reset".to_owned());
        let lost = GpuStatus { free: None, used_percent: None, unknown, ..gpu.clone() };
        assert_eq!(line_of(&lost), "GPU 0 (NVIDIA H200): VRAM: the device is lost, or must be reset");
        let holds = WorkerStatus {
            vram: Some(Bytes::gib(3)),
            vram_limit: Some(Bytes::gib(4)),
            gpu: Some(gpu.name),
            ..worker("worker-1", Phase::Running)
        };
        assert_eq!(remarks(&holds), "VRAM 3 GiB / 4 GiB of GPU 0 (NVIDIA H200)");
    }

    #[test]
    fn a_leak_is_remarked_with_its_pace_and_how_sure_it_is() {
        let leaks = WorkerStatus {
            leak_eta_s: Some(2400.0),
            leak_slope: Some(Bytes(384_477)),
            leak_confidence: Some(0.997),
            ..worker("worker-1", Phase::Running)
        };
        assert_eq!(remarks(&leaks), "leaks 22MB/min (sure: 99 %): at its limit in about 40m");
    }
}
