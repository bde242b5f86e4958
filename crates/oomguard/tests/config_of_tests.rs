//! `[test]`: what is accepted, what holds for one file, and what people read when it is wrong.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::path::Path;
use std::time::Duration;

use oomguard::amount::Amount;
use oomguard::config::test::{FileSettings, GpuFiles, Isolation, Jobs, RetryOn, Settings, load as load_from};
use oomguard::config::{self, EXAMPLE, Overrides};
use oomguard::error::Error;
use oomguard_core::Bytes;

const TOTAL: Bytes = Bytes::gib(64);

fn load_named(name: &str, text: &str) -> Result<Settings, Error> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(name), text).unwrap();
    load_from(None, dir.path(), TOTAL)
}

fn load(text: &str) -> Result<Settings, Error> {
    load_named("oomguard.toml", text)
}

fn error(text: &str) -> String {
    load(text).unwrap_err().to_string()
}

#[test]
fn nothing_said_is_nothing_set() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(load_from(None, dir.path(), TOTAL).unwrap(), Settings::default());
    let settings = load("[pool.train]\ncommand = ['x']\n").unwrap();
    assert_eq!(Settings { path: None, ..settings }, Settings::default());
}

#[test]
fn every_key_is_understood() {
    let text = "memory_limit = '25%'\nvram_limit = '2GiB'\nram_preflight = '60%'\nvram_preflight = 75\nram_target = 50\n\
        wait = '2m'\ntimeout = 90\nretries = 2\nretry_on = ['memory', 'crash', 'timeout', 'failure']\n\
        isolation = 'spawn'\njobs = 4\ncommand = ['ctest', '{file}']\npython = '.venv/bin/python'\n\
        disable_memory_limit = true\ndisable_watchdog = false\nmemory_profile = false\ngpu = 'packed'\n";
    let settings = load(&format!("[test]\n{text}")).unwrap();
    let base = settings.path.as_deref().unwrap().parent().unwrap().to_owned();
    let want = Settings {
        path: settings.path.clone(),
        memory_limit: Some(Some(Bytes::gib(16))),
        vram_limit: Some(Some(Amount::Bytes(Bytes::gib(2)))),
        ram_preflight: Some(60),
        vram_preflight: Some(75),
        ram_target: Some(50),
        wait: Some(Duration::from_secs(120)),
        timeout: Some(Some(Duration::from_secs(90))),
        retries: Some(2),
        retry_on: Some(vec![RetryOn::Memory, RetryOn::Crash, RetryOn::Timeout, RetryOn::Failure]),
        isolation: Some(Isolation::Spawn),
        jobs: Some(Jobs::Count(4)),
        command: Some(vec!["ctest".to_owned(), "{file}".to_owned()]),
        python: Some(base.join(".venv/bin/python")),
        disable_memory_limit: Some(true),
        disable_watchdog: Some(false),
        memory_profile: Some(false),
        gpu: Some(GpuFiles::Packed),
        overrides: Vec::new(),
    };
    assert_eq!(settings, want);
    let shared = load_named("pyproject.toml", &format!("[tool.oomguard.test]\n{text}")).unwrap();
    assert_eq!(shared.memory_limit, want.memory_limit);
    let off = load(
        "[test]\nmemory_limit = 'none'\nvram_limit = 'none'\ntimeout = 'none'\njobs = 'auto'\npython = 'python3.12'\n",
    );
    let off = off.unwrap();
    assert_eq!((off.memory_limit, off.vram_limit, off.timeout), (Some(None), Some(None), Some(None)));
    assert_eq!((off.jobs, off.python.as_deref()), (Some(Jobs::Auto), Some(Path::new("python3.12"))));
}

#[test]
fn the_last_override_that_matches_wins_key_by_key() {
    let settings = load(
        "[test]\nmemory_limit = '4GiB'\nisolation = 'fork'\n\
         [[test.override]]\nfilter = 'tests/gpu/**'\nmemory_limit = '8GiB'\nserial = true\nenv = { A = '1', B = 1 }\n\
         [[test.override]]\nfilter = '**/test_big*.py'\nmemory_limit = 'none'\nvram_limit = '50%'\ntimeout = '1m'\nenv = { B = 2 }\n\
         [[test.override]]\nfilter = '*.py'\nisolation = 'spawn'\n",
    )
    .unwrap();
    let of = |path: &str| settings.of(Path::new(path));
    let plain = FileSettings {
        memory_limit: Some(Some(Bytes::gib(4))),
        isolation: Some(Isolation::Fork),
        ..FileSettings::default()
    };
    assert_eq!(of("tests/test_a.py"), plain);
    assert_eq!(of("test_a.py"), FileSettings { isolation: Some(Isolation::Spawn), ..plain.clone() });
    let gpu = of("tests/gpu/deep/test_a.py");
    assert_eq!((gpu.memory_limit, gpu.serial, gpu.timeout), (Some(Some(Bytes::gib(8))), Some(true), None));
    let big = of("tests/gpu/test_big_one.py");
    assert_eq!(
        (big.memory_limit, big.serial, big.isolation),
        (Some(None), Some(true), Some(Isolation::Fork))
    );
    assert_eq!(
        (big.vram_limit, big.timeout),
        (Some(Some(Amount::Percent(50))), Some(Some(Duration::from_secs(60))))
    );
    assert_eq!(
        big.env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
        ["A=1", "B=2"]
    );
}

#[test]
fn what_is_wrong_is_pointed_at() {
    assert_eq!(
        error("[test]\nmemory_limt = '8GiB'\n"),
        "error: unknown key `memory_limt` in `[test]`\n --> oomguard.toml:2:1\n  |\n2 | memory_limt = '8GiB'\n  | ^^^^^^^^^^^\n\
         hint: did you mean `memory_limit`?"
    );
    for (line, says) in [
        ("ram_preflight = '101%'", "`101%` is not a share from 0% to 100%"),
        ("ram_target = 0.5", "wrong type of `ram_target`"),
        ("vram_limit = '1KiB'", "too small for a limit"),
        ("timeout = 0", "it is zero"),
        ("jobs = 0", "neither `auto` nor between 1 and 512"),
        ("retry_on = 'crash'", "a list of strings is needed"),
        ("retry_on = ['oom']", "`oom` is not known (known: `memory`, `crash`, `timeout`, `failure`)"),
        ("isolation = 'thread'", "`thread` is not known"),
        ("disable_watchdog = 'yes'", "true or false is needed"),
        ("override = 1", "a list of tables is needed"),
        ("[[test.override]]\nserial = true", "`[[test.override]]` has no `filter`"),
        ("[[test.override]]\nfilter = 'a**'", "wrong value of `filter`"),
        ("[[test.override]]\nfilter = '*'\nretries = 1", "unknown key `retries` in `[[test.override]]`"),
        ("[[test.override]]\nfilter = '*'\nenv = 'A=1'", "wrong type of `env`"),
    ] {
        let error = error(&format!("[test]\n{line}\n"));
        assert!(error.contains(says) && error.contains("--> oomguard.toml:"), "{line}: {error}");
    }
}

#[test]
fn a_project_that_only_tests_has_no_pools() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("pyproject.toml"), "[tool.oomguard.test]\nretries = 1\n").unwrap();
    let config = config::load(None, dir.path(), &Overrides::default(), TOTAL).unwrap();
    assert!(config.need_pools().unwrap_err().message.ends_with("has no pool of workers"));
    assert_eq!(load_from(None, dir.path(), TOTAL).unwrap().retries, Some(1));
}

/// The example only mentions it: each line of it is a comment, and without the marks it is understood.
#[test]
fn the_example_of_tests_can_be_switched_on() {
    let (_, section) = EXAMPLE.split_once("# [test]\n").unwrap();
    let is_prose = |line: &&str| !line.starts_with("# [") && !line.contains(" = ");
    assert!(section.lines().all(|line| line.starts_with("# ")));
    let lines = section.lines().filter(|line| !is_prose(line)).map(|line| line.trim_start_matches("# "));
    let settings = load(&format!("[test]\n{}", lines.collect::<Vec<_>>().join("\n"))).unwrap();
    assert_eq!((settings.ram_target, settings.gpu), (Some(70), Some(GpuFiles::Serial)));
    assert_eq!(settings.of(Path::new("tests/gpu/test_a.py")).serial, Some(true));
}
