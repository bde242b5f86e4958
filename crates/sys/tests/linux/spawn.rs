use crate::support::{Child, SOON, TestParent, words};
use oomguard_core::{Bytes, Exit};
use oomguard_sys::spawn::{Session, Spawn, SpawnError, Stream};
use oomguard_sys::wait;
use std::io::Read as _;
use std::os::fd::OwnedFd;

/// Runs it to its end: what it wrote, and how it ended.
fn run(spawn: Spawn<'_>) -> (String, Exit) {
    let (from, into) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let child =
        Child(Spawn { stdio: [Stream::Null, Stream::File(into), Stream::Inherit], ..spawn }.start().unwrap());
    let mut text = String::new();
    std::fs::File::from(from).read_to_string(&mut text).unwrap();
    assert!(child.0.wait_exit(SOON).unwrap());
    (text, wait::reap_one(child.0.pid()).unwrap().unwrap())
}

#[test]
fn exit_codes_and_signals_are_told_apart() {
    assert_eq!(run(Spawn { argv: &words(&["sh", "-c", "exit 7"]), ..Spawn::default() }).1, Exit::Code(7));
    assert_eq!(
        run(Spawn { argv: &words(&["sh", "-c", "kill -9 $$"]), ..Spawn::default() }).1,
        Exit::Signal(9)
    );
}

#[test]
fn every_way_of_not_starting_has_its_own_name() {
    let start = |argv: &[&str], cwd: Option<&str>| {
        Spawn { argv: &words(argv), cwd: cwd.map(Into::into), ..Spawn::default() }.start().unwrap_err()
    };
    assert!(matches!(start(&["/nonexistent/x"], None), SpawnError::NotFound(p) if p == "/nonexistent/x"));
    assert!(matches!(start(&["oomguard-no-such-program"], None), SpawnError::NotFound(_)));
    assert!(matches!(start(&["/etc/passwd"], None), SpawnError::NotExecutable { .. }));
    assert!(matches!(start(&["/"], None), SpawnError::NotExecutable { .. }));
    assert!(matches!(start(&["true"], Some("/nonexistent")), SpawnError::NoCwd { .. }));
    assert!(matches!(start(&["true"], Some("/etc/passwd")), SpawnError::NoCwd { .. }));
    assert!(matches!(start(&[], None), SpawnError::Other { .. }));
    assert!(matches!(start(&["a\0b"], None), SpawnError::Other { .. }));
    // Nobody was left behind by any of these.
}

#[test]
fn environment_and_folder_are_the_childs_own() {
    let argv = words(&["sh", "-c", "echo \"$OOMGUARD_TEST_ADDED|$HOME|$PWD\""]);
    let env = [("OOMGUARD_TEST_ADDED".into(), Some("yes".into())), ("HOME".into(), None)];
    let (text, _) = run(Spawn { argv: &argv, env: &env, cwd: Some("/usr".into()), ..Spawn::default() });
    assert_eq!(text, "yes||/usr\n");
}

#[test]
fn no_descriptor_of_the_guard_gets_through() {
    let _signals = wait::Signals::block().unwrap();
    let _meminfo = oomguard_sys::meminfo::Meminfo::open("/proc".as_ref()).unwrap();
    let _reaper = oomguard_sys::reaper::Reaper::start().unwrap();
    let _me = oomguard_sys::process::Process::open(std::process::id()).unwrap();
    let Some(test) = TestParent::new(None) else { return };
    let leaf = test.get().leaf("a").unwrap();
    let argv = words(&["ls", "-l", "/proc/self/fd"]);
    let (text, _) = run(Spawn { argv: &argv, leaf: Some(&leaf), ..Spawn::default() });
    // What the test itself was started with may be there too; what this crate opens must not be.
    for ours in ["signalfd", "pidfd", "eventfd", "meminfo", "cgroup", "zoneinfo", "pressure"] {
        assert!(!text.contains(ours), "{ours} got through:\n{text}");
    }
}

#[test]
fn the_child_gets_its_signals_back_and_a_session_if_asked() {
    let _signals = wait::Signals::block().unwrap();
    let script = "grep -E '^Sig(Blk|Ign)' /proc/self/status; ps -o pid=,sid=,pgid= -p $$ 2>/dev/null || cat /proc/$$/stat";
    let argv = words(&["sh", "-c", script]);
    let (text, _) = run(Spawn { argv: &argv, session: Session::NewSession, ..Spawn::default() });
    let sig = |name: &str| {
        let line = text.lines().find(|l| l.starts_with(name)).unwrap();
        u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
    };
    assert_eq!(sig("SigBlk:") & (1 << (libc::SIGTERM - 1) | 1 << (libc::SIGCHLD - 1)), 0, "{text}");
    assert_eq!(sig("SigIgn:") & (1 << (libc::SIGPIPE - 1)), 0, "{text}");
}

#[test]
fn sessions_and_groups_are_as_asked() {
    let argv = words(&["sh", "-c", "cat /proc/$$/stat"]);
    let ids = |session| {
        let (text, _) = run(Spawn { argv: &argv, session, ..Spawn::default() });
        let pid: i32 = text.split(' ').next().unwrap().parse().unwrap();
        let rest: Vec<i32> = text
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .skip(2)
            .take(2)
            .map(|n| n.parse().unwrap())
            .collect();
        (rest[0] == pid, rest[1] == pid)
    };
    assert_eq!(ids(Session::Inherit), (false, false));
    assert_eq!(ids(Session::NewGroup), (true, false));
    assert_eq!(ids(Session::NewSession), (true, true));
}

#[test]
fn limits_and_the_oom_score_are_set_before_the_program_runs() {
    let argv = words(&["sh", "-c", "grep 'Max data' /proc/self/limits; cat /proc/self/oom_score_adj"]);
    let spawn =
        Spawn { argv: &argv, rlimit_data: Some(Bytes::gib(2)), oom_score_adj: Some(500), ..Spawn::default() };
    let (text, _) = run(spawn);
    assert!(text.contains("2147483648") && text.ends_with("\n500\n"), "{text}");
}

#[test]
fn the_job_is_in_its_cgroup_from_the_first_instruction() {
    let Some(test) = TestParent::new(None) else { return };
    let leaf = test.get().leaf("a").unwrap();
    let argv = words(&["cat", "/proc/self/cgroup"]);
    let (text, _) = run(Spawn { argv: &argv, leaf: Some(&leaf), ..Spawn::default() });
    let place = format!("{}/a", test.path.display());
    assert!(text.lines().any(|line| line.ends_with(&place)), "{text}");
}

#[test]
fn a_job_that_cannot_join_its_cgroup_does_not_run_at_all() {
    let Some(test) = TestParent::new(None) else { return };
    let parent = test.get();
    let leaf = parent.leaf("a").unwrap();
    let (dir, kept) = (leaf.dir().to_owned(), parent.leaf("a").unwrap());
    leaf.remove().unwrap();
    assert!(!dir.exists());
    let argv = words(&["true"]);
    let error = Spawn { argv: &argv, leaf: Some(&kept), ..Spawn::default() }.start().unwrap_err();
    assert!(error.to_string().contains("put the job into its cgroup"), "{error}");
}

#[test]
fn a_file_can_be_any_of_the_three() {
    let mut file = tempfile::tempfile().unwrap();
    let out: OwnedFd = file.try_clone().unwrap().into();
    let argv = words(&["sh", "-c", "echo said >&2"]);
    let spawn =
        Spawn { argv: &argv, stdio: [Stream::Null, Stream::Null, Stream::File(out)], ..Spawn::default() };
    let child = Child(spawn.start().unwrap());
    assert!(child.0.wait_exit(SOON).unwrap());
    use std::io::Seek as _;
    file.rewind().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "said\n");
}
