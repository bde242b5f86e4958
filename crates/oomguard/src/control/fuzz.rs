//! Both ends of the control socket on bytes that the other end should never have sent. See [`crate::fuzz`].

use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::event::epoll;
use serde_json::{Value, json};

use super::client::answer;
use super::connection::{Client, ClientId};

/// What a socket takes without anybody reading.
const MOST: usize = 64 << 10;

/// A pair of sockets, with `bytes` said and nothing more to come at one of them.
fn said(bytes: &[u8]) -> (UnixStream, UnixStream) {
    let (mut theirs, ours) = UnixStream::pair().unwrap();
    theirs.write_all(&bytes[..bytes.len().min(MOST)]).unwrap();
    theirs.shutdown(Shutdown::Write).unwrap();
    (theirs, ours)
}

/// A client that says this: every request is one that can be said again, and gets one answer; what is none gets the
/// reason and the end of the conversation.
pub(crate) fn requests(bytes: &[u8]) {
    let (theirs, ours) = said(bytes);
    ours.set_nonblocking(true).unwrap();
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    epoll::add(&poll, &ours, epoll::EventData::new_u64(1), epoll::EventFlags::IN).unwrap();
    let mut client = Client::new(ClientId(1), 0, ours);
    let mut requests = Vec::new();
    while !client.ends && !client.gone {
        client.read(&mut requests);
    }
    for (_, request) in &requests {
        let again = serde_json::to_vec(request).unwrap();
        assert_eq!(serde_json::from_slice::<super::Request>(&again).unwrap(), *request);
        client.answer(&json!({"ok": true}));
    }
    client.write(&poll);
    assert!(client.gone || client.watches, "it has said all and heard all");
    drop(client);
    let answers: Vec<Value> =
        BufReader::new(theirs).lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    let refused = answers.iter().filter(|answer| answer["ok"] == false).count();
    assert_eq!((answers.len() - refused, refused.min(1)), (requests.len(), refused), "one answer each");
}

/// A guard that answers this: an answer, or an error for people.
pub(crate) fn one_answer(bytes: &[u8]) {
    let (_theirs, ours) = said(bytes);
    match answer(&mut BufReader::new(ours), Path::new("/run/x.sock")) {
        Ok(value) => assert_eq!(value["ok"], true),
        Err(error) => assert!(!error.message.is_empty() || bytes.starts_with(b"{"), "{error:?}"),
    }
}
