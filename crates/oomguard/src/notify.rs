//! What workers say, by the sd_notify protocol: datagrams of `KEY=value` lines on a Unix socket.
//!
//! Touches one socket, whose sender the kernel names. Decides only what a line means. It never blocks, never
//! answers, never believes a sender of another user, and keeps no file descriptor that is sent along.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oomguard_core::{Bytes, Word};
use oomguard_sys::peer::Peer;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with, sockopt};

use crate::error::Error;

/// The longest datagram that is read; the rest of a longer one is lost.
const LONGEST: usize = 8192;
/// The longest status that is kept, in characters.
pub(crate) const LONGEST_STATUS: usize = 500;
/// Nobody sees so many GPUs.
pub(crate) const MOST_GPUS: u16 = 64;
/// The longest name of one.
const LONGEST_NAME: usize = 64;
/// Datagrams read at a time, so that a flood does not keep the guard from guarding.
const AT_A_TIME: usize = 256;

/// One thing that a worker said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Something that the engine wants to know.
    Word(Word),
    /// `STATUS=`, at most 500 characters, otherwise as it came: escape it before showing it.
    Status(String),
    /// `X_OOMGUARD_VRAM=`, what torch holds of a GPU in this process.
    Vram(TorchVram),
}

/// What a worker's torch says of one GPU: `PLACE UUID HELD FREE TOTAL NAME`, bytes, `-` without a UUID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TorchVram {
    /// Its place among those that the worker may use.
    pub place: u16,
    /// `GPU-...`; empty where torch does not say it.
    pub uuid: String,
    /// What people call it: printable ASCII, short.
    pub name: String,
    /// Held by torch's allocator in this process: what CUDA itself needs there (some 500 MB) comes on top.
    pub used: Bytes,
    /// Left on the device, whoever holds the rest.
    pub free: Bytes,
    /// All of the device.
    pub total: Bytes,
}

impl TorchVram {
    fn parse(text: &str) -> Option<TorchVram> {
        let mut words = text.splitn(6, ' ');
        let place = words.next()?.parse().ok().filter(|place| *place < MOST_GPUS)?;
        let uuid = words.next()?;
        let is_uuid = |text: &&str| {
            let known = text.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-');
            known && (1..=LONGEST_NAME).contains(&text.len())
        };
        let uuid = if uuid == "-" { "" } else { Some(uuid).filter(is_uuid)? }.to_owned();
        let mut bytes = || words.next()?.parse().ok().map(Bytes);
        let (used, free, total) = (bytes()?, bytes()?, bytes()?);
        if total == Bytes::ZERO || free > total || used > total {
            return None;
        }
        let shown = |letter: &char| letter.is_ascii_graphic() || *letter == ' ';
        let name = words.next().unwrap_or_default().chars().filter(shown).take(LONGEST_NAME).collect();
        Some(TorchVram { place, uuid, name, used, free, total })
    }
}

/// What was said and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The process that sent it, as the kernel says; it may be a descendant of the worker.
    pub pid: u32,
    /// What.
    pub said: Said,
}

/// The socket on which workers speak.
#[derive(Debug)]
pub struct Notify {
    socket: OwnedFd,
    path: PathBuf,
    uid: u32,
    ignored: u64,
}

impl Notify {
    /// Binds `path` (mode 0600). Whoever holds the lock of the state directory may replace an old socket there.
    pub fn bind(path: &Path) -> Result<Notify, Error> {
        let failed = |error: io::Error| Error::io("listen on", path, &error);
        remove_socket(path).map_err(failed)?;
        let socket = open(path).map_err(|errno| failed(errno.into()))?;
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .map_err(failed)?;
        let uid = rustix::process::geteuid().as_raw();
        Ok(Notify { socket, path: path.to_owned(), uid, ignored: 0 })
    }

    /// For the value of `NOTIFY_SOCKET`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Datagrams and lines that meant nothing or came from somebody else.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// Everything that has been said since the last call, in order; a flood comes in parts.
    pub fn receive(&mut self) -> Vec<Heard> {
        let mut heard = Vec::new();
        let mut buffer = [0; LONGEST];
        for _ in 0..AT_A_TIME {
            match Peer::receive(self.socket.as_fd(), &mut buffer) {
                Ok((Some(sender), length)) => self.understand(sender, &buffer[..length], &mut heard),
                Ok((None, _)) => self.ignored += 1,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        heard
    }

    fn understand(&mut self, sender: Peer, datagram: &[u8], heard: &mut Vec<Heard>) {
        let ours = sender.uid == self.uid || sender.uid == 0;
        // Who has no number here is no worker.
        let Some(pid) = sender.pid.filter(|_| ours) else {
            self.ignored += 1;
            return;
        };
        let (said, ignored) = parse(datagram);
        self.ignored += ignored;
        heard.extend(said.into_iter().map(|said| Heard { pid, said }));
    }
}

impl AsFd for Notify {
    /// Readable when somebody has spoken.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Notify {
    fn drop(&mut self) {
        // A socket that stays behind is replaced by the next guard.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn open(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    sockopt::set_socket_passcred(&socket, true)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Removes what an earlier guard left at `path`, if it is a socket.
pub(crate) fn remove_socket(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "something that is not a socket is there")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// What a datagram says, and how many of its lines say nothing.
pub(crate) fn parse(datagram: &[u8]) -> (Vec<Said>, u64) {
    let mut said = Vec::new();
    let mut ignored = 0;
    for line in datagram.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match parse_line(&String::from_utf8_lossy(line)) {
            Some(word) => said.push(word),
            None => ignored += 1,
        }
    }
    (said, ignored)
}

fn parse_line(line: &str) -> Option<Said> {
    let (key, value) = line.split_once('=')?;
    let word = match (key, value.trim()) {
        ("STATUS", text) => return Some(Said::Status(text.chars().take(LONGEST_STATUS).collect())),
        ("X_OOMGUARD_VRAM", told) => return TorchVram::parse(told).map(Said::Vram),
        ("READY", "1") => Word::Ready,
        ("STOPPING", "1") => Word::Stopping,
        ("WATCHDOG", "1") => Word::Alive,
        ("X_OOMGUARD_CHECKS", "1") => Word::Checks,
        ("X_OOMGUARD_CHECKPOINT", "1") => Word::Checkpoint,
        ("X_OOMGUARD_RELIEVED", bytes) => Word::Relieved(Bytes(bytes.parse().ok()?)),
        ("X_OOMGUARD_TRIAL", "") => Word::Trial(None),
        ("X_OOMGUARD_TRIAL", number) => Word::Trial(Some(number.parse().ok()?)),
        _ => return None,
    };
    Some(Said::Word(word))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use proptest::prelude::*;

    use super::*;

    fn bound() -> (tempfile::TempDir, Notify, UnixDatagram) {
        let dir = tempfile::tempdir().unwrap();
        let notify = Notify::bind(&dir.path().join("x.notify")).unwrap();
        let worker = UnixDatagram::unbound().unwrap();
        worker.connect(notify.path()).unwrap();
        (dir, notify, worker)
    }

    fn words(notify: &mut Notify) -> Vec<Said> {
        notify.receive().into_iter().map(|heard| heard.said).collect()
    }

    #[test]
    fn a_worker_is_heard_with_the_pid_that_the_kernel_knows() {
        let (_dir, mut notify, worker) = bound();
        assert_eq!(notify.receive(), []);
        worker.send(b"READY=1\nSTATUS=epoch 3\nX_OOMGUARD_TRIAL=17\n").unwrap();
        worker.send(b"X_OOMGUARD_TRIAL=").unwrap();
        let heard = notify.receive();
        assert!(heard.iter().all(|heard| heard.pid == std::process::id()));
        let said: Vec<_> = heard.into_iter().map(|heard| heard.said).collect();
        assert_eq!(
            said,
            [
                Said::Word(Word::Ready),
                Said::Status("epoch 3".to_owned()),
                Said::Word(Word::Trial(Some(17))),
                Said::Word(Word::Trial(None))
            ]
        );
    }

    #[test]
    fn every_word_of_the_protocol_is_known() {
        let all =
            b"STOPPING=1\nWATCHDOG=1\nX_OOMGUARD_CHECKPOINT=1\nX_OOMGUARD_CHECKS=1\nX_OOMGUARD_RELIEVED=4096";
        let relieved = Word::Relieved(Bytes::kib(4));
        let want = [Word::Stopping, Word::Alive, Word::Checkpoint, Word::Checks, relieved].map(Said::Word);
        assert_eq!(parse(all), (want.to_vec(), 0));
    }

    #[test]
    fn what_torch_holds_is_understood_whole_or_not_at_all() {
        let told = |line: &str| parse(format!("X_OOMGUARD_VRAM={line}").as_bytes());
        let want = TorchVram {
            place: 1,
            uuid: "GPU-0a".to_owned(),
            name: "NVIDIA H200 NVL".to_owned(),
            used: Bytes(5),
            free: Bytes(10),
            total: Bytes(16),
        };
        assert_eq!(told("1 GPU-0a 5 10 16 NVIDIA H200 NVL"), (vec![Said::Vram(want.clone())], 0));
        let bare = TorchVram { uuid: String::new(), name: String::new(), ..want };
        assert_eq!(told("1 - 5 10 16"), (vec![Said::Vram(bare)], 0));
        for nonsense in [
            "",
            "1",
            "1 - 5 10",
            "-1 - 5 10 16",
            "64 - 5 10 16",
            "1 - 17 10 16",
            "1 - 5 17 16",
            "1 - 0 0 0",
            "1 a/b 5 10 16",
            "1 - 5 10 99999999999999999999",
            "1 - 5 -1 16",
            "1  5 10 16 x",
        ] {
            assert_eq!(told(nonsense), (vec![], 1), "{nonsense}");
        }
        let (said, _) = told("0 - 1 1 2 a\x1b[31mb\u{202e}c");
        assert!(matches!(&said[..], [Said::Vram(it)] if it.name == "a[31mbc"), "{said:?}");
    }

    #[test]
    fn what_means_nothing_is_counted_and_left() {
        let (_dir, mut notify, worker) = bound();
        worker.send(b"MAINPID=1\nREADY=0\nX_OOMGUARD_TRIAL=-3\n\xff\xfe\n=\nSTOPPING=1").unwrap();
        assert_eq!(words(&mut notify), [Said::Word(Word::Stopping)]);
        assert_eq!(notify.ignored(), 5);
    }

    #[test]
    fn a_datagram_that_is_too_long_is_read_as_far_as_it_fits() {
        let (_dir, mut notify, worker) = bound();
        let long = format!("READY=1\nSTATUS={}", "x".repeat(20_000));
        worker.send(long.as_bytes()).unwrap();
        worker.send(b"WATCHDOG=1").unwrap();
        let said = words(&mut notify);
        assert_eq!(said[0], Said::Word(Word::Ready));
        assert_eq!(said[1], Said::Status("x".repeat(LONGEST_STATUS)));
        assert_eq!(said[2], Said::Word(Word::Alive));
    }

    #[test]
    fn a_flood_comes_in_parts() {
        let (_dir, mut notify, worker) = bound();
        worker.set_nonblocking(true).unwrap();
        let mut sent = 0;
        while sent < 1000 && worker.send(b"WATCHDOG=1").is_ok() {
            sent += 1;
        }
        let mut heard = 0;
        loop {
            match notify.receive().len() {
                0 => break,
                part => {
                    assert!(part <= AT_A_TIME);
                    heard += part;
                }
            }
        }
        assert_eq!(heard, sent);
    }

    #[test]
    fn a_socket_left_behind_is_replaced_and_anything_else_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.notify");
        std::mem::forget(Notify::bind(&path).unwrap());
        drop(Notify::bind(&path).unwrap());
        assert!(!path.exists());
        std::fs::write(&path, "precious").unwrap();
        assert!(Notify::bind(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_grow(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let (said, ignored) = parse(&bytes);
            prop_assert!(said.len() as u64 + ignored <= bytes.len() as u64);
            for one in said {
                if let Said::Status(text) = one {
                    prop_assert!(text.chars().count() <= LONGEST_STATUS);
                }
            }
        }

        #[test]
        fn a_known_line_survives_garbage_around_it(before in "[^\n]{0,40}", after in "[^\n]{0,40}") {
            let (said, _) = parse(format!("{before}\nX_OOMGUARD_CHECKPOINT=1\n{after}").as_bytes());
            prop_assert!(said.contains(&Said::Word(Word::Checkpoint)));
        }
    }
}
