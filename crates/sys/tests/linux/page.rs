use oomguard_core::{Bytes, Cause, Instant, Level};
use oomguard_sys::page::{Reader, SIZE, Stop, Writer, cause_code, from_code};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant as Clock};

#[test]
fn the_reader_sees_what_the_writer_says() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("page");
    let writer = Writer::create(&path).unwrap();
    let reader = Reader::open(&path).unwrap();
    assert_eq!(reader.guard_pid(), std::process::id());
    assert_eq!((reader.stop(), reader.cause(), reader.limit()), (Stop::GoOn, None, None));
    assert_eq!(reader.beat(), Instant(0));
    writer.host(Level::Critical, Bytes::gib(1), Bytes::gib(16));
    writer.thresholds(Bytes::gib(2), Bytes::gib(4));
    writer.job(Some(Bytes::gib(8)), Bytes::gib(7));
    writer.stop(Stop::Prune, Some(Cause::Reserve));
    writer.relieve();
    writer.beat(Instant(42));
    assert_eq!((reader.stop(), reader.cause()), (Stop::Prune, Some(Cause::Reserve)));
    assert_eq!((reader.level(), reader.relieve(), reader.beat()), (Level::Critical, 1, Instant(42)));
    assert_eq!((reader.available(), reader.total()), (Bytes::gib(1), Bytes::gib(16)));
    assert_eq!((reader.reserve(), reader.warning()), (Bytes::gib(2), Bytes::gib(4)));
    assert_eq!((reader.limit(), reader.usage()), (Some(Bytes::gib(8)), Bytes::gib(7)));
    writer.stop(Stop::GoOn, None);
    assert_eq!((reader.stop(), reader.cause()), (Stop::GoOn, None));
}

#[test]
fn the_layout_is_the_documented_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("page");
    let writer = Writer::create(&path).unwrap();
    writer.stop(Stop::Terminate, Some(Cause::Leak));
    writer.host(Level::Warning, Bytes(0x1111), Bytes(0x9999));
    writer.thresholds(Bytes(0x7777), Bytes(0x8888));
    writer.job(Some(Bytes(0x5555)), Bytes(0x6666));
    writer.beat(Instant(0x3333));
    let bytes = std::fs::read(&path).unwrap();
    let u32_at = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!((&bytes[..8], bytes.len()), (&b"OOMGUARD"[..], SIZE));
    assert_eq!([8, 12, 16, 20, 40, 44].map(u32_at), [1, 2, 1, 0, 5, std::process::id()]);
    assert_eq!(
        [24, 32, 48, 56, 64, 72, 80].map(u64_at),
        [0x1111, 0x3333, 0x5555, 0x6666, 0x7777, 0x8888, 0x9999]
    );
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn an_existing_file_or_link_is_never_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let (file, link) = (dir.path().join("file"), dir.path().join("link"));
    std::fs::write(&file, "precious").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    for path in [&file, &link] {
        assert_eq!(Writer::create(path).unwrap_err().errno(), Some(libc::EEXIST));
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    Writer::create(&dir.path().join("page")).unwrap();
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(dir.path().join("page"), &link).unwrap();
    assert_eq!(Reader::open(&link).unwrap_err().errno(), Some(libc::ELOOP));
}

#[test]
fn anything_but_a_page_of_this_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("page");
    Writer::create(&path).unwrap();
    let good = std::fs::read(&path).unwrap();
    let said = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Reader::open(&path).unwrap_err().to_string()
    };
    assert!(said(&good[..100]).contains("4096 bytes expected"));
    assert!(said(b"").contains("4096 bytes expected"));
    assert!(said(&[0; SIZE]).contains("not a page of oomguard"));
    let mut newer = good.clone();
    newer[8..12].copy_from_slice(&2u32.to_ne_bytes());
    assert!(said(&newer).contains("another version"));
    assert!(Reader::open(dir.path()).is_err());
    assert!(Reader::open("/dev/zero".as_ref()).is_err());
}

#[test]
fn what_is_said_of_gpus_arrives() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("page");
    let writer = Writer::create(&path).unwrap();
    let reader = Reader::open(&path).unwrap();
    assert_eq!(reader.gpu(), (String::new(), Bytes::ZERO, Some(Bytes::ZERO)));
    writer.gpu("GPU 0 (NVIDIA H200)", Bytes::gib(5), Some(Bytes::gib(4)));
    assert_eq!(reader.gpu(), ("GPU 0 (NVIDIA H200)".to_owned(), Bytes::gib(5), Some(Bytes::gib(4))));
    writer.gpu(&"ü".repeat(40), Bytes::gib(1), None);
    assert_eq!(reader.gpu(), ("ü".repeat(32), Bytes::gib(1), None));
    let (bell, asks) = (reader.bell(), reader.asks_for_vram());
    writer.ask_for_vram(false);
    assert_eq!((reader.bell(), asks), (bell, false), "nobody is woken for what he knows");
    writer.ask_for_vram(true);
    assert_eq!((reader.bell(), reader.asks_for_vram()), (bell + 1, true));
}

#[test]
fn every_cause_has_a_number_of_its_own() {
    assert_eq!((cause_code(None), from_code(0), from_code(99)), (0, None, None));
    let causes: Vec<Cause> = (1..=10).map(|code| from_code(code).unwrap()).collect();
    for (code, cause) in (1..).zip(&causes) {
        assert_eq!(cause_code(Some(*cause)), code);
    }
    assert_eq!(from_code(11), None);
}

#[test]
fn a_waiting_reader_hears_the_bell_through_its_own_read_only_mapping() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("page");
    let writer = Writer::create(&path).unwrap();
    let reader = Reader::open(&path).unwrap();
    let from = reader.bell();
    let waiting = std::thread::spawn(move || {
        let begun = Clock::now();
        while reader.stop() == Stop::GoOn {
            let seen = reader.bell();
            if reader.stop() == Stop::GoOn {
                reader.wait(seen, Duration::from_secs(20)).unwrap();
            }
        }
        (begun.elapsed(), reader.bell())
    });
    writer.host(Level::Normal, Bytes::gib(3), Bytes::gib(16));
    writer.stop(Stop::Prune, Some(Cause::Reserve));
    let (took, bell) = waiting.join().unwrap();
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(bell.wrapping_sub(from), 1, "nothing changed but the stop");
}
