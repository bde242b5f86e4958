//! The sd_notify protocol, client side: one datagram a message. Never blocks, never fails loudly.

/// Sends `message` to `$NOTIFY_SOCKET` (a path, or `@name` for the abstract namespace). Whether it was sent.
pub(crate) fn send(message: &str) -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some_and(|name| os::send(&name, message.as_bytes()).is_ok())
}

#[cfg(target_os = "linux")]
mod os {
    use std::ffi::OsStr;
    use std::io;
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    pub(super) fn send(name: &OsStr, message: &[u8]) -> io::Result<()> {
        let to = match name.as_bytes().strip_prefix(b"@") {
            Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.send_to_addr(message, &to).map(drop)
    }
}

#[cfg(not(target_os = "linux"))]
mod os {
    use std::ffi::OsStr;
    use std::io;

    pub(super) fn send(_name: &OsStr, _message: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
