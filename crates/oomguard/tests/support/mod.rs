//! A world for one test: the real binary, a project folder, state, sockets and a cgroup parent of its own.
//!
//! Everything that is started in it carries its mark, so that the world can say whether anything is left, and ends
//! it, and only it, when the test is over, however it ends. Nothing here sleeps but [`wait_until`], which looks.
#![expect(dead_code, reason = "every test program uses its own part of it")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use oomguard_sys::process::{Process, Signal};
use oomguard_sys::tree::find_marked;
use serde_json::Value;

pub mod up;

/// Nothing that a test waits for takes longer.
pub const PATIENCE: Duration = Duration::from_secs(20);
const MARK: &str = "OOMGUARD_TEST_WORLD";
const CGROUPS: &str = "/sys/fs/cgroup";

/// Looks until `look` finds something, or fails after `deadline` with `what` was waited for.
pub fn wait_for<T>(deadline: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The same for a condition.
pub fn wait_until(deadline: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(deadline, what, || holds().then_some(()));
}

/// Whether the machine has what a test needs. If not, says so, and fails where `OOMGUARD_REQUIRE` names it.
pub fn has(need: &str, there: bool, why: &str) -> bool {
    let required = std::env::var("OOMGUARD_REQUIRE").unwrap_or_default();
    assert!(there || !required.split(',').any(|word| word.trim() == need), "`{need}` is required: {why}");
    if !there {
        println!("skipped: {why}");
    }
    there
}

/// A cgroup in which limits can be set.
pub fn has_cgroup() -> bool {
    let world = World::new();
    let answer = world.oomguard(["doctor", "--json"]).output().unwrap();
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    has(
        "cgroup",
        text.contains("\"cgroup1\"") || text.contains("\"cgroup2\""),
        "no cgroup can hold jobs here",
    )
}

/// The right to become somebody else.
pub fn has_root() -> bool {
    has("root", rustix::process::geteuid().is_root(), "only root can become another user")
}

/// Where a test happens.
pub struct World {
    dir: tempfile::TempDir,
    name: String,
    user: Option<u32>,
}

impl World {
    /// An empty project, root's or whoever runs the tests.
    pub fn new() -> World {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let world = World {
            dir: tempfile::tempdir().unwrap(),
            name: format!("oomguard-test-{}-{number}", std::process::id()),
            user: None,
        };
        for dir in ["project", "state", "run"] {
            std::fs::create_dir(world.dir.path().join(dir)).unwrap();
        }
        world
    }

    /// The same for a user without any rights, who can read the programs.
    pub fn of_nobody() -> World {
        const NOBODY: u32 = 65534;
        let mut world = World::new();
        let root = world.dir.path();
        for program in [Path::new(env!("CARGO_BIN_EXE_oomguard")), &hog()] {
            std::fs::copy(program, root.join(program.file_name().unwrap())).unwrap();
        }
        for dir in [root.to_owned(), root.join("project"), root.join("state"), root.join("run")] {
            std::os::unix::fs::chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        world.user = Some(NOBODY);
        world
    }

    /// The project folder.
    pub fn project(&self) -> PathBuf {
        self.dir.path().join("project")
    }

    /// `XDG_STATE_HOME`.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Where NVIDIA's library is, once there is one.
    pub fn driver(&self) -> PathBuf {
        self.dir.path().join("driver")
    }

    /// From now on NVIDIA's library says this.
    pub fn gpus(&self, script: &Value) {
        let library = self.driver().join("libnvidia-ml.so.1");
        if !library.exists() {
            std::fs::create_dir(self.driver()).unwrap();
            // Cargo builds it for us, because it is one of our dependencies.
            let built = std::env::current_exe().unwrap().with_file_name("libfake_nvml.so");
            std::fs::copy(built, library).unwrap();
        }
        let new = self.driver().join("new");
        std::fs::write(&new, script.to_string()).unwrap();
        std::fs::rename(new, self.driver().join("fake-nvml.json")).unwrap();
    }

    /// How often that library was asked for memory.
    pub fn asked_gpus(&self) -> u64 {
        text(&self.driver().join("questions")).trim().parse().unwrap_or(0)
    }

    /// A file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.project().join(name)
    }

    /// The same as text, for arguments.
    pub fn word(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// The hog as its user can start it.
    pub fn hog(&self) -> String {
        let path = if self.user.is_some() { self.dir.path().join("hog") } else { hog() };
        path.to_str().unwrap().to_owned()
    }

    /// Where its jobs go, relative to the root of the memory hierarchy.
    pub fn cgroup_parent(&self) -> String {
        format!("/{}", self.name)
    }

    /// A program with this world's environment, in the project folder.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(program);
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OOMGUARD_"))
        {
            command.env_remove(name);
        }
        command.env(MARK, &self.name).env("OOMGUARD_CGROUP_PARENT", self.cgroup_parent());
        command.env("XDG_STATE_HOME", self.dir.path().join("state"));
        command.env("XDG_RUNTIME_DIR", self.dir.path().join("run"));
        command.env_remove("NOTIFY_SOCKET").env("NO_COLOR", "1").current_dir(self.project());
        if self.driver().exists() {
            command.env("LD_LIBRARY_PATH", self.driver());
            for name in ["CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"] {
                command.env_remove(name);
            }
        }
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    /// The guard.
    pub fn oomguard<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Command {
        let own = Path::new(env!("CARGO_BIN_EXE_oomguard"));
        let mut command = match self.user {
            Some(_) => self.command(self.dir.path().join(own.file_name().unwrap())),
            None => self.command(own),
        };
        command.args(words).stdin(Stdio::null());
        command
    }

    /// `oomguard run FLAGS -- hog WORDS`, to its end.
    pub fn run_hog(&self, flags: &[&str], words: &[&str]) -> Done {
        let hog = self.hog();
        self.run(flags, &[&[hog.as_str()], words].concat())
    }

    /// `oomguard run FLAGS -- COMMAND`, to its end.
    pub fn run(&self, flags: &[&str], command: &[&str]) -> Done {
        let words = [&["run"], flags, &["--"], command].concat();
        self.done(&mut self.oomguard(words))
    }

    /// A command to its end. What it says goes through files: somebody who runs away keeps a pipe open for ever.
    pub fn done(&self, command: &mut Command) -> Done {
        let [out, err] = ["stdout", "stderr"].map(|name| self.dir.path().join(name));
        let file = |path| std::fs::File::create(path).unwrap();
        let mut child = command.stdout(file(&out)).stderr(file(&err)).spawn().unwrap();
        let code = end_of(&mut child).code();
        let bytes = std::fs::read(&out).unwrap();
        Done { code, out: text(&out), err: text(&err), bytes }
    }

    /// Directories of this world's parent cgroup that are there now.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for mount in ["memory", "unified", "freezer", ""] {
            collect(&Path::new(CGROUPS).join(mount).join(&self.name), &mut found);
        }
        found
    }

    /// Processes of this world that live.
    pub fn processes(&self) -> Vec<Process> {
        find_marked(Path::new("/proc"), MARK, &self.name).unwrap()
    }

    /// No process and no cgroup is left.
    pub fn must_be_empty(&self) {
        let left: Vec<String> = self.processes().iter().map(|process| describe(process.pid())).collect();
        assert!(left.is_empty(), "processes are left: {left:?}");
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new(), "cgroups are left");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for _ in 0..100 {
            let living = self.processes();
            for process in &living {
                let _ = process.signal(Signal::CONT);
                let _ = process.signal(Signal::KILL);
            }
            for dir in self.cgroups() {
                let _ = std::fs::write(dir.join("cgroup.freeze"), "0");
            }
            if living.iter().all(|process| process.wait_exit(Duration::from_secs(2)).unwrap_or(true))
                && living.is_empty()
            {
                break;
            }
        }
        for dir in self.cgroups() {
            let _ = std::fs::remove_dir(dir);
        }
    }
}

/// Deepest first.
fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        collect(&entry.path(), found);
    }
    found.push(dir.to_owned());
}

fn describe(pid: u32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    format!("{pid} {}", String::from_utf8_lossy(&line).replace('\0', " "))
}

/// The badly behaved program.
pub fn hog() -> PathBuf {
    let hog = Path::new(env!("CARGO_BIN_EXE_oomguard")).with_file_name("examples").join("hog");
    assert!(hog.exists(), "`{}` is missing: cargo build -p oomguard --examples", hog.display());
    hog
}

/// What came of a command.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
    pub bytes: Vec<u8>,
}

impl Done {
    pub fn of(output: Output) -> Done {
        Done {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
            bytes: output.stdout,
        }
    }

    /// Its last line on stderr.
    pub fn last(&self) -> &str {
        self.err.trim_end().lines().next_back().unwrap_or_default()
    }

    /// Fails unless it ended with this code.
    pub fn with(self, code: i32) -> Done {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }
}

/// The end of a child, which must come.
pub fn end_of(child: &mut Child) -> ExitStatus {
    wait_for(PATIENCE, "the end of a child", || child.try_wait().unwrap())
}

/// Sends a signal to a child of the test.
pub fn signal(child: &Child, signal: Signal) {
    Process::open(child.id()).unwrap().signal(signal).unwrap();
}

/// A file's text, or nothing.
pub fn text(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

/// A number in a file, once it is there.
pub fn pid_in(path: &Path) -> u32 {
    wait_for(PATIENCE, "a pid in a file", || text(path).trim().parse().ok())
}

/// Whether this process lives (one that waits to be reaped does not).
pub fn lives(pid: u32) -> bool {
    Process::open(pid).is_ok_and(|process| process.is_alive())
}

/// Every line of a text as JSON.
pub fn json_lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}")))
        .collect()
}
