//! The words of command lines: what pytest, or another runner, is started with.

use std::ffi::OsString;
use std::path::Path;

use crate::cli;
use crate::error::Error;
use crate::suite::TestFile;

/// Arguments for pytest, those that have flags of our own among them.
pub fn pytest_args(cli: &cli::Test) -> Vec<String> {
    let mut args = cli.pytest.clone();
    for (flag, value) in [("-k", &cli.keyword), ("-m", &cli.marker)] {
        if let Some(value) = value {
            args.extend([flag.to_owned(), value.clone()]);
        }
    }
    if cli.exitfirst {
        args.push("-x".to_owned());
    } else if let Some(maxfail) = cli.maxfail {
        args.push(format!("--maxfail={maxfail}"));
    }
    args
}

/// Another runner would run what was to be left out.
pub fn refuse_what_only_pytest_knows(cli: &cli::Test, files: &[TestFile]) -> Result<(), Error> {
    let given = [
        ("`-k`", cli.keyword.is_some()),
        ("`-m`", cli.marker.is_some()),
        ("what stands behind `--`", !cli.pytest.is_empty()),
        ("a single test (`FILE::TEST`)", files.iter().any(|file| !file.select.is_empty())),
    ];
    match given.iter().find(|(_, is_given)| *is_given) {
        None => Ok(()),
        Some((what, _)) => {
            Err(Error::new(format!("{what} is for pytest, and the files are run by a command"))
                .hint("write it into the command; each file is run whole")
                .code(4))
        }
    }
}

/// A node id of pytest (relative to the root directory) as an argument that is right from everywhere.
pub fn node(path: &Path, id: &str) -> String {
    match id.split_once("::") {
        Some((_, test)) => format!("{}::{test}", path.display()),
        None => path.to_string_lossy().into_owned(),
    }
}

/// The words of a command, with quotes as in a shell, and nothing else of a shell.
pub fn words(text: &str) -> Result<Vec<String>, Error> {
    let words = shlex::split(text).filter(|words| !words.is_empty());
    let words = words.ok_or_else(|| Error::new(format!("`--command {text}`: a quote is not closed")))?;
    if !words.iter().any(|word| word.contains("{file}")) {
        return Err(Error::new(format!("`--command {text}` does not say where the file goes"))
            .hint("put `{file}` where each file's path belongs: `python -m unittest {file}`"));
    }
    Ok(words)
}

/// The command for one file.
pub fn command(words: &[String], file: &Path) -> Vec<OsString> {
    let file = file.to_string_lossy();
    words.iter().map(|word| word.replace("{file}", &file).into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_words_and_never_a_shell() {
        let words = words("run 'a b' {file} --x={file}; rm").unwrap();
        assert_eq!(words, ["run", "a b", "{file}", "--x={file};", "rm"]);
        let file = Path::new("/t/a b.py");
        assert_eq!(command(&words, file)[2..4], ["/t/a b.py", "--x=/t/a b.py;"]);
        assert!(super::words("run 'a").is_err());
        assert!(super::words("run all").unwrap_err().hint.unwrap().contains("{file}"));
    }

    #[test]
    fn a_node_id_is_right_from_everywhere() {
        assert_eq!(node(Path::new("/r/t/a.py"), "t/a.py::T::x[a::b]"), "/r/t/a.py::T::x[a::b]");
    }
}
