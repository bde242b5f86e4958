//! `oomguard up`: the lives of workers, what is written about them, and what can be asked.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![expect(clippy::print_stdout, reason = "a skipped test says why")]

mod support;

use std::path::Path;

use oomguard_sys::process::Signal;
use serde_json::Value;
use support::up::{MEMORY, Up, configure};
use support::{PATIENCE, World, has_cgroup, lives, pid_in, text, wait_until};

/// Two workers that do nothing.
const IDLE: &str = "[pool.w]\ncommand = [\"{hog}\", \"hold\", \"1\"]\ncount = 2\nmemory_limit = \"100MiB\"\ngrace = \"1s\"\n";

fn pool(command: &str, rest: &str) -> String {
    format!(
        "[pool.w]\ncommand = [{command}]\ncount = 1\nmemory_limit = \"100MiB\"\ngrace = \"300ms\"\n{rest}"
    )
}

fn is(name: &str) -> impl Fn(&Value) -> bool {
    move |event| event["event"] == name
}

fn ended(worker: &str, cause: &str) -> impl Fn(&Value) -> bool {
    move |event| event["event"] == "ended" && event["worker"] == worker && event["cause"] == cause
}

/// The index of the first such event.
fn position(events: &[Value], is: impl Fn(&Value) -> bool) -> usize {
    events.iter().position(is).unwrap()
}

// --- ends and restarts -------------------------------------------------------------------------------------------

#[test]
fn a_worker_at_its_limit_is_restarted() {
    if !has_cgroup() {
        return;
    }
    let world = World::new();
    let up = Up::start(&world, &pool("\"{hog}\", \"spike\", \"200\"", ""));
    let first = up.wait_start("worker-1", 1);
    let end = up.wait("it ended at its limit", ended("worker-1", "limit"));
    assert!(end["peak"].as_u64().unwrap() >= 90 << 20, "{end}");
    let second = up.wait_start("worker-1", 2);
    assert_ne!(first, second);
    assert!(!lives(first));
    let log = text(&world.path("logs/watchdog.log"));
    assert!(log.contains("🔄 Worker 1 memory leak detected - restarting"), "{log}");
    assert!(log.contains(&format!("Worker 1 (PID {first}) using ")), "{log}");
    assert!(log.contains("(limit: 100MB)"), "{log}");
    up.stop();
}

#[test]
fn a_slow_leak_is_told_to_stop_before_the_wall() {
    if !has_cgroup() {
        return;
    }
    let world = World::new();
    // It listens to SIGTERM, so it ends in good order at nine tenths.
    let up = Up::start(&world, &pool("\"{hog}\", \"grow\", \"60\", \"200\"", ""));
    let end = up.wait("it ended at its limit", ended("worker-1", "limit"));
    assert_eq!(end["exit"]["signal"], 15, "by SIGTERM: {end}");
    up.wait_start("worker-1", 2);
    up.stop();
}

#[test]
fn three_deaths_of_memory_right_after_the_start_park_the_slot() {
    if !has_cgroup() {
        return;
    }
    let world = World::new();
    let up = Up::start(&world, &pool("\"{hog}\", \"spike\", \"200\"", ""));
    let parked = up.wait("it is parked", is("parked"));
    assert_eq!((&parked["parked"], &parked["failures"]), (&"early-memory-deaths".into(), &3.into()));
    assert_eq!(up.events().iter().filter(|event| is("started")(event)).count(), 3);
    // Nothing is left to guard.
    assert_eq!(up.end(), Some(1), "a slot was given up");
    world.must_be_empty();
}

#[test]
fn crashes_wait_longer_each_time() {
    let world = World::new();
    let up = Up::start(&world, &pool("\"{hog}\", \"exit\", \"3\"", ""));
    up.wait_start("worker-1", 3);
    let events = up.events();
    let delays: Vec<f64> =
        events.iter().filter(|e| is("waiting")(e)).map(|e| e["delay_s"].as_f64().unwrap()).collect();
    assert!((1.0..=1.25).contains(&delays[0]) && (2.0..=2.5).contains(&delays[1]), "{delays:?}");
    let crash = events.iter().find(|event| ended("worker-1", "crash")(event)).unwrap();
    assert_eq!(crash["exit"]["code"], 3);
    assert!(up.worker("worker-1")["failures"].as_u64().unwrap() >= 2);
    up.stop();
}

#[test]
fn a_worker_that_succeeds_is_done_and_all_done_is_0() {
    let world = World::new();
    let up = Up::start(&world, &pool("\"{hog}\", \"exit\", \"0\"", ""));
    assert_eq!(up.end(), Some(0));
    world.must_be_empty();
}

#[test]
fn a_command_that_is_not_there_is_said_and_ends_a_guard_that_has_no_other() {
    let world = World::new();
    let up = Up::start(&world, &pool("\"/nowhere/at/all\"", ""));
    let error = up.wait("the error", is("start-error"));
    assert_eq!(error["error"], "`/nowhere/at/all` was not found");
    assert_eq!(up.end(), Some(1));
    world.must_be_empty();
}

#[test]
fn age_restarts_one_at_a_time() {
    let world = World::new();
    let config = IDLE.replace("count = 2", "count = 3") + "max_age = \"1500ms\"\n";
    let up = Up::start(&world, &config);
    for worker in ["worker-1", "worker-2", "worker-3"] {
        up.wait_start(worker, 2);
    }
    let events = up.events();
    let mut in_flight: Option<String> = None;
    for event in &events {
        let worker = event["worker"].as_str().unwrap_or_default().to_owned();
        match event["event"].as_str().unwrap() {
            "terminate" => {
                assert_eq!(event["cause"], "age");
                assert_eq!(in_flight.replace(worker), None, "two planned restarts at once: {event}");
            }
            "started" if event["attempt"].as_u64() > Some(1) => assert_eq!(in_flight.take(), Some(worker)),
            _ => {}
        }
    }
    // In slots: the first lives are a third of the age apart.
    let ages: Vec<f64> = (1..=3)
        .map(|n| {
            events.iter().find(|e| ended(&format!("worker-{n}"), "age")(e)).unwrap()["age_s"]
                .as_f64()
                .unwrap()
        })
        .collect();
    assert!(ages[0] < ages[1] && ages[1] < ages[2], "{ages:?}");
    assert!(up.events().iter().all(|event| event["event"] != "waiting"), "planned ends are no failures");
    up.stop();
}

#[test]
fn who_ignores_sigterm_is_killed_after_its_grace_with_its_whole_tree() {
    let world = World::new();
    let script = "{hog} leave {dir}/escaped; {hog} hold 1 & exec {hog} deaf {dir}/heard";
    let up = Up::start(&world, &pool(&format!("\"sh\", \"-c\", \"{script}\""), ""));
    let first = up.wait_start("worker-1", 1);
    wait_until(PATIENCE, "it is up", || text(&world.path("heard")) == "ready\n");
    let escaped = pid_in(&world.path("escaped"));
    up.ask(&["restart", "worker-1"]).with(0);
    let second = up.wait_start("worker-1", 2);
    assert!(!lives(first) && !lives(escaped), "{}", text(&world.path("logs/watchdog.log")));
    assert!(lives(second));
    assert!(text(&world.path("heard")).starts_with("ready\n15\n"), "SIGTERM came first");
    let events = up.events();
    let terminate = position(&events, is("terminate"));
    let kill = position(&events, is("kill"));
    let end = position(&events, ended("worker-1", "requested"));
    assert!(events[kill]["after_grace"] == true && terminate < kill && kill < end, "{events:?}");
    let grace = events[kill]["mono_ns"].as_u64().unwrap() - events[terminate]["mono_ns"].as_u64().unwrap();
    assert!((290_000_000..900_000_000).contains(&grace), "{grace} ns of grace");
    up.stop();
}

#[test]
fn a_successor_starts_when_the_old_tree_is_gone() {
    let world = World::new();
    // The main process goes at SIGTERM, its child stays; the next one looks whether that child still lives.
    let script = "if [ -e {dir}/child ]; then if kill -0 $(cat {dir}/child) 2>/dev/null; then echo lives > {dir}/seen; \
                  else echo gone > {dir}/seen; fi; fi; {hog} deaf {dir}/deaf & echo $! > {dir}/child; wait";
    let up = Up::start(&world, &pool(&format!("\"sh\", \"-c\", \"{script}\""), ""));
    up.wait_start("worker-1", 1);
    wait_until(PATIENCE, "its child is deaf", || text(&world.path("deaf")) == "ready\n");
    up.ask(&["restart"]).with(0);
    up.wait_start("worker-1", 2);
    wait_until(PATIENCE, "the successor has looked", || {
        world.path("seen").exists() && !text(&world.path("seen")).is_empty()
    });
    assert_eq!(text(&world.path("seen")), "gone\n");
    up.stop();
}

// --- what is asked -----------------------------------------------------------------------------------------------

#[test]
fn the_first_sigterm_is_graceful_and_the_second_kills() {
    let world = World::new();
    let config = pool("\"{hog}\", \"deaf\", \"{dir}/heard\"", "").replace("300ms", "1h");
    let up = Up::start(&world, &config);
    wait_until(PATIENCE, "it listens", || text(&world.path("heard")) == "ready\n");
    up.signal(Signal::TERM);
    wait_until(PATIENCE, "it heard SIGTERM", || text(&world.path("heard")) == "ready\n15\n");
    up.signal(Signal::TERM);
    assert_eq!(up.end(), Some(0));
    world.must_be_empty();
    let log = text(&world.path("logs/watchdog.log"));
    assert!(log.contains("Stopping all jobs (SIGTERM); once more to kill them"), "{log}");
    assert!(log.contains("Killing all jobs (SIGTERM)"), "{log}");
}

#[test]
fn verbs_answer_people_and_programs() {
    let world = World::new();
    let up = Up::start(&world, IDLE);
    let pids = [up.wait_start("worker-1", 1), up.wait_start("worker-2", 1)];
    let status = up.status();
    assert_eq!(status["guard"]["pid"], up.child.id());
    let workers = status["workers"].as_array().unwrap();
    assert_eq!(workers.iter().map(|w| w["pid"].as_u64().unwrap() as u32).collect::<Vec<_>>(), pids);
    assert!(workers.iter().all(|w| w["phase"] == "running" && w["limit"] == 100 << 20), "{workers:?}");
    let table = up.ask(&["status"]).with(0).out;
    assert!(table.contains("worker-1  running"), "{table}");
    let unknown = up.ask(&["restart", "worker-9"]).with(125);
    assert_eq!(unknown.err, "error: there is no worker `worker-9`\nhint: there are: worker-1, worker-2\n");
    assert_eq!(up.ask(&["restart", "worker-2"]).with(0).out, "restarting: worker-2\n");
    up.wait_start("worker-2", 2);
    let json: Value = serde_json::from_str(&up.ask(&["restart", "--json"]).with(0).out).unwrap();
    assert_eq!(json["restarting"], serde_json::json!(["worker-1", "worker-2"]));
    up.wait_start("worker-1", 2);
    up.wait_start("worker-2", 3);
    up.stop();
    // Nobody is there to be asked.
    let none = world.done(&mut world.oomguard(["status"])).with(125);
    assert!(none.err.starts_with("error: ") && none.err.contains("hint: "), "{none:?}");
}

#[test]
fn a_second_guard_is_refused_with_the_pid_of_the_first() {
    let world = World::new();
    let up = Up::start(&world, IDLE);
    let pid = up.wait_start("worker-1", 1);
    let second = world.done(&mut world.oomguard(["up"])).with(125);
    assert!(
        second.err.contains(&format!("another guard (PID {}) already works on", up.child.id())),
        "{second:?}"
    );
    assert!(lives(pid));
    // Nothing of the first was disturbed.
    up.ask(&["restart", "worker-1"]).with(0);
    up.wait_start("worker-1", 2);
    up.stop();
}

#[test]
fn bad_configurations_are_refused_and_change_nothing() {
    let world = World::new();
    let good = format!("{MEMORY}{}", pool("\"touch\", \"{dir}/started\"", ""));
    for (what, config) in [
        ("unknown key `memory_limt`", good.replace("memory_limit", "memory_limt")),
        ("did you mean `memory_limit`?", good.replace("memory_limit", "memory_limt")),
        ("memory_limit", good.replace("100MiB", "-5GiB")),
        ("memory_limit", good.replace("100MiB", "99999999999999999GiB")),
        ("memory_limit", good.replace("100MiB", "0")),
        ("reserve", good.replace("256MiB", "9999TiB")),
        ("grace", good.replace("300ms", "soon")),
        ("command", good.replace("command = ", "# ")),
        ("count", good.replace("count = 1", "count = -1")),
        ("no `oomguard.toml`", String::new()),
        ("", "[pool".to_owned()),
    ] {
        let _ = std::fs::remove_file(world.path("oomguard.toml"));
        if !config.is_empty() {
            configure(&world, &config);
        }
        let done = world.done(&mut world.oomguard(["up"])).with(125);
        assert!(done.err.starts_with("error: ") && done.err.contains(what), "`{what}`: {}", done.err);
    }
    let missing = world.done(&mut world.oomguard(["up", "-c", "missing.toml"])).with(125);
    assert!(missing.err.contains("missing.toml"), "{missing:?}");
    let directory = world.done(&mut world.oomguard(["up", "-c", "/"])).with(125);
    assert!(directory.err.starts_with("error: "), "{directory:?}");
    assert!(!world.path("started").exists() && !world.path("logs").exists());
    world.must_be_empty();
}

#[test]
fn a_file_that_may_not_be_read_is_an_error_and_not_no_file() {
    use std::os::unix::fs::PermissionsExt;
    if !support::has_root() {
        return;
    }
    let world = World::of_nobody();
    configure(&world, IDLE);
    std::fs::set_permissions(world.path("oomguard.toml"), PermissionsExt::from_mode(0o600)).unwrap();
    let done = world.done(&mut world.oomguard(["up"])).with(125);
    assert!(
        done.err.starts_with("error: could not read `") && done.err.contains("permission denied"),
        "{done:?}"
    );
    assert!(world.processes().is_empty());
}

#[test]
fn what_is_required_and_not_there_starts_nothing() {
    let world = World::new();
    let status = world.oomguard(["doctor", "--json"]).output().unwrap();
    if String::from_utf8_lossy(&status.stdout).contains("\"enforcement\":\"cgroup2\"") {
        println!("skipped: this machine has cgroup2");
        return;
    }
    configure(&world, &format!("{MEMORY}require = \"cgroup2\"\n{IDLE}"));
    let done = world.done(&mut world.oomguard(["up"])).with(125);
    assert!(done.err.contains("`[memory] require = \"cgroup2\"`"), "{done:?}");
    world.must_be_empty();
}

/// Without a cgroup: what was killed in one life of a slot says nothing about the next.
#[test]
fn what_is_left_of_a_tree_is_told_first_even_after_an_earlier_kill() {
    if !support::has_root() {
        return;
    }
    let world = World::of_nobody();
    let life = "if [ ! -e first ]; then trap '' TERM; mkdir first; while :; do sleep 0.05; done; fi\n\
                sh -c 'trap \"echo told > told; exit\" TERM; echo > child; while :; do sleep 0.05; done' &\n\
                while [ ! -e child ]; do sleep 0.01; done\n\
                exit 0\n";
    std::fs::write(world.path("life.sh"), life).unwrap();
    let up = Up::start(&world, &pool("\"sh\", \"life.sh\"", ""));
    up.wait_start("worker-1", 1);
    wait_until(PATIENCE, "it is deaf", || world.path("first").exists());
    up.ask(&["restart", "worker-1"]).with(0);
    wait_until(PATIENCE, "its successor's child was told", || text(&world.path("told")) == "told\n");
    assert_eq!(up.end(), Some(0));
}

#[test]
fn a_pool_that_is_renamed_goes_on_under_its_new_name() {
    let world = World::new();
    let up = Up::start(&world, IDLE);
    let old = up.wait_start("worker-1", 1);
    configure(&world, &format!("{MEMORY}{}", IDLE.replace("[pool.w]", "[pool.fit]")));
    assert!(up.ask(&["reload"]).with(0).out.contains("fit"));
    wait_until(PATIENCE, "the new pool works", || {
        let worker = up.worker("worker-1");
        worker["phase"] == "running" && worker["pid"] != old
    });
    assert!(!lives(old));
    up.stop();
}

#[test]
fn a_reload_applies_what_has_changed_and_ends_nobody_for_it() {
    if !has_cgroup() {
        return;
    }
    let world = World::new();
    let up = Up::start(&world, IDLE);
    let pids = [up.wait_start("worker-1", 1), up.wait_start("worker-2", 1)];
    let config = |config: String| configure(&world, &format!("{MEMORY}{config}"));

    config(IDLE.replace("100MiB", "120MiB"));
    let done = up.ask(&["reload"]).with(0);
    assert!(done.out.contains("120 MiB"), "{done:?}");
    assert_eq!(up.worker("worker-1")["limit"], 120 << 20);
    let limits = || -> Vec<String> {
        let files = world.cgroups().into_iter().filter(|dir| dir.to_string_lossy().contains("worker-"));
        let limit = |dir: &Path| text(&dir.join("memory.limit_in_bytes")) + &text(&dir.join("memory.max"));
        files.map(|dir| limit(&dir)).filter(|limit| !limit.is_empty()).collect()
    };
    assert_eq!(limits(), [format!("{}\n", 120 << 20), format!("{}\n", 120 << 20)], "the kernel's");

    // A broken file changes nothing.
    std::fs::write(world.path("oomguard.toml"), "[pool.w]\ncommand = 3\n").unwrap();
    up.signal(Signal::HUP);
    up.wait("it is refused", is("config-refused"));
    assert!(up.ask(&["reload"]).with(125).err.contains("command"));
    assert_eq!(up.worker("worker-1")["limit"], 120 << 20);
    assert_eq!([pids[0], pids[1]], [up.worker("worker-1")["pid"].as_u64().unwrap() as u32, pids[1]]);

    // One less; then two more.
    config(IDLE.replace("100MiB", "120MiB").replace("count = 2", "count = 1"));
    up.signal(Signal::HUP);
    up.wait("the second has left", ended("worker-2", "requested"));
    assert!(lives(pids[0]));
    wait_until(PATIENCE, "the second is forgotten", || up.worker("worker-2").is_null());
    config(IDLE.replace("100MiB", "120MiB").replace("count = 2", "count = 3"));
    up.ask(&["reload"]).with(0);
    up.wait_start("worker-3", 1);
    wait_until(PATIENCE, "the second is back", || up.worker("worker-2")["phase"] == "running");

    // A new age holds for who runs already.
    config(IDLE.replace("100MiB", "120MiB") + "max_age = \"500ms\"\n");
    up.ask(&["reload"]).with(0);
    up.wait("the first is old now", ended("worker-1", "age"));
    assert!(!lives(pids[0]));
    config(IDLE.to_owned());
    up.ask(&["reload"]).with(0);
    up.stop();
}

#[test]
fn who_is_wanted_again_before_it_has_left_comes_back() {
    let world = World::new();
    let config = IDLE.replace(
        "\"{hog}\", \"hold\", \"1\"",
        "\"sh\", \"-c\", \"exec {hog} deaf {dir}/heard-$OOMGUARD_WORKER\"",
    );
    let up = Up::start(&world, &config);
    up.wait_start("worker-2", 1);
    wait_until(PATIENCE, "it listens", || text(&world.path("heard-2")) == "ready\n");
    configure(&world, &format!("{MEMORY}{}", config.replace("count = 2", "count = 1")));
    up.ask(&["reload"]).with(0);
    wait_until(PATIENCE, "it was told", || text(&world.path("heard-2")) == "ready\n15\n");
    configure(&world, &format!("{MEMORY}{config}"));
    up.ask(&["reload"]).with(0);
    up.wait("it has left", ended("worker-2", "requested"));
    up.wait_start("worker-2", 2);
    up.stop();
}

// --- what workers say --------------------------------------------------------------------------------------------

#[test]
fn what_workers_say_reaches_the_status_and_garbage_does_nothing() {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixDatagram, UnixStream};
    let world = World::new();
    let up = Up::start(
        &world,
        &pool("\"{hog}\", \"say\", \"READY=1\", \"STATUS=epoch 3 of 9\", \"X_OOMGUARD_TRIAL=17\"", ""),
    );
    let pid = up.wait_start("worker-1", 1);
    wait_until(PATIENCE, "it is heard", || up.worker("worker-1")["trial"] == 17);
    assert_eq!(up.worker("worker-1")["status_text"], "epoch 3 of 9");
    let sockets = |ending: &str| -> std::path::PathBuf {
        let entries = std::fs::read_dir(world.project().parent().unwrap().join("run/oomguard")).unwrap();
        entries
            .map(|entry| entry.unwrap().path())
            .find(|path| path.to_string_lossy().ends_with(ending))
            .unwrap()
    };
    // The test is no worker: whatever it says is nobody's.
    let socket = UnixDatagram::unbound().unwrap();
    for said in [
        &b"X_OOMGUARD_TRIAL=99"[..],
        b"STATUS=lies",
        b"\xff\xfe\0=\0",
        b"",
        &[b'='; 9000],
        b"STOPPING=1\n\n\n",
    ] {
        let _ = socket.send_to(said, sockets(".notify"));
    }
    for said in [
        &b"\n"[..],
        b"{}\n",
        b"{\"do\":\"explode\"}\n",
        b"\xff\xff\n",
        b"[[[[[[\n",
        b"{\"do\":\"stop\",\"rm\":1}\n",
    ] {
        let mut stream = UnixStream::connect(sockets(".sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(said).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(!answer.contains("\"ok\":true"), "{said:?}: {answer}");
    }
    let worker = up.worker("worker-1");
    assert_eq!((&worker["trial"], &worker["status_text"]), (&17.into(), &"epoch 3 of 9".into()));
    assert_eq!((&worker["pid"], &worker["phase"]), (&pid.into(), &"running".into()));
    up.stop();
}

#[test]
fn whoever_watches_sees_every_event() {
    let world = World::new();
    let up = Up::start(&world, IDLE);
    let pid = up.wait_start("worker-1", 1);
    let entries = std::fs::read_dir(world.project().parent().unwrap().join("run/oomguard")).unwrap();
    let socket = entries
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|e| e == "sock"))
        .unwrap();
    let watch = oomguard::control::Watch::begin(&socket, PATIENCE).unwrap();
    up.ask(&["restart", "worker-1"]).with(0);
    let seen: Vec<Value> =
        watch.take_while(|event| !(event["event"] == "started" && event["worker"] == "worker-1")).collect();
    let names: Vec<&str> = seen.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert!(
        names.contains(&"asked") && names.contains(&"terminate") && names.contains(&"ended"),
        "{names:?}"
    );
    assert!(!lives(pid));
    up.stop();
}

#[test]
fn a_worker_that_checks_is_asked_to_prune_and_then_let_go_on() {
    if !has_cgroup() || !support::has("python", Path::new("/usr/bin/python3").exists(), "no python3") {
        return;
    }
    let world = World::new();
    // Reads the layout as it is documented; nothing of ours is imported.
    let script = r#"
import mmap, os, socket, struct, sys, time
page = mmap.mmap(os.open(os.environ["OOMGUARD_PAGE"], os.O_RDONLY), 4096, prot=mmap.PROT_READ)
def field(offset, kind): return struct.unpack_from("=" + kind, page, offset)[0]
assert page[:8] == b"OOMGUARD" and field(8, "I") == 1, page[:16]
say = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
say.sendto(b"X_OOMGUARD_CHECKS=1", os.environ["NOTIFY_SOCKET"])
log = open("page.log", "w", buffering=1)
assert os.environ["MALLOC_TRIM_THRESHOLD_"] == "65536" and os.environ["MALLOC_MMAP_THRESHOLD_"] == "131072"
def wait(stop):
    end = time.monotonic() + 10
    while field(12, "I") & 0xff != stop:
        assert time.monotonic() < end, "stop stayed at %d" % (field(12, "I") & 0xff)
        time.sleep(0.002)
held, end = [], time.monotonic() + 10
while field(12, "I") & 0xff == 0 and time.monotonic() < end:
    held.append(b"x" * (1 << 20))
    time.sleep(0.02)
log.write("stop %d cause %d limit %d held %d\n" % (field(12, "I") & 0xff, field(40, "I"), field(48, "Q"), len(held)))
held = []
wait(0)
log.write("go on\n")
time.sleep(60)
"#;
    std::fs::write(world.path("checks.py"), script).unwrap();
    let up = Up::start(&world, &pool("\"/usr/bin/python3\", \"checks.py\"", ""));
    let pid = up.wait_start("worker-1", 1);
    wait_until(PATIENCE, "it goes on", || {
        let log = text(&world.path("logs/worker-1.log"));
        assert!(!log.contains("Traceback"), "{log}\n{}", text(&world.path("logs/watchdog.log")));
        text(&world.path("page.log")).ends_with("go on\n")
    });
    let said = text(&world.path("page.log"));
    assert!(said.starts_with(&format!("stop 1 cause 4 limit {} held ", 100 << 20)), "{said}");
    up.wait("it is asked", |e| is("prune")(e) && e["cause"] == "limit");
    up.wait("it is let go on", is("resume"));
    assert_eq!(up.worker("worker-1")["pid"], pid);
    assert_eq!(up.worker("worker-1")["phase"], "running");
    up.stop();
}
