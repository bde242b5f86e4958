//! Every seed of a fuzz target, and every input that once broke it, as a test: whole, and cut short at
//! every byte, or every few.

use std::path::Path;

/// An input is cut short in about so many ways.
const CUTS: usize = 150;

pub(super) fn each(target: &str, every_byte: bool, check: impl Fn(&Path, &[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    // In memory where that is possible: the disk would be all the time that this takes.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let mut count = 0;
    for seed in std::fs::read_dir(&corpus).unwrap() {
        let bytes = std::fs::read(seed.unwrap().path()).unwrap();
        let step = if every_byte { 1 } else { bytes.len() / CUTS + 1 };
        for end in (0..bytes.len()).step_by(step).chain([bytes.len()]) {
            check(dir.path(), &bytes[..end]);
        }
        count += 1;
    }
    assert!(count > 0, "no seeds in {}", corpus.display());
}
