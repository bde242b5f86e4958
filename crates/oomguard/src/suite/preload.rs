//! What most files import: what a process from which they are forked had better have imported already.
//!
//! Only names; it imports nothing. It looks whether a name is the project's own, and leaves those out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::TestFile;
use super::standard::is_standard;

/// Modules of others that at least half of the `files` import at module level, most frequent first, then by name.
/// `roots` is [`super::Suite::roots`]: what lies in one of them is the project's own, and not here.
///
/// Of `from x import y` comes `x` and, behind it, `x.y`, which may be no module: whoever imports it passes over that.
pub fn preload(files: &[TestFile], roots: &[PathBuf]) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for file in files {
        // Whoever imports `a.b.c` has imported `a` and `a.b`.
        let prefixes =
            |name| std::iter::successors(Some(name), |name: &&str| name.rsplit_once('.').map(|at| at.0));
        let names: BTreeSet<&str> =
            file.imports.module.iter().flat_map(|name| prefixes(name.as_str())).collect();
        for name in names {
            *counts.entry(name).or_default() += 1;
        }
    }
    let mut own: BTreeMap<&str, bool> = BTreeMap::new();
    let mut shared: Vec<(&str, usize)> = counts
        .into_iter()
        .filter(|(name, count)| {
            let top = name.split('.').next().unwrap_or(name);
            2 * count >= files.len()
                && !is_standard(top)
                && !*own.entry(top).or_insert_with(|| roots.iter().any(|root| holds(root, top)))
        })
        .collect();
    shared.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    shared.into_iter().map(|(name, _)| name.to_owned()).collect()
}

/// Would a Python that has `root` on its path find `top` there? A few calls of `stat`, and where there is no file of the
/// plain names a look through the folder for a compiled one.
fn holds(root: &Path, top: &str) -> bool {
    let compiled = |name: &str| {
        let rest = name.strip_prefix(top).and_then(|rest| rest.strip_prefix('.'));
        rest.is_some_and(|rest| rest.ends_with("so") || rest.ends_with("pyd") || rest == "pyc")
    };
    root.join(top).is_dir()
        || root.join(format!("{top}.py")).is_file()
        || root.read_dir().is_ok_and(|entries| {
            entries.flatten().any(|entry| entry.file_name().to_str().is_some_and(compiled))
        })
}

#[cfg(test)]
mod tests {
    use super::super::Imports;
    use super::*;

    fn file(imports: &[&str]) -> TestFile {
        let module = imports.iter().map(|&name| name.to_owned()).collect();
        TestFile { imports: Imports { module, function: vec!["late".to_owned()] }, ..TestFile::default() }
    }

    #[test]
    fn what_half_of_the_files_import_is_shared() {
        let files = [
            file(&["numpy", "numpy.testing", "os", "mine"]),
            file(&["numpy", "torch.nn", "mine.deep"]),
            file(&["torch", "os.path", "numpy.linalg", "rare"]),
            file(&["compiled", "mine"]),
            file(&["compiled", "single"]),
            file(&["compiled", "single"]),
        ];
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("mine")).unwrap();
        assert_eq!(preload(&files, &[]), ["compiled", "mine", "numpy"]);
        assert_eq!(preload(&files, &[root.path().to_owned()]), ["compiled", "numpy"]);
        std::fs::write(root.path().join("compiled.cpython-311-x86_64-linux-gnu.so"), "").unwrap();
        assert_eq!(preload(&files, &[root.path().to_owned()]), ["numpy"]);
        assert_eq!(
            preload(&files[1..3], &[]),
            ["numpy", "torch", "mine", "mine.deep", "numpy.linalg", "rare", "torch.nn"]
        );
        assert_eq!(preload(&[], &[]), [""; 0]);
    }
}
