//! Starting a job: in its cgroup from its first instruction, and without anything of the guard's.
//!
//! Touches what the child is: its cgroup, limits, OOM score, signal mask, session, descriptors. Never waits for the
//! child (the guard reaps), and never lets it run outside its cgroup: if it cannot join, it does not start.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use oomguard_core::Bytes;

use super::cgroup::Leaf;
use super::process::Process;
use super::{Error, oneself, wait};

mod stage;

use stage::{Stage, StageCell};

/// Where one of the three standard descriptors comes from.
#[derive(Debug, Default)]
pub enum Stream {
    /// The guard's own.
    #[default]
    Inherit,
    /// `/dev/null`.
    Null,
    /// This file.
    File(OwnedFd),
}

/// The child's session and process group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Session {
    /// The guard's: keys on the terminal reach it.
    #[default]
    Inherit,
    /// A process group of its own, in the guard's session.
    NewGroup,
    /// A session of its own, without a terminal.
    NewSession,
}

/// What to start.
#[derive(Debug, Default)]
pub struct Spawn<'a> {
    /// Program and arguments; the program is looked up in `PATH`.
    pub argv: &'a [OsString],
    /// Changes to the guard's environment; `None` removes.
    pub env: &'a [(OsString, Option<OsString>)],
    /// Where to run; `None`: where the guard runs.
    pub cwd: Option<PathBuf>,
    /// The cgroup to run in.
    pub leaf: Option<&'a Leaf>,
    /// `RLIMIT_DATA` of each process, where no cgroup holds the job.
    pub rlimit_data: Option<Bytes>,
    /// `oom_score_adj`; `None`: what the guard had when it was started.
    pub oom_score_adj: Option<i32>,
    /// Standard input, output and error.
    pub stdio: [Stream; 3],
    /// Session and process group.
    pub session: Session,
}

/// Why it does not run.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// There is no such program (exit code 127).
    #[error("`{0}` was not found")]
    NotFound(String),
    /// It is there but cannot be executed (exit code 126).
    #[error("`{program}` cannot be executed: {error}")]
    NotExecutable {
        /// The program.
        program: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// The working directory is not there, or not for us.
    #[error("the working directory `{}` cannot be entered: {error}", dir.display())]
    NoCwd {
        /// The directory.
        dir: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// Anything else, with what was being done.
    #[error("cannot {doing}: {error}")]
    Other {
        /// What was being done.
        doing: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
}

impl Spawn<'_> {
    /// Starts it: one fork and exec. The child is ours to reap by its pid; it may have ended already.
    pub fn start(self) -> Result<Process, SpawnError> {
        let [program, args @ ..] = self.argv else {
            let error = io::Error::from(io::ErrorKind::InvalidInput);
            return Err(SpawnError::Other { doing: "start nothing", error });
        };
        let shown = program.to_string_lossy().into_owned();
        if let Some(dir) = &self.cwd {
            // Asked beforehand, because exec's "not found" looks the same.
            let entered = std::fs::metadata(dir).and_then(|meta| match meta.is_dir() {
                true => Ok(()),
                false => Err(io::Error::from(io::ErrorKind::NotADirectory)),
            });
            entered.map_err(|error| SpawnError::NoCwd { dir: dir.clone(), error })?;
        }
        let stage = StageCell::new().map_err(|e| other("map a page", e))?;
        let mut command = Command::new(program);
        command.args(args);
        for (key, value) in self.env {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        if let Some(dir) = self.cwd {
            command.current_dir(dir);
        }
        let [stdin, stdout, stderr] = self.stdio;
        command.stdin(stdio(stdin)).stdout(stdio(stdout)).stderr(stdio(stderr));
        if self.session == Session::NewGroup {
            command.process_group(0);
        }
        let child = Child {
            join: self
                .leaf
                .map(|leaf| leaf.join_fds().map(|fd| fd.as_raw_fd()).collect())
                .unwrap_or_default(),
            new_session: self.session == Session::NewSession,
            oom_score: self.oom_score_adj.or_else(oneself::original_oom_score).map(|n| n.to_string()),
            rlimit_data: self.rlimit_data,
            open_files: oneself::original_open_files(),
            timer_slack: oneself::original_timer_slack(),
            nice: oneself::original_nice(),
            mask: wait::original_mask(),
        };
        let told = stage.clone();
        // SAFETY: the closure runs between fork and exec and makes nothing but async-signal-safe system calls on
        // memory that was prepared before the fork; it does not allocate.
        unsafe { command.pre_exec(move || child.prepare(&told)) };
        let spawned = command.spawn().map_err(|error| {
            let changed = self.env.iter().rev().find(|(key, _)| key == "PATH");
            let path = changed.map_or_else(|| std::env::var_os("PATH"), |(_, value)| value.clone());
            refused(error, stage.get(), shown, path.as_deref())
        })?;
        // Not reaped yet, so the pid is still the child's.
        Process::open(spawned.id()).map_err(|error| {
            let error = io::Error::from_raw_os_error(error.errno().unwrap_or(libc::ESRCH));
            other("hold the new process", error)
        })
    }
}

/// What the child does to itself before exec.
struct Child {
    join: Vec<RawFd>,
    new_session: bool,
    oom_score: Option<String>,
    rlimit_data: Option<Bytes>,
    /// Soft and hard.
    open_files: Option<(u64, u64)>,
    timer_slack: Option<u64>,
    nice: Option<i32>,
    mask: Option<libc::sigset_t>,
}

impl Child {
    /// Every step is noted before it is taken, so that the guard can say which one failed.
    fn prepare(&self, stage: &StageCell) -> io::Result<()> {
        stage.set(Stage::Join);
        for fd in &self.join {
            // SAFETY: an open descriptor and one readable byte.
            check(unsafe { libc::write(*fd, c"0".as_ptr().cast(), 1) } == 1)?;
        }
        stage.set(Stage::Session);
        if self.new_session {
            // SAFETY: no arguments.
            check(unsafe { libc::setsid() } >= 0)?;
        }
        stage.set(Stage::OomScore);
        if let Some(score) = &self.oom_score {
            // SAFETY: a path that ends with a zero, a readable buffer of that length, a descriptor that we opened.
            unsafe {
                let fd = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
                check(fd >= 0)?;
                let written = libc::write(fd, score.as_ptr().cast(), score.len());
                check(written == score.len() as isize)?;
            }
        }
        stage.set(Stage::Rlimit);
        if let Some(Bytes(data)) = self.rlimit_data {
            let limit = libc::rlimit { rlim_cur: data, rlim_max: data };
            // SAFETY: a valid, initialised struct.
            check(unsafe { libc::setrlimit(libc::RLIMIT_DATA, &limit) } == 0)?;
        }
        stage.set(Stage::Restore);
        if let Some((rlim_cur, rlim_max)) = self.open_files {
            let limit = libc::rlimit { rlim_cur, rlim_max };
            // SAFETY: plain data that outlives the call.
            check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } == 0)?;
        }
        if let Some(slack) = self.timer_slack {
            // SAFETY: integers only.
            check(unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, slack, 0, 0, 0) } == 0)?;
        }
        if let Some(nice) = self.nice {
            // A negative one may be refused to who was only given it.
            // SAFETY: integers only.
            check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) } == 0 || nice < 0)?;
        }
        if let Some(mask) = &self.mask {
            // SAFETY: a valid, initialised set; the old one is not asked for.
            let rc = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) };
            check(rc == 0)?;
        }
        stage.set(Stage::Exec);
        Ok(())
    }
}

/// The last error, unless it went well.
fn check(went_well: bool) -> io::Result<()> {
    if went_well { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn stdio(stream: Stream) -> Stdio {
    match stream {
        Stream::Inherit => Stdio::inherit(),
        Stream::Null => Stdio::null(),
        Stream::File(fd) => Stdio::from(fd),
    }
}

fn other(doing: &'static str, error: io::Error) -> SpawnError {
    SpawnError::Other { doing, error }
}

/// What a failed start means, by how far the child had come.
fn refused(error: io::Error, stage: Stage, program: String, path: Option<&OsStr>) -> SpawnError {
    match (stage, error.raw_os_error()) {
        (Stage::Exec, Some(libc::ENOENT | libc::ENOTDIR)) => SpawnError::NotFound(program),
        // One folder of `PATH` that we may not look into is enough for this error.
        (Stage::Exec, Some(libc::EACCES)) if !is_anywhere(&program, path) => SpawnError::NotFound(program),
        (Stage::Exec, Some(libc::EACCES | libc::EPERM | libc::ENOEXEC | libc::EISDIR | libc::ETXTBSY)) => {
            SpawnError::NotExecutable { program, error }
        }
        // std itself refuses a name with a zero byte in it.
        (stage, _) => SpawnError::Other { doing: stage.doing(), error },
    }
}

/// Whether a file of that name can be seen: where it says, or in a folder of `path`.
fn is_anywhere(program: &str, path: Option<&OsStr>) -> bool {
    if program.contains('/') {
        return true;
    }
    path.is_some_and(|path| std::env::split_paths(path).any(|dir| dir.join(program).exists()))
}

impl From<SpawnError> for Error {
    fn from(error: SpawnError) -> Error {
        Error::Refused(error.to_string())
    }
}
