//! The renderings together: JSON lines that keep their promises, a report that says how a run ended.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;
use oomguard::record::{Entry, Notice, Record, Roster, Told};
use oomguard::sink::report::Closing;
use oomguard::sink::{Human, JsonLines, LogFile, Report, Sinks, jsonl};
use oomguard_core::{
    Bytes, Cause, Confidence, Enforcement, Event, Exit, Instant, JobId, Level, Pause, Reason,
};
use serde_json::{Value, json};

const W1: JobId = JobId(0);

fn roster() -> Roster {
    let mut roster = Roster::new(Bytes::gib(2), Bytes::gib(4));
    roster.set(
        W1,
        Entry {
            name: "worker-1".to_owned(),
            label: "Worker 1".to_owned(),
            pid: Some(17650),
            limit: Some(Bytes::gib(8)),
            ..Entry::default()
        },
    );
    roster
}

fn record(told: impl Into<Told>) -> Record {
    Record {
        ts: "2026-01-02T01:23:31.5Z".parse::<Timestamp>().unwrap(),
        mono: Instant(42),
        told: told.into(),
    }
}

fn line(told: impl Into<Told>) -> Value {
    let line = jsonl::line(&record(told), &roster());
    assert!(line.ends_with('\n') && line.matches('\n').count() == 1, "{line:?}");
    serde_json::from_str(&line).unwrap()
}

fn armed() -> Notice {
    Notice::Armed {
        verb: "run".to_owned(),
        version: "0.1.0".to_owned(),
        guard_pid: 9,
        enforcement: Enforcement::Cgroup2,
        notes: vec![],
        parent: None,
        total: Bytes::gib(64),
        available: Bytes::gib(12),
        reserve: Bytes::gib(2),
        warning: Bytes::gib(4),
    }
}

#[test]
fn a_line_has_names_bytes_and_seconds() {
    let event = Event::Health {
        job: W1,
        age: Duration::from_millis(74_500),
        max_age: None,
        usage: Some(Bytes::mib(1)),
        available: Bytes::gib(1),
        vram: None,
    };
    assert_eq!(
        line(event),
        json!({
            "schema": 1, "ts": "2026-01-02T01:23:31.5Z", "mono_ns": 42, "event": "health",
            "worker": "worker-1", "pid": 17650, "age_s": 74.5, "max_age_s": null, "usage": 1 << 20, "available": 1 << 30,
            "vram": null,
        })
    );
    let ended = line(Event::Ended {
        job: JobId(9),
        cause: Cause::Limit,
        exit: Exit::Signal(9),
        age: Duration::ZERO,
        peak: Bytes(1),
    });
    assert_eq!((&ended["worker"], &ended["pid"]), (&json!("job-9"), &Value::Null));
    assert_eq!((&ended["exit"], &ended["cause"]), (&json!({"signal": 9}), &json!("limit")));
}

#[test]
fn a_notice_keeps_a_pid_of_its_own() {
    let adopted = line(Notice::Adopted { job: W1, pid: 7, age: Duration::from_secs(3) });
    assert_eq!(
        (&adopted["pid"], &adopted["age_s"], &adopted["event"]),
        (&json!(7), &json!(3.0), &json!("adopted"))
    );
    assert_eq!(line(armed())["enforcement"], "cgroup2");
}

fn leak(reaches_limit_in: Duration) -> Event {
    let (slope, at_least) = (Bytes(22), Bytes(20));
    Event::Leak { job: W1, slope, at_least, confidence: Confidence(997), reaches_limit_in }
}

#[test]
fn a_leak_says_how_sure_it_is() {
    let line = line(leak(Duration::from_secs(2400)));
    let said = ["slope", "at_least", "confidence", "reaches_limit_in_s"].map(|key| line[key].clone());
    assert_eq!(said, [json!(22), json!(20), json!(0.997), json!(2400.0)]);
}

#[test]
fn no_length_of_time_is_left_as_serde_writes_it() {
    let time = Duration::new(1, 5);
    let all: Vec<Told> = vec![
        Event::Waiting { job: W1, pause: Pause::Backoff, delay: time, failures: 1 }.into(),
        Event::Health {
            job: W1,
            age: time,
            max_age: Some(time),
            usage: None,
            available: Bytes(1),
            vram: None,
        }
        .into(),
        leak(time).into(),
        Event::Terminate { job: W1, cause: Cause::Age, usage: None, grace: time }.into(),
        Event::MemoryBack { job: W1, after: time, complete: true }.into(),
        Event::Ended { job: W1, cause: Cause::Age, exit: Exit::Unknown, age: time, peak: Bytes(1) }.into(),
        Event::Unkillable { job: W1, after: time }.into(),
        Notice::Adopted { job: W1, pid: 1, age: time }.into(),
    ];
    for told in all {
        let line = line(told);
        let object = line.as_object().unwrap();
        assert!(!line.to_string().contains("nanos"), "{line}");
        assert!(object.iter().any(|(key, value)| key.ends_with("_s") && value.is_f64()), "{line}");
    }
}

#[test]
fn a_forged_status_stays_inside_its_string() {
    let text = "x\"}\n{\"event\":\"kill\"".to_owned();
    assert_eq!(line(Notice::WorkerStatus { job: W1, text: text.clone() })["text"], text);
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn both_logs_tell_the_same_and_a_broken_one_is_reported_in_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let (human, json) = (dir.path().join("watchdog.log"), dir.path().join("events.jsonl"));
    // A directory stands where the JSON lines should go.
    std::fs::create_dir(&json).unwrap();
    let mut sinks = Sinks::new();
    sinks.add(Human::file(LogFile::open(&human, Bytes::mib(1), 1)));
    sinks.add(JsonLines::file(LogFile::open(&json, Bytes::mib(1), 1)));
    let event = record(Event::Level { from: Level::Normal, to: Level::Critical, available: Bytes::gib(1) });
    sinks.tell(&event, &roster());
    sinks.tell(&event, &roster());
    let said = text(&human);
    assert_eq!(said.matches("Could not write").count(), 1, "{said}");
    assert_eq!(said.lines().count(), 3, "{said}");

    std::fs::remove_dir(&json).unwrap();
    sinks.tell(&event, &roster());
    assert!(text(&human).ends_with("can be written again; 2 lines are missing\n"), "{}", text(&human));
    let kept: Vec<Value> = text(&json).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert_eq!(
        (&kept[1]["event"], &kept[1]["lost"]),
        (&"sink-resumed".into(), &2.into()),
        "its own gap is said"
    );
}

#[test]
fn the_report_says_how_why_and_how_much() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("report.json");
    let report = Rc::new(RefCell::new(Report::new(&["python".to_owned(), "train.py".to_owned()])));
    let mut sinks = Sinks::new();
    sinks.add(Rc::clone(&report));
    for told in [
        armed().into(),
        Told::Engine(Event::Started { job: W1, attempt: 1, adopted: false }),
        Event::Brake {
            job: W1,
            cause: Cause::Limit,
            reason: Reason::OverLimit,
            usage: Bytes::gib(8),
            rate: Bytes::mib(1),
            limit: Some(Bytes::gib(8)),
            available: Bytes::gib(4),
        }
        .into(),
        Event::Ended {
            job: W1,
            cause: Cause::Limit,
            exit: Exit::Signal(9),
            age: Duration::from_millis(2500),
            peak: Bytes::gib(8),
        }
        .into(),
    ] {
        sinks.tell(&record(told), &roster());
    }
    let closing = Closing { exit_code: 137, largest: Some((17651, "python".to_owned(), Bytes::gib(7))) };
    report.borrow().write(&path, &closing).unwrap();
    let written: Value = serde_json::from_str(&text(&path)).unwrap();
    for (key, want) in [
        ("command", json!(["python", "train.py"])),
        ("exit_code", json!(137)),
        ("exit", json!({"signal": 9})),
        ("cause", json!("limit")),
        ("which_limit", json!("limit")),
        ("limit", json!(8_589_934_592_u64)),
        ("peak", json!(8_589_934_592_u64)),
        ("reserve", json!(2_147_483_648_u64)),
        ("duration_s", json!(2.5)),
        ("enforcement", json!("cgroup2")),
        ("largest_process", json!({"pid": 17651, "name": "python", "usage": 7_516_192_768_u64})),
        ("events_left_out", json!(0)),
    ] {
        assert_eq!(written[key], want, "{key}");
    }
    assert_eq!(written["decided_by"]["reason"], "over-limit");
    assert_eq!(written["events"].as_array().unwrap().len(), 4);
}

#[test]
fn a_report_of_a_long_run_keeps_its_ends() {
    let mut report = Report::new(&[]);
    for number in 0..10_000 {
        report.note(&record(Notice::Note { text: number.to_string() }), &roster());
    }
    let document = report.document(&Closing::default());
    let events = document["events"].as_array().unwrap();
    assert_eq!(events.len(), 4000);
    assert_eq!((&events[0]["text"], &events[3999]["text"]), (&json!("0"), &json!("9999")));
    assert_eq!(document["events_left_out"], 6000);
    assert_eq!(document["which_limit"], Value::Null);
}
