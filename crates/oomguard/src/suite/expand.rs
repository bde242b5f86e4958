//! Variables and the home directory in a path, as Python's `os.path.expandvars` and `expanduser` put them in.
//!
//! By hand: the crate for it (shellexpand) knows a shell's `$$` and `${a:-b}` too, which are plain text to Python. Another
//! user's home (`~user`) stays as it is written: the list of users is the C library's to read.

/// `$NAME` and `${NAME}`, where `env` has it, then a `~` in front; all else stays.
pub fn expand(path: &str, env: &dyn Fn(&str) -> Option<String>) -> String {
    let mut expanded = String::new();
    let mut rest = path;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        expanded.push_str(before);
        let length = variable(from);
        let value = env(from[1..length].trim_start_matches('{').trim_end_matches('}'));
        expanded.push_str(value.as_deref().filter(|_| length > 1).unwrap_or(&from[..length]));
        rest = &from[length..];
    }
    expanded.push_str(rest);
    match expanded.strip_prefix('~').filter(|below| below.is_empty() || below.starts_with('/')) {
        Some(below) => env("HOME").map(|home| format!("{}{below}", home.trim_end_matches('/'))),
        None => None,
    }
    .unwrap_or(expanded)
}

/// How long the variable is that begins with this dollar sign; 1: it is only a dollar sign.
fn variable(text: &str) -> usize {
    let name = &text[1..];
    if let Some(braced) = name.strip_prefix('{') {
        return braced.find('}').map_or(1, |end| end + "${}".len());
    }
    1 + name.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(name.len())
}

#[cfg(test)]
mod tests {
    use super::expand;

    #[test]
    fn variables_and_home_stand_for_what_they_do_in_python() {
        let env = |name: &str| match name {
            "HOME" => Some("/home/a/".to_owned()),
            "CI_DIR" => Some("/ci".to_owned()),
            "n" => Some("~1$CI_DIR".to_owned()),
            _ => None,
        };
        for (path, expanded) in [
            ("report.xml", "report.xml"),
            ("~/report.xml", "/home/a/report.xml"),
            ("~", "/home/a"),
            ("~b/report.xml", "~b/report.xml"),
            ("a/~/b", "a/~/b"),
            ("$CI_DIR/r.xml", "/ci/r.xml"),
            ("${CI_DIR}x$n.xml", "/cix~1$CI_DIR.xml"),
            ("$GONE/${GONE}/$", "$GONE/${GONE}/$"),
            ("$$n/${open", "$~1$CI_DIR/${open"),
            ("$ä", "$ä"),
        ] {
            assert_eq!(expand(path, &env), expanded, "{path}");
        }
        assert_eq!(expand("~/r.xml", &|_| None), "~/r.xml");
    }
}
