use crate::support::{folder, put, shell, until};
use oomguard_core::Bytes;
use oomguard_core::watch::{Row, Standing};
use oomguard_sys::processes::Processes;
use std::path::Path;

const STAT: &str = "(train) S 1 20 20 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 5150 1073741824 131072 1 \n";
const STATUS: &str = "Name:\ttrain\nUid:\t1000\t0\t0\t0\nRssAnon:\t  409600 kB\nRssFile:\t 100 kB\nRssShmem:\t 2048 kB\nVmSwap:\t 1024 kB\n";

fn find(rows: &[Row], pid: u32) -> Option<Row> {
    rows.iter().find(|row| row.who.pid == pid).copied()
}

#[test]
fn a_process_is_read_from_four_files_and_asked_about_once() {
    let proc = folder(&[
        ("20/stat", &format!("20 {STAT}")),
        ("20/status", STATUS),
        ("20/cgroup", "3:memory:/jobs/a\n0::/\n"),
        ("20/oom_score_adj", "-17\n"),
        ("self/stat", "not a number\n"),
        ("30/stat", "30 (gone) Z 1 20 20 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 5150 0 0 1 \n"),
    ]);
    let mut processes = Processes::open(proc.path()).unwrap();
    let mut asked = Vec::new();
    let mut judge = |about: &oomguard_sys::processes::About<'_>| {
        asked.push((about.name.to_vec(), about.uid, about.cgroup.to_vec()));
        Standing::Avoid
    };
    let rows = processes.scan(false, false, &mut judge).unwrap().to_vec();
    assert_eq!(rows.len(), 1, "neither the zombie nor what is no process: {rows:?}");
    let row = rows[0];
    assert_eq!((row.private, row.shared), (Bytes::kib(409_600 + 1024), Bytes::kib(2048)));
    assert_eq!((row.uid, row.oom_score_adj, row.standing), (1000, -17, Standing::Avoid));
    assert_eq!(processes.cgroup(&row), b"/jobs/a");
    // It has moved, which is seen when all is read again; a new name is a new program.
    put(proc.path(), "20/cgroup", "3:memory:/jobs/b\n0::/\n");
    processes.scan(false, false, &mut judge).unwrap();
    let row = processes.scan(true, false, &mut judge).unwrap()[0];
    assert_eq!(processes.cgroup(&row), b"/jobs/b");
    put(proc.path(), "20/stat", &format!("20 {}", STAT.replace("train", "other")));
    processes.scan(false, false, &mut judge).unwrap();
    let names: Vec<_> = asked.iter().map(|(name, ..)| String::from_utf8_lossy(name).into_owned()).collect();
    assert_eq!(names, ["train", "train", "other"]);
    assert_eq!(asked[0].1, 1000);
}

#[test]
fn we_and_what_is_above_us_are_never_judged_otherwise() {
    let child = shell("sleep 1000", None);
    let mut processes = Processes::open(Path::new("/proc")).unwrap();
    let rows = processes.scan(false, true, |_| Standing::Prefer).unwrap();
    let own = find(rows, std::process::id()).unwrap();
    let parent = find(rows, own.parent).unwrap();
    assert_eq!((own.standing, parent.standing), (Standing::Never, Standing::Never));
    let row = find(rows, child.0.pid()).unwrap();
    assert_eq!((row.who.start, row.standing), (child.0.start_time(), Standing::Prefer));
    assert_eq!((row.parent, row.session, row.has_terminal), (own.who.pid, child.0.pid(), false));
}

#[test]
fn who_has_ended_is_not_there() {
    let child = shell("sleep 1000", None);
    let pid = child.0.pid();
    let mut processes = Processes::open(Path::new("/proc")).unwrap();
    assert!(find(processes.scan(false, false, |_| Standing::Ordinary).unwrap(), pid).is_some());
    drop(child);
    until("the child to be gone", || {
        find(processes.scan(false, false, |_| Standing::Ordinary).unwrap(), pid).is_none()
    });
}

fn stat(pid: u32, name: &str, parent: u32) -> String {
    format!(
        "{pid} ({name}) S {parent} 20 20 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 {pid} 1073741824 1000 1 \n"
    )
}

#[test]
fn what_another_oomguard_has_started_is_known_as_guarded() {
    let of =
        [(10, "oomguard", 1), (20, "sh", 10), (30, "train", 20), (40, "train", 1), (50, "oomguard2", 40)];
    let files: Vec<(String, String)> =
        of.iter().map(|(pid, name, parent)| (format!("{pid}/stat"), stat(*pid, name, *parent))).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let proc = folder(&files);
    let mut processes = Processes::open(proc.path()).unwrap();
    let rows = processes.scan(false, false, |_| Standing::Ordinary).unwrap();
    let guarded: Vec<u32> = rows.iter().filter(|row| row.guarded).map(|row| row.who.pid).collect();
    assert_eq!(guarded, [20, 30]);
}

#[test]
fn in_a_shortage_the_threads_of_the_kernel_are_passed_by() {
    let kernel = "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 3 0 0 1\n";
    let proc = folder(&[("2/stat", kernel), ("20/stat", &stat(20, "train", 1))]);
    let mut processes = Processes::open(proc.path()).unwrap();
    let mut pids = |urgent| -> Vec<u32> {
        let rows = processes.scan(urgent, false, |_| Standing::Ordinary).unwrap();
        rows.iter().map(|row| row.who.pid).collect()
    };
    assert_eq!(pids(true), [2, 20], "nothing is known of them yet");
    assert_eq!(pids(true), [20]);
    assert_eq!(pids(false), [2, 20]);
}

#[test]
fn a_file_in_shared_memory_counts_for_who_has_it_open_though_nobody_maps_it() {
    let path = format!("/dev/shm/oomguard-test-{}-open", std::process::id());
    let child =
        shell(&format!("exec 3> {path}; head -c 48M /dev/zero >&3; echo > {path}.done; sleep 1000"), None);
    let done = format!("{path}.done");
    until("the file to be full", || Path::new(&done).exists());
    let mut processes = Processes::open(Path::new("/proc")).unwrap();
    let row =
        processes.scan(false, false, |_| Standing::Ordinary).ok().and_then(|rows| find(rows, child.0.pid()));
    let mut held = oomguard_sys::held::Held::new().unwrap();
    let who = row.map(|row| row.who).unwrap();
    held.add(who).unwrap();
    held.remember_shm(who);
    let files = held.files().len();
    let _ = (std::fs::remove_file(&path), std::fs::remove_file(&done));
    assert_eq!(row.unwrap().shared, Bytes::mib(48));
    assert_eq!(files, 1);
}
