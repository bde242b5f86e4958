//! `oomguard install`: what it shows, what it writes, and that systemd understands it.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![expect(clippy::print_stdout, reason = "a skipped test says why")]

mod support;

use std::process::Command;

use support::{World, has};

#[test]
fn it_shows_the_unit_and_writes_it_only_when_told_to() {
    let world = World::new();
    let ask = |words: &[&str]| {
        let mut command = world.oomguard(words.iter().copied());
        world.done(command.env("XDG_CONFIG_HOME", world.project()))
    };
    let path = world.path("systemd/user/oomguard-watch.service");
    let shown = ask(&["install", "--user", "--", "--enforce", "--avoid", "name:a b"]).with(0);
    assert!(shown.out.contains(" watch --enforce --avoid \"name:a b\"\n"), "{shown:?}");
    assert!(shown.err.contains("--yes does") && !path.exists());
    let written = ask(&["install", "--user", "--yes", "--", "--enforce", "--avoid", "name:a b"]).with(0);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), shown.out);
    assert!(written.out.contains("systemctl --user enable --now oomguard-watch"), "{written:?}");
}

#[test]
fn flags_that_watch_would_refuse_are_refused_here() {
    let world = World::new();
    let done = world.done(&mut world.oomguard(["install", "--user", "--", "--enforced"])).with(125);
    assert!(done.err.contains("would not start") && done.err.contains("--enforced"), "{done:?}");
    let done = world.done(&mut world.oomguard(["install"])).with(125);
    assert!(done.err.contains("--system"), "{done:?}");
}

#[test]
fn what_is_recorded_lies_where_the_service_may_write() {
    let world = World::new();
    let ask = |words: &[&str]| world.done(&mut world.oomguard(words.iter().copied()));
    let shown = ask(&["install", "--system", "--", "--record", "/var/log/a b/watch.jsonl"]).with(0);
    assert!(shown.out.contains("ProtectSystem=strict"), "{shown:?}");
    assert!(shown.out.contains("\nReadWritePaths=\"/var/log/a b\"\n"), "{shown:?}");
    assert!(!ask(&["install", "--system"]).with(0).out.contains("ReadWritePaths"));
    let refused = ask(&["install", "--user", "--", "--record", "watch.jsonl"]).with(125);
    assert!(refused.err.contains("nowhere for a service") && refused.err.contains("hint: "), "{refused:?}");
}

#[test]
fn systemd_understands_the_unit() {
    let there = Command::new("systemd-analyze").arg("--version").output().is_ok();
    if !has("systemd", there, "there is no systemd-analyze") {
        return;
    }
    for (scope, score) in [("--system", true), ("--user", false)] {
        let world = World::new();
        let shown = world.done(&mut world.oomguard(["install", scope, "--", "--enforce"])).with(0);
        for line in
            ["Type=notify", "Delegate=yes", "OOMPolicy=continue", "WatchdogSec=30", "NoNewPrivileges=yes"]
        {
            assert!(shown.out.lines().any(|shown| shown == line), "{line}: {}", shown.out);
        }
        assert_eq!(shown.out.contains("OOMScoreAdjust=-900"), score);
        let unit = world.path("oomguard-watch.service");
        std::fs::write(&unit, &shown.out).unwrap();
        let mut analyze = world.command("systemd-analyze");
        let verdict = analyze.args([scope, "verify", "--man=no"]).arg(&unit).output().unwrap();
        let said = String::from_utf8_lossy(&verdict.stderr).into_owned();
        assert!(verdict.status.success() && !said.contains("oomguard-watch"), "{said}");
    }
}
