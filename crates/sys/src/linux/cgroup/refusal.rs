//! What was tried in order to hold jobs in a cgroup and did not work, and what a person can do about it.
//!
//! Touches nothing. Never hides an attempt because a later one failed too.

use std::fmt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::os::error::Error;

/// Something that was tried and did not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Where.
    pub at: PathBuf,
    /// What, and how it failed.
    pub what: String,
    /// The kernel's error number, if it was a call that failed.
    pub errno: Option<i32>,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.at.display(), self.what)
    }
}

/// No cgroup can hold the jobs here: everything that was tried, and what would help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// In the order of trying.
    pub attempts: Vec<Attempt>,
    /// What a person can do about it.
    pub remedy: String,
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no cgroup can hold jobs to a limit here")?;
        for attempt in &self.attempts {
            write!(f, "\n  {attempt}")?;
        }
        write!(f, "\nhint: {}", self.remedy)
    }
}

/// The attempts so far.
#[derive(Debug, Default)]
pub(crate) struct Log(pub(crate) Vec<Attempt>);

impl Log {
    pub(crate) fn say(&mut self, at: &Path, what: impl Into<String>, errno: Option<Errno>) {
        self.0.push(Attempt { at: at.to_owned(), what: what.into(), errno: errno.map(Errno::raw_os_error) });
    }
    pub(crate) fn failed(&mut self, at: &Path, doing: &str, errno: Errno) {
        let why = std::io::Error::from(errno);
        self.say(at, format!("cannot {doing}: {why}"), Some(errno));
    }
    pub(crate) fn error(&mut self, at: &Path, error: &Error) {
        self.say(at, error.to_string(), error.errno().map(Errno::from_raw_os_error));
    }
    /// What would help, judged by what went wrong.
    pub(crate) fn refuse(self) -> Refusal {
        let met = |wanted: Errno| self.0.iter().any(|a| a.errno == Some(wanted.raw_os_error()));
        let remedy = if met(Errno::ROFS) {
            "the cgroup filesystem is read-only, as in most containers: give the container a writable one \
             (`docker run --cgroupns=private --security-opt writable-cgroups=true`, or `--privileged`), or run \
             oomguard outside of it"
        } else if met(Errno::ACCESS) || met(Errno::PERM) {
            "run it in a cgroup of your own (`systemd-run --user --scope -p Delegate=yes oomguard ...`), or as root"
        } else if met(Errno::BUSY) || met(Errno::NOTUNIQ) {
            "start oomguard in a cgroup of its own (`systemd-run --scope -p Delegate=yes oomguard ...`): on cgroup v2 \
             one that holds other processes cannot be divided"
        } else {
            "the memory controller is off or not mounted: boot without `cgroup_disable=memory`, and mount cgroup2 on \
             /sys/fs/cgroup"
        };
        Refusal { attempts: self.0, remedy: remedy.to_owned() }
    }
}
