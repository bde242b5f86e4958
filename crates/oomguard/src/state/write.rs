//! Files that are there whole or not at all: written beside, renamed. Nothing here is synced: it is written from the
//! guard's loop, where a busy disk would blind it for seconds, and none of it means anything after a reboot.
//!
//! It never leaves half a file under the real name, whatever is killed when.

use std::io;
use std::path::Path;

use oomguard_sys::folder::{self, Folder};

/// Replaces `path` with `bytes`. The folder must exist. `mode` is the permission of a Unix file.
pub fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let (dir, name) = folder::parts(path)?;
    Folder::open(dir)?.replace(name, bytes, mode)
}

/// Whether [`write_whole`] has a chance: `path` is no folder, and a file beside it can be made and removed.
pub fn can_write_beside(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let (dir, name) = folder::parts(path)?;
    Folder::open(dir)?.can_replace(name)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        write_whole(&path, b"old", 0o600).unwrap();
        write_whole(&path, b"new", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_write_that_fails_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), b"").unwrap();
        assert!(write_whole(&path, b"new", 0o600).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_in_the_place_of_a_report_is_found_out_beforehand() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(can_write_beside(dir.path()).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        can_write_beside(&dir.path().join("report.json")).unwrap();
    }
}
