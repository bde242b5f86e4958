//! One client of the control socket: what it has sent and what it has not yet taken.
//!
//! Every buffer is bounded. It never waits for the other end, and says what was wrong before it hangs up.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::event::epoll;
use serde_json::{Value, json};

use super::{Request, Verb};
use crate::error::Error;

/// The longest request.
const LONGEST_LINE: usize = 64 << 10;
/// What is kept for a client that does not read.
const MOST_WAITING: usize = 1 << 20;
/// Requests taken from one client in one turn.
const MOST_REQUESTS: usize = 16;

/// One connection. Never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientId(pub(super) u64);

#[derive(Debug)]
pub(super) struct Client {
    pub(super) id: ClientId,
    pub(super) uid: u32,
    pub(super) stream: UnixStream,
    input: Vec<u8>,
    pub(super) output: Vec<u8>,
    /// It asked to watch; it does from the answer on, so that the answer comes first.
    asks_to_watch: bool,
    pub(super) watches: bool,
    missed: u64,
    /// Requests without an answer yet.
    owed: usize,
    /// It has nothing more to say; it goes as soon as it has all its answers.
    pub(super) ends: bool,
    pub(super) gone: bool,
}

/// `{"ok":false,...}`.
pub(super) fn refusal(error: &Error) -> Value {
    json!({"ok": false, "error": error.message, "hint": error.hint})
}

impl Client {
    pub(super) fn new(id: ClientId, uid: u32, stream: UnixStream) -> Client {
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

    pub(super) fn read(&mut self, requests: &mut Vec<(ClientId, Request)>) {
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

    /// Answers one request; a watcher watches from here on.
    pub(super) fn answer(&mut self, answer: &Value) {
        self.owed = self.owed.saturating_sub(1);
        self.say(&format!("{answer}\n"));
        self.watches |= self.asks_to_watch && answer["ok"] == true;
    }

    fn say(&mut self, line: &str) {
        if self.output.len().saturating_add(line.len()) > MOST_WAITING {
            self.gone = true;
        } else {
            self.output.extend_from_slice(line.as_bytes());
        }
    }

    pub(super) fn publish(&mut self, line: &str) {
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

    pub(super) fn write(&mut self, poll: &OwnedFd) {
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
