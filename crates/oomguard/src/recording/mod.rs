//! `--record`: a run as JSON lines, every input of the engine with its time, and what was told beside.
//!
//! [`Tape`] writes without ever making the guard wait; [`Recording`] reads back what is there. What the lines mean
//! stands in [`oomguard_core::recording`]; what a replay makes of them in `drive/replay`.

mod read;
mod tape;

use oomguard_core::recording::{Header, Machine, Made, VERSION};
use oomguard_core::{HostSample, JobId};
use serde::{Deserialize, Serialize};

use crate::record::{Entry, Record};

pub use read::{Flaw, Recording};
pub use tape::Tape;

/// What only the driver knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Beside {
    /// It told this.
    Record(Record),
    /// From here on it knows this about a job.
    Job(JobId, Entry),
}

/// The first line of a recording that begins now.
pub fn header(verb: &str, host: &HostSample, engine: Made) -> Header {
    let unix_ns = jiff::Timestamp::now().as_nanosecond();
    Header {
        recording: VERSION,
        build: format!("{} {} {}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, std::env::consts::OS),
        verb: verb.to_owned(),
        mono: oomguard_sys::clock::now(),
        unix_ns: u64::try_from(unix_ns).unwrap_or_default(),
        machine: Machine {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            cores: crate::drive::cores(),
            total: host.total,
        },
        engine,
    }
}
