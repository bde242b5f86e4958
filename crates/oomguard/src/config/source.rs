//! The text of a configuration file, and errors that point into it.
//!
//! Only shows; what is wrong and what to do about it comes from those who read the values.

use std::ops::Range;

use crate::error::Error;

/// A file's text and the name it is shown under.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) shown: String,
    pub(super) text: &'a str,
}

impl Source<'_> {
    /// An error about the characters at `span`, with their line underlined.
    pub(super) fn error(&self, span: Range<usize>, message: &str) -> Error {
        let start = floor(self.text, span.start);
        let line_start = self.text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |newline| start + newline);
        let line = &self.text[line_start..line_end];
        let number = self.text[..start].matches('\n').count() + 1;
        let column = self.text[line_start..start].chars().count();
        let end = floor(self.text, span.end.clamp(start, line_end));
        let width = self.text[start..end].trim_end().chars().count().max(1);

        let margin = " ".repeat(number.to_string().len());
        let (space, carets) = (" ".repeat(column), "^".repeat(width));
        let line = line.trim_end().replace('\t', " ");
        Error::new(format!(
            "{message}\n{margin}--> {}:{number}:{}\n{margin} |\n{number} | {line}\n{margin} | {space}{carets}",
            self.shown,
            column + 1
        ))
    }
}

/// The start of the character that `index` is in.
fn floor(text: &str, index: usize) -> usize {
    let mut index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

/// The known word that `typed` was probably meant to be.
pub(super) fn nearest<'k>(typed: &str, known: &[&'k str]) -> Option<&'k str> {
    let typed = typed.to_lowercase().replace('-', "_");
    let scored = known.iter().map(|word| (strsim::jaro_winkler(&typed, word), *word));
    let best = scored.max_by(|(left, _), (right, _)| left.total_cmp(right))?;
    (best.0 > 0.8).then_some(best.1)
}
