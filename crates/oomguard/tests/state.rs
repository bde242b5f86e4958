//! The state directory: nothing that lies in it, and nobody who stands in its place, keeps a guard from starting.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use oomguard::config::{self, Overrides};
use oomguard::record::Notice;
use oomguard::state::{Death, Deaths, Loaded, Lock, Runtime, State, StateDir, Study, Worker};
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
        gpu: None,
        vram_gb: None,
        vram_limit_gb: None,
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
        let Loaded::Damaged(Notice::StateDamaged { path: aside, error, .. }, _) = dir.load() else {
            panic!("{end} bytes of {} were believed", whole.len());
        };
        assert!(!error.is_empty() && !error.contains('\n'));
        assert_eq!(std::fs::read(&aside).unwrap(), &whole[..end], "what is damaged is kept");
        assert_eq!(dir.load(), Loaded::Nothing, "and not met again");
    }
}

/// The workers that can be had of what a file that held [`state`] has become; the file is kept if it is damaged.
fn workers_of(dir: &StateDir, bytes: &[u8]) -> Vec<Worker> {
    std::fs::write(dir.file("state.json"), bytes).unwrap();
    match dir.load() {
        Loaded::Found(state) => state.workers,
        Loaded::Damaged(Notice::StateDamaged { path, workers, .. }, left) => {
            assert_eq!(std::fs::read(path).unwrap(), bytes, "what is damaged is kept");
            let left = left.map_or(Vec::new(), |state| state.workers);
            assert_eq!(left.len(), workers, "what is left is said");
            left
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn of_a_state_cut_short_every_worker_that_is_whole_is_found() {
    let (_temp, dir) = open();
    dir.save(&state()).unwrap();
    let whole = std::fs::read(dir.file("state.json")).unwrap();
    for end in 0..whole.len() {
        // A worker is whole with the brace that ends its line.
        let before = &whole[..end];
        let lines = before.split(|byte| *byte == b'\n').skip(1);
        let ended = lines.filter(|line| line.strip_suffix(b",").unwrap_or(line).ends_with(b"}")).count();
        assert_eq!(workers_of(&dir, before), state().workers[..ended], "{end} of {} bytes", whole.len());
    }
}

#[test]
fn a_byte_that_flips_costs_the_worker_it_is_in_and_no_other() {
    let (_temp, dir) = open();
    dir.save(&state()).unwrap();
    let whole = std::fs::read(dir.file("state.json")).unwrap();
    let line_of = |at: usize| whole[..at].iter().filter(|byte| **byte == b'\n').count();
    for at in 0..whole.len() {
        for flip in [0x01, 0x20, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            let found = workers_of(&dir, &bytes);
            let line = line_of(at);
            for (index, worker) in state().workers.iter().enumerate() {
                // The line before the workers carries them all; a line feed that flips joins two of them.
                let hit = line == 0 || line == index + 1 || (whole[at] == b'\n' && line == index);
                assert!(
                    hit || found.contains(worker),
                    "byte {at} ^ {flip:#x} lost {} in line {line}",
                    worker.name
                );
            }
            let names: std::collections::BTreeSet<_> = found.iter().map(|worker| &worker.name).collect();
            assert!(found.len() <= 2 && names.len() <= found.len());
        }
    }
}

#[test]
fn of_two_workers_with_one_name_in_a_damaged_state_the_first_counts() {
    let (_temp, dir) = open();
    dir.save(&state()).unwrap();
    let text = std::fs::read_to_string(dir.file("state.json")).unwrap();
    let text = text.replace("worker-2", "worker-1").replace("\n]}", "\n]");
    assert_eq!(workers_of(&dir, text.as_bytes()), state().workers[..1]);
}

#[test]
fn a_state_of_another_form_is_not_guessed_at() {
    let (_temp, dir) = open();
    std::fs::write(dir.file("state.json"), "{\"schema\":2,\"workers\":{}}").unwrap();
    let Loaded::Damaged(Notice::StateDamaged { error, .. }, None) = dir.load() else { panic!("believed") };
    assert_eq!(error, "`state.json` has the form 2, this version knows 1");
    std::fs::create_dir(dir.file("state.json")).unwrap();
    assert!(matches!(dir.load(), Loaded::Damaged(..)));
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
                Loaded::Found(_) | Loaded::Damaged(..) => {}
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

/// What is left of lines when a byte of them is cut off or flipped: those that it did not touch, in their order.
fn untouched<T: Clone>(all: &[T], whole: &[u8], at: usize) -> Vec<T> {
    let line = whole[..at].iter().filter(|byte| **byte == b'\n').count();
    // A flipped line feed joins two lines.
    let joined = whole[at] == b'\n';
    let kept = |index: &usize| *index != line && !(joined && *index == line + 1);
    (0..all.len()).filter(kept).map(|index| all[index].clone()).collect()
}

#[test]
fn deaths_with_a_byte_flipped_or_cut_short_lose_no_other_line() {
    let (_temp, dir) = open();
    let all = [death(1), death(2), death(3)];
    let mut file = Deaths::open(&dir).unwrap();
    all.iter().for_each(|death| file.append(death).unwrap());
    let whole = std::fs::read(dir.file("deaths.jsonl")).unwrap();
    for at in 0..whole.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            std::fs::write(dir.file("deaths.jsonl"), &bytes).unwrap();
            let (found, unreadable) = Deaths::read(&dir).unwrap();
            assert!(untouched(&all, &whole, at).iter().all(|death| found.contains(death)), "byte {at}");
            let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
            assert_eq!(found.len() + unreadable, lines, "every line is found or counted");
        }
        std::fs::write(dir.file("deaths.jsonl"), &whole[..at]).unwrap();
        let mut file = Deaths::open(&dir).unwrap();
        file.append(&death(4)).unwrap();
        let (found, unreadable) = Deaths::read(&dir).unwrap();
        assert_eq!(unreadable, file.unreadable(), "what was lost is known when the guard starts");
        assert_eq!(found.last(), Some(&death(4)), "what comes after {at} bytes is not lost to them");
        let ended = whole[..at].split(|byte| *byte == b'\n').filter(|line| line.ends_with(b"}")).count();
        assert_eq!(found.len(), ended + 1);
    }
}

#[test]
fn studies_with_a_byte_flipped_or_cut_short_lose_no_other_line() {
    let (_temp, dir) = open();
    let study = |name: &str| Study {
        python: PathBuf::from("/usr/bin/python3"),
        storage: "sqlite:///x.db".to_owned(),
        study: name.to_owned(),
        cwd: PathBuf::from("/w"),
    };
    let all = [study("first"), study("second"), study("third")];
    let line = |study: &Study| serde_json::to_string(study).unwrap() + "\n";
    let whole: Vec<u8> = all.iter().map(line).collect::<String>().into_bytes();
    for at in 0..whole.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            std::fs::write(dir.file("studies.jsonl"), &bytes).unwrap();
            let (found, unreadable) = dir.studies();
            assert!(untouched(&all, &whole, at).iter().all(|study| found.contains(study)), "byte {at}");
            let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
            assert_eq!(found.len() + unreadable, lines, "byte {at}: every line is found or counted");
        }
        std::fs::write(dir.file("studies.jsonl"), &whole[..at]).unwrap();
        let (found, _) = dir.studies();
        let ended = whole[..at].split(|byte| *byte == b'\n').filter(|line| line.ends_with(b"}")).count();
        assert_eq!(found, all[..ended]);
    }
}

#[test]
fn a_lock_file_that_nobody_can_read_is_taken_all_the_same() {
    let (_temp, dir) = open();
    drop(Lock::take(&dir, Path::new("/run/x.sock")).unwrap());
    let whole = std::fs::read(dir.file("lock")).unwrap();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 0xff;
        for bytes in [&whole[..at], &flipped] {
            std::fs::write(dir.file("lock"), bytes).unwrap();
            assert_eq!(Lock::holder(dir.path()), None, "nobody holds it");
            let _lock = Lock::take(&dir, Path::new("/run/y.sock")).unwrap();
            assert_eq!(Lock::holder(dir.path()).unwrap().socket, Path::new("/run/y.sock"));
        }
    }
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
    assert_eq!(dir.studies(), (vec![], 0));
    let line = |study: &str| {
        format!(
            "{{\"python\":\"/usr/bin/python3\",\"storage\":\"sqlite:///x.db\",\"study\":\"{study}\",\"cwd\":\"/w\"}}\n"
        )
    };
    let text = format!("{}{}garbage\n{}{{\"python\":\"/us", line("b"), line("a"), line("b"));
    std::fs::write(dir.file("studies.jsonl"), text).unwrap();
    let (studies, unreadable) = dir.studies();
    assert_eq!(unreadable, 2);
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

#[test]
fn what_has_no_end_is_read_from_its_end_and_no_further() {
    let (_temp, dir) = open();
    let last = |line: &[u8]| {
        let mut bytes = vec![b'x'; 40 << 20];
        bytes.push(b'\n');
        bytes.extend_from_slice(line);
        bytes
    };
    let line = serde_json::to_vec(&death(7)).unwrap();
    std::fs::write(dir.file("deaths.jsonl"), last(&line)).unwrap();
    let mut deaths = Deaths::open(&dir).unwrap();
    assert!(std::fs::metadata(dir.file("deaths.jsonl")).unwrap().len() < 1 << 10, "it was trimmed");
    deaths.append(&death(8)).unwrap();
    assert_eq!(Deaths::read(&dir).unwrap(), (vec![death(7), death(8)], 0));
    let study = br#"{"python":"/p","storage":"s","study":"a","cwd":"/"}"#;
    std::fs::write(dir.file("studies.jsonl"), last(study)).unwrap();
    let (studies, unreadable) = dir.studies();
    assert_eq!((studies.len(), unreadable), (1, 1), "what was left out is said");
    // More than a guard would ever write, and nothing but a hole.
    std::fs::File::create(dir.file("state.json")).unwrap().set_len(1 << 40).unwrap();
    let Loaded::Damaged(Notice::StateDamaged { error, .. }, None) = dir.load() else { panic!("believed") };
    assert!(error.contains("more than"), "{error}");
}

#[test]
fn what_stands_in_the_place_of_a_file_is_not_waited_for() {
    let (temp, dir) = open();
    let fifo = |path: &Path| rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RWXU).unwrap();
    for name in ["lock", "deaths.jsonl", "studies.jsonl", "state.json"] {
        fifo(&dir.file(name));
    }
    assert_eq!(Lock::holder(dir.path()), None);
    assert!(Deaths::open(&dir).is_err() && Deaths::read(&dir).is_err());
    assert_eq!(dir.studies(), (Vec::new(), 0));
    assert!(matches!(dir.load(), Loaded::Damaged(..)));
    assert_eq!(dir.load(), Loaded::Nothing, "it was put aside");
    fifo(&temp.path().join("oomguard.toml"));
    let asked =
        config::load(Some(Path::new("oomguard.toml")), temp.path(), &Overrides::default(), Bytes::gib(8));
    assert!(asked.unwrap_err().message.contains("not a regular file"));
}

#[test]
fn a_directory_that_everybody_could_swap_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let open = temp.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, PermissionsExt::from_mode(0o777)).unwrap();
    let error = StateDir::open(&open.join("state")).unwrap_err();
    let want = format!("is refused: others can write to `{}`", open.display());
    assert!(error.message.ends_with(&want) && error.hint.is_some(), "{error}");
}
