//! What the guard must find again after its own death: who its workers are, how jobs died, where it can be spoken to.
//!
//! Touches one directory of its own (0700) and one for sockets. It never trusts what it reads there: a damaged
//! file is kept aside and said, a directory of somebody else or behind a link is refused.

mod deaths;
mod directory;
mod history;
mod lock;
mod runtime;
mod snapshot;
mod studies;
mod tail;
mod write;

pub use deaths::{Death, Deaths};
pub use directory::StateDir;
pub use history::{History, Past};
pub use lock::{Guard, Lock};
pub use runtime::Runtime;
pub use snapshot::{Loaded, State, Worker};
pub use studies::Study;
pub use write::{can_write_beside, write_whole};

/// A short name for `path` that is the same on every run (64-bit FNV-1a, 16 hexadecimal digits).
pub(crate) fn key(path: &std::path::Path) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in path.as_os_str().as_encoded_bytes() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}
