//! What a hostile worker, a hostile repository and another user try: real links, names, sockets, floods and disks.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![expect(clippy::print_stdout, reason = "a skipped test says why")]

mod support;

use std::os::unix::fs::{MetadataExt as _, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::up::{MEMORY, Up, configure};
use support::{PATIENCE, World, has, has_cgroup, has_root, json_lines, lives, text, wait_for, wait_until};

const STRANGER: u32 = 12_345;
const IDLE: &str = "[pool.w]\ncommand = [\"{hog}\", \"hold\", \"1\"]\ncount = 2\nmemory_limit = \"100MiB\"\ngrace = \"1s\"\n";

/// What a terminal would do something with.
fn acts(text: &str) -> bool {
    text.chars().any(|letter| letter.is_control() && letter != '\n')
}

#[test]
fn a_program_cannot_speak_to_the_terminal_by_its_name() {
    if !has_root() {
        return;
    }
    // Without a cgroup it is the guard that reads the name, and not the kernel's log.
    for world in [World::of_nobody(), World::new()] {
        // The kernel shows 15 bytes of it.
        let evil = world.path("x\u{1b}[2J\nok: \u{9b}1m");
        std::fs::copy(world.hog(), &evil).unwrap();
        let evil = evil.to_str().unwrap();
        let killed = world.run(&["-m", "20MiB", "--best-effort"], &[evil, "hold", "60"]).with(137);
        assert!(killed.err.contains("largest process: x\\") && !acts(&killed.err), "{killed:?}");
        assert_eq!(killed.err.trim_end().lines().count(), 1, "{killed:?}");
        let missing = world.run(&[], &[&format!("{evil}\u{7}")]).with(127);
        assert!(missing.err.contains("\\u{7}") && !acts(&missing.err), "{missing:?}");
        let told = world.run(&["-m", "20MiB", "--best-effort", "--json"], &[evil, "hold", "60"]).with(137);
        assert!(!acts(&told.err) && !json_lines(&told.err).is_empty(), "{told:?}");
    }
}

#[test]
fn a_configuration_that_is_wrong_cannot_speak_to_the_terminal() {
    let world = World::new();
    std::fs::write(world.path("oomguard.toml"), "[pool.w]\nx\u{1b}]0;owned\u{7} = \"\u{9b}2J\"\n").unwrap();
    let done = world.done(&mut world.oomguard(["up"])).with(125);
    assert!(done.err.contains("oomguard.toml:2") && !acts(&done.err), "{done:?}");
}

#[test]
fn a_line_that_cannot_be_told_ends_nothing() {
    if !has_cgroup() {
        return;
    }
    let world = World::new();
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for (words, code) in [
        (vec!["run", "-m", "20MiB", "--", "HOG", "spike", "60"], 137),
        (vec!["run", "--", "/no/such/program"], 127),
        (vec!["check", "--min-available", "100TiB"], 75),
        (vec!["up", "-c", "/no/such/file"], 125),
        (vec!["doctor", "--json"], 0),
    ] {
        let hog = world.hog();
        let words = words.into_iter().map(|word| if word == "HOG" { hog.as_str() } else { word });
        let mut command = world.oomguard(words);
        let ended = command.stdout(full()).stderr(full()).status().unwrap();
        assert_eq!(ended.code(), Some(code), "{command:?}");
    }
}

#[test]
fn a_configuration_from_above_is_not_a_strangers() {
    if !has_root() {
        return;
    }
    let world = World::new();
    configure(&world, &format!("{MEMORY}{IDLE}"));
    let (above, below) = (world.path("oomguard.toml"), world.path("below"));
    std::fs::create_dir(&below).unwrap();
    chown(&above, Some(STRANGER), None).unwrap();
    let ask =
        |words: &[&str]| world.done(world.oomguard(words.iter().copied()).current_dir(&below)).with(125);
    for words in [&["up"][..], &["status"]] {
        let refused = ask(words);
        assert!(refused.err.contains("belongs to user 12345, and says what is run"), "{refused:?}");
        assert!(refused.err.contains("hint: if you trust it, name it: `-c FILE`"), "{refused:?}");
    }
    // Named, or in the folder where one works, or the folder is that user's own: as with a Makefile.
    let trusted = ask(&["status", "-c", "../oomguard.toml"]);
    assert!(trusted.err.contains("no guard"), "{trusted:?}");
    assert!(world.done(&mut world.oomguard(["status"])).err.contains("no guard"));
    chown(&below, Some(STRANGER), None).unwrap();
    assert!(ask(&["status"]).err.contains("no guard"));
}

#[test]
fn nothing_of_a_guard_goes_through_a_strangers_link() {
    if !has_root() {
        return;
    }
    let world = World::new();
    let (real, link) = (world.path("real"), world.path("link"));
    std::fs::create_dir(&real).unwrap();
    symlink(&real, &link).unwrap();
    lchown(&link, Some(STRANGER), None).unwrap();
    let link_of = format!("`{}` is a link of user {STRANGER}", link.display());
    let refuses = |words: &[&str]| {
        let done = world.done(&mut world.oomguard(words.iter().copied())).with(125);
        assert!(done.err.contains(&link_of), "{done:?}");
    };
    refuses(&["run", "--report", "link/report.json", "--", "true"]);
    configure(&world, &format!("[log]\ndir = \"link/logs\"\n{MEMORY}{IDLE}"));
    refuses(&["up"]);
    configure(&world, &format!("state_dir = \"link/state\"\n{MEMORY}{IDLE}"));
    refuses(&["up"]);
    configure(&world, &format!("{MEMORY}{IDLE}"));
    std::fs::rename(world.path("oomguard.toml"), real.join("oomguard.toml")).unwrap();
    refuses(&["up", "-c", "link/oomguard.toml"]);
    assert_eq!(std::fs::read_dir(&real).unwrap().count(), 1, "nothing was made behind it");
    world.must_be_empty();
}

#[test]
fn another_users_runtime_folder_in_the_environment_is_passed_over() {
    if !has_root() {
        return;
    }
    // `su` keeps XDG_RUNTIME_DIR: root's pages and sockets would lie where that user can swap them.
    let world = World::new();
    let theirs = world.project().parent().unwrap().join("run");
    chown(&theirs, Some(STRANGER), None).unwrap();
    let asked = world.run(&[], &["sh", "-c", "echo $NOTIFY_SOCKET"]).with(0);
    assert!(asked.out.starts_with("/run/oomguard/"), "{asked:?}");
    assert_eq!(std::fs::read_dir(&theirs).unwrap().count(), 0);
}

#[test]
fn a_service_of_root_is_not_anybodys_to_change() {
    if !has_root() {
        return;
    }
    let world = World::new();
    let program = world.path("oomguard");
    std::fs::copy(env!("CARGO_BIN_EXE_oomguard"), &program).unwrap();
    // A test that fails must not write a unit either: without --yes it only says what it would do.
    let shown = |world: &World| world.done(world.command(&program).args(["install", "--system"])).with(0);
    assert!(!shown(&world).err.contains("would refuse"));
    chown(&program, Some(STRANGER), None).unwrap();
    let said = shown(&world);
    let want = format!("--yes would refuse: `{}` must not run as a service of root", program.display());
    assert!(said.err.contains(&want) && said.err.contains("belongs to user 12345"), "{said:?}");
    let user = world.done(world.command(&program).args(["install", "--user"])).with(0);
    assert!(!user.err.contains("would refuse"), "one's own service is one's own: {user:?}");
}

#[test]
fn a_child_has_nothing_of_the_guards() {
    let world = World::new();
    let script = "ls /proc/$$/fd; ulimit -a; (chrt -p $$ | cut -d: -f2) 2>/dev/null; echo end";
    let mut alone = world.command("sh");
    let alone = world.done(alone.args(["-c", script]).stdin(std::process::Stdio::null())).with(0);
    let run = world.run(&["-m", "64MiB", "--best-effort"], &["sh", "-c", script]).with(0);
    // Where no cgroup holds it, its data is limited: that is said by `run` itself.
    let rest = |out: &str| {
        let lines = out.lines().filter(|line| !line.starts_with("data("));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    assert_eq!(rest(&run.out), rest(&alone.out), "descriptors, limits, scheduling");
    let command = format!("\"sh\", \"-c\", '{script}; exec {} hold 1'", world.hog());
    let up = Up::start(&world, &IDLE.replace("\"{hog}\", \"hold\", \"1\"", &command));
    let log = world.path("logs/worker-1.log");
    wait_until(PATIENCE, "the worker has listed what it has", || text(&log).ends_with("\nend\n"));
    assert!(rest(&text(&log)).ends_with(&rest(&alone.out)), "{}\n{}", text(&log), alone.out);
    up.stop();
}

#[test]
fn a_worker_that_never_stops_talking_is_heard_in_parts() {
    let world = World::new();
    let config = IDLE.replace("\"hold\", \"1\"", "\"flood\", \"STATUS=x\"");
    let up = Up::start(&world, &config);
    up.wait("the flood has begun", |event| event["event"] == "worker-status");
    let ticks = || {
        let stat = text(Path::new(&format!("/proc/{}/stat", up.child.id())));
        let fields: Vec<u64> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        // utime and stime, in hundredths of a second: the state is a letter.
        fields[10] + fields[11]
    };
    let (before, begun) = (ticks(), std::time::Instant::now());
    // It answers all the while.
    wait_until(PATIENCE, "some time of it", || {
        assert_eq!(up.worker("worker-1")["phase"], "running");
        begun.elapsed() > Duration::from_secs(3)
    });
    let share = (ticks() - before) as f64 / 100.0 / begun.elapsed().as_secs_f64();
    println!("the guard used {share:.2} of a core");
    assert!(share < 0.1, "the guard does little but listen: {share:.2} of a core");
    up.stop();
}

/// A small disk, gone with it.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Option<Disk> {
        std::fs::create_dir_all(at).unwrap();
        let root = rustix::process::geteuid().is_root();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=256k,mode=755", "tmpfs"]).arg(at);
        let mounted = root && mount.status().unwrap().success();
        has("mount", mounted, "no right to mount a small disk").then(|| Disk(at.to_owned()))
    }

    fn fill(&self) {
        let mut filler = std::fs::File::create(self.0.join("filler")).unwrap();
        while std::io::Write::write_all(&mut filler, &[0; 512]).is_ok() {}
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn about<'e>(events: &'e [Value], kind: &str, file: &str) -> Vec<&'e Value> {
    let of = |event: &&Value| event["event"] == kind && event["path"].as_str().unwrap_or("").ends_with(file);
    events.iter().filter(of).collect()
}

#[test]
fn state_on_a_full_disk_or_moved_away_is_said_once_and_written_when_there_is_room() {
    let world = World::new();
    let Some(disk) = Disk::mount(&world.path("disk")) else { return };
    let config = format!("state_dir = \"disk/state\"\n{MEMORY}{IDLE}");
    configure(&world, &config);
    let up = Up::again(&world);
    up.wait_start("worker-2", 1);
    let (state, aside) = (world.path("disk/state"), world.path("disk/aside"));
    for (round, full) in [true, false].into_iter().enumerate() {
        if full {
            disk.fill()
        } else {
            std::fs::rename(&state, &aside).unwrap()
        }
        let attempt = 2 * round as u64 + 2;
        up.ask(&["restart"]).with(0);
        up.wait_start("worker-1", attempt);
        up.wait_start("worker-2", attempt);
        if full {
            disk.empty()
        } else {
            std::fs::rename(&aside, &state).unwrap()
        }
        up.ask(&["restart", "worker-1"]).with(0);
        up.wait_start("worker-1", attempt + 1);
        up.ask(&["restart", "worker-2"]).with(0);
        up.wait_start("worker-2", attempt + 1);
        let resumed = |events: &[Value]| about(events, "sink-resumed", "state.json").len();
        wait_until(PATIENCE, "the state is written again", || resumed(&up.events()) == round + 1);
        let events = up.events();
        for file in ["state.json", "deaths.jsonl"] {
            assert!(about(&events, "sink-failed", file).len() <= round + 1, "said once: {events:?}");
        }
        assert_eq!(about(&events, "sink-failed", "state.json").len(), round + 1, "{events:?}");
    }
    // Nobody's death is missing, and no line is torn.
    let deaths = wait_for(PATIENCE, "every death is written down", || {
        let deaths = json_lines(&text(&world.path("disk/state/deaths.jsonl")));
        (deaths.len() == 8).then_some(deaths)
    });
    let jobs = |worker: &str| deaths.iter().filter(|d| d["job"].as_str().unwrap().contains(worker)).count();
    assert_eq!((jobs("worker-1#"), jobs("worker-2#")), (4, 4));
    up.stop();
    drop(disk);
}

#[test]
fn folders_that_are_removed_while_it_runs_stop_nothing() {
    let world = World::new();
    let up = Up::start(&world, IDLE);
    up.wait_start("worker-2", 1);
    let pids = |up: &Up| {
        up.status()["workers"].as_array().unwrap().iter().map(|w| w["pid"].clone()).collect::<Vec<_>>()
    };
    let before = pids(&up);
    std::fs::remove_dir_all(world.path("logs")).unwrap();
    std::fs::remove_dir_all(world.state().join("oomguard")).unwrap();
    up.ask(&["restart", "worker-1"]).with(0);
    let started = up.wait_start("worker-1", 2);
    assert!(lives(started) && pids(&up)[1] == before[1]);
    up.wait("the log is begun anew", |event| event["event"] == "sink-resumed");
    let said = text(&world.path("up.stderr"));
    for file in ["state.json", "watchdog.log"] {
        let lines =
            said.lines().filter(|line| line.contains("Could not write") && line.contains(file)).count();
        assert_eq!(lines, 1, "{said}");
    }
    assert!(text(&world.path("logs/worker-1.log")).contains("worker-1 attempt 2 started"));
    up.stop();
}

#[test]
fn a_worker_whose_log_cannot_be_opened_runs_without_one() {
    let world = World::new();
    std::fs::create_dir_all(world.path("logs/worker-1.log")).unwrap();
    let up = Up::start(&world, IDLE);
    let failed = up.wait("it is said", |event| event["event"] == "sink-failed");
    assert!(failed["path"].as_str().unwrap().ends_with("worker-1.log"), "{failed}");
    assert!(lives(up.wait_start("worker-1", 1)));
    std::fs::remove_dir(world.path("logs/worker-1.log")).unwrap();
    up.ask(&["restart", "worker-1"]).with(0);
    up.wait_start("worker-1", 2);
    up.wait("and that it can be written again", |event| event["event"] == "sink-resumed");
    assert!(text(&world.path("logs/worker-1.log")).contains("attempt 2 started"));
    up.stop();
}

#[test]
fn a_report_that_finds_no_room_costs_the_report_and_not_the_exit_code() {
    let world = World::new();
    let Some(disk) = Disk::mount(&world.path("disk")) else { return };
    let fill = format!("while printf %512s >> {0}/filler; do :; done 2>/dev/null; exit 3", disk.0.display());
    let done = world.run(&["--report", "disk/report.json"], &["sh", "-c", &fill]).with(3);
    assert!(done.err.contains("could not write the report `disk/report.json`: no space left"), "{done:?}");
    assert!(!world.path("disk/report.json").exists());
    let left = std::fs::read_dir(&disk.0).unwrap().count();
    assert_eq!(left, 1, "half a report is left behind");
    world.must_be_empty();
}

#[test]
fn watch_goes_on_where_nobody_can_be_told() {
    let world = World::new();
    let Some(disk) = Disk::mount(&world.path("disk")) else { return };
    disk.fill();
    let said = disk.0.join("said");
    // An empty file needs no room; its first line does.
    let mut guard = world.oomguard(["watch", "--json", "--only", "user:4294967294", "--reserve", "99%"]);
    let manager = std::os::unix::net::UnixDatagram::bind(world.path("manager")).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    guard.env("NOTIFY_SOCKET", world.path("manager")).env("WATCHDOG_USEC", "200000");
    let mut guard = guard.stderr(std::fs::File::create(&said).unwrap()).spawn().unwrap();
    let hear = || manager.recv(&mut [0; 64]).unwrap();
    for _ in 0..5 {
        hear();
    }
    assert_eq!(std::fs::metadata(&said).unwrap().size(), 0, "the disk was full");
    disk.empty();
    support::signal(&guard, oomguard_sys::process::Signal::TERM);
    assert_eq!(support::end_of(&mut guard).code(), Some(0));
    let told = json_lines(&text(&said));
    assert_eq!(told[0]["event"], "armed", "what was kept is told when there is room: {told:?}");
    assert!(told.last().unwrap()["text"].as_str().unwrap().contains("the watch is over"), "{told:?}");
}
