//! The control socket: a guard that answers, clients that behave, and clients that do not.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use oomguard::control::{self, Request, Server, Verb, Watch};
use oomguard::error::Error;
use proptest::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

/// A guard that answers every request, and tells those who watch whatever it is asked.
struct Guard {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Guard {
    fn start() -> Guard {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let mut server = Server::bind(&path).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                wait(&server);
                for (id, request) in server.turn() {
                    server.publish(&format!("{}\n", json!({"event": "asked", "do": request.verb})));
                    match request.worker.as_deref() {
                        Some("nobody") => {
                            server.refuse(id, &Error::new("there is no worker `nobody`").hint("ask `status`"))
                        }
                        _ => {
                            let uid = server.uid(id);
                            server.reply(
                                id,
                                &json!({"ok": true, "do": request.verb, "now": request.now, "uid": uid}),
                            );
                        }
                    }
                }
            }
            server.finish(Duration::from_millis(10));
        });
        Guard { path, stop, thread: Some(thread), _dir: dir }
    }

    fn ask(&self, verb: Verb) -> Result<Value, Error> {
        control::request(&self.path, &Request::new(verb), PATIENCE)
    }

    fn connect(&self) -> BufReader<UnixStream> {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        BufReader::new(stream)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(UnixStream::connect(&self.path));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn wait(server: &Server) {
    let patience = Timespec { tv_sec: 1, tv_nsec: 0 };
    let _ = poll(&mut [PollFd::new(server, PollFlags::IN)], Some(&patience));
}

fn line(reader: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    line
}

#[test]
fn a_request_is_answered() {
    let guard = Guard::start();
    let mut request = Request::new(Verb::Stop);
    request.now = true;
    let answer = control::request(&guard.path, &request, PATIENCE).unwrap();
    assert_eq!(answer["do"], "stop");
    assert_eq!(answer["now"], true);
    assert_eq!(answer["uid"], rustix::process::geteuid().as_raw());
}

#[test]
fn a_refusal_is_an_error_with_its_hint() {
    let guard = Guard::start();
    let request = Request { worker: Some("nobody".to_owned()), ..Request::new(Verb::Restart) };
    let error = control::request(&guard.path, &request, PATIENCE).unwrap_err();
    assert_eq!(error.to_string(), "error: there is no worker `nobody`\nhint: ask `status`");
}

#[test]
fn one_client_may_ask_more_than_once_and_shut_its_side() {
    let guard = Guard::start();
    let mut reader = guard.connect();
    reader.get_mut().write_all(b"{\"do\":\"status\"}\n{\"do\":\"reload\"}\n").unwrap();
    reader.get_mut().shutdown(std::net::Shutdown::Write).unwrap();
    let mut all = String::new();
    reader.read_to_string(&mut all).unwrap();
    assert_eq!(all.lines().count(), 2, "{all}");
    assert!(all.contains("\"do\":\"reload\""), "{all}");
}

#[test]
fn who_watches_sees_what_happens() {
    let guard = Guard::start();
    let mut watch = Watch::begin(&guard.path, PATIENCE).unwrap();
    guard.ask(Verb::Reload).unwrap();
    let seen = watch.find(|event| event["do"] == "reload").unwrap();
    assert_eq!(seen["event"], "asked");
    drop(guard);
    assert_eq!(watch.count(), 0, "it ends with the guard");
}

#[test]
fn nobody_there_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let error = control::request(&path, &Request::new(Verb::Status), PATIENCE).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "error: no guard listens on `{}`\nhint: `oomguard up` is not running for this configuration; name another one with `-c FILE`",
            path.display()
        )
    );
}

#[test]
fn a_guard_that_does_not_answer_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let _server = Server::bind(&path).unwrap();
    let error = control::request(&path, &Request::new(Verb::Status), Duration::from_millis(20)).unwrap_err();
    assert!(error.message.ends_with("does not answer"), "{error}");
}

#[test]
fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let server = Server::bind(&path).unwrap();
    assert!(Server::bind(&path).unwrap_err().message.starts_with("another guard already listens on"));
    drop(server);
    assert!(!path.exists());
    std::fs::write(&path, "precious").unwrap();
    assert!(Server::bind(&path).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[test]
fn only_the_owner_may_open_the_socket() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let _server = Server::bind(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn garbage_gets_one_answer_and_the_door() {
    let guard = Guard::start();
    for garbage in [
        "GET / HTTP/1.1\n",
        "{}\n",
        "{\"do\":\"explode\"}\n",
        "{\"do\":\"stop\",\"nwo\":true}\n",
        "\u{0}\n",
        "[]\n",
        "\n",
    ] {
        let mut reader = guard.connect();
        reader.get_mut().write_all(garbage.as_bytes()).unwrap();
        let answer: Value = serde_json::from_str(&line(&mut reader)).unwrap();
        assert_eq!(answer["ok"], false, "{garbage}");
        assert!(
            answer["error"].as_str().unwrap().starts_with("the request could not be understood"),
            "{answer}"
        );
        assert_eq!(line(&mut reader), "", "{garbage}");
    }
    guard.ask(Verb::Status).unwrap();
}

#[test]
fn a_line_without_an_end_is_cut_off() {
    let guard = Guard::start();
    let mut reader = guard.connect();
    // The guard hangs up in the middle of it.
    let _ = reader.get_mut().write_all(&vec![b'x'; 200 << 10]);
    let mut answer = String::new();
    let _ = reader.read_line(&mut answer);
    assert!(answer.contains("longer than 65536 bytes") || answer.is_empty(), "{answer}");
    guard.ask(Verb::Status).unwrap();
}

#[test]
fn too_many_clients_are_turned_away_and_silence_costs_nothing() {
    let guard = Guard::start();
    let mut silent: Vec<_> = (0..16).map(|_| guard.connect()).collect();
    // The last of them is in once it is answered.
    silent[15].get_mut().write_all(b"{\"do\":\"status\"}\n").unwrap();
    line(&mut silent[15]);
    let error = guard.ask(Verb::Status).unwrap_err();
    assert_eq!(error.to_string(), "error: 16 clients are connected already\nhint: try again later");
    drop(silent);
    let again = (0..1000).find_map(|_| guard.ask(Verb::Status).ok());
    assert!(again.is_some());
}

#[test]
fn a_watcher_that_does_not_read_misses_lines_and_learns_how_many() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let mut server = Server::bind(&path).unwrap();
    let mut reader = BufReader::new(UnixStream::connect(&path).unwrap());
    reader.get_mut().write_all(b"{\"do\":\"watch\"}\n").unwrap();
    let mut requests = Vec::new();
    while requests.is_empty() {
        wait(&server);
        requests = server.turn();
    }
    server.reply(requests[0].0, &json!({"ok": true}));
    let event = format!("{}\n", json!({"event": "x", "text": "y".repeat(1000)}));
    for _ in 0..5000 {
        server.publish(&event);
    }
    let reading = std::thread::spawn(move || {
        let mut events =
            reader.lines().map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok());
        events.find(|event: &Value| event["event"] == "missed").and_then(|event| event["lines"].as_u64())
    });
    let end = std::time::Instant::now() + PATIENCE;
    while !reading.is_finished() && std::time::Instant::now() < end {
        server.turn();
        server.publish(&event);
    }
    drop(server);
    assert!(reading.join().unwrap().is_some_and(|missed| missed > 1000));
}

fn server_is_idle(server: &Server) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(server, PollFlags::IN)], Some(&now)) == Ok(0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_bytes_make_the_guard_stumble(bytes in proptest::collection::vec(any::<u8>(), 0..3000), cut in any::<bool>()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let mut server = Server::bind(&path).unwrap();
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(&bytes).unwrap();
        if cut {
            drop(client);
        }
        while !server_is_idle(&server) {
            server.turn();
        }
        let mut other = UnixStream::connect(&path).unwrap();
        other.write_all(b"{\"do\":\"status\"}\n").unwrap();
        let asked = (0..1000).any(|_| { wait(&server); server.turn().iter().any(|(_, request)| request.verb == Verb::Status) });
        prop_assert!(asked);
    }
}

#[test]
fn a_line_without_an_end_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let endless = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        client.write_all(b"{\"ok\":true}\n").unwrap();
        let (part, mut sent) = ([b'x'; 64 << 10], 0);
        while sent < 64 << 20 && client.write_all(&part).is_ok() {
            sent += part.len();
        }
        sent
    });
    let mut watch = Watch::begin(&path, PATIENCE).unwrap();
    assert_eq!(watch.next(), None);
    drop(watch);
    let sent = endless.join().unwrap();
    assert!(sent < 32 << 20, "{sent} bytes of one line were taken");
}

#[test]
fn clients_that_do_not_read_hold_up_the_end_once_and_not_each() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let mut server = Server::bind(&path).unwrap();
    let mut silent = Vec::new();
    for _ in 0..10 {
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"{\"do\":\"watch\"}\n").unwrap();
        silent.push(client);
        let mut requests = Vec::new();
        while requests.is_empty() {
            wait(&server);
            requests = server.turn();
        }
        server.reply(requests[0].0, &json!({"ok": true}));
    }
    let line = format!("{}\n", "x".repeat(9999));
    for _ in 0..100 {
        server.publish(&line);
    }
    let begun = std::time::Instant::now();
    server.finish(Duration::from_millis(300));
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
}
