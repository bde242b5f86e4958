//! Makes the guard fit for the moment when memory is gone: locked, first in line, last to be killed.
//!
//! Only for the guard itself; jobs never inherit any of it. What is not allowed is noted and goes without.

use oomguard_sys::oneself;

/// One thing that was tried, and how it went.
pub struct Step {
    /// What.
    pub what: &'static str,
    /// What it is good for.
    pub gives: &'static str,
    /// The refusal, if it was refused.
    pub refused: Option<String>,
}

/// Does all that is allowed.
pub fn prepare() -> Vec<Step> {
    let step = |what, gives, done: Result<(), oomguard_sys::Error>| Step {
        what,
        gives,
        refused: done.err().map(|error| error.to_string()),
    };
    vec![
        step("become subreaper", "orphans of a job come back to the guard", oneself::become_subreaper()),
        step("timer slack 1 ns", "the guard wakes when it asked to", oneself::timer_slack()),
        step(
            "SCHED_FIFO",
            "the guard runs even when every core is busy",
            oneself::schedule_first().map(|_| ()),
        ),
        step(
            "lower oom_score_adj",
            "the kernel kills the guard last",
            oneself::lower_oom_score().map(|_| ()),
        ),
        step(
            "lock memory",
            "the guard's own pages stay when memory is gone",
            oneself::lock_memory().map(|_| ()),
        ),
    ]
}
