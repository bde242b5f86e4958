//! The asking end of the control socket.
//!
//! Waits, but never longer than it is told to. What goes wrong becomes one error that says who did not answer.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use oomguard_sys::peer::Peer;
use serde_json::Value;

use super::Request;
use crate::error::{Error, in_words};

/// No answer is longer.
const LONGEST_ANSWER: u64 = 16 << 20;

/// Asks the guard that listens on `path` and gives its answer (`{"ok":true,...}`); a refusal is an error.
pub fn request(path: &Path, request: &Request, patience: Duration) -> Result<Value, Error> {
    let mut reader = ask(path, request, Some(patience))?;
    answer(&mut reader, path)
}

/// The events of a guard, as they happen.
#[derive(Debug)]
pub struct Watch {
    reader: BufReader<UnixStream>,
}

impl Watch {
    /// Asks for them. The guard must accept within `patience`; after that there is no limit.
    pub fn begin(path: &Path, patience: Duration) -> Result<Watch, Error> {
        let mut reader = ask(path, &Request::new(super::Verb::Watch), Some(patience))?;
        answer(&mut reader, path)?;
        let unlimited = reader.get_ref().set_read_timeout(None);
        unlimited.map_err(|error| Error::io("read from", path, &error))?;
        Ok(Watch { reader })
    }
}

impl Iterator for Watch {
    type Item = Value;

    /// The next event; nothing when the guard has ended, or sends what no guard would.
    fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.reader.by_ref().take(LONGEST_ANSWER).read_line(&mut line) {
            Ok(1..) => serde_json::from_str(&line).ok(),
            _ => None,
        }
    }
}

fn ask(path: &Path, request: &Request, patience: Option<Duration>) -> Result<BufReader<UnixStream>, Error> {
    let mut stream = UnixStream::connect(path).map_err(|error| unreachable(path, &error))?;
    check_guard(&stream, path)?;
    let limits = stream.set_read_timeout(patience).and_then(|()| stream.set_write_timeout(patience));
    let line = serde_json::to_string(request).map_err(io::Error::from);
    limits
        .and(line)
        .and_then(|line| stream.write_all(format!("{line}\n").as_bytes()))
        // Who is turned away at the door finds it shut while still speaking; the reason lies there to be read.
        .or_else(|error| if error.kind() == ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
        .map_err(|error| Error::io("speak to", path, &error))?;
    Ok(BufReader::new(stream))
}

/// A guard of ours or of root; root may ask everybody's. A configuration can name any place for its state.
fn check_guard(stream: &UnixStream, path: &Path) -> Result<(), Error> {
    let peer = Peer::of(stream.as_fd()).map_err(|error| Error::io("speak to", path, &error))?;
    let (theirs, ours) = (peer.uid, rustix::process::geteuid().as_raw());
    if theirs == ours || theirs == 0 || ours == 0 {
        return Ok(());
    }
    Err(Error::new(format!("what listens on `{}` belongs to user {theirs}", path.display()))
        .hint("ask as that user or as root, if it is a guard at all"))
}

fn unreachable(path: &Path, error: &io::Error) -> Error {
    let shown = path.display();
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            Error::new(format!("no guard listens on `{shown}`"))
                .hint("`oomguard up` is not running for this configuration; name another one with `-c FILE`")
        }
        ErrorKind::PermissionDenied => Error::new(format!("the guard on `{shown}` belongs to another user"))
            .hint("ask as that user or as root"),
        _ => Error::new(format!("could not reach the guard on `{shown}`: {}", in_words(error))),
    }
}

pub(super) fn answer(reader: &mut BufReader<UnixStream>, path: &Path) -> Result<Value, Error> {
    let shown = path.display();
    let mut line = String::new();
    match reader.by_ref().take(LONGEST_ANSWER).read_line(&mut line) {
        Ok(0) => return Err(Error::new(format!("the guard on `{shown}` ended without an answer"))),
        Ok(_) => {}
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            return Err(Error::new(format!("the guard on `{shown}` does not answer"))
                .hint("it may be stopped or very busy; look at its `watchdog.log`"));
        }
        Err(error) => return Err(Error::io("read from", path, &error)),
    }
    let value: Value = serde_json::from_str(&line)
        .map_err(|error| Error::new(format!("the guard on `{shown}` sent what is no answer: {error}")))?;
    if value.get("ok") == Some(&Value::Bool(true)) {
        return Ok(value);
    }
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let error = Error::new(text("error").unwrap_or_else(|| format!("the guard on `{shown}` refused")));
    Err(match text("hint") {
        Some(hint) => error.hint(hint),
        None => error,
    })
}
