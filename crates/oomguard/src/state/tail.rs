//! The end of a file of lines: as much of it as a guard is willing to hold.
//!
//! Reads one regular file, never more than it was told to, however long the file or one line of it is.

use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use oomguard_sys::folder;

/// No real file of ours comes near this.
pub(super) const MOST: u64 = 16 << 20;

/// The last lines of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    /// They, the last one perhaps cut short by a crash.
    pub(super) bytes: Vec<u8>,
    /// There are more before them.
    pub(super) left_out: bool,
}

impl Tail {
    /// At most `most` bytes, from the start of a line on. Nothing where there is no file.
    pub(super) fn of(path: &Path, most: u64) -> io::Result<Tail> {
        let mut file = match folder::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Tail::default()),
            Err(error) => return Err(error),
        };
        let start = file.metadata()?.len().saturating_sub(most);
        // The byte before tells whether a line begins here.
        file.seek(SeekFrom::Start(start.saturating_sub(1)))?;
        let mut bytes = Vec::new();
        file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
        if start > 0 {
            let begin = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| end + 1);
            bytes.drain(..begin);
        }
        Ok(Tail { bytes, left_out: start > 0 })
    }

    /// The lines that are not empty.
    pub(super) fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_within_the_bound_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.jsonl");
        let tail = |most| Tail::of(&path, most).unwrap();
        assert_eq!(tail(9), Tail::default());
        std::fs::write(&path, "one\ntwo\nthr").unwrap();
        for (most, bytes, left_out) in [
            (11, "one\ntwo\nthr", false),
            (10, "two\nthr", true),
            (7, "two\nthr", true),
            (6, "thr", true),
            (2, "", true),
            (0, "", true),
        ] {
            assert_eq!(tail(most), Tail { bytes: bytes.into(), left_out }, "{most}");
        }
    }
}
