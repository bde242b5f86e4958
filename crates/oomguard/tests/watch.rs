//! `oomguard watch` on real processes in a cgroup of 512 MiB, which is all the machine that it sees.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![expect(clippy::print_stdout, reason = "a skipped test says why")]

mod support;

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Child;

use oomguard_sys::process::{Process, Signal};
use serde_json::Value;
use support::{
    PATIENCE, World, end_of, has_cgroup, has_root, lives, pid_in, signal, text, wait_for, wait_until,
};

/// A large old process, the guard, and, once that is ready, what the test is about.
struct Scene {
    world: World,
    run: Child,
}

impl Scene {
    fn new(flags: &str, then: &str) -> Scene {
        let world = World::new();
        let only = format!("--only 'cgroup:*{}*'", world.cgroup_parent());
        Scene::of(world, &format!("{flags} {only}"), then)
    }

    fn of(world: World, flags: &str, then: &str) -> Scene {
        let script = format!(
            "hog={hog}
            $hog hold 240 & echo $! > steady
            until [ \"$(sed -n 's/VmRSS:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/$!/status)\" -gt 240000 ]; do :; done
            {guard} watch {flags} --json --reserve 25% 2> events & echo $! > guard
            until grep -qs '\"armed\"' events; do :; done
            {then} & echo $! > other
            wait $(cat guard)",
            hog = world.hog(),
            guard = env!("CARGO_BIN_EXE_oomguard"),
        );
        let words = [
            "run",
            "--memory-limit",
            "512MiB",
            "--reserve",
            "64MiB",
            "--grace",
            "1s",
            "--",
            "sh",
            "-c",
            &script,
        ];
        let run = world.oomguard(words).spawn().unwrap();
        Scene { world, run }
    }

    fn events(&self) -> Vec<Value> {
        let written = text(&self.world.path("events"));
        let whole = written.rfind('\n').map_or("", |end| &written[..end]);
        support::json_lines(whole)
    }

    /// The first event of this kind.
    fn event(&self, kind: &str) -> Value {
        wait_for(PATIENCE, kind, || self.events().into_iter().find(|event| event["event"] == kind))
    }

    fn has(&self, kind: &str) -> bool {
        self.events().iter().any(|event| event["event"] == kind)
    }

    fn pid(&self, file: &str) -> u32 {
        pid_in(&self.world.path(file))
    }

    /// Asks the guard to end, and leaves nothing behind.
    fn end(mut self) {
        signal(&self.run, Signal::TERM);
        end_of(&mut self.run);
        self.world.must_be_empty();
    }
}

#[test]
fn a_dry_run_names_the_family_that_grew_and_touches_nobody() {
    if !has_cgroup() {
        return;
    }
    let scene = Scene::new("", "$hog forks 6 30");
    let chosen = scene.event("chosen");
    assert_eq!(chosen["pid"], scene.pid("other"), "{chosen}");
    assert_eq!((&chosen["enforced"], &chosen["reason"]), (&Value::Bool(false), &"fastest-growth".into()));
    assert!(chosen["processes"].as_u64() > Some(1), "{chosen}");
    assert!(chosen["cgroup"].as_str().unwrap().contains(&scene.world.cgroup_parent()), "{chosen}");
    assert!(lives(scene.pid("other")) && lives(scene.pid("steady")));
    assert!(!scene.has("terminate") && !scene.has("kill"));
    scene.end();
}

#[test]
fn a_recorded_watch_is_told_byte_for_byte() {
    if !has_cgroup() {
        return;
    }
    let scene = Scene::new("--enforce --grace 1s --record tape", "$hog forks 6 30");
    scene.event("memory-back");
    let guard = Process::open(scene.pid("guard")).unwrap();
    guard.signal(Signal::TERM).unwrap();
    wait_until(PATIENCE, "the guard is gone", || !guard.is_alive());
    let replay =
        |words: &[&str]| scene.world.done(&mut scene.world.oomguard([&["replay", "tape"], words].concat()));
    let live = text(&scene.world.path("events"));
    assert!(scene.has("chosen") && scene.has("kill") | scene.has("terminate"), "{live}");
    assert_eq!(replay(&["--json"]).with(0).out, live);
    assert_eq!(replay(&["--diff"]).with(0).out, "");
    // With next to no reserve it would have let them be.
    let other = replay(&["--reserve", "1MiB", "--diff", "--json"]).with(1).out;
    assert!(other.contains("- {") && !other.contains("+ {\"available\":0"), "{other}");
    scene.end();
}

#[test]
fn enforced_the_whole_family_goes_and_the_large_old_one_stays() {
    if !has_cgroup() {
        return;
    }
    let scene = Scene::new("--enforce", "$hog forks 6 30");
    let other = scene.pid("other");
    let back = scene.event("memory-back");
    assert_eq!(back["complete"], true, "{:?}", scene.events());
    assert_eq!(scene.event("chosen")["pid"], other);
    assert!(!lives(other) && lives(scene.pid("steady")));
    let chosen = scene.events().iter().filter(|event| event["event"] == "chosen").count();
    assert_eq!(chosen, 1, "one shortage, one victim: {:?}", scene.events());
    // The steady one, the guard, two shells at most and the guard of the guard: no child of the other is left.
    let hogs = scene
        .world
        .processes()
        .iter()
        .filter(|p| text(Path::new(&format!("/proc/{}/comm", p.pid()))) == "hog\n")
        .count();
    assert_eq!(hogs, 1);
    scene.end();
}

#[test]
fn who_ignores_sigterm_is_killed_when_the_grace_is_over() {
    if !has_cgroup() {
        return;
    }
    let scene = Scene::new("--enforce --grace 300ms", "sh -c \"trap '' TERM; $hog grow 60 160; exit\"");
    let kill = scene.event("kill");
    // On a machine that is busy with other things the growth may leave no time for SIGTERM.
    assert_eq!(kill["after_grace"], scene.has("terminate"), "{:?}", scene.events());
    assert_eq!(scene.event("memory-back")["complete"], true);
    assert!(!lives(scene.pid("other")) && lives(scene.pid("steady")));
    scene.end();
}

#[test]
fn what_is_avoided_stays_and_what_is_preferred_goes() {
    if !has_cgroup() {
        return;
    }
    let scene = Scene::new("--enforce --avoid name:sh", "sh -c '$0 hold 180; exit' $hog");
    assert_eq!(scene.event("chosen")["pid"], scene.pid("steady"), "{:?}", scene.events());
    assert_eq!(scene.event("memory-back")["complete"], true);
    assert!(lives(scene.pid("other")));
    scene.end();
}

/// A dry run, so that nobody is ended where this goes wrong.
#[test]
fn who_is_not_under_the_limit_that_is_short_is_nobodys_victim() {
    if !has_cgroup() {
        return;
    }
    let world = World::new();
    let mut stranger = world.command(world.hog()).args(["hold", "300"]).spawn().unwrap();
    // Everybody outside would be ended before those inside.
    let avoid = format!("--avoid 'cgroup:*{}*'", world.cgroup_parent());
    let scene = Scene::of(world, &avoid, "$hog forks 6 30");
    let chosen = scene.event("chosen");
    assert!(chosen["cgroup"].as_str().unwrap().contains(&scene.world.cgroup_parent()), "{chosen}");
    let armed = scene.event("armed")["notes"].to_string();
    assert!(armed.contains("only what is in it can be ended"), "{armed}");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    scene.end();
}

#[test]
fn without_rights_only_our_own_processes_can_go() {
    if !has_root() {
        return;
    }
    let world = World::of_nobody();
    let said = world.path("said");
    let mut guard = world.oomguard(["watch", "--json", "--reserve", "99%", "--warning", "99%"]);
    let mut guard = guard.stderr(std::fs::File::create(&said).unwrap()).spawn().unwrap();
    wait_until(PATIENCE, "no victim", || text(&said).contains("\"no-victim\""));
    assert!(text(&said).contains("only processes of this user"));
    signal(&guard, Signal::INT);
    assert_eq!(end_of(&mut guard).code(), Some(0));
}

#[test]
fn a_service_manager_hears_that_it_is_ready_alive_and_ending() {
    let world = World::new();
    let path = world.path("manager");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut space = [0; 64];
        let length = manager.recv(&mut space).unwrap();
        String::from_utf8_lossy(&space[..length]).into_owned()
    };
    let mut guard = world.oomguard(["watch", "--only", "user:4294967294"]);
    guard.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "1000000");
    let mut guard = guard.spawn().unwrap();
    assert_eq!([hear(), hear(), hear()], ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]);
    signal(&guard, Signal::TERM);
    while hear() != "STOPPING=1" {}
    assert_eq!(end_of(&mut guard).code(), Some(0));
}

#[test]
fn it_ends_with_its_terminal_but_for_nohup() {
    let world = World::new();
    let said = world.path("said");
    for (trap, end) in [("", "(SIGHUP)"), ("trap '' HUP;", "(SIGTERM)")] {
        let script = format!("{trap} exec \"$0\" watch --only user:4294967294");
        let mut guard = world.command("sh");
        guard.args(["-c", &script, env!("CARGO_BIN_EXE_oomguard")]);
        let mut guard = guard.stderr(std::fs::File::create(&said).unwrap()).spawn().unwrap();
        wait_until(PATIENCE, "armed", || text(&said).contains("armed"));
        signal(&guard, Signal::HUP);
        if !trap.is_empty() {
            signal(&guard, Signal::TERM);
        }
        assert_eq!(end_of(&mut guard).code(), Some(0));
        assert!(text(&said).contains(end), "{}", text(&said));
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_a_remedy() {
    let world = World::new();
    let done = world.done(&mut world.oomguard(["watch", "--reserve", "2GiB", "--warning", "1GiB"])).with(125);
    assert!(done.err.contains("--warning `1 GiB` is below --reserve `2 GiB`\nhint: "), "{done:?}");
    let done = world.done(&mut world.oomguard(["watch", "--reserve", "100%"])).with(125);
    assert!(done.err.contains("is all the memory there is"), "{done:?}");
    let done = world.done(&mut world.oomguard(["watch", "--avoid", "user:nobody-at-all"])).with(125);
    assert!(done.err.contains("there is no user `nobody-at-all`"), "{done:?}");
}
