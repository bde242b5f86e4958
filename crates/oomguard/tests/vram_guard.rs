//! `run` and `up` with rules about GPUs: the real program, the real loader, and a library that says what the test wants.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![expect(clippy::print_stdout, reason = "a skipped test says why")]

mod support;

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::up::Up;
use support::{Done, PATIENCE, World, end_of, has_cgroup, json_lines, pid_in, text, wait_for, wait_until};

const GIB: u64 = 1 << 30;

/// Two cards of 16 GiB; each process holds so many GiB of one of them.
fn cards(held: &[(usize, u32, u64)]) -> Value {
    let card = |number: usize| {
        let here = held.iter().filter(|(card, ..)| *card == number);
        let used: u64 = here.clone().map(|(_, _, used)| used * GIB).sum();
        let compute: Vec<Value> =
            here.map(|(_, pid, used)| json!({"pid": pid, "used": used * GIB})).collect();
        let uuid = format!("GPU-{number}{number}");
        json!({"uuid": uuid, "name": "NVIDIA T", "total": 16 * GIB, "used": used, "compute": compute})
    };
    json!({"driver": "550.54.15", "devices": [card(0), card(1)]})
}

/// A world with those two, of which nobody holds anything.
fn with_cards() -> World {
    let world = World::new();
    world.gpus(&cards(&[]));
    world
}

/// They are asked, and never answer.
fn hangs() -> Value {
    let mut script = cards(&[]);
    script["hang"] = json!("memory");
    script
}

/// A command that says its number, then does `what`.
fn says_pid(what: &str) -> String {
    format!("echo $$ > pid.new; mv pid.new pid; {what}")
}

/// A `run` beside the test.
struct Run<'w> {
    world: &'w World,
    child: Child,
}

impl<'w> Run<'w> {
    fn start(world: &'w World, flags: &[&str], shell: &str) -> Run<'w> {
        let script = says_pid(shell);
        let words = [&["run", "--best-effort"], flags, &["--", "sh", "-c", script.as_str()]].concat();
        let errors = std::fs::File::create(world.path("stderr")).unwrap();
        let child = world.oomguard(words).stderr(errors).stdout(Stdio::null()).spawn().unwrap();
        Run { world, child }
    }

    /// The number of its command.
    fn pid(&self) -> u32 {
        pid_in(&self.world.path("pid"))
    }

    fn events(&self) -> Vec<Value> {
        let text = text(&self.world.path("stderr"));
        json_lines(text.rfind('\n').map_or("", |end| &text[..end]))
    }

    fn wait(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let found = || self.events().into_iter().find(&is);
        wait_for(PATIENCE, &format!("{what}: {}", text(&self.world.path("stderr"))), found)
    }

    fn end(mut self) -> Done {
        let code = end_of(&mut self.child).code();
        Done { code, out: String::new(), err: text(&self.world.path("stderr")), bytes: Vec::new() }
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is(name: &str) -> impl Fn(&Value) -> bool {
    move |event| event["event"] == name
}

#[test]
fn a_command_over_its_vram_limit_gets_term_then_kill_and_the_last_line_says_why() {
    let world = with_cards();
    let flags = ["--vram-limit", "4GiB", "--grace", "300ms", "--report", "report.json"];
    let run = Run::start(&world, &flags, "trap '' TERM; while :; do sleep 0.1; done");
    world.gpus(&cards(&[(0, run.pid(), 3)]));
    world.gpus(&cards(&[(0, run.pid(), 5), (1, std::process::id(), 15)]));
    let done = run.end().with(137);
    assert!(
        done.last().contains("the job held 5 GiB of GPU 0 (NVIDIA T), above its VRAM limit of 4 GiB"),
        "{done:?}"
    );
    let report: Value = serde_json::from_str(&text(&world.path("report.json"))).unwrap();
    assert_eq!((&report["which_limit"], &report["limit"]), (&json!("vram"), &json!(4 * GIB)));
    let by = &report["decided_by"];
    assert_eq!((&by["event"], &by["gpu"]), (&json!("vram-brake"), &json!("GPU 0 (NVIDIA T)")));
    assert_eq!((&by["used"], &by["reason"]), (&json!(5 * GIB), &json!("over-limit")));
    let told: Vec<&str> =
        report["events"].as_array().unwrap().iter().filter_map(|event| event["event"].as_str()).collect();
    let order = ["vram-near", "vram-brake", "terminate", "kill", "ended"];
    let told: Vec<&str> = told.into_iter().filter(|name| order.contains(name)).collect();
    assert_eq!(told, order);
    world.must_be_empty();
}

#[test]
fn only_what_may_be_used_is_judged() {
    let world = with_cards();
    let run =
        Run::start(&world, &["--vram-limit", "25%", "--json"], "while [ ! -e stop ]; do sleep 0.05; done");
    run.wait("the GPUs are seen", is("gpu"));
    // Somebody else's process, and nothing of ours.
    world.gpus(&cards(&[(0, std::process::id(), 15)]));
    std::fs::write(world.path("stop"), "").unwrap();
    run.end().with(0);
}

#[test]
fn a_gpu_that_is_lost_midway_is_an_event_and_no_end() {
    let world = with_cards();
    let run =
        Run::start(&world, &["--vram-limit", "4GiB", "--json"], "while [ ! -e stop ]; do sleep 0.05; done");
    run.wait("the GPUs are seen", is("gpu"));
    let lost = |number: usize| json!({"uuid": format!("GPU-{number}{number}"), "total": 16 * GIB, "memory": 15, "list": 15});
    world.gpus(&json!({"driver": "550.54.15", "devices": [lost(0), lost(1)]}));
    for gpu in ["GPU 0 (NVIDIA T)", "GPU 1 (NVIDIA T)"] {
        let unknown = run.wait("the loss", |e| e["event"] == "vram-unknown" && e["gpu"] == gpu);
        assert_eq!(unknown["why"], "lost");
    }
    // The library is loaded anew meanwhile, and may count from the beginning: it is the same loss.
    let asked = world.asked_gpus();
    wait_until(PATIENCE, "they are asked again", || world.asked_gpus() != asked);
    world.gpus(&cards(&[]));
    run.wait("the end of the loss", is("vram-known"));
    std::fs::write(world.path("stop"), "").unwrap();
    let done = run.end().with(0);
    let of_a_gpu = |event: &Value| event["event"] == "vram-unknown" && event["worker"].is_null();
    let unknown = json_lines(&done.err).into_iter().filter(of_a_gpu).count();
    assert_eq!(unknown, 2, "each is said to be lost once: {done:?}");
}

#[test]
fn a_machine_without_a_gpu_says_that_nobody_is_braked() {
    let world = World::new();
    let done = world.run(&["--best-effort", "--vram-limit", "4GiB", "--json"], &["true"]).with(0);
    let unknown: Vec<Value> = json_lines(&done.err).into_iter().filter(is("vram-unknown")).collect();
    assert_eq!(unknown.len(), 1, "{done:?}");
    assert_eq!(unknown[0]["why"], "no-driver");
}

#[test]
fn frameworks_are_told_beside_what_the_user_has_set() {
    let world = with_cards();
    let mut command = world.oomguard([
        "run",
        "--best-effort",
        "--vram-limit",
        "4GiB",
        "--",
        "sh",
        "-c",
        "echo $XLA_PYTHON_CLIENT_MEM_FRACTION $TF_FORCE_GPU_ALLOW_GROWTH",
    ]);
    command.env_remove("XLA_PYTHON_CLIENT_MEM_FRACTION").env("TF_FORCE_GPU_ALLOW_GROWTH", "false");
    assert_eq!(world.done(&mut command).with(0).out, "0.25 false\n");
    let own = world.done(command.env("XLA_PYTHON_CLIENT_MEM_FRACTION", ".5")).with(0);
    assert_eq!(own.out, ".5 false\n");
}

/// While the driver hangs, a spike is stopped as soon as ever: a driver that never comes back would make it wait for
/// ever.
fn braked_at_once(begin: Instant) {
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(3), "the brake for RAM took {took:?} while a driver hangs");
}

#[test]
fn a_driver_that_hangs_does_not_delay_the_brake_of_run() {
    let world = with_cards();
    let hog = world.hog();
    let script = format!("while [ ! -e go ]; do sleep 0.01; done; exec {hog} hold 300");
    let flags = ["--memory-limit", "128MiB", "--vram-limit", "4GiB", "--json"];
    let run = Run::start(&world, &flags, &script);
    run.wait("the GPUs are seen", is("gpu"));
    world.gpus(&hangs());
    let unknown = run.wait("the silence", is("vram-unknown"));
    assert_eq!(unknown["why"], "no-answer");
    let begin = Instant::now();
    std::fs::write(world.path("go"), "").unwrap();
    run.end().with(137);
    braked_at_once(begin);
    world.must_be_empty();
}

/// A worker that waits for `go`, and another beside it.
fn pools(rest: &str) -> String {
    let wait = "while [ ! -e go ]; do sleep 0.01; done; exec {hog} hold 300";
    format!(
        "[pool.a]\ncommand = [\"sh\", \"-c\", \"{wait}\"]\ncount = 1\nmemory_limit = \"128MiB\"\n\
         grace = \"300ms\"\n{rest}[pool.b]\ncommand = [\"{{hog}}\", \"hold\", \"1\"]\ncount = 1\n\
         memory_limit = \"128MiB\"\ngrace = \"300ms\"\n{rest}"
    )
}

#[test]
fn a_driver_that_hangs_does_not_delay_the_brake_of_up() {
    if !has_cgroup() {
        return;
    }
    let world = with_cards();
    let up = Up::start(&world, &pools("vram_limit = \"4GiB\"\n"));
    up.wait_start("a-1", 1);
    up.wait("the GPUs are seen", is("gpu"));
    world.gpus(&hangs());
    let unknown = up.wait("the silence", is("vram-unknown"));
    assert_eq!(unknown["why"], "no-answer");
    let begin = Instant::now();
    std::fs::write(world.path("go"), "").unwrap();
    let end = up.wait("its end", is("ended"));
    braked_at_once(begin);
    assert_eq!((&end["worker"], &end["cause"]), (&json!("a-1"), &json!("limit")));
    std::fs::remove_file(world.path("go")).unwrap();
    up.stop();
}

#[test]
fn a_worker_over_its_vram_limit_is_braked_and_only_it_and_starts_again_when_the_vram_is_back() {
    if !has_cgroup() {
        return;
    }
    let world = with_cards();
    let up = Up::start(&world, &pools("vram_limit = \"4GiB\"\n"));
    let (a, b) = (up.wait_start("a-1", 1), up.wait_start("b-1", 1));
    world.gpus(&cards(&[(0, a, 5), (0, b, 4)]));
    let brake = up.wait("the brake", is("vram-brake"));
    assert_eq!(
        (&brake["worker"], &brake["used"], &brake["limit"]),
        (&json!("a-1"), &json!(5 * GIB), &json!(4 * GIB))
    );
    let end = up.wait("its end", is("ended"));
    assert_eq!((&end["worker"], &end["cause"]), (&json!("a-1"), &json!("vram")));
    let death = up.deaths().pop().unwrap();
    assert_eq!((&death["cause"], &death["own"]), (&json!("vram"), &json!(true)));
    assert_eq!(
        (&death["gpu"], &death["vram_gb"], &death["vram_limit_gb"]),
        (&json!("GPU 0 (NVIDIA T)"), &json!(5.0), &json!(4.0))
    );
    // The driver still shows what the dead one held.
    let stuck = up.wait("what is stuck", is("vram-stuck"));
    assert_eq!((&stuck["worker"], &stuck["held"]), (&json!("a-1"), &json!(5 * GIB)));
    let status = up.status();
    let gpu = &status["host"]["gpus"][0];
    assert_eq!((&gpu["name"], &gpu["stuck"]), (&json!("GPU 0 (NVIDIA T)"), &json!("a-1")));
    assert_eq!((&gpu["total"], &gpu["free"]), (&json!(16 * GIB), &json!(7 * GIB)));
    let worker = up.worker("b-1");
    assert_eq!((&worker["vram"], &worker["vram_limit"]), (&json!(4 * GIB), &json!(4 * GIB)));
    let table = up.ask(&["status"]).with(0).out;
    assert!(table.contains("VRAM: 56.2%, 7 GiB of 16 GiB free, held by a-1, which is dead"), "{table}");
    let started = |up: &Up<'_>| up.events().into_iter().filter(is("started")).count();
    assert_eq!(started(&up), 2);
    world.gpus(&cards(&[(0, b, 4)]));
    up.wait("its return", |e| e["event"] == "vram-back" && e["complete"] == true);
    up.wait_start("a-1", 2);
    assert_eq!(started(&up), 3);
    up.stop();
}

#[test]
fn for_a_shortage_on_one_gpu_only_its_holders_go() {
    if !has_cgroup() {
        return;
    }
    let world = with_cards();
    let config = pools("").replacen("[pool.b]", "env = { CUDA_VISIBLE_DEVICES = \"1\" }\n[pool.b]", 1);
    let up = Up::start(&world, &config.replacen("[pool.a]", "vram_reserve = \"2GiB\"\n[pool.a]", 1));
    let (a, b) = (up.wait_start("a-1", 1), up.wait_start("b-1", 1));
    world.gpus(&cards(&[(1, a, 15), (0, b, 10)]));
    let short = up.wait("the shortage", is("vram-short"));
    assert_eq!((&short["gpu"], &short["free"]), (&json!("GPU 1 (NVIDIA T)"), &json!(GIB)));
    let end = up.wait("the end of a job", is("ended"));
    assert_eq!((&end["worker"], &end["cause"]), (&json!("a-1"), &json!("vram")));
    world.gpus(&cards(&[(0, b, 10)]));
    up.wait("enough", is("vram-enough"));
    up.wait_start("a-1", 2);
    assert!(!up.events().iter().any(|e| e["event"] == "ended" && e["worker"] == "b-1"));
    up.stop();
}

#[test]
fn a_run_with_rules_about_gpus_is_told_again_byte_for_byte() {
    let world = with_cards();
    let flags =
        ["--vram-limit", "4GiB", "--vram-reserve", "1GiB", "--grace", "300ms", "--record", "tape", "--json"];
    let run = Run::start(&world, &flags, "while :; do sleep 0.1; done");
    world.gpus(&cards(&[(0, run.pid(), 5)]));
    let done = run.end().with(137);
    let told = world.done(&mut world.oomguard(["replay", "tape", "--json"])).with(0);
    let lines =
        |text: &str| json_lines(text).into_iter().map(|line| line["event"].clone()).collect::<Vec<_>>();
    assert_eq!(lines(&told.out), lines(&done.err));
    let differs = world.done(&mut world.oomguard(["replay", "tape", "--diff"])).with(0);
    assert_eq!(differs.out, "");
    let other = world.done(&mut world.oomguard(["replay", "tape", "--json", "--vram-limit", "6GiB"])).with(0);
    assert!(!lines(&other.out).contains(&json!("vram-brake")), "{}", other.out);
}
