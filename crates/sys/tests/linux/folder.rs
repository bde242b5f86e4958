//! Real links, FIFOs and users. Only root can leave a stranger's link behind; elsewhere those tests are skipped aloud.

use std::ffi::OsStr;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use oomguard_sys::folder::{self, Folder};

use crate::support::skip;

const STRANGER: u32 = 12_345;

fn given_to_a_stranger(path: &Path) -> bool {
    if !rustix::process::geteuid().is_root() {
        skip("root", "only root can give a file to another user");
        return false;
    }
    lchown(path, Some(STRANGER), Some(STRANGER)).unwrap();
    true
}

/// `root/real/` with a file in it, and `root/link` to it.
fn linked() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    std::fs::create_dir(&real).unwrap();
    std::fs::write(real.join("file"), "precious").unwrap();
    symlink("real", &link).unwrap();
    (dir, real, link)
}

fn name(text: &str) -> &OsStr {
    OsStr::new(text)
}

#[test]
fn our_own_links_are_followed_also_out_of_the_folder_and_in_a_row() {
    let (dir, real, link) = linked();
    symlink(dir.path().join("link/../link"), dir.path().join("far")).unwrap();
    for way in [link, dir.path().join("far"), dir.path().join("./real/../far")] {
        Folder::open(&way).unwrap().append(name("file"), 0o600).unwrap().write_all(b"!").unwrap();
        assert_eq!(folder::read(&way.join("file"), 100).unwrap().last(), Some(&b'!'));
    }
    assert_eq!(std::fs::read(real.join("file")).unwrap(), b"precious!!!");
}

#[test]
fn a_strangers_link_on_the_way_is_refused_by_name() {
    let (_dir, real, link) = linked();
    if !given_to_a_stranger(&link) {
        return;
    }
    let want = format!("`{}` is a link of user {STRANGER}", link.display());
    let errors = [
        Folder::open(&link).unwrap_err(),
        Folder::make(&link.join("deep/er"), 0o755).unwrap_err(),
        Folder::make_private(&link.join("state")).unwrap_err(),
        folder::open(&link.join("file")).unwrap_err(),
        folder::is_safe(&link.join("file")).unwrap_err(),
    ];
    for error in errors {
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::PermissionDenied, want.clone()));
    }
    assert_eq!(std::fs::read_dir(real).unwrap().count(), 1, "nothing was made behind it");
}

#[test]
fn links_in_a_circle_end() {
    let dir = tempfile::tempdir().unwrap();
    symlink("b", dir.path().join("a")).unwrap();
    symlink("a", dir.path().join("b")).unwrap();
    assert_eq!(Folder::open(&dir.path().join("a")).unwrap_err().raw_os_error(), Some(libc::ELOOP));
}

#[test]
fn what_stands_in_a_files_place_is_never_written_to_or_waited_for() {
    let (dir, real, _) = linked();
    let folder = Folder::open(dir.path()).unwrap();
    symlink("real/file", dir.path().join("log")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("fifo"), rustix::fs::Mode::RWXU).unwrap();
    for (what, why) in [("log", "a symbolic link"), ("fifo", "not a regular file")] {
        let said = folder.append(name(what), 0o600).unwrap_err().to_string();
        assert_eq!(said, format!("`{}` is {why}", dir.path().join(what).display()));
    }
    let reader = std::fs::OpenOptions::new().read(true).write(true).open(dir.path().join("fifo")).unwrap();
    let said = folder.append(name("fifo"), 0o600).unwrap_err().to_string();
    assert!(said.ends_with("is not a regular file"), "one that is read is none either: {said}");
    drop(reader);
    assert!(folder::read(&dir.path().join("fifo"), 10).is_err());
    assert_eq!(std::fs::read(real.join("file")).unwrap(), b"precious");
}

#[test]
fn a_file_is_replaced_whole_and_what_lay_beside_it_is_not_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::make(&dir.path().join("deep/er"), 0o755).unwrap();
    let root = dir.path().join("deep/er");
    let precious = dir.path().join("precious");
    let beside = root.join(format!(".state.{}", std::process::id()));
    std::fs::write(&precious, "precious").unwrap();
    // The name can be guessed: a hard link, a link and a FIFO under it.
    std::fs::hard_link(&precious, &beside).unwrap();
    folder.replace(name("state"), b"one", 0o640).unwrap();
    symlink(&precious, &beside).unwrap();
    folder.replace(name("state"), b"two", 0o640).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &beside, rustix::fs::Mode::RWXU).unwrap();
    folder.can_replace(name("state")).unwrap();
    assert_eq!(std::fs::read(&precious).unwrap(), b"precious");
    assert_eq!(std::fs::read(root.join("state")).unwrap(), b"two");
    assert_eq!(std::fs::metadata(root.join("state")).unwrap().mode() & 0o777, 0o640);
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 1);
}

#[test]
fn a_replacement_that_fails_leaves_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("state/inside")).unwrap();
    let folder = Folder::open(dir.path()).unwrap();
    assert!(folder.replace(name("state"), b"new", 0o600).is_err());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_private_folder_is_made_narrow_and_kept_narrow() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/state");
    for _ in 0..2 {
        Folder::make_private(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }
}

#[test]
fn a_private_folder_is_not_made_where_others_could_swap_it() {
    let dir = tempfile::tempdir().unwrap();
    let (open, path) = (dir.path().join("open"), dir.path().join("open/state"));
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, PermissionsExt::from_mode(0o777)).unwrap();
    let error = Folder::make_private(&path).unwrap_err();
    assert_eq!(error.to_string(), format!("others can write to `{}`", open.display()));
    // Sticky, as `/tmp`: only the owner of a file can move it away.
    std::fs::set_permissions(&open, PermissionsExt::from_mode(0o1777)).unwrap();
    Folder::make_private(&path).unwrap();
    if given_to_a_stranger(&open) {
        let error = Folder::make_private(&path).unwrap_err();
        assert_eq!(error.to_string(), format!("`{}` belongs to user {STRANGER}", open.display()));
    }
}

#[test]
fn a_strangers_folder_a_link_and_a_file_are_no_private_folder() {
    let (dir, real, link) = linked();
    assert_eq!(Folder::make_private(&link).unwrap_err().to_string(), "it is a symbolic link");
    assert_eq!(Folder::make_private(&real.join("file")).unwrap_err().to_string(), "it is not a directory");
    let theirs = dir.path().join("theirs");
    std::fs::create_dir(&theirs).unwrap();
    if given_to_a_stranger(&theirs) {
        let error = Folder::make_private(&theirs).unwrap_err();
        assert_eq!(error.to_string(), format!("it belongs to user {STRANGER}"));
    }
}

#[test]
fn reading_ends_at_its_bound() {
    let (_dir, real, _) = linked();
    assert_eq!(folder::read(&real.join("file"), 8).unwrap(), b"precious");
    assert_eq!(folder::read(&real.join("file"), 7).unwrap_err().kind(), ErrorKind::FileTooLarge);
    assert!(folder::read(Path::new("/dev/zero"), 7).is_err(), "it has no end");
    assert_eq!(folder::read(&real.join("none"), 7).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_program_that_others_can_change_is_not_safe() {
    let (dir, real, _) = linked();
    folder::is_safe(&real.join("file")).unwrap();
    std::fs::set_permissions(real.join("file"), PermissionsExt::from_mode(0o775)).unwrap();
    let said = folder::is_safe(&real.join("file")).unwrap_err().to_string();
    assert_eq!(said, format!("others can write to `{}`", real.join("file").display()));
    std::fs::set_permissions(real.join("file"), PermissionsExt::from_mode(0o755)).unwrap();
    if given_to_a_stranger(dir.path()) {
        assert!(folder::is_safe(&real.join("file")).is_err(), "its folder can be moved away");
    }
}
