//! What a service tells its manager: that it is ready, that it lives, that it ends (sd_notify).
//!
//! Touches `$NOTIFY_SOCKET`, `$WATCHDOG_USEC` and `$WATCHDOG_PID`. Never waits, and says nothing where nobody listens.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use oomguard_core::Instant;

/// The manager, if there is one.
pub(super) struct Service {
    manager: Option<(UnixDatagram, SocketAddr)>,
    /// Half of what the manager waits.
    every: Option<Duration>,
    next: Instant,
}

impl Service {
    pub(super) fn from_environment() -> Service {
        let variable = |name| std::env::var(name).ok();
        let mine = variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let patience = variable("WATCHDOG_USEC").and_then(|text| text.parse().ok()).filter(|_| mine);
        Service {
            manager: variable("NOTIFY_SOCKET").and_then(|name| listener(&name)),
            every: patience.map(|micros: u64| Duration::from_micros(micros / 2)),
            next: Instant(0),
        }
    }

    pub(super) fn ready(&self) {
        self.send("READY=1");
    }

    /// Says so when half of the manager's patience is over; a look comes every two seconds at the latest.
    pub(super) fn alive(&mut self, now: Instant) {
        if let Some(every) = self.every.filter(|_| now >= self.next) {
            self.send("WATCHDOG=1");
            self.next = now.after(every);
        }
    }

    pub(super) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    fn send(&self, word: &str) {
        if let Some((socket, manager)) = &self.manager {
            // A manager that does not read has its own reasons; the guard goes on.
            let _ = socket.send_to_addr(word.as_bytes(), manager);
        }
    }
}

fn listener(name: &str) -> Option<(UnixDatagram, SocketAddr)> {
    let address = match name.strip_prefix('@') {
        Some(hidden) => SocketAddr::from_abstract_name(hidden).ok()?,
        None => SocketAddr::from_pathname(name).ok()?,
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    Some((socket, address))
}
