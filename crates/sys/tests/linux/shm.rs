use crate::support::{shell, until};
use oomguard_core::Bytes;
use oomguard_sys::shm::{self, Evidence, Scan};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A folder on a tmpfs, removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Option<Folder> {
        if !Path::new("/dev/shm").is_dir() {
            crate::support::skip("shm", "no /dev/shm");
            return None;
        }
        let dir = PathBuf::from(format!("/dev/shm/oomguard-test-{}-{name}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        Some(Folder(dir))
    }
    fn file(&self, name: &str, kib: usize) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, vec![1; kib * 1024]).unwrap();
        // As everybody makes them who makes them for himself. What others may open is left alone where there are
        // processes that we may not ask.
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        path
    }
    fn orphans(&self, seen: &[shm::FileId], since: SystemTime) -> Vec<shm::Orphan> {
        shm::orphans_in(&Scan::of(&self.0).unwrap(), Path::new("/proc"), seen, since, me()).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn me() -> u32 {
    rustix::process::getuid().as_raw()
}

fn earlier() -> SystemTime {
    SystemTime::now() - Duration::from_secs(60)
}

fn later() -> SystemTime {
    SystemTime::now() + Duration::from_secs(60)
}

#[test]
fn files_are_listed_with_the_memory_they_hold() {
    let Some(dir) = Folder::new("list") else { return };
    dir.file("b", 64);
    dir.file("a", 16);
    std::os::unix::fs::symlink("/etc/passwd", dir.0.join("link")).unwrap();
    let scan = Scan::of(&dir.0).unwrap();
    let names: Vec<_> = scan.files().iter().map(|f| f.name.to_str().unwrap()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(scan.allocated(), Bytes::kib(80));
    assert_eq!(scan.files()[0].uid, me());
    assert!(Scan::of(Path::new("/nonexistent")).is_err());
}

#[test]
fn a_file_that_the_job_had_open_is_an_orphan_once_nobody_has() {
    let Some(dir) = Folder::new("open") else { return };
    let path = dir.file("segment", 64);
    let child = shell(&format!("exec 9<{}; exec sleep 1000", path.display()), None);
    let scan = Scan::of(&dir.0).unwrap();
    let mut seen = Vec::new();
    until("it to be open", || {
        seen = scan.used_by(&[child.0.pid()]).unwrap();
        seen.len() == 1
    });
    assert_eq!(dir.orphans(&seen, later()), []);
    drop(child);
    let mut orphans = Vec::new();
    until("nobody to have it open", || {
        orphans = dir.orphans(&seen, later());
        !orphans.is_empty()
    });
    assert_eq!(orphans.len(), 1);
    assert_eq!((orphans[0].evidence, orphans[0].path.as_path()), (Evidence::Seen, path.as_path()));
    assert!(shm::remove(&orphans[0]).unwrap());
    assert!(!path.exists());
    assert!(!shm::remove(&orphans[0]).unwrap());
}

#[test]
fn a_file_that_is_only_mapped_is_in_use() {
    let Some(dir) = Folder::new("map") else { return };
    let path = dir.file("segment", 64);
    let file = std::fs::File::open(&path).unwrap();
    let (none, read, private) =
        (std::ptr::null_mut(), rustix::mm::ProtFlags::READ, rustix::mm::MapFlags::PRIVATE);
    // SAFETY: a new mapping wherever the kernel likes.
    let map = unsafe { rustix::mm::mmap(none, 4096, read, private, &file, 0) }.unwrap();
    drop(file);
    assert_eq!(dir.orphans(&[], earlier()), []);
    // SAFETY: the mapping made above; nobody refers to it.
    unsafe { rustix::mm::munmap(map, 4096) }.unwrap();
    // Children that other tests have forked meanwhile have it mapped too, until they exec.
    let mut orphans = Vec::new();
    until("nobody to have it mapped", || {
        orphans = dir.orphans(&[], earlier());
        !orphans.is_empty()
    });
    assert_eq!((orphans.len(), orphans[0].evidence), (1, Evidence::CreatedSince));
}

#[test]
fn older_files_and_other_peoples_are_left_alone() {
    let Some(dir) = Folder::new("older") else { return };
    dir.file("segment", 4);
    assert_eq!(dir.orphans(&[], later()), []);
    let scan = Scan::of(&dir.0).unwrap();
    let others = shm::orphans_in(&scan, Path::new("/proc"), &[], earlier(), me() + 1).unwrap();
    assert_eq!(others, []);
}

#[test]
fn nothing_is_an_orphan_while_the_job_lives() {
    assert_eq!(shm::orphans(&[], SystemTime::UNIX_EPOCH, me(), false).unwrap(), []);
}

#[test]
fn a_name_that_was_given_to_another_file_is_not_removed() {
    let Some(dir) = Folder::new("again") else { return };
    let path = dir.file("segment", 4);
    let orphan = dir.orphans(&[], earlier()).remove(0);
    let other = dir.file("other", 4);
    std::fs::rename(&other, &path).unwrap();
    assert!(!shm::remove(&orphan).unwrap());
    assert!(path.exists());
}
