//! The dialect of `pytest.ini`, `tox.ini` and `setup.cfg`: that of Python's `iniconfig`, on which pytest stands.
//!
//! By hand: no crate for ini files keeps `#` within a value, joins indented lines with a newline, and refuses what
//! iniconfig refuses (a key twice, a section twice, a line that is neither), so each would read other settings than pytest.

use std::collections::BTreeMap;

/// Sections with their keys and values.
pub(super) type Sections = BTreeMap<String, BTreeMap<String, String>>;

/// What is wrong, and in which line (from 1).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) line: usize,
    pub(super) why: String,
}

enum Line<'t> {
    Blank,
    Section(&'t str),
    Value(&'t str, &'t str),
    Continued(&'t str),
}

/// Reads a whole file.
pub(super) fn parse(text: &str) -> Result<Sections, Wrong> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut sections = Sections::new();
    let mut section: Option<String> = None;
    // The value that an indented line goes on with.
    let mut key: Option<String> = None;
    for (index, line) in lines(text).enumerate() {
        let wrong = |why: String| Wrong { line: index + 1, why };
        match understand(line).map_err(wrong)? {
            Line::Blank => {}
            Line::Section("") => return Err(wrong("a section without a name".to_owned())),
            Line::Section(name) => {
                if sections.insert(name.to_owned(), BTreeMap::new()).is_some() {
                    return Err(wrong(format!("the section `{name}` is there twice")));
                }
                (section, key) = (Some(name.to_owned()), None);
            }
            Line::Value(name, value) => {
                let Some(keys) = section.as_ref().and_then(|section| sections.get_mut(section)) else {
                    return Err(wrong("a value before the first section".to_owned()));
                };
                if keys.insert(name.to_owned(), value.to_owned()).is_some() {
                    return Err(wrong(format!("the key `{name}` is there twice")));
                }
                key = Some(name.to_owned());
            }
            Line::Continued(more) => {
                let keys = section.as_ref().and_then(|section| sections.get_mut(section));
                let value = key.as_ref().zip(keys).and_then(|(key, keys)| keys.get_mut(key));
                let Some(value) = value else {
                    return Err(wrong("an indented line that continues no value".to_owned()));
                };
                if !value.is_empty() {
                    value.push('\n');
                }
                value.push_str(more);
            }
        }
    }
    Ok(sections)
}

/// Lines as Python's `str.splitlines` cuts them.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let ends = |letter: char| {
        matches!(
            letter,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.find(ends).unwrap_or(rest.len());
        let line = &rest[..end];
        let width = if rest[end..].starts_with("\r\n") {
            2
        } else {
            rest[end..].chars().next().map_or(0, char::len_utf8)
        };
        rest = &rest[end + width..];
        Some(line)
    })
}

fn understand(line: &str) -> Result<Line<'_>, String> {
    let bare = line.trim_start();
    if bare.is_empty() || bare.starts_with(['#', ';']) {
        return Ok(Line::Blank);
    }
    let line = line.trim_end();
    if line.starts_with('[') {
        let header = line.split(['#', ';']).next().unwrap_or_default().trim_end();
        return Ok(match header.strip_suffix(']') {
            Some(header) => Line::Section(header.get(1..).unwrap_or_default()),
            None => Line::Continued(line),
        });
    }
    if line.starts_with(char::is_whitespace) {
        return Ok(Line::Continued(line.trim()));
    }
    let equals = line.split_once('=').filter(|(name, _)| !name.contains(':'));
    match equals.or_else(|| line.split_once(':')) {
        Some((name, value)) => Ok(Line::Value(name.trim(), value.trim())),
        None => Err(format!("`{line}` is neither `key = value` nor `[section]`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str, section: &str, key: &str) -> Option<String> {
        parse(text).unwrap().get(section)?.get(key).cloned()
    }

    #[test]
    fn values_are_what_iniconfig_makes_of_them() {
        let text = "\u{feff}# first\n[pytest]  ; why\r\naddopts = -ra  # kept\n  -q\n\n ; no\n    --x=[1]\n\
                    a : b=c\nempty =\n\tone\n two\n[tool:pytest]\npython_files=x y\n[x\n";
        let get = |key| value(text.trim_end_matches("[x\n"), "pytest", key).unwrap();
        assert_eq!(get("addopts"), "-ra  # kept\n-q\n--x=[1]");
        assert_eq!(get("a"), "b=c");
        assert_eq!(get("empty"), "one\ntwo");
        // A `[` that is never closed continues the value before it.
        assert_eq!(value(text, "tool:pytest", "python_files").unwrap(), "x y\n[x");
        assert_eq!(value("[a]\nx=1", "b", "x"), None);
    }

    #[test]
    fn what_iniconfig_refuses_is_pointed_at() {
        for (text, line, why) in [
            ("a = 1\n", 1, "before the first section"),
            ("\n[a]\nx=1\nx=2\n", 4, "`x` is there twice"),
            ("[a]\n[b]\n[a]\n", 3, "`a` is there twice"),
            ("[a]\n\n  more\n", 3, "continues no value"),
            ("[a]\nwhat\n", 2, "`what` is neither"),
            ("[]\n", 1, "without a name"),
        ] {
            let wrong = parse(text).unwrap_err();
            assert!(wrong.line == line && wrong.why.contains(why), "{text:?}: {wrong:?}");
        }
    }
}
