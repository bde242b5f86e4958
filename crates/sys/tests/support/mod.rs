//! What the tests share: folders of the kernel's bytes, real children, real cgroups, waiting with a deadline.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use oomguard_core::Enforcement;
use oomguard_sys::cgroup::{Leaf, Parent, ParentOptions};
use oomguard_sys::process::{Process, Signal};
use oomguard_sys::spawn::{Session, Spawn, Stream};
use oomguard_sys::wait::Poller;
use oomguard_sys::{clock, oneself};

/// More than anything here takes, on any machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A folder with these files in it.
pub(crate) fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        put(dir.path(), name, text);
    }
    dir
}

/// Writes one file, its folders included.
pub(crate) fn put(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// Looks every millisecond until something is so; fails after [`SOON`].
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = clock::now().after(SOON);
    let mut nothing = Poller::new();
    while !is_so() {
        assert!(clock::now() < end, "still waiting for: {what}");
        nothing.wait(clock::now().after(Duration::from_millis(1))).unwrap();
    }
}

/// Says aloud that a test is skipped, or fails where `OOMGUARD_REQUIRE` names what it needs.
pub(crate) fn skip(need: &str, why: &str) {
    let required = std::env::var("OOMGUARD_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|r| r.trim() == need), "`{need}` is required here, but: {why}");
    eprintln!("SKIPPED (needs {need}): {why}");
}

/// A child of the test; killed with its process group, and reaped, when it goes out of scope.
pub(crate) struct Child(pub(crate) Process);

impl Drop for Child {
    fn drop(&mut self) {
        // Not reaped yet, so the number is still its own; and a group only if it leads one.
        let pid = self.0.pid() as i32;
        // SAFETY: integers only.
        unsafe {
            if libc::getpgid(pid) == pid {
                libc::kill(-pid, libc::SIGKILL);
            }
        }
        let _ = self.0.signal(Signal::KILL);
        let _ = self.0.signal(Signal::CONT);
        self.0.wait_exit(SOON).unwrap();
        let _ = oomguard_sys::wait::reap_one(self.0.pid());
    }
}

/// The words of a command line.
pub(crate) fn words(line: &[&str]) -> Vec<OsString> {
    line.iter().map(OsString::from).collect()
}

/// Starts a shell script in a session of its own.
pub(crate) fn shell(script: &str, leaf: Option<&Leaf>) -> Child {
    shell_with(script, leaf, &[])
}

/// The same with something in its environment.
pub(crate) fn shell_with(script: &str, leaf: Option<&Leaf>, env: &[(OsString, Option<OsString>)]) -> Child {
    let argv = words(&["sh", "-c", script]);
    let stdio = [Stream::Null, Stream::Null, Stream::Inherit];
    let spawn = Spawn { argv: &argv, env, leaf, stdio, session: Session::NewSession, ..Spawn::default() };
    Child(spawn.start().unwrap())
}

/// A real parent cgroup of this test alone, removed in the end with everything in it.
pub(crate) struct TestParent {
    pub(crate) parent: Option<Parent>,
    pub(crate) path: PathBuf,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl TestParent {
    /// `None`, said aloud: this machine offers no cgroup to test with, or not of this kind.
    pub(crate) fn new(wanted: Option<Enforcement>) -> Option<TestParent> {
        if !oneself::is_root() {
            skip("cgroup", "not root");
            return None;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/oomguard-test-{}-{number}", std::process::id()));
        match Parent::open(&ParentOptions { explicit: Some(path.clone()), ..ParentOptions::default() }) {
            Ok(parent) if wanted.is_none_or(|kind| parent.enforcement() == kind) => {
                Some(TestParent { parent: Some(parent), path })
            }
            Ok(parent) => {
                let have = parent.enforcement().name();
                parent.remove().unwrap();
                eprintln!("SKIPPED: this machine has {have}, the test is about {}", wanted.unwrap().name());
                None
            }
            Err(refusal) => {
                skip("cgroup", &refusal.to_string());
                None
            }
        }
    }
    pub(crate) fn get(&self) -> &Parent {
        self.parent.as_ref().unwrap()
    }
}

impl Drop for TestParent {
    fn drop(&mut self) {
        let parent = self.parent.take().unwrap();
        for name in parent.leaves().unwrap() {
            let leaf = parent.leaf(&name).unwrap();
            leaf.kill().unwrap();
            leaf.thaw().unwrap();
            // Whose parent the test is waits to be reaped; a zombie does not keep a cgroup busy.
            until("the leaf to be empty", || !leaf.is_populated().unwrap());
            leaf.remove().unwrap();
        }
        let dir = parent.dir().to_owned();
        parent.remove().unwrap();
        assert!(!dir.exists(), "`{}` was left behind", dir.display());
    }
}
