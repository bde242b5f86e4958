//! How a running guard is asked and told: JSON lines over a Unix socket of its own user.
//!
//! Decides the words ([`Request`]), how they travel and what `status` looks like. What a request leads to is for
//! the driver. It never waits for a client, and never serves another user than the guard's own and root.

mod client;
mod connection;
#[cfg(any(test, fuzzing))]
#[expect(clippy::unwrap_used, reason = "a check that cannot be made has failed")]
pub(crate) mod fuzz;
mod server;
mod status;
mod table;

use serde::{Deserialize, Serialize};

pub use client::{Watch, request};
pub use connection::ClientId;
pub use server::Server;
pub use status::{GpuStatus, GuardStatus, HostStatus, Phase, Status, WorkerStatus};
pub use table::render_table;

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// How is everything? Answered with `{"ok":true,"status":...}`.
    Status,
    /// Read the configuration again.
    Reload,
    /// Restart one worker, or all, one after another.
    Restart,
    /// End one worker, or everything.
    Stop,
    /// Send every event from here on, one JSON object a line.
    Watch,
}

/// One request, one line: `{"do":"restart","worker":"worker-1"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// What.
    #[serde(rename = "do")]
    pub verb: Verb,
    /// For which worker; all without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// Without SIGTERM first.
    #[serde(default)]
    pub now: bool,
}

impl Request {
    /// For all workers, gracefully.
    pub fn new(verb: Verb) -> Request {
        Request { verb, worker: None, now: false }
    }
}
