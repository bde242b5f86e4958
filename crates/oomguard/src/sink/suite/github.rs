//! Annotations for GitHub's pages: `::error file=...,title=...::message`.

use std::ffi::OsStr;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::outcome::{FileOutcome, TestOutcome};

/// Where the root directory lies in what GitHub has checked out (`$GITHUB_WORKSPACE`): its paths start there, ours at the
/// root directory.
pub fn below(rootdir: &Path, workspace: Option<&OsStr>) -> PathBuf {
    let below = workspace.and_then(|workspace| rootdir.strip_prefix(workspace).ok());
    below.map(Path::to_owned).unwrap_or_default()
}

/// One annotation for every test that failed, or for the file if none did. `below`: see [`below`].
pub fn annotations(outcome: &FileOutcome, below: &Path) -> String {
    let mut text = String::new();
    let path = below.join(&outcome.path);
    let mut say = |title: &str, message: &str| {
        let (path, title, message) = (property(&path.to_string_lossy()), property(title), data(message));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "::error file={path},title={title}::{message}");
    };
    let failed: Vec<&TestOutcome> = outcome.tests.iter().filter(|test| test.outcome.is_failure()).collect();
    for test in &failed {
        say(&test.nodeid, test.message.as_deref().unwrap_or("failed"));
    }
    if failed.is_empty() {
        say(&outcome.path, outcome.message.as_deref().unwrap_or("failed"));
    }
    text
}

/// What GitHub's parser wants escaped in a message.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// ... and in a property.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{TestVerdict, Verdict};

    #[test]
    fn a_name_cannot_add_an_annotation_of_its_own() {
        let test = TestOutcome {
            message: Some("100%\n::error::x".to_owned()),
            ..TestOutcome::new("t.py::a[1,2]", TestVerdict::Failed)
        };
        let outcome = crate::sink::suite::tests::outcome("t.py", Verdict::Failed, vec![test]);
        assert_eq!(
            annotations(&outcome, Path::new("")),
            "::error file=t.py,title=t.py%3A%3Aa[1%2C2]::100%25%0A::error::x\n"
        );
    }

    #[test]
    fn a_path_starts_where_githubs_do() {
        let outcome = crate::sink::suite::tests::outcome("tests/t.py", Verdict::Crash, Vec::new());
        let said = |rootdir: &str, workspace: Option<&str>| {
            annotations(&outcome, &below(Path::new(rootdir), workspace.map(OsStr::new)))
        };
        assert!(said("/w/repo/python", Some("/w/repo")).starts_with("::error file=python/tests/t.py,"));
        for (rootdir, workspace) in
            [("/w/repo", Some("/w/repo")), ("/elsewhere", Some("/w/repo")), ("/x", None)]
        {
            assert!(said(rootdir, workspace).starts_with("::error file=tests/t.py,"), "{rootdir}");
        }
    }
}
