//! Whom somebody means: processes by name, cgroup or user.
//!
//! Reads `/etc/passwd` for the number of a user, once. What it means to be meant is decided elsewhere. A process
//! names itself: a name steers who goes first, and is no protection against somebody hostile.

use std::str::FromStr;

use glob::Pattern;
use oomguard_sys::processes::About;

/// `name:GLOB`, `cgroup:GLOB`, `user:NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The short name, at most 15 bytes.
    Name(Pattern),
    /// The path of the cgroup; `*` goes over slashes.
    Cgroup(Pattern),
    /// The real user.
    User(u32),
}

impl Target {
    /// Whether this process is meant.
    pub fn means(&self, about: &About<'_>) -> bool {
        match self {
            Target::Name(pattern) => pattern.matches(&String::from_utf8_lossy(about.name)),
            Target::Cgroup(pattern) => pattern.matches(&String::from_utf8_lossy(about.cgroup)),
            Target::User(uid) => *uid == about.uid,
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        let (kind, value) = match text.split_once(':') {
            Some((kind @ ("name" | "cgroup" | "user"), value)) => (kind, value),
            // `usr:ci` would be a name that nobody has; names with a colon (`tmux: server`) have a space behind it.
            Some((kind, value)) if is_word(kind) && !value.starts_with(' ') => {
                return Err(format!("`{kind}:` is none of `name:`, `cgroup:`, `user:` (try `name:{text}`)"));
            }
            _ => ("name", text),
        };
        if value.is_empty() {
            return Err(format!("`{text}` names nobody (try `name:python*`, `cgroup:/ci*` or `user:ci`)"));
        }
        let pattern =
            || Pattern::new(value).map_err(|error| format!("`{value}` is not a pattern: {}", error.msg));
        match kind {
            "cgroup" => pattern().map(Target::Cgroup),
            "user" => user(value).map(Target::User),
            _ if value.len() > LONGEST && !value.contains(['*', '?', '[']) => {
                let start = value.chars().take(LONGEST).collect::<String>();
                Err(format!(
                    "`{value}` is nobody's name: the kernel keeps {LONGEST} bytes (try `name:{start}*`)"
                ))
            }
            _ => pattern().map(Target::Name),
        }
    }
}

/// What the kernel keeps of a process's name, in bytes.
const LONGEST: usize = 15;

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase())
}

fn user(name: &str) -> Result<u32, String> {
    if let Ok(uid) = name.parse() {
        return Ok(uid);
    }
    let listed = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let uid = listed.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    uid.ok_or_else(|| format!("there is no user `{name}` in `/etc/passwd` (a number is understood too)"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oomguard_core::watch::Who;

    fn means(target: &str, name: &str) -> bool {
        let about = About {
            who: Who::default(),
            name: name.as_bytes(),
            uid: 1000,
            cgroup: b"/user.slice/ci-7.scope",
        };
        target.parse::<Target>().unwrap().means(&about)
    }

    #[test]
    fn by_name_cgroup_and_user() {
        assert!(means("python*", "python3") && means("name:python?", "python3"));
        assert!(!means("python", "python3") && !means("Python*", "python3"));
        assert!(means("cgroup:*/ci-*", "x") && !means("cgroup:/ci-*", "x"));
        assert!(means("user:1000", "x") && !means("user:root", "x"));
        assert!(means("tmux: server", "tmux: server"), "a name may hold a colon");
        assert!(means("kworker/0:1", "kworker/0:1") && means("name:a:b", "a:b"));
        assert!(means("systemd-journa?", "systemd-journal") && means("systemd-journal*", "systemd-journal"));
    }

    #[test]
    fn who_is_nobody_is_an_error_that_says_so() {
        for (text, said) in [
            ("user:nobody-at-all", "no user `nobody-at-all`"),
            ("name:", "names nobody"),
            ("a[", "not a pattern"),
            ("usr:ci", "`usr:` is none of"),
            ("group:/ci*", "`group:` is none of"),
            ("systemd-journald", "(try `name:systemd-journal*`)"),
        ] {
            let error = text.parse::<Target>().unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
