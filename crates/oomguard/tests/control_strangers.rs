//! Another user at the sockets: refused in words on the control socket, unheard on the workers' socket.
//!
//! The sockets are opened wide on purpose here: the permission of the file is the first wall, this is the second.
//! Needs root, to become somebody else; says so and passes otherwise.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![expect(clippy::print_stdout, reason = "a skipped test says why")]

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use oomguard::control::{Request, Server, Verb, request};
use oomguard::notify::Notify;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const STRANGER: u32 = 12_345;
/// A program cannot be started while a child of the other test still holds it open for writing.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn open_wide(path: &Path) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
}

/// This test program again, as somebody else, with only `test` to do.
fn as_stranger(test: &str, path: &Path) -> Option<Child> {
    as_user(STRANGER, test, path)
}

fn as_user(user: u32, test: &str, path: &Path) -> Option<Child> {
    if !rustix::process::geteuid().is_root() {
        assert!(!std::env::var("OOMGUARD_REQUIRE").is_ok_and(|needs| needs.contains("root")), "not root");
        println!("skipped: only root can become another user");
        return None;
    }
    let _alone = ONE_AT_A_TIME.lock().unwrap();
    let copy = path.with_file_name(format!("stranger-{user}-{test}"));
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    open_wide(&copy);
    open_wide(path.parent().unwrap());
    let mut command = Command::new(copy);
    command.args(["--exact", test, "--ignored", "--nocapture"]).env("STRANGER_PATH", path);
    command.uid(user).gid(user).current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped());
    Some(command.spawn().unwrap())
}

fn path_of_stranger() -> std::path::PathBuf {
    std::env::var_os("STRANGER_PATH").unwrap().into()
}

#[test]
#[ignore = "the other side of `a_stranger_is_refused_in_words`"]
fn stranger_asks() {
    let answer = request(&path_of_stranger(), &Request::new(Verb::Stop), Duration::from_secs(20));
    println!("{}", answer.unwrap_err());
}

#[test]
#[ignore = "the other side of `a_stranger_is_not_heard`"]
fn stranger_speaks() {
    UnixDatagram::unbound().unwrap().send_to(b"READY=1", path_of_stranger()).unwrap();
}

#[test]
#[ignore = "the other side of `what_a_stranger_listens_on_is_no_guard`"]
fn stranger_listens() {
    let mut server = Server::bind(&path_of_stranger()).unwrap();
    open_wide(&path_of_stranger());
    println!("listening");
    let patience = Timespec { tv_sec: 20, tv_nsec: 0 };
    poll(&mut [PollFd::new(&server, PollFlags::IN)], Some(&patience)).unwrap();
    assert_eq!(server.turn(), [], "somebody has asked a stranger");
}

#[test]
fn what_a_stranger_listens_on_is_no_guard() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let Some(mut stranger) = as_stranger("stranger_listens", &path) else { return };
    let mut said = std::io::BufReader::new(stranger.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("listening") {
        assert!(std::io::BufRead::read_line(&mut said, &mut line).unwrap() > 0, "{line}");
    }
    let other = as_user(STRANGER + 1, "stranger_asks", &path).unwrap();
    let heard = String::from_utf8(other.wait_with_output().unwrap().stdout).unwrap();
    assert!(heard.contains("belongs to user 12345"), "{heard}");
    assert!(stranger.wait().unwrap().success());
}

#[test]
fn a_stranger_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let mut server = Server::bind(&path).unwrap();
    open_wide(&path);
    let Some(stranger) = as_stranger("stranger_asks", &path) else { return };
    let patience = Timespec { tv_sec: 20, tv_nsec: 0 };
    poll(&mut [PollFd::new(&server, PollFlags::IN)], Some(&patience)).unwrap();
    assert_eq!(server.turn(), []);
    let said = String::from_utf8(stranger.wait_with_output().unwrap().stdout).unwrap();
    let want = "error: this guard belongs to user 0\nhint: ask as that user or as root\n";
    assert!(said.contains(want), "{said}");
}

#[test]
fn a_stranger_is_not_heard() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.notify");
    let mut notify = Notify::bind(&path).unwrap();
    open_wide(&path);
    let Some(stranger) = as_stranger("stranger_speaks", &path) else { return };
    let output = stranger.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(notify.receive(), []);
    assert_eq!(notify.ignored(), 1);
}

#[test]
#[ignore = "the other side of `a_sender_without_a_number_is_not_heard`"]
fn namespace_listens() {
    let path = path_of_stranger();
    let mut notify = Notify::bind(&path).unwrap();
    let mut server = Server::bind(&path.with_extension("sock")).unwrap();
    println!("listening");
    let patience = Timespec { tv_sec: 20, tv_nsec: 0 };
    poll(&mut [PollFd::new(&notify, PollFlags::IN)], Some(&patience)).unwrap();
    assert_eq!(notify.receive(), []);
    assert_eq!(notify.ignored(), 1);
    let mut requests = Vec::new();
    while requests.is_empty() {
        assert_eq!(poll(&mut [PollFd::new(&server, PollFlags::IN)], Some(&patience)), Ok(1));
        requests = server.turn();
    }
    assert_eq!(server.uid(requests[0].0), Some(0), "root may ask, wherever it is");
    server.reply(requests[0].0, &serde_json::json!({"ok": true}));
}

#[test]
fn a_sender_without_a_number_is_not_heard_and_does_no_harm() {
    let root = rustix::process::geteuid().is_root();
    let apart =
        root && Command::new("unshare").args(["-p", "-f", "true"]).status().is_ok_and(|it| it.success());
    if !apart {
        assert!(
            !std::env::var("OOMGUARD_REQUIRE").is_ok_and(|needs| needs.contains("root")),
            "no namespaces"
        );
        println!("skipped: no right to make a pid namespace");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.notify");
    let mut inside = Command::new("unshare");
    inside.args(["-p", "-f"]).arg(std::env::current_exe().unwrap());
    inside.args(["--exact", "namespace_listens", "--ignored", "--nocapture"]).env("STRANGER_PATH", &path);
    let mut inside = inside.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = std::io::BufReader::new(inside.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("listening") {
        assert!(std::io::BufRead::read_line(&mut said, &mut line).unwrap() > 0, "{line}");
    }
    UnixDatagram::unbound().unwrap().send_to(b"READY=1", &path).unwrap();
    let asked = request(&path.with_extension("sock"), &Request::new(Verb::Status), Duration::from_secs(20));
    assert_eq!(asked.unwrap()["ok"], true);
    std::io::Read::read_to_string(&mut said, &mut line).unwrap();
    assert!(inside.wait().unwrap().success(), "{line}");
}

#[test]
fn a_descriptor_that_is_sent_along_is_not_kept() {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, sendmsg_addr};
    use std::os::fd::AsFd;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.notify");
    let mut notify = Notify::bind(&path).unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    let (watched, watching) = std::io::pipe().unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let sent = [watching.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&sent)));
    let word = [std::io::IoSlice::new(b"READY=1")];
    let address = SocketAddrUnix::new(&path).unwrap();
    sendmsg_addr(&sender, &address, &word, &mut control, SendFlags::empty()).unwrap();
    assert_eq!(notify.receive().len(), 1);
    drop(watching);
    // Nobody holds the other end: it is over, and not only silent.
    let patience = Timespec { tv_sec: 20, tv_nsec: 0 };
    let mut end = [PollFd::new(&watched, PollFlags::empty())];
    assert_eq!(poll(&mut end, Some(&patience)).unwrap(), 1);
    assert!(end[0].revents().contains(PollFlags::HUP));
}
