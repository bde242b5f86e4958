//! Who is at the other end of a Unix socket, as the kernel knows it.
//!
//! Touches the socket it is given. By hand because a peer outside of our pid namespace (a shell on the host, a guard in
//! a container) has the number 0, which `rustix` holds to be impossible. Never waits, and never keeps a descriptor that
//! is sent along: there is no room for one.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// The other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its process; `None` if it has no number here.
    pub pid: Option<u32>,
    /// Its effective user.
    pub uid: u32,
}

/// Room for one message of credentials.
// SAFETY: a calculation.
const SPACE: usize = unsafe { libc::CMSG_SPACE(size_of::<libc::ucred>() as u32) } as usize;

/// Aligned as the kernel's headers are.
#[repr(C, align(8))]
struct Control([u8; SPACE]);

impl Peer {
    /// Who connected this stream, or listened for it.
    pub fn of(socket: BorrowedFd<'_>) -> io::Result<Peer> {
        let mut found = libc::ucred { pid: 0, uid: 0, gid: 0 };
        let mut length = size_of::<libc::ucred>() as libc::socklen_t;
        // SAFETY: an open descriptor, and a struct of integers with its own length.
        let rc = unsafe {
            let to = (&raw mut found).cast();
            libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, to, &mut length)
        };
        if rc == 0 { Ok(Peer::from(found)) } else { Err(io::Error::last_os_error()) }
    }

    /// Takes one datagram without waiting: who sent it (`None` if the socket does not ask, see `SO_PASSCRED`), and its
    /// length; what is longer than `buffer` is cut.
    pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(Option<Peer>, usize)> {
        let mut control = Control([0; SPACE]);
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: a struct of integers and pointers, for which zeros are valid.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = SPACE as _;
        let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        // SAFETY: an open descriptor; every pointer in the message leads to memory of the length beside it, which is
        // nobody else's until the call is over.
        let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
        let Ok(length) = usize::try_from(length) else { return Err(io::Error::last_os_error()) };
        // SAFETY: the kernel has set the length of what it wrote into the control buffer; the header is read only if it
        // is there whole (`CMSG_FIRSTHDR`), and the credentials only if the header says that they follow.
        let sender = unsafe {
            let first = libc::CMSG_FIRSTHDR(&raw const message);
            let is_sender = !first.is_null()
                && (*first).cmsg_level == libc::SOL_SOCKET
                && (*first).cmsg_type == libc::SCM_CREDENTIALS
                && (*first).cmsg_len as usize >= libc::CMSG_LEN(size_of::<libc::ucred>() as u32) as usize;
            is_sender.then(|| libc::CMSG_DATA(first).cast::<libc::ucred>().read_unaligned())
        };
        Ok((sender.map(Peer::from), length))
    }
}

impl From<libc::ucred> for Peer {
    fn from(found: libc::ucred) -> Peer {
        Peer { pid: u32::try_from(found.pid).ok().filter(|pid| *pid != 0), uid: found.uid }
    }
}
