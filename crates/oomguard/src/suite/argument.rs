//! What the user named: a path, or a node id within a file.
//!
//! Cuts them as pytest does, and drops what another one holds already. Asks the file system only whether a path is there.

use std::path::{Path, PathBuf};

use super::rootdir::absolute;
use super::usage;
use crate::error::Error;

/// One path or node id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Argument {
    /// Absolute.
    pub(super) path: PathBuf,
    /// `TestX`, `test_y`.
    parts: Vec<String>,
    /// `[p]`.
    parameters: Option<String>,
}

/// `tests/test_a.py::TestX::test_y[p]` in its path, its names and its parameters.
pub(super) fn split(word: &str) -> (&str, Vec<&str>, Option<&str>) {
    let (base, parameters) = match word.find('[') {
        Some(at) => (&word[..at], Some(&word[at..])),
        None => (word, None),
    };
    let mut parts = base.split("::");
    (parts.next().unwrap_or_default(), parts.collect(), parameters)
}

/// Where rootdir is looked for: the path of `word`, in which a `[` before `::` is a letter.
pub(super) fn path_of(cwd: &Path, word: &str) -> PathBuf {
    absolute(cwd, word.split("::").next().unwrap_or_default())
}

impl Argument {
    /// What `word` means; an error where it is not there.
    pub(super) fn new(cwd: &Path, word: &str) -> Result<Argument, Error> {
        let (path, parts, parameters) = split(word);
        if parameters.is_some() && parts.is_empty() {
            return Err(usage(format!("`{word}`: a path cannot contain `[`"))
                .hint("pytest takes it for a test's parameters"));
        }
        let path = absolute(cwd, path);
        if !path.exists() {
            return Err(usage(format!("there is no file or directory `{word}`"))
                .hint(format!("paths start in `{}`", cwd.display())));
        }
        if !parts.is_empty() && path.is_dir() {
            return Err(usage(format!("`{word}`: a directory cannot be followed by `::`")));
        }
        let parts = parts.into_iter().map(str::to_owned).collect();
        Ok(Argument { path, parts, parameters: parameters.map(str::to_owned) })
    }

    /// A path, whatever letters are in it.
    pub(super) fn whole(path: PathBuf) -> Argument {
        Argument { path, parts: Vec::new(), parameters: None }
    }

    /// What it selects within its file, as pytest writes it; `None`: all.
    pub(super) fn select(&self) -> Option<String> {
        let names = self.parts.join("::");
        (!self.parts.is_empty()).then(|| names + self.parameters.as_deref().unwrap_or_default())
    }

    /// Is all that this selects selected by `other` too?
    fn within(&self, other: &Argument) -> bool {
        if self.path != other.path {
            return other.parts.is_empty() && self.path.starts_with(&other.path);
        }
        self.parts.starts_with(&other.parts)
            && (other.parameters.is_none() || other.parameters == self.parameters)
    }
}

/// Without those that another one holds, in their order.
pub(super) fn without_overlaps(arguments: Vec<Argument>) -> Vec<Argument> {
    let mut order: Vec<usize> = (0..arguments.len()).collect();
    // What holds another one comes right before it.
    let key = |index: &usize| {
        let Argument { path, parts, parameters } = &arguments[*index];
        (path, parts, parameters.as_deref().unwrap_or_default())
    };
    order.sort_by(|a, b| key(a).cmp(&key(b)));
    let mut kept: Vec<usize> = Vec::new();
    for index in order {
        if kept.last().is_none_or(|last| !arguments[index].within(&arguments[*last])) {
            kept.push(index);
        }
    }
    kept.sort_unstable();
    kept.into_iter().map(|index| arguments[index].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_ids_are_cut_where_pytest_cuts_them() {
        assert_eq!(split("a/t.py"), ("a/t.py", vec![], None));
        assert_eq!(split("t.py::X::y[a::b]"), ("t.py", vec!["X", "y"], Some("[a::b]")));
        assert_eq!(split("t.py::"), ("t.py", vec![""], None));
        assert_eq!(split(""), ("", vec![], None));
    }

    #[test]
    fn what_another_one_holds_is_dropped() {
        let named = |word: &str| {
            let (path, parts, parameters) = split(word);
            let parts = parts.into_iter().map(str::to_owned).collect();
            Argument { path: path.into(), parts, parameters: parameters.map(str::to_owned) }
        };
        let left = |words: &[&str]| {
            let kept = without_overlaps(words.iter().map(|word| named(word)).collect());
            kept.iter()
                .map(|one| words.iter().position(|word| named(word) == *one).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(left(&["/b", "/a/t.py", "/a", "/ab"]), [0, 2, 3]);
        assert_eq!(left(&["/t.py::A::x", "/t.py::A", "/t.py::B"]), [1, 2]);
        assert_eq!(left(&["/t.py::x[1]", "/t.py::x[2]", "/t.py::x[1]"]), [0, 1]);
        assert_eq!(left(&["/t.py::x[1]", "/t.py::x"]), [1]);
    }
}
