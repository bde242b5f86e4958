//! Annotations for GitHub's pages: `::error file=...,title=...::message`.

use std::fmt::Write;

use crate::outcome::{FileOutcome, TestOutcome};

/// One annotation for every test that failed, or for the file if none did.
pub fn annotations(outcome: &FileOutcome) -> String {
    let mut text = String::new();
    let mut say = |title: &str, message: &str| {
        let (path, title, message) = (property(&outcome.path), property(title), data(message));
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
            annotations(&outcome),
            "::error file=t.py,title=t.py%3A%3Aa[1%2C2]::100%25%0A::error::x\n"
        );
    }
}
