//! What must hold for any text that a reader of this module meets.

#![expect(clippy::panic, reason = "a check that cannot be made has failed")]

use super::{argument, iniconfig, options, pattern, scan, words};

/// An ini file, a line of options, a node id, a pattern, a test file: whatever `text` is.
pub(crate) fn text(text: &str) {
    let lines = text.split(|letter: char| letter.is_control() || "\u{2028}\u{2029}".contains(letter)).count();
    if let Err(wrong) = iniconfig::parse(text) {
        assert!((1..=lines).contains(&wrong.line) && !wrong.why.is_empty(), "{wrong:?}");
    }
    if let Ok(words) = words::split(text) {
        assert!(words.iter().map(String::len).sum::<usize>() <= text.len(), "letters from nowhere");
        if let Ok(options) = options::read(&words) {
            assert!(options.paths.iter().all(|path| words.contains(path)), "a path from nowhere");
        }
    }
    let (path, parts, parameters) = argument::split(text);
    let whole: String = std::iter::once(path).chain(parts.iter().flat_map(|part| ["::", part])).collect();
    assert_eq!(whole + parameters.unwrap_or_default(), text, "a node id lost something");
    assert!(pattern::fnmatch(text, "*") && pattern::fnmatch(text, &"?".repeat(text.chars().count())));
    assert!(text.contains('[') || pattern::fnmatch(text, text), "a pattern without sets matches itself");
    let half = text.char_indices().nth(text.chars().count() / 2).map_or(0, |(at, _)| at);
    pattern::fnmatch(&text[..half], &text[half..]);
    match scan::scan(text) {
        Ok(said) => {
            assert!(said.imports.module.is_sorted() && said.imports.function.is_sorted());
            assert!(said.imports.function.iter().all(|name| !said.imports.module.contains(name)));
        }
        Err((line, why)) if line <= text.matches('\n').count() + 1 && !why.is_empty() => {}
        Err(other) => panic!("{other:?} points nowhere"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// Pieces of which texts are made that come further than random letters.
    const PIECES: &[&str] = &[
        "[pytest]\n",
        "[",
        "]",
        "::",
        "=",
        ":",
        "\n",
        "\n  ",
        "#",
        ";",
        "'",
        "\"",
        "\\",
        "-o",
        "--rootdir",
        "-p no:",
        "*",
        "?",
        "[!a-z]",
        "é",
        "\u{2028}",
        "import ",
        "from ",
        "torch",
        ".cuda",
        "()",
        "pytest",
        ".mark.oomguard(",
        "memory=",
        "'4GiB'",
        ")",
        "def f():\n ",
        "@",
        "if TYPE_CHECKING:\n ",
        "f'cuda:{",
        "}",
        ",",
        "x",
        " ",
        "\0",
        "lambda: ",
        "**",
    ];

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..30)) {
            super::text(&pieces.concat());
        }

        #[test]
        fn any_letters_are(letters in ".{0,60}") {
            super::text(&letters);
        }
    }
}
