//! What `oomguard up` writes: lines that people grep for, events that programs read, the output of workers.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![expect(clippy::print_stdout, reason = "a skipped test says why")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::up::{MEMORY, Up, configure};
use support::{PATIENCE, World, has, text, wait_until};

const IDLE: &str = "[pool.w]\ncommand = [\"{hog}\", \"hold\", \"1\"]\ncount = 2\nmemory_limit = \"100MiB\"\ngrace = \"1s\"\n";

/// All of a log, the parts that were moved aside first.
fn whole(path: &Path) -> String {
    let aside = |n: usize| PathBuf::from(format!("{}.{n}", path.display()));
    let count = (1..).take_while(|n| aside(*n).exists()).count();
    (1..=count).rev().map(|n| text(&aside(n))).collect::<String>() + &text(path)
}

#[test]
fn the_logs_are_what_people_and_programs_expect() {
    let world = World::new();
    let config = IDLE.replace(
        "\"{hog}\", \"hold\", \"1\"",
        "\"sh\", \"-c\", \"echo out $OOMGUARD_WORKER; echo err >&2; exec {hog} hold 1\"",
    );
    let up = Up::start(&world, &config);
    let pids = [up.wait_start("worker-1", 1), up.wait_start("worker-2", 1)];
    wait_until(PATIENCE, "the workers have spoken", || {
        text(&world.path("logs/worker-2.log")).contains("err")
    });
    wait_until(PATIENCE, "the pids are listed", || {
        let listed: Vec<u32> = text(&world.path("logs/worker_pids.txt"))
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        listed == pids
    });
    let lines: Vec<String> = text(&world.path("logs/worker-1.log")).lines().map(str::to_owned).collect();
    assert!(lines[0].starts_with("--- worker-1 attempt 1 started "), "{lines:?}");
    assert_eq!(lines[1..], ["out 1", "err"]);
    for event in up.events() {
        assert_eq!(event["schema"], 1, "{event}");
        assert!(event["ts"].is_string() && event["mono_ns"].is_u64(), "{event}");
    }
    let log = text(&world.path("logs/watchdog.log"));
    for line in log.lines() {
        // [01:23:31] and the line, as the greps want it.
        let bytes = line.as_bytes();
        assert!(bytes[0] == b'[' && bytes[3] == b':' && bytes[6] == b':' && &bytes[9..11] == b"] ", "{line}");
    }
    assert!(
        log.contains(&format!("🚀 Worker 1 (PID {}) started", pids[0])) || log.contains("🚀 Worker 1"),
        "{log}"
    );
    up.stop();
    assert_eq!(text(&world.path("logs/worker_pids.txt")).trim(), "");
}

#[test]
fn no_line_is_lost_when_logs_turn_over_under_load() {
    let world = World::new();
    let config = "[log]\nmax_size = \"300KiB\"\nkeep = 100\n[pool.w]\ncommand = [\"{hog}\", \"lines\", \"300000\"]\n\
                  count = 2\nmemory_limit = \"200MiB\"\ngrace = \"1s\"\n";
    let up = Up::start(&world, config);
    let logs = [world.path("logs/worker-1.log"), world.path("logs/worker-2.log")];
    wait_until(PATIENCE, "all is written", || logs.iter().all(|log| whole(log).ends_with("end of lines\n")));
    for log in &logs {
        let turned = || PathBuf::from(format!("{}.2", log.display())).exists();
        wait_until(PATIENCE, "it was turned over while it was written, and at the end", turned);
    }
    up.stop();
    for log in &logs {
        let all = whole(log);
        let numbers: Vec<&str> =
            all.lines().filter_map(|line| line.strip_prefix("line ")).map(|line| &line[..8]).collect();
        assert_eq!(numbers.len(), 300000);
        assert!(
            numbers.iter().enumerate().all(|(n, number)| format!("{n:08}") == *number),
            "lines are out of order"
        );
        assert!(all.lines().all(|line| line.len() == 94 || !line.starts_with("line ")), "a line was torn");
    }
}

#[test]
fn a_full_disk_does_not_stop_the_guard() {
    if !has("root", rustix::process::geteuid().is_root(), "only root can mount a small disk") {
        return;
    }
    let world = World::new();
    let disk = world.path("logs");
    std::fs::create_dir(&disk).unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(&disk).status().unwrap();
    if !has("mount", mounted.success(), "no right to mount") {
        return;
    }
    let mount = Mount(disk.clone());
    let up = Up::start(&world, IDLE);
    up.wait_start("worker-2", 1);
    // Somebody else fills it.
    let mut filler = std::fs::File::create(disk.join("filler")).unwrap();
    while std::io::Write::write_all(&mut filler, &[0; 4096]).is_ok() {}
    for _ in 0..100 {
        up.ask(&["reload"]).with(0);
        if text(&world.path("up.stderr")).contains("Could not write") {
            break;
        }
    }
    assert!(text(&world.path("up.stderr")).contains("Could not write"), "it says so where it can");
    up.ask(&["restart"]).with(0);
    wait_until(PATIENCE, "both were restarted", || {
        let status = up.status();
        status["workers"].as_array().unwrap().iter().all(|w| w["attempt"] == 2 && w["phase"] == "running")
    });
    drop(filler);
    std::fs::remove_file(disk.join("filler")).unwrap();
    up.ask(&["restart", "worker-1"]).with(0);
    let again = up.wait("it is said that lines are missing", |event| event["event"] == "sink-resumed");
    assert!(again["lost"].as_u64().unwrap() > 0, "{again}");
    up.wait_start("worker-1", 3);
    up.stop();
    drop(mount);
}

/// Unmounted whatever happens.
struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn state_and_sockets_of_somebody_else_are_refused() {
    if !support::has_root() {
        return;
    }
    let world = World::new();
    configure(&world, &format!("{MEMORY}{IDLE}"));
    let run = world.project().parent().unwrap().join("run/oomguard");
    std::fs::create_dir_all(&run).unwrap();
    std::os::unix::fs::chown(&run, Some(12345), None).unwrap();
    let done = world.done(&mut world.oomguard(["up"])).with(125);
    assert!(
        done.err.starts_with("error: runtime directory `") && done.err.contains("it belongs to user 12345"),
        "{done:?}"
    );
    world.must_be_empty();
}
