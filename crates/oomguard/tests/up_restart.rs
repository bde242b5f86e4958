//! What `oomguard up` starts again and what it gives up: stopped by name, not to be started, failing under two guards.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![expect(clippy::print_stdout, reason = "a skipped test says why")]

mod support;

use serde_json::Value;
use support::up::{MEMORY, Up, configure};
use support::{PATIENCE, World, lives, text, wait_until};

const IDLE: &str = "[pool.w]\ncommand = [\"{hog}\", \"hold\", \"1\"]\ncount = 2\nmemory_limit = \"100MiB\"\ngrace = \"1s\"\n";

fn is(kind: &str) -> impl Fn(&Value) -> bool {
    move |event| event["event"] == kind
}

#[test]
fn what_was_stopped_by_name_is_started_again_by_name() {
    let world = World::new();
    let up = Up::start(&world, IDLE);
    let first = up.wait_start("worker-1", 1);
    up.wait_start("worker-2", 1);
    // `stop` of the command line ends everything; one worker is stopped over the socket.
    let ask = |request: &str| {
        use std::io::{BufRead, Write};
        let socket = text(
            &std::fs::read_dir(world.state().join("oomguard"))
                .unwrap()
                .next()
                .unwrap()
                .unwrap()
                .path()
                .join("lock"),
        );
        let mut stream = std::os::unix::net::UnixStream::connect(socket.lines().nth(1).unwrap()).unwrap();
        stream.write_all(format!("{request}\n").as_bytes()).unwrap();
        let mut line = String::new();
        std::io::BufReader::new(stream).read_line(&mut line).unwrap();
        serde_json::from_str::<Value>(&line).unwrap()
    };
    assert_eq!(ask(r#"{"do":"stop","worker":"worker-1"}"#)["stopping"], serde_json::json!(["worker-1"]));
    wait_until(PATIENCE, "it has ended", || up.worker("worker-1")["phase"] == "done" && !lives(first));
    let all = up.ask(&["restart"]).with(0);
    assert_eq!(all.out, "restarting: worker-2\n", "it was stopped on purpose");
    up.wait_start("worker-2", 2);
    assert_eq!(up.worker("worker-1")["phase"], "done");
    assert_eq!(up.ask(&["restart", "worker-1"]).with(0).out, "restarting: worker-1\n");
    up.wait_start("worker-1", 2);
    up.stop();
}

#[test]
fn a_program_that_is_not_there_is_given_up_at_once_and_says_why() {
    let world = World::new();
    let nothing = IDLE
        .replace("\"{hog}\", \"hold\", \"1\"", "\"{dir}/trian.py\"")
        .replace("w]", "x]")
        .replace("= 2", "= 1");
    let up = Up::start(&world, &format!("{IDLE}{nothing}"));
    let parked = up.wait("it is parked", is("parked"));
    assert_eq!((&parked["worker"], &parked["parked"]), (&"x-1".into(), &"cannot-start".into()), "{parked}");
    assert_eq!(up.events().iter().filter(|event| is("start-error")(event)).count(), 1);
    let said = text(&world.path("logs/watchdog.log"));
    assert!(
        said.contains("trian.py` was not found") && said.contains("parked: it cannot be started"),
        "{said}"
    );
    std::fs::copy(world.hog(), world.path("trian.py")).unwrap();
    up.ask(&["restart", "x-1"]).with(0);
    wait_until(PATIENCE, "it is started", || {
        up.events().iter().filter(|event| is("ended")(event)).count() > 1
    });
    assert_eq!(up.stop(), Some(1));
}

#[test]
fn failures_are_counted_on_by_the_next_guard() {
    let world = World::new();
    let fails = IDLE.replace("\"hold\", \"1\"", "\"exit\", \"3\"").replace("= 2", "= 1");
    let up = Up::start(&world, &fails);
    let second = |event: &Value| event["event"] == "waiting" && event["failures"] == 2;
    up.wait("it has failed twice", second);
    up.kill();
    let up = Up::again(&world);
    let third =
        up.wait("it has failed a third time", |event| event["event"] == "waiting" && event["failures"] == 3);
    assert!(third["delay_s"].as_f64().unwrap() >= 4.0, "the pause goes on from there: {third}");
    up.stop();
}

#[test]
fn a_reload_says_what_only_the_next_guard_follows() {
    let world = World::new();
    let up = Up::start(&world, IDLE);
    up.wait_start("worker-2", 1);
    configure(
        &world,
        &format!(
            "{MEMORY}require = \"rlimit\"
[log]
dir = \"other\"
{}",
            IDLE.replace("1s", "2s")
        ),
    );
    for _ in 0..2 {
        let said = up.ask(&["reload"]).with(0).out;
        let later: Vec<&str> =
            said.lines().filter(|line| line.contains("when `oomguard up` is started again")).collect();
        assert_eq!(later.len(), 2, "{said}");
        assert!(
            later[0].contains("memory: require none -> rlimit") && later[1].contains("log: dir "),
            "{said}"
        );
    }
    up.ask(&["restart", "worker-1"]).with(0);
    up.wait_start("worker-1", 2);
    assert!(!world.path("other").exists());
    up.stop();
}
