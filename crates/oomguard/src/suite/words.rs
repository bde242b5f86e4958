//! A line of options cut into words as Python's `shlex.split` does it.
//!
//! By hand: the crates for shells take `#` for a comment, Python does not. Expands nothing.

/// The words of `line`, or what is wrong with it.
pub(super) fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '\\' => match letters.next() {
                Some(next) => word.get_or_insert_default().push(next),
                None => return Err("a backslash ends it".to_owned()),
            },
            quote @ ('\'' | '"') => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next() {
                        None => return Err(format!("there is no closing {quote}")),
                        Some(letter) if letter == quote => break,
                        Some('\\') if quote == '"' => match letters.next() {
                            Some(next @ ('"' | '\\')) => word.push(next),
                            Some(next) => word.extend(['\\', next]),
                            None => return Err(format!("there is no closing {quote}")),
                        },
                        Some(letter) => word.push(letter),
                    }
                }
            }
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Python 3.11 makes of the same lines.
    #[test]
    fn words_are_those_of_python() {
        let cases: [(&str, &[&str]); 7] = [
            ("", &[]),
            (" -ra\t-q\n--x=1 ", &["-ra", "-q", "--x=1"]),
            ("-k 'a or b' -m\"gpu\" ''", &["-k", "a or b", "-mgpu", ""]),
            ("a #b c#d", &["a", "#b", "c#d"]),
            (r#"a\ b "c\"d\\e\f" 'g\h'"#, &["a b", r#"c"d\e\f"#, r"g\h"]),
            ("a\\\nb", &["a\nb"]),
            ("é\u{a0}x", &["é\u{a0}x"]),
        ];
        for (line, words) in cases {
            assert_eq!(split(line).unwrap(), words, "{line}");
        }
        for wrong in ["'", "a \"b", "\"\\", "\\"] {
            assert!(split(wrong).is_err(), "{wrong}");
        }
    }
}
