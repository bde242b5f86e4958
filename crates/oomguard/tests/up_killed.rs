//! The guard is killed in the middle of its work: limits hold, nobody is orphaned, the next one goes on.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![expect(clippy::print_stdout, reason = "a skipped test says why")]

mod support;

use std::time::{Duration, Instant};

use oomguard_core::pool::Random;
use serde_json::Value;
use support::up::Up;
use support::{PATIENCE, World, has_cgroup, lives, pid_in, text, wait_until};

/// A worker that waits for the file `go` before it outgrows its limit; its successors do nothing of the kind.
const SPIKES_WHEN_TOLD: &str = "[pool.w]\ncommand = [\"sh\", \"-c\", \"if [ -e {dir}/go ]; then exec {hog} hold 1; fi; while [ ! -e {dir}/go ]; do sleep 0.01; done; exec {hog} spike 300\"]\ncount = 1\nmemory_limit = \"100MiB\"\ngrace = \"1s\"\n";

#[test]
fn the_next_guard_adopts_who_lives_and_ends_who_ran_away() {
    let world = World::new();
    let script = "{hog} leave {dir}/escaped-$OOMGUARD_WORKER; exec {hog} hold 20";
    let up = Up::start(
        &world,
        &format!(
            "[pool.w]\ncommand = [\"sh\", \"-c\", \"{script}\"]\ncount = 2\nmemory_limit = \"100MiB\"\ngrace = \"1s\"\n"
        ),
    );
    let pids = [up.wait_start("worker-1", 1), up.wait_start("worker-2", 1)];
    let escaped = [pid_in(&world.path("escaped-1")), pid_in(&world.path("escaped-2"))];
    up.kill();
    assert!(pids.iter().chain(&escaped).all(|pid| lives(*pid)), "workers outlive their guard");
    // One dies meanwhile; the one that ran away from it must not stay.
    oomguard_sys::process::Process::open(pids[1])
        .unwrap()
        .signal(oomguard_sys::process::Signal::KILL)
        .unwrap();
    std::fs::remove_file(world.path("escaped-2")).unwrap();
    let up = Up::again(&world);
    let adopted = up.wait("the first is adopted", |event| event["event"] == "adopted");
    assert_eq!((&adopted["worker"], &adopted["pid"]), (&"worker-1".into(), &pids[0].into()));
    assert!(lives(pids[0]) && lives(escaped[0]));
    wait_until(PATIENCE, "the second runs again", || up.worker("worker-2")["phase"] == "running");
    assert!(!lives(escaped[1]), "an orphan is left");
    let worker = up.worker("worker-1");
    assert_eq!((&worker["pid"], &worker["attempt"]), (&pids[0].into(), &1.into()));
    // What was adopted is held, restarted and ended like any other.
    up.ask(&["restart", "worker-1"]).with(0);
    up.wait_start("worker-1", 2);
    assert!(!lives(pids[0]) && !lives(escaped[0]));
    up.stop();
}

#[test]
fn of_a_damaged_state_the_next_guard_adopts_who_can_be_read() {
    let world = World::new();
    let up = Up::start(
        &world,
        "[pool.w]\ncommand = [\"{hog}\", \"hold\", \"20\"]\ncount = 2\nmemory_limit = \"100MiB\"\ngrace = \"1s\"\n",
    );
    let pids = [up.wait_start("worker-1", 1), up.wait_start("worker-2", 1)];
    up.kill();
    let state = std::fs::read_dir(world.state().join("oomguard")).unwrap().next().unwrap().unwrap().path();
    let file = state.join("state.json");
    std::fs::write(&file, text(&file).replace("\"name\":\"worker-1\"", "\"name\":worker-1\"")).unwrap();
    for file in ["deaths.jsonl", "studies.jsonl"] {
        std::fs::write(state.join(file), "{\"cut sho").unwrap();
    }
    let up = Up::again(&world);
    let damaged = up.wait("it is said", |event| event["event"] == "state-damaged");
    assert_eq!(damaged["workers"], 1);
    up.wait("so are the deaths", |event| {
        let said = event["text"].as_str().unwrap_or_default();
        event["event"] == "note" && said.contains("1 lines of") && said.contains("deaths.jsonl")
    });
    let adopted = up.wait("the second is adopted", |event| event["event"] == "adopted");
    assert_eq!((&adopted["worker"], &adopted["pid"]), (&"worker-2".into(), &pids[1].into()));
    assert!(lives(pids[1]) && state.join("state.json.damaged").exists());
    wait_until(PATIENCE, "the first runs again", || up.worker("worker-1")["phase"] == "running");
    up.stop();
    up_ended_with_the_studies_said(&world, &state);
}

/// What could not be read of the studies is said when everything ends, and not thrown away.
fn up_ended_with_the_studies_said(world: &World, state: &std::path::Path) {
    assert_eq!(text(&state.join("studies.jsonl.damaged")), "{\"cut sho");
    assert!(text(&world.path("logs/watchdog.log")).contains("lines of `studies.jsonl` could not be read"));
}

#[test]
fn a_death_at_the_limit_is_on_record_though_no_guard_saw_it() {
    if !has_cgroup() {
        return;
    }
    let world = World::new();
    let up = Up::start(&world, SPIKES_WHEN_TOLD);
    let pid = up.wait_start("worker-1", 1);
    up.kill();
    std::fs::write(world.path("go"), "").unwrap();
    wait_until(PATIENCE, "it has hit its limit", || !lives(pid));
    let up = Up::again(&world);
    wait_until(PATIENCE, "it runs again", || up.worker("worker-1")["phase"] == "running");
    let deaths = up.deaths();
    let death = deaths.iter().find(|death| death["pid"] == pid).unwrap();
    assert_eq!((&death["cause"], &death["own"]), (&"limit".into(), &true.into()), "{death}");
    up.stop();
}

#[test]
fn an_adopted_worker_is_still_held_to_its_limit() {
    if !has_cgroup() {
        return;
    }
    let world = World::new();
    let up = Up::start(&world, SPIKES_WHEN_TOLD);
    let pid = up.wait_start("worker-1", 1);
    up.kill();
    let up = Up::again(&world);
    up.wait("it is adopted", |event| event["event"] == "adopted" && event["pid"] == pid);
    std::fs::write(world.path("go"), "").unwrap();
    let end = up.wait("it met its limit", |event| event["event"] == "ended");
    assert_eq!(end["cause"], "limit");
    up.wait_start("worker-1", 2);
    up.stop();
}

#[test]
fn a_worker_that_the_dead_guard_held_still_goes_on() {
    if !has_cgroup() {
        return;
    }
    let world = World::new();
    let script = "while :; do echo x >> {dir}/beats; sleep 0.01; done";
    let up = Up::start(
        &world,
        &format!(
            "[pool.w]\ncommand = [\"sh\", \"-c\", \"{script}\"]\ncount = 1\nmemory_limit = \"100MiB\"\n"
        ),
    );
    let pid = up.wait_start("worker-1", 1);
    wait_until(PATIENCE, "it works", || !text(&world.path("beats")).is_empty());
    up.kill();
    // As a guard leaves it that dies while it turns a log over or brakes.
    let leaves = world.cgroups().into_iter().filter(|dir| dir.to_string_lossy().ends_with("worker-1"));
    let freezers = leaves.map(|dir| dir.join("cgroup.freeze")).filter(|file| file.exists());
    let frozen = freezers.filter(|file| std::fs::write(file, "1").is_ok()).count();
    assert!(frozen > 0);
    let up = Up::again(&world);
    up.wait("it is adopted", |event| event["event"] == "adopted" && event["pid"] == pid);
    let beats = text(&world.path("beats")).len();
    wait_until(PATIENCE, "it works again", || text(&world.path("beats")).len() > beats + 10);
    up.stop();
}

#[test]
fn a_worker_in_another_place_is_ended_and_started_where_it_can_be_held() {
    if !has_cgroup() {
        return;
    }
    let (world, other) = (World::new(), World::new());
    let up = Up::start(
        &world,
        "[pool.w]\ncommand = [\"{hog}\", \"hold\", \"5\"]\ncount = 1\nmemory_limit = \"100MiB\"\ngrace = \"1s\"\n",
    );
    let pid = up.wait_start("worker-1", 1);
    up.kill();
    let mut command = world.oomguard(["up", "--cgroup-parent", &other.cgroup_parent(), "--quiet"]);
    let mut again = command.spawn().unwrap();
    wait_until(PATIENCE, "its successor runs in the new place", || {
        let held = other.cgroups().into_iter().any(|dir| !text(&dir.join("cgroup.procs")).is_empty());
        held && !lives(pid)
    });
    support::signal(&again, oomguard_sys::process::Signal::TERM);
    assert_eq!(support::end_of(&mut again).code(), Some(0));
    assert!(world.processes().is_empty());
    other.must_be_empty();
}

/// Ten moments out of a seed, over the lives of workers that spawn, leak, crash and do not listen.
#[test]
fn a_guard_killed_at_ten_random_moments_loses_nobody() {
    let world = World::new();
    let mut random = Random(0x0dd5_eed0_0000_0001);
    let config = "[pool.leak]\ncommand = [\"{hog}\", \"grow\", \"150\", \"200\"]\ncount = 1\nmemory_limit = \"80MiB\"\ngrace = \"200ms\"\n\
        [pool.crash]\ncommand = [\"sh\", \"-c\", \"sleep 0.2; exit 3\"]\ncount = 1\nmemory_limit = \"80MiB\"\ngrace = \"200ms\"\n\
        [pool.spawn]\ncommand = [\"sh\", \"-c\", \"{hog} leave {dir}/escaped-$$; {hog} forks 3 2 & exec {hog} hold 2\"]\n\
        count = 2\nmemory_limit = \"80MiB\"\ngrace = \"200ms\"\nmax_age = \"900ms\"\n\
        [pool.deaf]\ncommand = [\"{hog}\", \"deaf\", \"{dir}/heard\"]\ncount = 1\nmemory_limit = \"80MiB\"\ngrace = \"200ms\"\nmax_age = \"700ms\"\n\
        [pool.calm]\ncommand = [\"{hog}\", \"hold\", \"5\"]\ncount = 1\nmemory_limit = \"80MiB\"\ngrace = \"1s\"\n";
    let mut up = Up::start(&world, config);
    let calm = up.wait_start("calm-1", 1);
    for round in 0..10 {
        let moment = Instant::now() + Duration::from_millis(random.draw() % 400);
        wait_until(PATIENCE, "the moment has come", || Instant::now() >= moment);
        let before: Vec<Value> = up.status()["workers"].as_array().unwrap().clone();
        up.kill();
        up = Up::again(&world);
        up.wait_nth("the calm one is adopted", round, |e| e["event"] == "adopted" && e["worker"] == "calm-1");
        assert_eq!(up.worker("calm-1")["pid"], calm, "round {round}");
        assert_eq!(before.len(), 6);
    }
    wait_until(PATIENCE, "everybody is in the cgroup of a worker", || strangers(&world, &up).is_empty());
    up.stop();
    let ends = text(&world.path("logs/events.jsonl"));
    assert!(ends.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "every line is whole");
}

/// Processes of the world that are neither the guard nor in a worker's cgroup.
fn strangers(world: &World, up: &Up<'_>) -> Vec<String> {
    let held: Vec<u32> = world
        .cgroups()
        .iter()
        .filter(|dir| {
            dir.file_name().is_some_and(|name| !name.to_string_lossy().starts_with("oomguard-test"))
        })
        .flat_map(|dir| {
            text(&dir.join("cgroup.procs"))
                .split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect();
    if held.is_empty() {
        return Vec::new();
    }
    let processes = world.processes().into_iter().map(|process| process.pid());
    processes
        .filter(|pid| *pid != up.child.id() && !held.contains(pid) && lives(*pid))
        .map(|pid| pid.to_string())
        .collect()
}

#[test]
fn a_guard_of_nobody_adopts_without_a_cgroup() {
    if !support::has_root() {
        return;
    }
    let world = World::of_nobody();
    let script = "{hog} hold 3 & {hog} leave {dir}/escaped-$OOMGUARD_WORKER; exec {hog} hold 5";
    let up = Up::start(
        &world,
        &format!(
            "[pool.w]\ncommand = [\"sh\", \"-c\", \"{script}\"]\ncount = 2\nmemory_limit = \"100MiB\"\ngrace = \"1s\"\n"
        ),
    );
    let pids = [up.wait_start("worker-1", 1), up.wait_start("worker-2", 1)];
    let escaped = [pid_in(&world.path("escaped-1")), pid_in(&world.path("escaped-2"))];
    // The guard, and of each worker the main process, its child, and who ran away.
    let before = 1 + 2 * 3;
    wait_until(PATIENCE, "all are up", || world.processes().len() == before);
    up.kill();
    let up = Up::again(&world);
    wait_until(PATIENCE, "both are adopted", || {
        up.events().iter().filter(|event| event["event"] == "adopted").count() == 2
    });
    wait_until(PATIENCE, "they run", || up.worker("worker-2")["pid"] == pids[1]);
    assert_eq!(world.processes().len(), before, "nobody of a living worker was ended");
    assert!(escaped.iter().all(|pid| lives(*pid)));
    up.ask(&["restart", "worker-1"]).with(0);
    up.wait_start("worker-1", 2);
    assert!(!lives(escaped[0]) && lives(escaped[1]));
    up.stop();
}
