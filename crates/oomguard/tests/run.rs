//! `oomguard run`: how it ends, what it says, and that nothing of the job is left.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![expect(clippy::print_stdout, reason = "a skipped test says why")]

mod support;

use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use oomguard_sys::process::Signal;
use serde_json::Value;
use support::{Done, World, end_of, has, has_cgroup, json_lines, lives, pid_in, text, wait_until};

const LIMIT: &[&str] = &["--memory-limit", "200MiB", "--reserve", "256MiB"];
const NO_LIMIT: &[&str] = &["--reserve", "256MiB"];

// --- how it ends -------------------------------------------------------------------------------------------------

#[test]
fn the_exit_code_is_the_commands_own() {
    let world = World::new();
    for code in ["0", "1", "3", "75", "255"] {
        let done = world.run_hog(NO_LIMIT, &["exit", code]).with(code.parse().unwrap());
        assert_eq!(done.err, "", "nothing to say");
    }
    world.must_be_empty();
}

#[test]
fn a_command_that_is_not_there_or_cannot_be_executed() {
    let world = World::new();
    let done = world.run(NO_LIMIT, &["/nowhere/at/all"]).with(127);
    assert_eq!(done.err, "oomguard: `/nowhere/at/all` was not found\n");
    std::fs::write(world.path("plain.txt"), "no program").unwrap();
    let done = world.run(NO_LIMIT, &[&world.word("plain.txt")]).with(126);
    assert!(done.last().contains("cannot be executed"), "{done:?}");
    world.must_be_empty();
}

#[test]
fn a_signal_is_128_and_its_number() {
    let world = World::new();
    for (name, number) in [("TERM", 15), ("KILL", 9), ("SEGV", 11)] {
        world.run(NO_LIMIT, &["sh", "-c", &format!("kill -{name} $$")]).with(128 + number);
    }
    world.must_be_empty();
}

#[test]
fn the_time_limit_is_124_also_for_who_does_not_listen() {
    let world = World::new();
    let flags = [NO_LIMIT, &["--timeout", "300ms", "--grace", "200ms"]].concat();
    let done = world.run_hog(&flags, &["hold", "1"]).with(124);
    assert!(done.last().contains("because of --timeout"), "{done:?}");
    world.run_hog(&flags, &["deaf", &world.word("heard")]).with(124);
    assert_eq!(text(&world.path("heard")), "ready\n15\n", "SIGTERM came before SIGKILL, once");
    world.must_be_empty();
}

#[test]
fn wrong_use_is_125_and_starts_nothing() {
    let world = World::new();
    let touch = ["--", "touch", &world.word("started")];
    for flags in [
        &["--memory-limit", "-1"][..],
        &["--memory-limit", "0"],
        &["--memory-limit", "many"],
        &["--memory-limit", "99999999999999999999GiB"],
        &["--memory-limit", "140%"],
        &["--timeout", "soon"],
        &["--require", "magic"],
        &["--swap-limit", "-3"],
        &["--best-effort", "--require", "cgroup"],
        &["--unknown"],
        &["--report", "/nowhere/at/all/report.json"],
        &["--report", "/"],
    ] {
        let done =
            Done::of(world.oomguard([&["run"], flags, &touch[..]].concat()).output().unwrap()).with(125);
        assert!(done.err.starts_with("error: "), "{flags:?}: {done:?}");
    }
    world.done(&mut world.oomguard(["run"])).with(125);
    assert!(!world.path("started").exists());
    world.must_be_empty();
}

#[test]
fn no_room_is_75_before_anything_is_started() {
    let world = World::new();
    let done = world.run(&["--reserve", "9999GiB"], &["touch", &world.word("started")]).with(75);
    assert!(done.err.starts_with("error: no room: "), "{done:?}");
    assert!(done.err.contains("hint: "), "{done:?}");
    assert!(!world.path("started").exists());
    world.must_be_empty();
}

#[test]
fn what_is_required_and_not_there_is_refused_with_what_to_do() {
    let world = World::new();
    let doctor: Value =
        serde_json::from_slice(&world.oomguard(["doctor", "--json"]).output().unwrap().stdout).unwrap();
    if doctor["enforcement"] == "cgroup2" {
        println!("skipped: this machine has cgroup2");
        return;
    }
    let flags = [LIMIT, &["--require", "cgroup2"]].concat();
    let done = world.run(&flags, &["touch", &world.word("started")]).with(125);
    assert!(done.err.contains("error: the limit would only be held by"), "{done:?}");
    assert!(done.last().starts_with("hint: "), "{done:?}");
    assert!(!world.path("started").exists());
    world.must_be_empty();
}

// --- memory ------------------------------------------------------------------------------------------------------

/// The line that a run stopped by its limit ends with.
fn must_name_the_limit(done: &Done) {
    let line = done.last();
    for part in ["oomguard: killed: ", "memory limit of 200 MiB", "peak ", "cgroup", "--memory-limit"] {
        assert!(line.contains(part), "`{part}` is missing: {done:?}");
    }
}

#[test]
fn a_spike_ends_at_the_limit() {
    if !has_cgroup() {
        return;
    }
    let world = World::new();
    let done = world.run_hog(LIMIT, &["spike", "400"]).with(137);
    must_name_the_limit(&done);
    assert!(done.last().contains("peak 200 MiB"), "{done:?}");
    assert_eq!(done.err.lines().count(), 1, "one line: {done:?}");
    world.must_be_empty();
}

#[test]
fn python_ends_at_the_limit() {
    if !has_cgroup() {
        return;
    }
    let world = World::new();
    must_name_the_limit(&world.run(LIMIT, &["python3", "-c", "x=b'x'*10**9"]).with(137));
    world.must_be_empty();
}

#[test]
fn twenty_children_that_are_too_much_together_all_go() {
    if !has_cgroup() {
        return;
    }
    let world = World::new();
    must_name_the_limit(&world.run_hog(LIMIT, &["forks", "20", "20"]).with(137));
    world.must_be_empty();
}

#[test]
fn shared_memory_counts_and_its_file_goes() {
    if !has_cgroup() {
        return;
    }
    let world = World::new();
    let (mine, small) = (format!("/dev/shm/{}-mine", name()), format!("/dev/shm/{}-small", name()));
    let script = format!("echo x > {small}; exec {} file {mine} 400", world.hog());
    let done = world.run(LIMIT, &["sh", "-c", &script]).with(137);
    let left = [Path::new(&mine).exists(), Path::new(&small).exists()];
    let _ = (std::fs::remove_file(&mine), std::fs::remove_file(&small));
    must_name_the_limit(&done);
    assert!(!left[0], "the file that holds the memory is left");
    world.must_be_empty();
}

#[test]
fn shared_memory_of_neighbours_is_not_touched() {
    if !has_cgroup() {
        return;
    }
    let world = World::new();
    let theirs = format!("/dev/shm/{}-theirs", name());
    // Made by somebody else after the job began, and nobody has it open.
    let script = format!(
        "echo up > {}; while [ ! -e {theirs} ]; do sleep 0.01; done; exec {} spike 400",
        world.word("up"),
        world.hog()
    );
    let mut run = world
        .oomguard([&["run"], LIMIT, &["--", "sh", "-c", &script]].concat())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until(support::PATIENCE, "the job runs", || world.path("up").exists());
    std::fs::write(&theirs, vec![1; 1 << 20]).unwrap();
    assert_eq!(end_of(&mut run).code(), Some(137));
    let kept = std::fs::read(&theirs).is_ok_and(|bytes| bytes.len() == 1 << 20);
    let _ = std::fs::remove_file(&theirs);
    assert!(kept, "a neighbour's file was removed");
}

/// Unique on this machine.
fn name() -> String {
    format!("oomguard-test-{}", std::process::id())
}

#[test]
fn whoever_ran_away_goes_too() {
    if !has_cgroup() {
        return;
    }
    let world = World::new();
    // By its limit, ...
    let escaped = world.word("at-limit");
    let script = format!("{0} leave {escaped}; exec {0} spike 400", world.hog());
    world.run(LIMIT, &["sh", "-c", &script]).with(137);
    assert!(!lives(pid_in(Path::new(&escaped))), "it outlived the limit");
    // ... and when the command is done.
    let escaped = world.word("at-end");
    world.run_hog(NO_LIMIT, &["leave", &escaped]).with(0);
    assert!(!lives(pid_in(Path::new(&escaped))), "it outlived the command");
    world.must_be_empty();
}

#[test]
fn neighbours_are_not_touched() {
    if !has_cgroup() {
        return;
    }
    let (world, other) = (World::new(), World::new());
    let mut neighbour = other.command(other.hog()).args(["hold", "300"]).spawn().unwrap();
    let mut guarded = other
        .oomguard(["run", "--reserve", "256MiB", "--memory-limit", "200MiB", "--"])
        .args([&other.hog(), "hold", "100"])
        .spawn()
        .unwrap();
    wait_until(support::PATIENCE, "the neighbour's job runs", || other.processes().len() == 3);
    world.run_hog(LIMIT, &["forks", "4", "100"]).with(137);
    assert_eq!(neighbour.try_wait().unwrap(), None);
    assert_eq!(guarded.try_wait().unwrap(), None);
    assert_eq!(other.processes().len(), 3);
    neighbour.kill().unwrap();
    neighbour.wait().unwrap();
    support::signal(&guarded, Signal::TERM);
    assert_eq!(end_of(&mut guarded).code(), Some(143));
    other.must_be_empty();
}

#[test]
fn a_job_may_outlive_a_child() {
    if !has_cgroup() {
        return;
    }
    let world = World::new();
    let flags = [LIMIT, &["--on-limit", "process"]].concat();
    let script = format!("{} spike 400; echo child $?; exit 7", world.hog());
    let done = world.run(&flags, &["sh", "-c", &script]).with(7);
    assert_eq!(done.out, "child 137\n");
    // The last process is the job.
    world.run_hog(&flags, &["spike", "400"]).with(137);
    world.must_be_empty();
}

#[test]
fn the_limit_is_in_the_kernel() {
    if !has_cgroup() {
        return;
    }
    let world = World::new();
    let script = "cat /sys/fs/cgroup/memory$(sed -n 's/^[0-9]*:memory://p' /proc/self/cgroup)/memory.limit_in_bytes \
                  2>/dev/null || cat /sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/memory.max";
    let done = world.run(LIMIT, &["sh", "-c", script]).with(0);
    assert_eq!(done.out.trim(), (200u64 << 20).to_string());
    world.must_be_empty();
}

#[test]
fn a_killed_guard_leaves_the_kernels_limit_in_force() {
    if !has_cgroup() {
        return;
    }
    let world = World::new();
    let (hog, up, go) = (world.hog(), world.word("up"), world.word("go"));
    let script = format!(
        "echo $$ > {up}; while [ ! -e {go} ]; do sleep 0.01; done; {hog} spike 400; echo $? > {}",
        world.word("code")
    );
    let mut run = world.oomguard([&["run"], LIMIT, &["--", "sh", "-c", &script]].concat()).spawn().unwrap();
    let job = pid_in(Path::new(&up));
    run.kill().unwrap();
    run.wait().unwrap();
    assert!(lives(job));
    std::fs::write(&go, "").unwrap();
    wait_until(support::PATIENCE, "the spike met its limit", || text(&world.path("code")) == "137\n");
}

#[test]
fn what_a_guard_that_was_killed_has_half_removed_is_removed_by_the_next() {
    if !has_cgroup() {
        return;
    }
    let world = World::new();
    // Two hierarchies hold a leaf on hybrid machines. A guard that is killed between the two leaves the second.
    let beside = Path::new("/sys/fs/cgroup/unified");
    let hybrid = beside.join("cgroup.procs").exists();
    if !support::has("hybrid", hybrid, "cgroup v2 is not mounted beside v1 here") {
        return;
    }
    let mut dead = world.command("true").spawn().unwrap();
    dead.wait().unwrap();
    let left = format!("{}/run-{}", world.cgroup_parent().trim_start_matches('/'), dead.id());
    std::fs::create_dir_all(beside.join(left)).unwrap();
    world.run(LIMIT, &["true"]).with(0);
    world.must_be_empty();
}

#[test]
fn runs_side_by_side_share_a_parent() {
    if !has_cgroup() {
        return;
    }
    let world = World::new();
    let hog = world.hog();
    let mut runs: Vec<_> = (0..6)
        .map(|n| {
            let (mode, much) = if n % 2 == 0 { ("spike", "400") } else { ("spike", "50") };
            let words = [&["run"], LIMIT, &["--", &hog, mode, much]].concat();
            world.oomguard(words).stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    let codes: Vec<_> = runs.iter_mut().map(|run| end_of(run).code()).collect();
    assert_eq!(codes, [Some(137), Some(0), Some(137), Some(0), Some(137), Some(0)]);
    world.must_be_empty();
}

// --- what is said and written ------------------------------------------------------------------------------------

#[test]
fn stdin_and_stdout_are_the_commands() {
    let world = World::new();
    let bytes: Vec<u8> = (0..1_000_000u32).map(|n| (n * 7 % 251) as u8).collect();
    let mut run = world
        .oomguard(
            [&["run"], LIMIT, &["--best-effort", "--json", "--verbose", "--", &world.hog(), "cat"]].concat(),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = run.stdin.take().unwrap();
    let sent = bytes.clone();
    let sender = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
    let done = Done::of(run.wait_with_output().unwrap()).with(0);
    sender.join().unwrap();
    assert!(done.bytes == bytes, "stdout is not byte for byte the command's");
    world.must_be_empty();
}

#[test]
fn json_on_stderr_is_one_event_a_line() {
    if !has_cgroup() {
        return;
    }
    let world = World::new();
    let done = world.run_hog(&[LIMIT, &["--json"]].concat(), &["spike", "400"]).with(137);
    let events = json_lines(&done.err);
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!((names[0], names[names.len() - 1]), ("armed", "done"), "{names:?}");
    for name in ["started", "kernel-kill", "ended"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let ended = events.iter().find(|event| event["event"] == "ended").unwrap();
    assert_eq!(ended["cause"], "limit");
}

#[test]
fn the_report_says_what_happened() {
    if !has_cgroup() {
        return;
    }
    let world = World::new();
    let report = |flags: &[&str], words: &[&str]| -> Value {
        let flags = [LIMIT, &["--report", "report.json"], flags].concat();
        world.run_hog(&flags, words);
        serde_json::from_str(&text(&world.path("report.json"))).unwrap()
    };
    let killed = report(&[], &["spike", "400"]);
    assert_eq!(
        (&killed["exit_code"], &killed["cause"], &killed["which_limit"]),
        (&137.into(), &"limit".into(), &"limit".into())
    );
    assert_eq!(killed["limit"], 200 << 20);
    assert!(killed["peak"].as_u64().unwrap() > 150 << 20, "a spike's peak: {killed}");
    assert!(killed["enforcement"].as_str().unwrap().starts_with("cgroup"), "{killed}");
    let well = report(&[], &["exit", "3"]);
    assert_eq!((&well["exit_code"], &well["which_limit"]), (&3.into(), &Value::Null));
}

// --- what the command is given -----------------------------------------------------------------------------------

#[test]
fn the_command_is_as_nice_as_it_was_told_to_be() {
    let world = World::new();
    let nice =
        |words: &[&str]| Done::of(world.command("nice").args(["-n", "3"]).args(words).output().unwrap());
    let alone = nice(&["nice"]).with(0);
    let guarded = nice(&[env!("CARGO_BIN_EXE_oomguard"), "run", "--best-effort", "--", "nice"]).with(0);
    assert_eq!(guarded.out, alone.out);
}

#[test]
fn nothing_of_the_guard_is_inherited() {
    let world = World::new();
    // fields of stat: priority, nice, rt_priority, policy
    let script = "grep -E '^(SigPnd|Sig[BIC]|Shd)' /proc/self/status; cut -d' ' -f18,19,40,41 /proc/self/stat; \
                  cat /proc/self/timerslack_ns; ls /proc/self/fd; ulimit -a; id";
    // The C library's own two signals are not ours to give back.
    let script = &script.replace(
        "grep -E '^(SigPnd|Sig[BIC]|Shd)'",
        "sed -nE '/^(SigPnd|Sig[BIC]|Shd)/{s/^(SigIgn:\\s+[0-9a-f]{7})[0-9a-f]/\\1_/;p}'",
    );
    let alone = Done::of(world.command("sh").args(["-c", script]).stdin(Stdio::null()).output().unwrap());
    let guarded = world.run(&[LIMIT, &["--best-effort"]].concat(), &["sh", "-c", script]).with(0);
    assert_eq!(guarded.out, alone.out);
    let score = world.run(NO_LIMIT, &["cat", "/proc/self/oom_score_adj"]).with(0);
    assert!(score.out.trim().parse::<i32>().unwrap() >= 0, "{score:?}");
}

// --- signals -----------------------------------------------------------------------------------------------------

#[test]
fn signals_for_us_alone_are_passed_on_once_and_the_second_kills() {
    let world = World::new();
    for (signal, number) in [(Signal::HUP, 1), (Signal::INT, 2), (Signal::TERM, 15)] {
        let heard = world.path(&number.to_string());
        let hog = world.hog();
        let words = [&["run"], NO_LIMIT, &["--", &hog, "deaf", heard.to_str().unwrap()]].concat();
        let mut run = world.oomguard(words).spawn().unwrap();
        wait_until(support::PATIENCE, "the command listens", || text(&heard) == "ready\n");
        support::signal(&run, signal);
        wait_until(support::PATIENCE, "it heard", || text(&heard) == format!("ready\n{number}\n"));
        assert_eq!(run.try_wait().unwrap(), None);
        support::signal(&run, signal);
        assert_eq!(end_of(&mut run).code(), Some(128 + number));
        assert_eq!(text(&heard), format!("ready\n{number}\n"));
    }
    world.must_be_empty();
}

#[test]
fn signals_that_ask_for_nothing_like_an_end_do_not_end_it() {
    let world = World::new();
    let script = format!(
        "trap 'echo 1 >> {0}' USR1; trap 'echo 2 >> {0}' USR2; echo up > {1}; while [ ! -e {2} ]; do sleep 0.02; done; exit 5",
        world.word("heard"),
        world.word("up"),
        world.word("go")
    );
    let mut run =
        world.oomguard([&["run"], NO_LIMIT, &["--", "sh", "-c", &script]].concat()).spawn().unwrap();
    wait_until(support::PATIENCE, "the command listens", || world.path("up").exists());
    let mut wanted = String::new();
    for signal in [Signal::USR1, Signal::USR1, Signal::USR2, Signal::USR1] {
        wanted += if signal == Signal::USR1 { "1\n" } else { "2\n" };
        support::signal(&run, signal);
        wait_until(support::PATIENCE, "it was passed on", || text(&world.path("heard")) == wanted);
    }
    std::fs::write(world.path("go"), "").unwrap();
    assert_eq!(end_of(&mut run).code(), Some(5));
}

// --- without a cgroup --------------------------------------------------------------------------------------------

#[test]
fn without_rights_it_refuses_and_says_what_to_do() {
    if !support::has_root() {
        return;
    }
    let world = World::of_nobody();
    let done = world.run_hog(LIMIT, &["exit", "0"]).with(125);
    assert!(done.err.starts_with("error: no cgroup can hold the tree to its limit here"), "{done:?}");
    assert!(done.err.contains("systemd-run --user") || done.err.contains("as root"), "the remedy: {done:?}");
    assert!(done.last().contains("--best-effort"), "{done:?}");
    // Without a limit there is nothing to refuse.
    world.run_hog(NO_LIMIT, &["exit", "4"]).with(4);
}

#[test]
fn without_a_cgroup_the_guard_itself_holds_the_tree() {
    if !support::has_root() {
        return;
    }
    let world = World::of_nobody();
    for accept in [&["--best-effort"][..], &["--require", "rlimit"]] {
        let begun = Instant::now();
        let flags = [LIMIT, accept].concat();
        world.run_hog(&flags, &["hold-nothing"]).with(2);
        let done = world.run_hog(&flags, &["forks", "4", "70"]).with(137);
        let line = done.last();
        assert!(line.contains("memory limit of 200 MiB") && line.contains("rlimit"), "{done:?}");
        assert!(world.processes().is_empty(), "{:?} after {:?}", world.processes(), begun.elapsed());
        // Far below the limit nothing happens.
        world.run_hog(&flags, &["spike", "50"]).with(0);
    }
}

#[test]
fn without_a_cgroup_whoever_ran_away_goes_too() {
    if !support::has_root() {
        return;
    }
    let world = World::of_nobody();
    let escaped = world.word("escaped");
    world.run_hog(&[LIMIT, &["--best-effort"]].concat(), &["leave", &escaped]).with(0);
    let pid = pid_in(Path::new(&escaped));
    assert!(!lives(pid), "it outlived the command");
    assert!(world.processes().is_empty());
}

#[test]
fn a_process_that_hides_does_not_switch_the_limit_off_without_a_cgroup() {
    if !support::has_root() || !has("python", Path::new("/usr/bin/python3").exists(), "no python3") {
        return;
    }
    let world = World::of_nobody();
    // PR_SET_DUMPABLE 0, as ssh-agent does: not even its own user may ask what it holds.
    let script = "import ctypes, os, time\n\
                  if os.fork() == 0:\n    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)\n    time.sleep(30)\n\
                  x = b'x' * (400 << 20)\n\
                  time.sleep(30)\n";
    world.run(&[LIMIT, &["--best-effort"]].concat(), &["/usr/bin/python3", "-c", script]).with(137);
    assert!(world.processes().is_empty());
}

#[test]
fn shared_pages_count_once_without_a_cgroup() {
    if !support::has_root() || !has("python", Path::new("/usr/bin/python3").exists(), "no python3") {
        return;
    }
    let world = World::of_nobody();
    // 120 MiB that five processes share: 600 MiB of RSS, 120 MiB of memory.
    let script = "import os, time\n\
                  x = b'x' * (120 << 20)\n\
                  any(os.fork() == 0 for _ in range(4))\n\
                  time.sleep(1)\n";
    let done = world.run(&[LIMIT, &["--best-effort"]].concat(), &["/usr/bin/python3", "-c", script]);
    assert_eq!(done.code, Some(0), "{done:?}");
    wait_until(support::PATIENCE, "all have gone", || world.processes().is_empty());
}
