//! The configuration: what is accepted, what it means without being said, and what people read when it is wrong.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::path::Path;
use std::time::Duration;

use oomguard::amount::Amount;
use oomguard::config::{self, Config, EXAMPLE, Malloc, OnLimit, Overrides, Restart};
use oomguard::error::Error;
use oomguard_core::{Bytes, Enforcement};

const TOTAL: Bytes = Bytes::gib(64);

fn load_named(name: &str, text: &str) -> Result<Config, Error> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(name), text).unwrap();
    config::load(None, dir.path(), &Overrides::default(), TOTAL)
}

fn load(text: &str) -> Result<Config, Error> {
    load_named("oomguard.toml", text)
}

fn error(text: &str) -> String {
    load(text).unwrap_err().to_string()
}

/// A pool with this line in it.
fn pool_error(line: &str) -> String {
    error(&format!("[pool.train]\ncommand = [\"python\"]\n{line}\n"))
}

#[test]
fn a_pool_needs_no_more_than_a_command() {
    let config = load("[pool.train]\ncommand = ['python', 'train.py']\n").unwrap();
    let pool = &config.pools[0];
    assert_eq!(pool.command, ["python", "train.py"]);
    assert_eq!(
        (pool.count, pool.memory_limit, pool.max_age),
        (2, Some(Bytes::gib(8)), Some(Duration::from_secs(3600)))
    );
    assert_eq!((pool.grace, pool.prune_patience), (Duration::from_secs(120), Duration::from_secs(5)));
    assert_eq!((pool.timeout, pool.on_limit, pool.restart), (None, OnLimit::Job, Restart::OnFailure));
    assert_eq!(pool.cwd, config.base);
    assert_eq!((config.memory.reserve, config.memory.warning), (Bytes::gib(2), Bytes::gib(4)));
    assert_eq!(config.memory.swap_limit, Bytes::ZERO);
    assert_eq!(config.log.dir, config.base.join("logs"));
}

#[test]
fn the_example_says_the_defaults() {
    let config = load(EXAMPLE).unwrap();
    let mut bare =
        load("[pool.train]\ncommand = ['python', 'train.py']\nenv = { OMP_NUM_THREADS = '4' }\n").unwrap();
    bare.path.clone_from(&config.path);
    bare.base.clone_from(&config.base);
    bare.log.dir.clone_from(&config.log.dir);
    bare.pools[0].cwd.clone_from(&config.pools[0].cwd);
    assert_eq!(config, bare);
}

#[test]
fn malloc_is_left_alone_where_somebody_has_set_it() {
    let nobody = |_: &str| None;
    assert_eq!(Malloc::Tight.env(nobody).len(), 2);
    assert_eq!(Malloc::Default.env(nobody), []);
    for (name, value) in [("MALLOC_TRIM_THRESHOLD_", "1"), ("GLIBC_TUNABLES", "glibc.malloc.arena_max=1")] {
        let says = move |asked: &str| (asked == name).then(|| value.to_owned());
        assert_eq!(Malloc::Tight.env(says), [], "{name}");
    }
    let other = |asked: &str| (asked == "GLIBC_TUNABLES").then(|| "glibc.rtld.nns=4".to_owned());
    assert_eq!(Malloc::Tight.env(other).len(), 2);
}

#[test]
fn every_key_is_understood() {
    let config = load(
        "state_dir = 'state'\ncgroup_parent = '/a/b'\n\
         [memory]\nreserve = '10%'\nwarning = '8GiB'\nswap_limit = '1GiB'\nrequire = 'cgroup'\n\
         [log]\ndir = '/var/log/x'\nmax_size = '1MiB'\nkeep = 3\n\
         [pool.b]\ncommand = ['x']\ncount = 3\nenv = { A = 'a', B = 1, C = true, D = 0.5 }\ncwd = '/'\n\
         memory_limit = '25%'\nmax_age = 90\ngrace = '1m30s'\nprune_patience = '250ms'\ntimeout = '2h'\n\
         on_limit = 'process'\nrestart = 'always'\nmalloc = 'default'\n\
         [pool.a]\ncommand = ['y']\nmemory_limit = 'none'\nmax_age = 'none'\nrestart = 'never'\n\
         [audit]\nanything = 1\n[test]\nmore = 2\n",
    )
    .unwrap();
    assert_eq!(config.state_dir, Some(config.base.join("state")));
    assert_eq!(config.memory.reserve, TOTAL.percent(10));
    assert_eq!(config.memory.require, Some(Enforcement::Cgroup1));
    assert_eq!((config.log.max_size, config.log.keep), (Bytes::mib(1), 3));
    let (b, a) = (&config.pools[0], &config.pools[1]);
    assert_eq!((b.name.as_str(), a.name.as_str()), ("b", "a"), "pools keep the order of the file");
    assert_eq!(b.memory_limit, Some(Bytes::gib(16)));
    assert_eq!((b.max_age, b.timeout), (Some(Duration::from_secs(90)), Some(Duration::from_secs(7200))));
    assert_eq!(b.prune_patience, Duration::from_millis(250));
    let env: Vec<_> = b.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(env, ["A=a", "B=1", "C=true", "D=0.5"]);
    assert_eq!((a.memory_limit, a.max_age, a.restart), (None, None, Restart::Never));
    assert_eq!(config.worker_name(b, 2).name, "b-2");
    assert_eq!(config.workers().count(), 5);
}

#[test]
fn planned_restarts_of_a_pool_never_fall_together() {
    let config = load("[pool.train]\ncommand = ['x']\ncount = 3\n").unwrap();
    let pool = &config.pools[0];
    let due = |number| pool.policy(number, Enforcement::Cgroup2).stagger.as_secs();
    assert_eq!([due(1), due(2), due(3)], [0, 1200, 2400]);
    assert_eq!(config.worker_name(pool, 1).label, "Worker 1");
}

#[test]
fn an_unknown_key_is_pointed_at_with_the_nearest_known_one() {
    assert_eq!(
        pool_error("memory_limt = \"8GiB\""),
        "error: unknown key `memory_limt` in `[pool.train]`\n \
         --> oomguard.toml:3:1\n  |\n3 | memory_limt = \"8GiB\"\n  | ^^^^^^^^^^^\n\
         hint: did you mean `memory_limit`?"
    );
    let far = error("zzz = 1\n");
    assert!(far.contains("unknown key `zzz`\n"), "{far}");
    assert!(
        far.ends_with(
            "hint: known here: `state_dir`, `cgroup_parent`, `memory`, `log`, `pool`, `audit`, `test`"
        ),
        "{far}"
    );
    let typo = error("[memroy]\nreserve = '1GiB'\n");
    assert!(typo.ends_with("hint: did you mean `memory`?"), "{typo}");
}

#[test]
fn a_wrong_value_is_underlined() {
    assert_eq!(
        error("# first\n[memory]\n  reserve = \"2 bananas\" # oops\n"),
        "error: wrong value of `reserve`: `bananas` in `2 bananas` is not a unit (known: B, K, M, G, T, with or without `iB` or `B`; all binary)\n \
         --> oomguard.toml:3:13\n  |\n3 |   reserve = \"2 bananas\" # oops\n  |             ^^^^^^^^^^^"
    );
    assert_eq!(
        error("[memory]\nreserve = [\n"),
        "error: could not understand the file: unclosed array, expected `]`\n --> oomguard.toml:2:12\n  |\n2 | reserve = [\n  |            ^"
    );
}

#[test]
fn absurd_values_are_refused_where_they_stand() {
    for (line, place, why) in [
        ("memory_limit = 8", ":3:16", "for gibibytes write `\"8GiB\"`"),
        ("memory_limit = \"-1GiB\"", ":3:16", "negative"),
        ("memory_limit = -5", ":3:16", "negative"),
        ("memory_limit = \"99999999T\"", ":3:16", "larger than any machine"),
        ("memory_limit = \"200%\"", ":3:16", "1 to 100"),
        ("memory_limit = 1.5", ":3:16", "a number with a fraction, where a size"),
        ("count = 0", ":3:9", "between 1 and 512"),
        ("count = -2", ":3:9", "`-2` is not between 1 and 512"),
        ("count = 100000", ":3:9", "between 1 and 512"),
        ("count = '2'", ":3:9", "a string, where a whole number is needed"),
        ("max_age = 0", ":3:11", "for no limit write `\"none\"`"),
        ("max_age = \"-5m\"", ":3:11", "negative"),
        ("grace = \"5 parsecs\"", ":3:9", "is not a duration"),
        ("grace = \"1000d\"", ":3:9", "is not a duration"),
        ("timeout = true", ":3:11", "true or false, where a time"),
        ("restart = \"sometimes\"", ":3:11", "known: `on-failure`, `always`, `never`"),
        ("on_limit = 1", ":3:12", "a number, where a string"),
        ("cwd = \"not/there\"", ":3:7", "there is no directory"),
        ("cwd = \"\"", ":3:7", "it is empty"),
        ("env = { A = [1] }", ":3:13", "the value of `A` is not a string"),
        ("env = { \"A=B\" = '1' }", ":3:9", "cannot be the name of a variable"),
        ("env = 3", ":3:7", "a number, where a table"),
    ] {
        let text = pool_error(line);
        assert!(text.contains(&format!("oomguard.toml{place}\n")), "{line}: {text}");
        assert!(text.contains(why), "{line}: {text}");
        assert!(text.contains("^"), "{line}: {text}");
    }
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    let low = error("[memory]\nreserve = '6GiB'\nwarning = '3GiB'\n");
    assert!(low.contains("it is below the reserve (6 GiB)") && low.contains("oomguard.toml:3:11"), "{low}");
    let all = error("[memory]\nreserve = '64GiB'\n");
    assert!(all.contains("it leaves nothing of this machine's 64 GiB"), "{all}");
    let moved = load("[memory]\nreserve = '6GiB'\n").unwrap();
    assert_eq!(moved.memory.warning, Bytes::gib(8), "the default warning keeps its distance");
}

#[test]
fn a_command_is_a_list() {
    let text = error("[pool.train]\ncommand = \"python train.py\"\n");
    assert!(
        text.ends_with("hint: no shell is involved; write `command = [\"python\", \"train.py\"]`"),
        "{text}"
    );
    assert!(error("[pool.train]\ncommand = []\n").contains("it names no program"));
    assert!(error("[pool.train]\ncommand = ['a', 1]\n").contains("oomguard.toml:2:17"));
    let missing = error("[pool.train]\ncount = 2\n");
    assert!(missing.contains("`[pool.train]` has no `command`\n --> oomguard.toml:1:7"), "{missing}");
    let nameless = error("[pool]\ncommand = ['python']\n");
    assert!(nameless.ends_with("hint: give the pool a name: `[pool.train]`"), "{nameless}");
    assert!(error("[pool.'a b']\ncommand = ['x']\n").contains("cannot be the name of a pool"));
}

#[test]
fn pyproject_is_read_where_it_mentions_us() {
    let text = "[project]\nname = 'x'\n[tool.oomguard.pool.train]\ncommand = ['x']\ncuont = 3\n";
    let wrong = load_named("pyproject.toml", text).unwrap_err().to_string();
    assert!(
        wrong.contains("unknown key `cuont` in `[tool.oomguard.pool.train]`\n --> pyproject.toml:5:1"),
        "{wrong}"
    );
    assert_eq!(load_named("pyproject.toml", "[project]\nname = 'x'\n").unwrap().path, None);
    assert_eq!(load_named("pyproject.toml", "[broken\n").unwrap().path, None);
    assert!(load_named("pyproject.toml", "[tool.oomguard\n").is_err());
}

#[test]
fn the_nearest_file_upwards_holds_and_paths_start_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("a/b");
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(dir.path().join("pyproject.toml"), "[tool.oomguard.log]\nkeep = 1\n").unwrap();
    assert_eq!(config::find(&deep).unwrap(), Some(dir.path().join("pyproject.toml")));
    std::fs::write(dir.path().join("oomguard.toml"), "[log]\nkeep = 2\n").unwrap();
    let config = config::load(None, &deep, &Overrides::default(), TOTAL).unwrap();
    assert_eq!((config.log.keep, config.log.dir), (2, dir.path().join("logs")));
    let explicit =
        config::load(Some(Path::new("../../pyproject.toml")), &deep, &Overrides::default(), TOTAL).unwrap();
    assert_eq!(explicit.log.keep, 1);
}

#[test]
fn a_file_that_cannot_be_read_is_one_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let missing =
        config::load(Some(Path::new("nope.toml")), dir.path(), &Overrides::default(), TOTAL).unwrap_err();
    let path = dir.path().join("nope.toml");
    assert_eq!(
        missing.to_string(),
        format!(
            "error: could not read `{}`: no such file or directory\n\
             hint: `oomguard init` writes an example, `-c FILE` names another file",
            path.display()
        )
    );
    assert_eq!(missing.code, oomguard::error::FAILED);
    std::fs::write(&path, b"[pool.\xff]").unwrap();
    let binary = config::load(Some(&path), dir.path(), &Overrides::default(), TOTAL).unwrap_err();
    assert!(binary.message.ends_with("byte 6 is not UTF-8"), "{binary}");
}

#[test]
fn without_a_pool_up_says_how_to_write_one() {
    let dir = tempfile::tempdir().unwrap();
    let none = config::load(None, dir.path(), &Overrides::default(), TOTAL).unwrap();
    if none.path.is_none() {
        let error = none.need_pools().unwrap_err();
        assert!(error.message.starts_with("no `oomguard.toml` in `"), "{error}");
    }
    let empty = load("[log]\nkeep = 1\n").unwrap().need_pools().unwrap_err().to_string();
    assert!(empty.contains("has no pool of workers\nhint: add a table `[pool.train]`"), "{empty}");
}

#[test]
fn flags_win_over_the_environment_which_wins_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("oomguard.toml"), "[pool.a]\ncommand = ['x']\ncount = 4\ngrace = 1\n")
        .unwrap();
    let env = |name: &str| match name {
        "OOMGUARD_MEMORY_LIMIT" => Some("6GiB".to_owned()),
        "OOMGUARD_GRACE" => Some("30s".to_owned()),
        "OOMGUARD_LOG_DIR" => Some("elsewhere".to_owned()),
        _ => None,
    };
    let flags = Overrides { memory_limit: Some(Amount::Bytes(Bytes::gib(3))), ..Overrides::default() };
    let both = flags.or(Overrides::from_env(&env).unwrap());
    let config = config::load(None, dir.path(), &both, TOTAL).unwrap();
    let pool = &config.pools[0];
    assert_eq!(pool.memory_limit, Some(Bytes::gib(3)));
    assert_eq!((pool.grace, pool.count), (Duration::from_secs(30), 4));
    assert_eq!(config.log.dir, dir.path().join("elsewhere"));

    let wrong = |name: &str| (name == "OOMGUARD_RESERVE").then(|| "lots".to_owned());
    assert_eq!(
        Overrides::from_env(&wrong).unwrap_err().message,
        "wrong value of the environment variable `OOMGUARD_RESERVE`: `lots` is not a size (try `8GiB`, `512MiB` or `1.5G`)"
    );
}

#[test]
fn a_reload_says_what_is_different() {
    let old = load("[memory]\nreserve = '2GiB'\n[pool.train]\ncommand = ['x']\nenv = { KEY = 'a' }\n[pool.gone]\ncommand = ['y']\n").unwrap();
    let mut new = load(
        "[memory]\nreserve = '3GiB'\n[pool.train]\ncommand = ['x', '-v']\ncount = 3\nmemory_limit = '6GiB'\nmax_age = '90m'\n\
         restart = 'always'\nenv = { KEY = 'secret' }\n[pool.fresh]\ncommand = ['z']\n",
    )
    .unwrap();
    new.log.dir.clone_from(&old.log.dir);
    new.pools[0].cwd.clone_from(&old.pools[0].cwd);
    assert_eq!(
        old.diff(&new),
        [
            "memory: reserve 2 GiB -> 3 GiB",
            "memory: warning 4 GiB -> 5 GiB",
            "pool `train`: command `x` -> `x -v`",
            "pool `train`: count 2 -> 3",
            "pool `train`: memory_limit 8 GiB -> 6 GiB",
            "pool `train`: max_age 60m -> 1h30m",
            "pool `train`: restart on-failure -> always",
            "pool `train`: env `KEY` has another value",
            "pool `gone` is gone",
            "pool `fresh` is new: 2 workers",
        ]
    );
    assert!(old.diff(&old).is_empty());
}

#[test]
fn a_file_cut_short_anywhere_is_an_error_or_a_configuration() {
    for end in 0..=EXAMPLE.len() {
        if EXAMPLE.is_char_boundary(end) {
            match load(&EXAMPLE[..end]) {
                Ok(_) => {}
                Err(error) => assert!(error.message.contains(" --> oomguard.toml:"), "{error}"),
            }
        }
    }
}
