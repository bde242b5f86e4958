//! Makes the guard fit for the moment when memory is gone: locked, first in line, last to be killed.
//!
//! Only for the guard itself; jobs never inherit any of it. What is not allowed is noted and goes without.

use oomguard_core::{HostPolicy, HostSample};
use oomguard_sys::oneself;

use super::Place;
use crate::record::Notice;

/// One thing that was tried, and how it went.
pub struct Step {
    /// What.
    pub what: &'static str,
    /// What it is good for.
    pub gives: &'static str,
    /// What it takes.
    pub needs: &'static str,
    /// The refusal, if it was refused.
    pub refused: Option<String>,
}

/// Does all that is allowed; what is missing here, of the place too, one sentence each.
pub fn notes(place: &Place) -> Vec<String> {
    let refused = |step: Step| step.refused.map(|why| format!("{}: {why}", step.what));
    place.notes.iter().cloned().chain(prepare().into_iter().filter_map(refused)).collect()
}

/// The first event of every run.
pub fn armed(
    verb: &str,
    place: &Place,
    host: &HostSample,
    policy: &HostPolicy,
    notes: Vec<String>,
) -> Notice {
    Notice::Armed {
        verb: verb.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        guard_pid: std::process::id(),
        enforcement: place.enforcement,
        notes,
        parent: place.path(),
        total: host.total,
        available: host.available,
        reserve: policy.reserve,
        warning: policy.warning,
    }
}

/// Does all that is allowed.
pub fn prepare() -> Vec<Step> {
    let step = |what, gives, needs, done: Result<(), oomguard_sys::Error>| Step {
        what,
        gives,
        needs,
        refused: done.err().map(|error| error.to_string()),
    };
    vec![
        step(
            "become subreaper",
            "orphans of a job come back to the guard",
            "a kernel since 3.4",
            oneself::become_subreaper(),
        ),
        step("open files", "room for every worker", "nothing", oneself::raise_open_files()),
        step("timer slack 1 ns", "the guard wakes when it asked to", "nothing", oneself::timer_slack()),
        step(
            "SCHED_FIFO",
            "the guard runs even when every core is busy",
            "CAP_SYS_NICE (root), or an rtprio limit for this user; without it the guard may be 5 ms late",
            oneself::schedule_first().map(|_| ()),
        ),
        step(
            "lower oom_score_adj",
            "the kernel kills the guard last",
            "CAP_SYS_RESOURCE (root outside of containers); without it jobs are raised above the guard instead",
            oneself::lower_oom_score().map(|_| ()),
        ),
        step(
            "lock memory",
            "the guard's own pages stay when memory is gone",
            "CAP_IPC_LOCK (root), or `ulimit -l 16384`",
            oneself::lock_memory().map(|_| ()),
        ),
    ]
}
