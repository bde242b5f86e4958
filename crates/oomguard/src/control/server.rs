//! The guard's end of the control socket: accepts, reads and writes only as far as that goes at once.
//!
//! One descriptor ([`Server::as_fd`]) is readable whenever [`Server::turn`] has something to do. Every client costs
//! a bounded amount of memory and no time: one that sends garbage, too much, or nothing is told so or let go.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use serde_json::{Value, json};

use super::{Request, Verb};
use crate::error::Error;
use crate::notify::remove_socket;

/// Clients at a time.
const MOST_CLIENTS: usize = 16;
/// The longest request.
const LONGEST_LINE: usize = 64 << 10;
/// What is kept for a client that does not read.
const MOST_WAITING: usize = 1 << 20;
/// Requests taken from one client in one turn.
const MOST_REQUESTS: usize = 16;
/// The listener among the descriptors; clients count from 1.
const LISTENER: u64 = 0;

/// One connection. Never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientId(u64);

#[derive(Debug)]
struct Client {
    id: ClientId,
    uid: u32,
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// It asked to watch; it does from the answer on, so that the answer comes first.
    asks_to_watch: bool,
    watches: bool,
    missed: u64,
    /// Requests without an answer yet.
    owed: usize,
    /// It has nothing more to say; it goes as soon as it has all its answers.
    ends: bool,
    gone: bool,
}

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
            client.owed = client.owed.saturating_sub(1);
            client.say(&format!("{answer}\n"));
            client.watches |= client.asks_to_watch && answer["ok"] == true;
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

    /// Writes what is left for up to `patience`, before the guard ends.
    pub fn finish(&mut self, patience: std::time::Duration) {
        for client in &mut self.clients {
            // The stream is thrown away right after; a client that is slow loses the rest.
            let _ = client.stream.set_nonblocking(false);
            let _ = client.stream.set_write_timeout(Some(patience.max(std::time::Duration::from_millis(1))));
            let _ = client.stream.write_all(&client.output);
        }
        self.clients.clear();
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let Ok(peer) = rustix::net::sockopt::socket_peercred(&stream) else { continue };
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            let (uid, ours) = (peer.uid.as_raw(), rustix::process::geteuid().as_raw());
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

fn refusal(error: &Error) -> Value {
    json!({"ok": false, "error": error.message, "hint": error.hint})
}

/// One clear refusal, if the socket takes it at once.
fn turn_away(mut stream: UnixStream, why: &str, hint: &str) {
    let _ = stream.write_all(format!("{}\n", refusal(&Error::new(why).hint(hint))).as_bytes());
}

impl Client {
    fn new(id: ClientId, uid: u32, stream: UnixStream) -> Client {
        Client {
            id,
            uid,
            stream,
            input: Vec::new(),
            output: Vec::new(),
            asks_to_watch: false,
            watches: false,
            missed: 0,
            owed: 0,
            ends: false,
            gone: false,
        }
    }

    fn read(&mut self, requests: &mut Vec<(ClientId, Request)>) {
        let mut part = [0; 4096];
        let mut taken = 0;
        while !self.ends && taken < MOST_REQUESTS {
            match self.stream.read(&mut part) {
                Ok(0) => self.ends = true,
                Ok(length) => {
                    self.input.extend_from_slice(&part[..length]);
                    taken += self.lines(requests);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.gone = true;
                    return;
                }
            }
        }
    }

    /// Takes the whole lines of the input, and gives how many there were.
    fn lines(&mut self, requests: &mut Vec<(ClientId, Request)>) -> usize {
        let mut count = 0;
        while let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            count += 1;
            match serde_json::from_slice::<Request>(&line) {
                Ok(request) => {
                    self.asks_to_watch |= request.verb == Verb::Watch;
                    self.owed += 1;
                    requests.push((self.id, request));
                }
                Err(error) => self.last_word(&format!("the request could not be understood: {error}")),
            }
        }
        if self.input.len() > LONGEST_LINE {
            self.last_word(&format!("the request is longer than {LONGEST_LINE} bytes"));
        }
        count
    }

    /// Says what is wrong and ends the conversation.
    fn last_word(&mut self, why: &str) {
        let error = Error::new(why).hint("one JSON object a line: `{\"do\":\"status\"}`");
        self.say(&format!("{}\n", refusal(&error)));
        self.input.clear();
        self.asks_to_watch = false;
        self.watches = false;
        self.ends = true;
    }

    fn say(&mut self, line: &str) {
        if self.output.len().saturating_add(line.len()) > MOST_WAITING {
            self.gone = true;
        } else {
            self.output.extend_from_slice(line.as_bytes());
        }
    }

    fn publish(&mut self, line: &str) {
        if self.output.len().saturating_add(line.len()) > MOST_WAITING / 2 {
            self.missed += 1;
            return;
        }
        if self.missed > 0 {
            let missed = std::mem::take(&mut self.missed);
            self.say(&format!("{}\n", json!({"event": "missed", "lines": missed})));
        }
        self.say(line);
    }

    fn write(&mut self, poll: &OwnedFd) {
        while !self.output.is_empty() && !self.gone {
            match self.stream.write(&self.output) {
                Ok(0) => self.gone = true,
                Ok(length) => drop(self.output.drain(..length)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.gone = true,
            }
        }
        if self.ends && self.output.is_empty() && self.owed == 0 && !self.watches {
            self.gone = true;
        }
        let mut wanted = if self.ends { epoll::EventFlags::empty() } else { epoll::EventFlags::IN };
        if !self.output.is_empty() {
            wanted |= epoll::EventFlags::OUT;
        }
        if !self.gone
            && epoll::modify(poll, &self.stream, epoll::EventData::new_u64(self.id.0), wanted).is_err()
        {
            self.gone = true;
        }
    }
}
