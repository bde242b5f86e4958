//! What pytest's own options say about which files there are.
//!
//! Understands only those; what a plugin's option means is not known here, so a word behind one counts as its value, never as
//! a path.

use std::collections::BTreeSet;

use super::usage;
use crate::error::Error;

/// Options with one letter that are followed by a value (`-n` is that of pytest-xdist).
const SHORT_WITH_VALUE: &str = "kmWcporn";
/// And those that are not.
const SHORT_FLAGS: &str = "xVhvqls";
/// Options with a name that are followed by no value, and by which a path can stand.
const FLAGS: &[&str] = &[
    "cache-clear",
    "co",
    "collect-in-virtualenv",
    "collect-only",
    "collectonly",
    "continue-on-collection-errors",
    "disable-plugin-autoload",
    "disable-pytest-warnings",
    "disable-warnings",
    "doctest-continue-on-failure",
    "doctest-ignore-import-errors",
    "doctest-modules",
    "exitfirst",
    "failed-first",
    "ff",
    "fixtures",
    "fixtures-per-test",
    "force-short-summary",
    "full-trace",
    "fulltrace",
    "funcargs",
    "help",
    "keep-duplicates",
    "keepduplicates",
    "last-failed",
    "lf",
    "markers",
    "new-first",
    "nf",
    "no-fold-skipped",
    "no-header",
    "no-showlocals",
    "no-summary",
    "noconftest",
    "pdb",
    "pyargs",
    "quiet",
    "runxfail",
    "setup-only",
    "setup-plan",
    "setup-show",
    "setuponly",
    "setupplan",
    "setupshow",
    "showlocals",
    "stepwise",
    "stepwise-reset",
    "stepwise-skip",
    "strict",
    "strict-config",
    "strict-markers",
    "sw",
    "sw-reset",
    "sw-skip",
    "trace",
    "trace-config",
    "traceconfig",
    "verbose",
    "version",
    "xfail-tb",
];

/// What was said; the last one counts where only one can.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Words that are paths or node ids.
    pub(super) paths: Vec<String>,
    pub(super) config_file: Option<String>,
    pub(super) rootdir: Option<String>,
    /// `-o KEY=VALUE`, in order.
    pub(super) overrides: Vec<(String, String)>,
    pub(super) ignore: Vec<String>,
    pub(super) ignore_glob: Vec<String>,
    pub(super) deselect: Vec<String>,
    pub(super) doctest_glob: Vec<String>,
    pub(super) doctest_modules: bool,
    pub(super) collect_in_virtualenv: bool,
    pub(super) keep_duplicates: bool,
    pub(super) pyargs: bool,
    pub(super) junitxml: Option<String>,
    /// `-p no:NAME`.
    pub(super) blocked: BTreeSet<String>,
}

/// Reads the words of a command line.
pub(super) fn read(words: &[String]) -> Result<Options, Error> {
    let mut options = Options::default();
    let mut words = words.iter().map(String::as_str).peekable();
    while let Some(word) = words.next() {
        if word == "--" {
            options.paths.extend(words.by_ref().map(str::to_owned));
        } else if let Some(option) = word.strip_prefix("--") {
            match option.split_once('=') {
                Some((name, value)) => options.long(name, Some(value))?,
                None if FLAGS.contains(&option) => options.long(option, None)?,
                None => {
                    let value = words.next_if(|next| !next.starts_with('-'));
                    options.long(option, value)?;
                }
            }
        } else if let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            // `-qqk EXPR`: flags, then at most one with a value, which is the rest of the word or the next one.
            let end = letters.find(|letter| !SHORT_FLAGS.contains(letter));
            let Some(rest) = end.map(|end| &letters[end..]) else { continue };
            let mut split = rest.chars();
            let letter = split.next().unwrap_or_default();
            let value = match split.as_str() {
                "" if SHORT_WITH_VALUE.contains(letter) => words.next(),
                "" => words.next_if(|next| !next.starts_with('-')),
                value => Some(value.strip_prefix('=').unwrap_or(value)),
            };
            options.short(letter, value)?;
        } else {
            options.paths.push(word.to_owned());
        }
    }
    Ok(options)
}

impl Options {
    fn short(&mut self, letter: char, value: Option<&str>) -> Result<(), Error> {
        match (letter, value) {
            ('c', value) => self.long("config-file", value),
            ('o', value) => self.long("override-ini", value),
            ('p', Some(value)) => {
                let name = value.trim();
                match name.strip_prefix("no:") {
                    Some(name) => self.blocked.insert(name.to_owned()),
                    None => self.blocked.remove(name),
                };
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn long(&mut self, name: &str, value: Option<&str>) -> Result<(), Error> {
        let one = || value.map(str::to_owned).ok_or_else(|| usage(format!("`--{name}` needs a value")));
        match name {
            "config-file" => self.config_file = Some(one()?),
            "rootdir" => self.rootdir = Some(one()?),
            "override-ini" => {
                let pair = one()?;
                let Some((key, value)) = pair.split_once('=') else {
                    return Err(usage(format!("`-o {pair}` is not of the form `-o KEY=VALUE`")));
                };
                self.overrides.push((key.to_owned(), value.to_owned()));
            }
            "ignore" => self.ignore.push(one()?),
            "ignore-glob" => self.ignore_glob.push(one()?),
            "deselect" => self.deselect.push(one()?),
            "doctest-glob" => self.doctest_glob.push(one()?),
            "doctest-modules" => self.doctest_modules = true,
            "collect-in-virtualenv" => self.collect_in_virtualenv = true,
            "keep-duplicates" | "keepduplicates" => self.keep_duplicates = true,
            "pyargs" => self.pyargs = true,
            "junitxml" | "junit-xml" => self.junitxml = Some(one()?),
            _ => {}
        }
        Ok(())
    }

    /// Is a plugin of pytest's own switched off?
    pub(super) fn without(&self, plugin: &str) -> bool {
        self.blocked.contains(plugin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_line(line: &str) -> Options {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        read(&words).unwrap()
    }

    #[test]
    fn options_of_every_form_are_understood() {
        let options = read_line(
            "-xvs -c a.ini -qco=b.ini --rootdir=r --ignore x --ignore=y --ignore-glob=*z -o python_files=a=b -ok=v \
             --deselect t.py::x -p no:doctest -pno:python -p python --doctest-glob=*.md --doctest-modules \
             --collect-in-virtualenv --keepduplicates --pyargs --junit-xml a --junitxml=b -m gpu tests -k expr t.py::y -- -z",
        );
        assert_eq!(options.config_file.as_deref(), Some("o=b.ini"));
        assert_eq!(options.rootdir.as_deref(), Some("r"));
        assert_eq!(options.junitxml.as_deref(), Some("b"));
        assert_eq!(options.paths, ["tests", "t.py::y", "-z"]);
        assert_eq!(
            (options.ignore, options.ignore_glob),
            (vec!["x".to_owned(), "y".into()], vec!["*z".to_owned()])
        );
        assert_eq!(options.overrides, [("python_files".into(), "a=b".into()), ("k".into(), "v".into())]);
        assert_eq!(options.deselect, ["t.py::x"]);
        assert_eq!(options.doctest_glob, ["*.md"]);
        assert!(
            options.doctest_modules
                && options.collect_in_virtualenv
                && options.keep_duplicates
                && options.pyargs
        );
        assert_eq!(options.blocked, BTreeSet::from(["doctest".to_owned()]));
    }

    #[test]
    fn a_word_behind_an_unknown_option_is_its_value() {
        let options = read_line("--cov src --cov-report=xml --timeout 5 -n 4 --lf tests");
        assert_eq!(options.paths, ["tests"]);
    }

    #[test]
    fn an_option_that_lacks_its_value_is_named() {
        let words = ["--rootdir".to_owned(), "-q".to_owned()];
        assert!(read(&words).unwrap_err().message.contains("`--rootdir` needs a value"));
        let pair = ["-o".to_owned(), "python_files".to_owned()];
        assert_eq!(read(&pair).unwrap_err().code, 4);
    }
}
