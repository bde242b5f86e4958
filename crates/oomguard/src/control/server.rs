//! The guard's end of the control socket: accepts, reads and writes only as far as that goes at once.
//!
//! One descriptor ([`Server::as_fd`]) is readable whenever [`Server::turn`] has something to do. Every client costs
//! a bounded amount of memory and no time: one that sends garbage, too much, or nothing is told so or let go.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oomguard_sys::peer::Peer;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use serde_json::Value;

use super::Request;
use super::connection::{Client, ClientId, refusal};
use crate::error::Error;
use crate::notify::remove_socket;

/// Clients at a time.
const MOST_CLIENTS: usize = 16;
/// The listener among the descriptors; clients count from 1.
const LISTENER: u64 = 0;

/// The socket and its clients.
#[derive(Debug)]
pub struct Server {
    poll: OwnedFd,
    listener: UnixListener,
    path: PathBuf,
    clients: Vec<Client>,
    next: u64,
}

impl Server {
    /// Listens on `path` (mode 0600). A socket there is replaced only if nobody answers on it.
    pub fn bind(path: &Path) -> Result<Server, Error> {
        let failed = |error: io::Error| Error::io("listen on", path, &error);
        if UnixStream::connect(path).is_ok() {
            return Err(Error::new(format!("another guard already listens on `{}`", path.display()))
                .hint("ask it with `oomguard status`, or end it with `oomguard stop`"));
        }
        remove_socket(path).map_err(failed)?;
        let listener = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
        epoll::add(&poll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)
            .map_err(|errno| failed(errno.into()))?;
        Ok(Server { poll, listener, path: path.to_owned(), clients: Vec::new(), next: LISTENER + 1 })
    }

    /// Does all that can be done at once and gives the requests that have come in.
    pub fn turn(&mut self) -> Vec<(ClientId, Request)> {
        let mut requests = Vec::new();
        let mut events: Vec<epoll::Event> = Vec::with_capacity(MOST_CLIENTS + 1);
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if epoll::wait(&self.poll, spare_capacity(&mut events), Some(&now)).is_err() {
            return requests;
        }
        for event in events {
            match event.data.u64() {
                LISTENER => self.accept(),
                id => {
                    let Some(client) = self.clients.iter_mut().find(|client| client.id.0 == id) else {
                        continue;
                    };
                    client.read(&mut requests);
                    // Half closed, it may still listen; closed altogether, nobody does.
                    let flags = event.flags;
                    client.gone |= flags.contains(epoll::EventFlags::HUP);
                    client.write(&self.poll);
                }
            }
        }
        self.clients.retain(|client| !client.gone);
        requests
    }

    /// Answers a request. A client that is gone is no failure.
    pub fn reply(&mut self, id: ClientId, answer: &Value) {
        if let Some(client) = self.clients.iter_mut().find(|client| client.id == id) {
            client.answer(answer);
            client.write(&self.poll);
        }
        self.clients.retain(|client| !client.gone);
    }

    /// Answers with an error: `{"ok":false,"error":...,"hint":...}`.
    pub fn refuse(&mut self, id: ClientId, error: &Error) {
        self.reply(id, &refusal(error));
    }

    /// The user at the other end.
    pub fn uid(&self, id: ClientId) -> Option<u32> {
        self.clients.iter().find(|client| client.id == id).map(|client| client.uid)
    }

    /// Whether anybody watches: else no line need be made.
    pub fn is_watched(&self) -> bool {
        self.clients.iter().any(|client| client.watches)
    }

    /// Sends a line (with its line feed) to all who watch. Who does not keep up misses lines and is told how many.
    pub fn publish(&mut self, line: &str) {
        for client in self.clients.iter_mut().filter(|client| client.watches) {
            client.publish(line);
            client.write(&self.poll);
        }
        self.clients.retain(|client| !client.gone);
    }

    /// Writes what is left for up to `patience` in all, before the guard ends.
    pub fn finish(&mut self, patience: Duration) {
        let end = Instant::now() + patience;
        for client in &mut self.clients {
            // The stream is thrown away right after; a client that is slow loses the rest.
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            let _ = client.stream.set_nonblocking(false);
            let _ = client.stream.set_write_timeout(Some(left));
            let _ = client.stream.write_all(&client.output);
        }
        self.clients.clear();
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let Ok(peer) = Peer::of(stream.as_fd()) else { continue };
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            let (uid, ours) = (peer.uid, rustix::process::geteuid().as_raw());
            if uid != ours && uid != 0 {
                turn_away(
                    stream,
                    &format!("this guard belongs to user {ours}"),
                    "ask as that user or as root",
                );
                continue;
            }
            if self.clients.len() == MOST_CLIENTS {
                turn_away(
                    stream,
                    &format!("{MOST_CLIENTS} clients are connected already"),
                    "try again later",
                );
                continue;
            }
            let id = ClientId(self.next);
            let data = epoll::EventData::new_u64(id.0);
            if epoll::add(&self.poll, &stream, data, epoll::EventFlags::IN).is_ok() {
                self.next += 1;
                self.clients.push(Client::new(id, uid, stream));
            }
        }
    }
}

impl AsFd for Server {
    /// Readable when [`Server::turn`] has something to do.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poll.as_fd()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A socket that stays behind is replaced by the next guard.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// One clear refusal, if the socket takes it at once.
fn turn_away(mut stream: UnixStream, why: &str, hint: &str) {
    let _ = stream.write_all(format!("{}\n", refusal(&Error::new(why).hint(hint))).as_bytes());
}
