//! The zygote: one clean Python process that has imported pytest and what most files import, and forks for each file.
//!
//! Speaks its protocol (`python/oomguard/pytest/_zygote`): JSON packets on a socket pair, descriptors along with
//! them. Never waits for an answer: the guard's loop hears of them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oomguard_core::{Bytes, Exit};
use oomguard_sys::cgroup::Leaf;
use oomguard_sys::process::{Process, Signal};
use oomguard_sys::spawn::{Session, Spawn, Stream};
use rustix::io::FdFlags;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};

use super::super::JOB_OOM_SCORE;
use crate::error::Error;

/// The variable that tells the zygote its socket's number.
const VARIABLE: &str = "OOMGUARD_ZYGOTE_FD";
/// It has nothing to do when it ends.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);
/// The longest packet.
const LONGEST: usize = 64 * 1024;
/// Descriptors beside the joins: output, errors, heartbeat, details.
const STREAMS: usize = 4;
/// The most descriptors in one packet.
const MOST_FDS: usize = STREAMS + 4;

/// How the zygote is to be made.
#[derive(Clone, Debug, Serialize)]
pub struct Wanted {
    /// The protocol's version.
    pub v: u32,
    /// Arguments for pytest.
    pub args: Vec<String>,
    /// What the user named.
    pub paths: Vec<String>,
    /// Modules to import beforehand, if they turn out to be safe.
    pub preload: Vec<String>,
    /// `auto`, `collection` or `imports`.
    pub depth: &'static str,
}

/// One file to fork for.
#[derive(Clone, Debug, Serialize)]
struct Fork<'a> {
    op: &'static str,
    id: u64,
    args: &'a [String],
    env: &'a BTreeMap<String, Option<String>>,
    oom_score_adj: i32,
    rlimit_data: Option<Bytes>,
    standby: Option<u64>,
    joins: usize,
}

/// A child to make before it is known for which file.
#[derive(Clone, Debug, Serialize)]
struct StandBy {
    op: &'static str,
    standby: u64,
    oom_score_adj: i32,
    joins: usize,
}

/// What a child of the zygote is given.
pub struct Child<'a> {
    /// Its number in answers.
    pub id: u64,
    /// The file, or its node ids.
    pub args: &'a [String],
    /// Changes to the environment; `None` removes.
    pub env: &'a BTreeMap<String, Option<String>>,
    /// `RLIMIT_DATA`, where no cgroup holds it.
    pub rlimit_data: Option<Bytes>,
    /// Its cgroup.
    pub leaf: Option<&'a Leaf>,
    /// Who waits for this order in that cgroup.
    pub standby: Option<u64>,
    /// Standard output and error, the heartbeat pipe, the file for details.
    pub streams: [BorrowedFd<'a>; STREAMS],
}

/// What the zygote says.
#[derive(Debug)]
pub enum Said {
    /// It can fork now.
    Ready(Ready),
    /// It never will.
    Unusable {
        /// Why.
        why: String,
        /// What pytest wrote, if it was pytest that refused.
        output: String,
        /// What pytest ended with, then.
        exit: Option<u8>,
    },
    /// A child runs.
    Forked(u64, Process),
    /// A child could not be made.
    Refused(u64, String),
    /// A child that was to stand by is not there.
    WontStandBy(u64),
    /// A child has ended.
    Exited(u64, Exit),
    /// The zygote itself is gone.
    Gone,
}

/// What it came to.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Ready {
    /// `collection` or `imports`.
    #[serde(default)]
    pub depth: String,
    /// Why not deeper.
    #[serde(default)]
    pub why: Option<String>,
    /// Python's version.
    #[serde(default)]
    pub python: String,
    /// pytest's version.
    #[serde(default)]
    pub pytest: String,
    /// What it has imported.
    #[serde(default)]
    pub preloaded: Vec<String>,
    /// What it has not, and why.
    #[serde(default)]
    pub passed_over: Vec<(String, String)>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Packet {
    Ready(Ready),
    Unusable {
        why: String,
        #[serde(default)]
        output: String,
        #[serde(default)]
        exitstatus: Option<u8>,
    },
    Forked {
        id: u64,
        pid: u32,
    },
    Refused {
        id: Option<u64>,
        standby: Option<u64>,
        why: String,
    },
    Exited {
        id: u64,
        code: Option<i32>,
        signal: Option<i32>,
    },
    #[serde(other)]
    Unknown,
}

/// The running zygote.
pub struct Zygote {
    socket: OwnedFd,
    process: Process,
    buffer: Vec<u8>,
}

impl Zygote {
    /// Starts it; [`Said::Ready`] follows.
    pub fn start(
        python: &Path,
        wanted: &Wanted,
        env: &[(OsString, Option<OsString>)],
        cwd: &Path,
        leaf: Option<&Leaf>,
        log: OwnedFd,
    ) -> Result<Zygote, Error> {
        let failed = |doing: &str, error: &dyn std::fmt::Display| {
            Error::new(format!("could not {doing} the zygote: {error}"))
        };
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .map_err(|e| failed("make a socket for", &e))?;
        rustix::io::fcntl_setfd(&theirs, FdFlags::empty()).map_err(|e| failed("hand a socket to", &e))?;
        let mut env = env.to_vec();
        env.push((VARIABLE.into(), Some(theirs.as_raw_fd().to_string().into())));
        let argv = [python.as_os_str().to_owned(), "-m".into(), "oomguard.pytest._zygote".into()];
        let errors = log.try_clone().map_err(|e| failed("open the log of", &e))?;
        let spawn = Spawn {
            argv: &argv,
            env: &env,
            cwd: Some(cwd.to_owned()),
            leaf,
            stdio: [Stream::Null, Stream::File(log), Stream::File(errors)],
            session: Session::NewSession,
            ..Spawn::default()
        };
        let process = spawn.start().map_err(|e| failed("start", &e))?;
        let zygote = Zygote { socket: ours, process, buffer: vec![0; LONGEST] };
        let text = serde_json::to_vec(wanted).map_err(|e| failed("speak to", &e))?;
        zygote.send(&text, &[]).map_err(|e| failed("speak to", &e))?;
        Ok(zygote)
    }

    /// Orders a child; [`Said::Forked`] or [`Said::Refused`] follows.
    pub fn fork(&self, child: &Child<'_>) -> Result<(), String> {
        let joins: Vec<BorrowedFd<'_>> = child.leaf.map(|leaf| leaf.join_fds().collect()).unwrap_or_default();
        let fork = Fork {
            op: "fork",
            id: child.id,
            args: child.args,
            env: child.env,
            oom_score_adj: JOB_OOM_SCORE,
            rlimit_data: child.rlimit_data,
            standby: child.standby,
            joins: joins.len(),
        };
        let fds: Vec<BorrowedFd<'_>> = child.streams.iter().copied().chain(joins).collect();
        self.order(&fork, &fds)
    }

    /// Has a child made that waits for its order in `leaf`; only [`Said::WontStandBy`] may follow.
    pub fn stand_by(&self, standby: u64, leaf: &Leaf) -> Result<(), String> {
        let joins: Vec<BorrowedFd<'_>> = leaf.join_fds().collect();
        let order = StandBy { op: "stand by", standby, oom_score_adj: JOB_OOM_SCORE, joins: joins.len() };
        self.order(&order, &joins)
    }

    fn order(&self, order: &impl Serialize, fds: &[BorrowedFd<'_>]) -> Result<(), String> {
        let text = serde_json::to_vec(order).map_err(|error| error.to_string())?;
        if text.len() > LONGEST {
            return Err("its arguments are too long for one packet".to_owned());
        }
        self.send(&text, fds).map_err(|error| format!("the zygote does not listen: {error}"))
    }

    fn send(&self, text: &[u8], fds: &[BorrowedFd<'_>]) -> rustix::io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(rustix::io::Errno::TOOBIG);
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        rustix::io::retry_on_intr(|| sendmsg(&self.socket, &[IoSlice::new(text)], &mut control, flags))
            .map(drop)
    }

    /// The next thing that it has said; `None`: nothing more at the moment.
    pub fn receive(&mut self) -> Option<Said> {
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let buffer = &mut [IoSliceMut::new(&mut self.buffer)];
            let length = match recvmsg(&self.socket, buffer, &mut control, flags) {
                Ok(message) => message.bytes,
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) => return None,
                Err(_) => return Some(Said::Gone),
            };
            let pidfd = control.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                _ => None,
            });
            if length == 0 {
                return Some(Said::Gone);
            }
            match serde_json::from_slice(&self.buffer[..length]) {
                Ok(Packet::Unknown) => {}
                Ok(packet) => return Some(said(packet, pidfd)),
                Err(error) => {
                    let why = format!("it said what nobody understands: {error}");
                    return Some(Said::Unusable { why, output: String::new(), exit: None });
                }
            }
        }
    }

    /// Lets it go: it ends by itself when nobody speaks to it any more.
    pub fn end(self) {
        let Zygote { socket, process, .. } = self;
        drop(socket);
        if !process.wait_exit(PATIENCE).unwrap_or(false) {
            let _ = process.signal(Signal::KILL);
        }
        let _ = oomguard_sys::wait::reap_one(process.pid());
    }

    /// Ends it at once, and what it has forked loses its parent only.
    pub fn kill(&self) {
        let _ = self.process.signal(Signal::KILL);
    }
}

impl AsFd for Zygote {
    /// Readable when it has spoken.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn said(packet: Packet, pidfd: Option<OwnedFd>) -> Said {
    match packet {
        Packet::Ready(ready) => Said::Ready(ready),
        Packet::Unusable { why, output, exitstatus } => Said::Unusable { why, output, exit: exitstatus },
        Packet::Forked { id, pid } => match pidfd {
            Some(pidfd) => Said::Forked(id, Process::held(pid, pidfd)),
            None => Said::Refused(id, "the zygote did not hand its process over".to_owned()),
        },
        Packet::Refused { standby: Some(standby), .. } => Said::WontStandBy(standby),
        Packet::Refused { id, why, .. } => Said::Refused(id.unwrap_or_default(), why),
        Packet::Exited { id, code, signal } => Said::Exited(
            id,
            match (code, signal) {
                (Some(code), _) => Exit::Code(code),
                (None, Some(signal)) => Exit::Signal(signal),
                (None, None) => Exit::Unknown,
            },
        ),
        Packet::Unknown => Said::Gone,
    }
}

/// The interpreter: the one that was asked for, else that of the active virtual environment, else the one that lies
/// beside oomguard itself (`pip install oomguard` puts both into one folder), else `python3` of the `PATH`.
pub fn interpreter(
    asked: Option<&Path>,
    env: &dyn Fn(&str) -> Option<OsString>,
    own: Option<&Path>,
) -> PathBuf {
    if let Some(asked) = asked {
        return asked.to_owned();
    }
    let in_env = env("VIRTUAL_ENV").map(|env| PathBuf::from(env).join("bin/python"));
    let beside = own.and_then(Path::parent).map(|folder| folder.join("python"));
    let found = in_env.into_iter().chain(beside).find(|python| python.is_file());
    found.unwrap_or_else(|| PathBuf::from("python3"))
}
