//! The state directory: nothing that lies in it, and nobody who stands in its place, keeps a guard from starting.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use oomguard::config::{self, Overrides};
use oomguard::record::Notice;
use oomguard::state::{Death, Deaths, Loaded, Runtime, State, StateDir, Study, Worker};
use oomguard_core::{Bytes, Instant};
use proptest::prelude::*;

fn open() -> (tempfile::TempDir, StateDir) {
    let temp = tempfile::tempdir().unwrap();
    let dir = StateDir::open(&temp.path().join("oomguard/x")).unwrap();
    (temp, dir)
}

fn state() -> State {
    let worker = Worker {
        slot: 0,
        name: "worker-1".to_owned(),
        pid: Some(17650),
        start_time: 123_456,
        leaf: Some(PathBuf::from("/sys/fs/cgroup/oomguard/worker-1")),
        attempt: 3,
        checks: true,
        started_mono_ns: Instant(77),
        started_ts: "2026-01-02T01:23:31Z".parse().unwrap(),
        failures: 1,
    };
    let waiting = Worker { slot: 1, name: "worker-2".to_owned(), pid: None, leaf: None, ..worker.clone() };
    let mut state = State::new("r1", "boot", Some(PathBuf::from("/x/oomguard.toml")));
    state.workers = vec![worker, waiting];
    state
}

fn death(number: usize) -> Death {
    Death {
        job: format!("r1/worker-1#{number}"),
        boot_id: "boot".to_owned(),
        pid: 17650,
        start_time: 9,
        cause: "limit".to_owned(),
        own: true,
        available_gb: Some(1.5),
        usage_gb: None,
        limit_gb: Some(8.0),
        ts: "2026-01-02T01:23:31Z".parse().unwrap(),
    }
}

#[test]
fn what_was_saved_is_found() {
    let (_temp, dir) = open();
    assert_eq!(dir.load(), Loaded::Nothing);
    dir.save(&state()).unwrap();
    assert_eq!(dir.load(), Loaded::Found(state()));
    dir.clear();
    assert_eq!(dir.load(), Loaded::Nothing);
}

#[test]
fn a_state_cut_short_anywhere_is_set_aside_and_said() {
    let (_temp, dir) = open();
    dir.save(&state()).unwrap();
    let path = dir.file("state.json");
    let whole = std::fs::read(&path).unwrap();
    for end in 0..whole.len() {
        std::fs::write(&path, &whole[..end]).unwrap();
        let Loaded::Damaged(Notice::StateDamaged { path: aside, error }) = dir.load() else {
            panic!("{end} bytes of {} were believed", whole.len());
        };
        assert!(!error.is_empty() && !error.contains('\n'));
        assert_eq!(std::fs::read(&aside).unwrap(), &whole[..end], "what is damaged is kept");
        assert_eq!(dir.load(), Loaded::Nothing, "and not met again");
    }
}

#[test]
fn a_state_of_another_form_is_not_guessed_at() {
    let (_temp, dir) = open();
    std::fs::write(dir.file("state.json"), "{\"schema\":2,\"workers\":{}}").unwrap();
    let Loaded::Damaged(Notice::StateDamaged { error, .. }) = dir.load() else { panic!("believed") };
    assert_eq!(error, "`state.json` has the form 2, this version knows 1");
    std::fs::create_dir(dir.file("state.json")).unwrap();
    assert!(matches!(dir.load(), Loaded::Damaged(_)));
}

proptest! {
    #[test]
    fn no_bytes_make_loading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..500), at in any::<prop::sample::Index>()) {
        let (_temp, dir) = open();
        let mut whole = serde_json::to_vec(&state()).unwrap();
        let at = at.index(whole.len());
        whole.splice(at..at, bytes.clone());
        for content in [bytes, whole] {
            std::fs::write(dir.file("state.json"), &content).unwrap();
            match dir.load() {
                Loaded::Found(_) | Loaded::Damaged(_) => {}
                Loaded::Nothing => prop_assert!(false, "a file that is there was overlooked"),
            }
        }
    }
}

#[test]
fn the_directory_is_private() {
    let (_temp, dir) = open();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(dir.path()), 0o700);
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    StateDir::open(dir.path()).unwrap();
    assert_eq!(mode(dir.path()), 0o700);
    dir.save(&state()).unwrap();
    assert_eq!(mode(&dir.file("state.json")), 0o600);
}

#[test]
fn a_link_or_a_file_in_its_place_is_refused() {
    let (temp, dir) = open();
    let link = temp.path().join("link");
    std::os::unix::fs::symlink(dir.path(), &link).unwrap();
    let error = StateDir::open(&link).unwrap_err();
    assert!(error.message.ends_with("is refused: it is a symbolic link"), "{error}");
    let file = temp.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(StateDir::open(&file).unwrap_err().message.ends_with("it is not a directory"));
}

#[test]
fn a_directory_of_somebody_else_is_refused() {
    if !rustix::process::geteuid().is_root() {
        assert!(!std::env::var("OOMGUARD_REQUIRE").is_ok_and(|needs| needs.contains("root")), "not root");
        println!("skipped: only root can give a directory away");
        return;
    }
    let (_temp, dir) = open();
    std::os::unix::fs::chown(dir.path(), Some(12_345), None).unwrap();
    let error = StateDir::open(dir.path()).unwrap_err();
    assert!(error.message.ends_with("is refused: it belongs to user 12345"), "{error}");
}

#[test]
fn its_place_follows_the_configuration_and_the_environment() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("my project");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("oomguard.toml"), "").unwrap();
    let config = config::load(None, &folder, &Overrides::default(), Bytes::gib(64)).unwrap();
    let locate = |set: &[(&str, &str)]| {
        let env = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        StateDir::locate(&config, &env)
    };
    let home = locate(&[("HOME", "/home/a")]);
    assert_eq!(home.parent(), Some(Path::new("/home/a/.local/state/oomguard")));
    let name = home.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(name.starts_with("my-project-") && name.len() == "my-project-".len() + 16, "{name}");
    assert_eq!(
        locate(&[("HOME", "/home/a"), ("XDG_STATE_HOME", "/s")]),
        Path::new("/s/oomguard").join(&name)
    );
    assert_eq!(locate(&[("XDG_STATE_HOME", "relative")]), Path::new("/var/lib/oomguard").join(&name));
    let link = temp.path().join("link");
    std::os::unix::fs::symlink(&folder, &link).unwrap();
    let other = config::load(None, &link, &Overrides::default(), Bytes::gib(64)).unwrap();
    let through = StateDir::locate(&other, &|_| None);
    assert_eq!(through.to_str().unwrap().rsplit('-').next(), name.rsplit('-').next(), "one file, one key");
}

#[test]
fn sockets_have_paths_that_the_kernel_takes() {
    let none = |_: &str| None;
    let state = Path::new("/home/a/.local/state/oomguard/x-0123456789abcdef");
    assert_eq!(Runtime::locate(state, &none, 0).dir(), Path::new("/run/oomguard"));
    assert_eq!(Runtime::locate(state, &none, 1000).dir(), state.join("run"));
    let xdg = |name: &str| (name == "XDG_RUNTIME_DIR").then(|| "/run/user/1000".to_owned());
    let runtime = Runtime::locate(state, &xdg, 1000);
    assert_eq!(runtime.dir(), Path::new("/run/user/1000/oomguard"));
    assert!(runtime.page("worker-1").to_str().unwrap().ends_with("-worker-1.page"));
    let deep = PathBuf::from(format!("/{}", "d".repeat(200)));
    let moved = Runtime::locate(&deep, &none, 1000);
    assert_eq!(moved.dir(), Path::new("/tmp/oomguard-1000"));
    assert!(moved.socket().as_os_str().len() < 104 && moved.notify().as_os_str().len() < 104);

    let temp = tempfile::tempdir().unwrap();
    let here = temp.path().to_str().unwrap().to_owned();
    let runtime =
        Runtime::locate(state, &move |name| (name == "XDG_RUNTIME_DIR").then(|| here.clone()), 1000);
    runtime.create().unwrap();
    runtime.create().unwrap();
    assert_eq!(std::fs::metadata(runtime.dir()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn deaths_are_appended_and_a_line_cut_short_costs_itself() {
    let (_temp, dir) = open();
    assert_eq!(Deaths::read(&dir).unwrap(), (vec![], 0));
    Deaths::open(&dir).unwrap().append(&death(1)).unwrap();
    let path = dir.file("deaths.jsonl");
    let mut text = std::fs::read(&path).unwrap();
    text.extend_from_slice(b"{\"job\":\"r1/wor");
    std::fs::write(&path, text).unwrap();
    let mut deaths = Deaths::open(&dir).unwrap();
    deaths.append(&death(2)).unwrap();
    assert_eq!(Deaths::read(&dir).unwrap(), (vec![death(1), death(2)], 1));
}

#[test]
fn the_oldest_deaths_go_when_a_guard_starts() {
    let (_temp, dir) = open();
    let mut deaths = Deaths::open(&dir).unwrap();
    for number in 0..10_005 {
        deaths.append(&death(number)).unwrap();
    }
    drop(Deaths::open(&dir).unwrap());
    let (kept, unreadable) = Deaths::read(&dir).unwrap();
    assert_eq!((kept.len(), unreadable), (10_000, 0));
    assert_eq!(kept[0], death(5));
}

#[test]
fn every_study_is_known_once() {
    let (_temp, dir) = open();
    assert_eq!(dir.studies(), []);
    let line = |study: &str| {
        format!(
            "{{\"python\":\"/usr/bin/python3\",\"storage\":\"sqlite:///x.db\",\"study\":\"{study}\",\"cwd\":\"/w\"}}\n"
        )
    };
    let text = format!("{}{}garbage\n{}{{\"python\":\"/us", line("b"), line("a"), line("b"));
    std::fs::write(dir.file("studies.jsonl"), text).unwrap();
    let studies = dir.studies();
    assert_eq!(studies.iter().map(|study| study.study.as_str()).collect::<Vec<_>>(), ["b", "a"]);
    assert_eq!(
        studies[0],
        Study {
            python: PathBuf::from("/usr/bin/python3"),
            storage: "sqlite:///x.db".to_owned(),
            study: "b".to_owned(),
            cwd: PathBuf::from("/w"),
        }
    );
}
