//! Python's `fnmatch`, and how pytest holds a pattern against a path.
//!
//! By hand, because the crates for globs mean something else by the same letters: here `*` goes over `/`, `**` is no
//! more than `*`, braces are letters (`{arch}` is one of pytest's own patterns), and `[` without `]` is a letter.

use std::path::Path;

/// Does `pattern` match all of `text`? In time pattern × text at worst.
pub(super) fn fnmatch(text: &str, pattern: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let pattern: Vec<char> = pattern.chars().collect();
    let (mut t, mut p) = (0, 0);
    // Behind the last `*`, and where in the text that one ends so far.
    let mut star = None;
    loop {
        let step = match pattern.get(p) {
            Some('*') => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            None if t == text.len() => return true,
            None => None,
            Some(_) => text.get(t).and_then(|letter| one(*letter, &pattern[p..])),
        };
        match (step, star) {
            (Some(length), _) => (t, p) = (t + 1, p + length),
            (None, Some((after, end))) if end < text.len() => {
                star = Some((after, end + 1));
                (t, p) = (end + 1, after);
            }
            _ => return false,
        }
    }
}

/// How long the part at the start of `pattern` is that matches `letter`.
fn one(letter: char, pattern: &[char]) -> Option<usize> {
    let first = *pattern.first()?;
    let Some(close) = (if first == '[' { close(pattern) } else { None }) else {
        return (first == '?' || first == letter).then_some(1);
    };
    let not = pattern[1] == '!';
    let set = &pattern[1 + usize::from(not)..close];
    (holds(set, letter) != not).then_some(close + 1)
}

/// Where the `]` of a set is: not the first letter in it.
fn close(pattern: &[char]) -> Option<usize> {
    let mut first = 1;
    first += usize::from(pattern.get(first) == Some(&'!'));
    first += usize::from(pattern.get(first) == Some(&']'));
    (first..pattern.len()).find(|index| pattern[*index] == ']')
}

/// `a-c` is a range, also a backward one, which is empty; a `-` at either end is a letter.
fn holds(set: &[char], letter: char) -> bool {
    let mut index = 0;
    while index < set.len() {
        if set.get(index + 1) == Some(&'-') && index + 2 < set.len() {
            if (set[index]..=set[index + 2]).contains(&letter) {
                return true;
            }
            index += 3;
        } else {
            if set[index] == letter {
                return true;
            }
            index += 1;
        }
    }
    false
}

/// Does one of pytest's patterns match? Without a slash it is held against the name, else against the whole path.
pub(super) fn matches(pattern: &str, path: &Path) -> bool {
    if !pattern.contains('/') {
        return path.file_name().is_some_and(|name| fnmatch(&name.to_string_lossy(), pattern));
    }
    let whole = path.to_string_lossy();
    match path.is_absolute() && !pattern.starts_with('/') {
        true => fnmatch(&whole, &format!("*/{pattern}")),
        false => fnmatch(&whole, pattern),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Python 3.11's `fnmatch.fnmatch` answers.
    #[test]
    fn patterns_match_as_in_python() {
        let yes = [
            ("test_a.py", "test_*.py"),
            ("a/b/c.py", "a*c.py"),
            ("abcbc", "a*bc"),
            ("{arch}", "{arch}"),
            ("a[b", "a[b"),
            ("a]b", "a[]]b"),
            ("axb", "a[!]]b"),
            ("x-", "x[a-]"),
            ("xb", "x[a-c]"),
            ("", "*"),
            ("é", "?"),
            ("a", "[!b-d]"),
            ("[!]", "[!]"),
        ];
        for (text, pattern) in yes {
            assert!(fnmatch(text, pattern), "{text} {pattern}");
        }
        let no = [
            ("test_a.pyc", "test_*.py"),
            ("", "?"),
            ("xb", "x[c-a]"),
            ("b", "[!b]"),
            ("ab", "a"),
            ("a", "a?*"),
        ];
        for (text, pattern) in no {
            assert!(!fnmatch(text, pattern), "{text} {pattern}");
        }
    }

    #[test]
    fn a_slash_means_the_whole_path() {
        let path = Path::new("/p/tests/unit/check_a.py");
        for yes in ["check_*.py", "unit/check_*.py", "/p/*/check_a.py", "tests/**/check_a.py"] {
            assert!(matches(yes, path), "{yes}");
        }
        for no in ["unit", "tests/**/unit/*.py", "/tests/*", "nit/check_a.py"] {
            assert!(!matches(no, path), "{no}");
        }
    }
}
