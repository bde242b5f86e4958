//! `--record` and `oomguard replay`: what a guard saw, told again by the same engine, and by others.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![expect(clippy::print_stdout, reason = "a skipped test says why")]

mod support;

use std::process::{Command, Stdio};

use oomguard_sys::process::{Process, Signal};
use serde_json::Value;
use support::up::{MEMORY, Up, configure};
use support::{Done, PATIENCE, World, end_of, has_cgroup, json_lines, text, wait_until};

const RUN: &[&str] = &["--memory-limit", "60MiB", "--reserve", "256MiB", "--json", "--record", "tape"];

fn replay(world: &World, words: &[&str]) -> Done {
    world.done(&mut world.oomguard([&["replay", "tape"], words].concat()))
}

fn is_told<'a>(events: &'a [Value], what: &str, cause: &str) -> Option<&'a Value> {
    events.iter().find(|event| event["event"] == what && event["cause"] == cause)
}

#[test]
fn a_run_that_met_its_limit_is_told_byte_for_byte() {
    if !has_cgroup() {
        return;
    }
    let world = World::new();
    let live = world.run_hog(RUN, &["spike", "200"]).with(137).err;
    let again = replay(&world, &["--json"]).with(0);
    assert_eq!(again.out, live);
    assert!(is_told(&json_lines(&live), "ended", "limit").is_some(), "{live}");
    assert_eq!(replay(&world, &["--diff"]).with(0).out, "");
    // The same in sentences, and no further than asked.
    assert!(replay(&world, &[]).with(0).out.contains("peak: 60MB"));
    assert_eq!(
        replay(&world, &["--json", "--until", "0ms"]).with(0).out.lines().count(),
        1,
        "armed, no more"
    );
}

/// A recorded `up`.
fn up(world: &World) -> Up<'_> {
    let errors = std::fs::File::create(world.path("up.stderr")).unwrap();
    let mut command = world.oomguard(["up", "--record", "tape"]);
    let child = command.stdout(Stdio::null()).stderr(errors).spawn().unwrap();
    Up { world, child }
}

/// Two workers: one meets its limit, the other is ended when a new configuration asks for more room than there is.
#[test]
fn an_up_with_limits_brakes_and_a_reload_is_told_byte_for_byte() {
    if !has_cgroup() {
        return;
    }
    let world = World::new();
    let pools = "
        [pool.eater]\ncount = 1\ncommand = [\"{hog}\", \"spike\", \"200\"]\nmemory_limit = \"60MiB\"
        [pool.holder]\ncount = 1\ncommand = [\"{hog}\", \"hold\", \"400\"]\nmemory_limit = \"600MiB\"\ngrace = \"1s\"\n";
    configure(&world, &format!("{MEMORY}{pools}"));
    let up = up(&world);
    let holder = up.wait_start("holder-1", 1);
    let resident = || text(format!("/proc/{holder}/statm").as_ref());
    let has = |pages: &str| pages.parse::<u64>().is_ok_and(|pages| pages * 4096 >= 400 << 20);
    wait_until(PATIENCE, "it holds its memory", || resident().split(' ').nth(1).is_some_and(has));
    up.wait("the limit is met", |e| e["event"] == "ended" && e["cause"] == "limit");
    let mut sensors = oomguard::drive::Sensors::open().unwrap();
    let reserve = (sensors.machine().available.0 >> 20) + 600;
    configure(
        &world,
        &format!("[memory]\nreserve = \"{reserve}MiB\"\nwarning = \"{}MiB\"\n{pools}", reserve + 1),
    );
    up.ask(&["reload"]).with(0);
    up.wait("the reserve is won back", |e| e["event"] == "ended" && e["cause"] == "reserve");
    let _ = up.stop();
    let live = text(&world.path("logs/events.jsonl"));
    let events = json_lines(&live);
    for (what, cause) in [("brake", "reserve"), ("terminate", "reserve"), ("ended", "limit")] {
        assert!(is_told(&events, what, cause).is_some(), "no {what} for {cause} in {live}");
    }
    let again = replay(&world, &["--json"]).with(0);
    assert_eq!(again.out, live);
}

#[test]
fn a_guard_that_takes_over_is_told_byte_for_byte_and_so_is_the_one_before() {
    let world = World::new();
    configure(&world, &format!("{MEMORY}[pool.w]\ncommand = [\"{{hog}}\", \"hold\", \"1\"]\ncount = 1\n"));
    let first = up(&world);
    first.wait_start("worker-1", 1);
    let on_record = |what: &str| wait_until(PATIENCE, what, || text(&world.path("tape")).contains(what));
    on_record("\"event\":\"started\"");
    first.kill();
    let before = text(&world.path("logs/events.jsonl"));
    let second = up(&world);
    second.wait("the worker is taken over", |e| e["event"] == "adopted");
    let _ = second.stop();
    let both = text(&world.path("logs/events.jsonl"));
    assert_eq!(replay(&world, &["--json"]).with(0).out, both[before.len()..]);
    std::fs::rename(world.path("tape.1"), world.path("tape")).unwrap();
    assert_eq!(replay(&world, &["--json"]).with(0).out, before);
}

#[test]
fn another_policy_is_asked_of_the_same_run() {
    let world = World::new();
    let flags = ["--reserve", "256MiB", "--json", "--record", "tape"];
    let live = world.run_hog(&flags, &["exit", "0"]).with(0).err;
    let asked = replay(&world, &["--json", "--reserve", "9999GiB"]).with(0);
    let events = json_lines(&asked.out);
    let level = events.iter().find(|event| event["event"] == "level").unwrap();
    assert_eq!(level["to"], "critical", "{events:?}");
    assert!(!live.contains("critical"));
    assert!(asked.err.contains("does not answer back"), "{}", asked.err);
    let differs = replay(&world, &["--diff", "--json", "--reserve", "9999GiB"]).with(1).out;
    assert!(differs.lines().all(|line| line.starts_with("+ ") || line.starts_with("- ")), "{differs}");
    assert!(differs.contains("no-victim"), "{differs}");
}

#[test]
fn a_killed_guard_leaves_a_recording_to_its_last_line() {
    if !has_cgroup() {
        return;
    }
    let world = World::new();
    let hog = world.hog();
    let words = [&["run"], RUN, &["--", &hog, "hold", "20"]].concat();
    let errors = std::fs::File::create(world.path("live")).unwrap();
    let mut child = world.oomguard(words).stderr(errors).spawn().unwrap();
    wait_until(PATIENCE, "the start is on record", || {
        text(&world.path("tape")).contains("\"event\":\"started\"")
    });
    Process::open(child.id()).unwrap().signal(Signal::KILL).unwrap();
    end_of(&mut child);
    let again = replay(&world, &["--json"]).with(0);
    let live = text(&world.path("live"));
    assert!(live.lines().count() > 1 && again.out == live, "{}\nlive: {live}", again.out);
    // As if the machine had stopped in the middle of a line.
    let whole = std::fs::read(world.path("tape")).unwrap();
    let lines = whole.iter().filter(|byte| **byte == b'\n').count();
    std::fs::write(world.path("tape"), &whole[..whole.len() - 2]).unwrap();
    let cut = replay(&world, &["--json"]).with(0);
    assert!(
        cut.err.contains(&format!("line {lines} of `tape`")) && cut.err.contains("killed"),
        "{}",
        cut.err
    );
}

#[test]
fn damage_is_told_with_its_line_after_what_stands_before_it() {
    let world = World::new();
    world.run_hog(&["--reserve", "256MiB", "--record", "tape"], &["exit", "0"]).with(0);
    let tape = text(&world.path("tape"));
    let lines = tape.lines().count();
    std::fs::write(world.path("tape"), tape.replacen("\"exited\"", "\"excited\"", 1)).unwrap();
    let at = tape.lines().position(|line| line.contains("\"exited\"")).unwrap() + 1;
    let told = replay(&world, &["--json"]).with(125);
    assert!(told.err.contains(&format!("line {at} of `tape`")), "{} of {lines}: {}", at, told.err);
    assert!(told.err.contains("excited") && told.err.contains("hint:"), "{}", told.err);
    assert!(told.out.contains("\"started\"") && !told.out.contains("\"ended\""), "{}", told.out);

    for (bytes, why) in [("{}\n", "missing field"), ("", "EOF"), ("\u{0}\u{1}", "expected value")] {
        std::fs::write(world.path("tape"), bytes).unwrap();
        let told = replay(&world, &[]).with(125).err;
        assert!(told.contains("is not a recording") && told.contains(why), "{bytes:?}: {told}");
    }
    std::fs::write(world.path("tape"), tape.replacen("\"recording\":1", "\"recording\":2", 1)).unwrap();
    assert!(replay(&world, &[]).with(125).err.contains("is a recording of form 2"));
    std::fs::remove_file(world.path("tape")).unwrap();
    assert!(replay(&world, &[]).with(125).err.contains("no such file"));
}

#[test]
fn a_recording_is_not_written_over_and_never_through_a_link() {
    let world = World::new();
    let flags = ["--reserve", "256MiB", "--record", "tape"];
    for _ in 0..2 {
        world.run_hog(&flags, &["exit", "0"]).with(0);
    }
    let first = |name: &str| text(&world.path(name)).lines().next().map(str::to_owned).unwrap();
    assert!(first("tape").contains("\"recording\":1") && first("tape.1").contains("\"recording\":1"));
    assert_ne!(first("tape"), first("tape.1"));
    std::fs::remove_file(world.path("tape")).unwrap();
    std::os::unix::fs::symlink(world.path("elsewhere"), world.path("tape")).unwrap();
    let refused = world.run_hog(&flags, &["exit", "0"]).with(125);
    assert!(refused.err.contains("could not record to `tape`"), "{}", refused.err);
    assert!(!world.path("elsewhere").exists());
    world.must_be_empty();
}

/// A failing world of the simulation is written in the same form.
#[test]
fn a_simulated_world_is_read_like_a_recording() {
    let world = World::new();
    let host = r#"{"available":1073741824,"total":8589934592,"swap_free":0,"charged":{"unknown":"not-supported"},"stalled_us":{"known":0}}"#;
    let tape = [
        r#"{"recording":1,"build":"0","verb":"simulate","mono":1000,"unix_ns":1000,"machine":{"kernel":"simulated","cores":1,"total":8589934592},"engine":{"jobs":{"policy":{"reserve":1000000000,"warning":2000000000,"worst_rate":8589934592},"seed":1}}}"#.to_owned(),
        format!(r#"{{"in":[2000,{{"sample":[{host},[]]}}]}}"#),
    ];
    std::fs::write(world.path("tape"), tape.join("\n") + "\n").unwrap();
    let told = json_lines(&replay(&world, &["--json"]).with(0).out);
    assert_eq!((&told[0]["event"], &told[0]["to"]), (&"level".into(), &"warning".into()), "{told:?}");
    assert_eq!(told[0]["ts"], "1970-01-01T00:00:00.000002Z");
}

#[test]
fn whoever_reads_half_of_it_is_no_failure() {
    let world = World::new();
    world.run_hog(&["--reserve", "256MiB", "--record", "tape"], &["exit", "0"]).with(0);
    let mut shell: Command = world.command("sh");
    let script = format!("{} replay tape | true; exit 0", env!("CARGO_BIN_EXE_oomguard"));
    let done = world.done(shell.args(["-c", &script]));
    assert!(!done.with(0).err.contains("panicked"));
}

/// Whoever changes what the lines mean raises `recording::VERSION`; whoever does not keeps these readable.
#[test]
fn recordings_of_this_form_are_read_to_their_end() {
    let world = World::new();
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/recording");
    let run = text(&corpus.join("run"));
    let jobs = run.lines().next().unwrap();
    let watch = r#"{"watch":{"host":{"reserve":2147483648,"warning":4294967296,"worst_rate":1},"grace":{"secs":1,"nanos":0},"enforce":true}}"#;
    let watch = format!("{}\"engine\":{watch}}}", jobs.split_once("\"engine\":").unwrap().0);
    for (header, name) in [(jobs, "inputs"), (&watch, "watch")] {
        let lines = text(&corpus.join(name));
        std::fs::write(world.path("tape"), format!("{header}\n{lines}")).unwrap();
        let told = replay(&world, &["--json"]);
        assert!(told.code != Some(125), "{name}: {}", told.err);
        assert!(told.out.lines().count() > 3, "{name}: {}", told.out);
    }
    std::fs::write(world.path("tape"), run).unwrap();
    assert_ne!(replay(&world, &[]).code, Some(125));
}
