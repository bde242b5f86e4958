//! The settings that pytest reads from one file: `pytest.toml`, `pytest.ini`, `pyproject.toml`, `tox.ini`, `setup.cfg`.
//!
//! Reads one file and says what is in it; which file counts is for `rootdir`.

use std::collections::BTreeMap;
use std::path::Path;

use super::{iniconfig, usage, words};
use crate::error::Error;

/// The names that pytest looks for, the first one that counts wins.
pub(super) const NAMES: [&str; 7] =
    ["pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg"];

/// Settings by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Settings(BTreeMap<String, Value>);

#[derive(Clone, Debug, PartialEq)]
enum Value {
    /// As in an ini file: words, cut as in a shell.
    Words(String),
    /// A list in TOML.
    List(Vec<String>),
    /// Something else in TOML.
    Other(&'static str),
}

impl Settings {
    /// `-o KEY=VALUE`.
    pub(super) fn set(&mut self, key: &str, value: &str) {
        self.0.insert(key.to_owned(), Value::Words(value.to_owned()));
    }

    /// The list of words that `key` stands for, if the file says anything about it.
    pub(super) fn list(&self, key: &str) -> Result<Option<Vec<String>>, Error> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Words(line)) => match words::split(line) {
                Ok(words) => Ok(Some(words)),
                Err(why) => {
                    Err(usage(format!("could not understand pytest's setting `{key} = {line}`: {why}")))
                }
            },
            Some(Value::List(words)) => Ok(Some(words.clone())),
            Some(Value::Other(kind)) => {
                Err(usage(format!("pytest's setting `{key}` is {kind}, not a list of strings")))
            }
        }
    }
}

/// What the file at `path` says; `None`: nothing about pytest.
pub(super) fn read(path: &Path) -> Result<Option<Settings>, Error> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let text = std::fs::read(path).map_err(|error| Error::io("read", path, &error).code(4))?;
    let text = String::from_utf8(text).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        usage(format!("could not read `{}`: byte {at} is not UTF-8", path.display()))
    })?;
    match (name, path.extension().and_then(|extension| extension.to_str())) {
        ("pytest.toml" | ".pytest.toml", _) => {
            own_toml(path, &toml(path, &text)?).map(|found| found.or_default())
        }
        ("pyproject.toml", _) => tool_pytest(path, &toml(path, &text)?),
        (_, Some("toml")) => {
            let document = toml(path, &text)?;
            match tool_pytest(path, &document)? {
                Some(_) if document.contains_key("pytest") => Err(usage(format!(
                    "`{}` has both `[pytest]` and `[tool.pytest]`: pytest refuses that",
                    path.display()
                ))),
                Some(settings) => Ok(Some(settings)),
                None => own_toml(path, &document),
            }
        }
        ("pytest.ini" | ".pytest.ini", _) => Ok(ini(path, &text, "pytest")?.or_default()),
        (_, Some("ini")) => ini(path, &text, "pytest"),
        (_, Some("cfg")) => match ini(path, &text, "tool:pytest")? {
            Some(settings) => Ok(Some(settings)),
            None if ini(path, &text, "pytest")?.is_some() => {
                Err(usage(format!("`{}` has a section `[pytest]`, which pytest refuses", path.display()))
                    .hint("call it `[tool:pytest]`"))
            }
            None => Ok(None),
        },
        _ => Err(usage(format!("`{}` is no file that pytest takes settings from", path.display()))
            .hint("it takes those that end in `.ini`, `.cfg` or `.toml`")),
    }
}

/// A file of pytest's own counts even where it says nothing.
trait OrDefault {
    fn or_default(self) -> Self;
}

impl OrDefault for Option<Settings> {
    fn or_default(self) -> Self {
        self.or_else(|| Some(Settings::default()))
    }
}

fn ini(path: &Path, text: &str, section: &str) -> Result<Option<Settings>, Error> {
    let mut sections = iniconfig::parse(text)
        .map_err(|wrong| usage(format!("`{}` line {}: {}", path.display(), wrong.line, wrong.why)))?;
    let values = sections.remove(section);
    Ok(values
        .map(|values| Settings(values.into_iter().map(|(key, line)| (key, Value::Words(line))).collect())))
}

fn toml(path: &Path, text: &str) -> Result<toml::Table, Error> {
    text.parse().map_err(|error| {
        usage(format!("could not understand `{}`: {}", path.display(), format!("{error}").trim_end()))
    })
}

/// `[pytest]`, in which values have the types of TOML.
fn own_toml(path: &Path, document: &toml::Table) -> Result<Option<Settings>, Error> {
    match document.get("pytest") {
        Some(toml::Value::Table(table)) => Ok(Some(native(table))),
        Some(_) => Err(usage(format!("`pytest` in `{}` is not a table", path.display()))),
        None => match document.iter().find(|(_, value)| !value.is_table()) {
            Some((key, _)) => Err(usage(format!("`{key}` in `{}` stands in no table", path.display()))
                .hint("pytest's settings belong in a table `[pytest]`")),
            None => Ok(None),
        },
    }
}

/// `[tool.pytest]`, or `[tool.pytest.ini_options]`, in which values are those of an ini file.
fn tool_pytest(path: &Path, document: &toml::Table) -> Result<Option<Settings>, Error> {
    let table = document.get("tool").and_then(|tool| tool.get("pytest")).and_then(toml::Value::as_table);
    let Some(table) = table else { return Ok(None) };
    let options = table.get("ini_options").and_then(toml::Value::as_table);
    let own: toml::Table = table
        .iter()
        .filter(|(key, _)| *key != "ini_options")
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    match options {
        Some(options) if !own.is_empty() && !options.is_empty() => Err(usage(format!(
            "`{}` has both `[tool.pytest]` and `[tool.pytest.ini_options]`: pytest refuses that",
            path.display()
        ))
        .hint("keep one of the two")),
        _ if !own.is_empty() => Ok(Some(native(&own))),
        Some(options) => {
            Ok(Some(Settings(options.iter().map(|(key, value)| (key.clone(), as_ini(value))).collect())))
        }
        None => Ok(None),
    }
}

fn native(table: &toml::Table) -> Settings {
    let value = |value: &toml::Value| match value {
        toml::Value::Array(_) => as_ini(value),
        other => Value::Other(other.type_str()),
    };
    Settings(table.iter().map(|(key, found)| (key.clone(), value(found))).collect())
}

fn as_ini(value: &toml::Value) -> Value {
    match value {
        toml::Value::Array(items) => {
            let words: Option<Vec<String>> =
                items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
            words.map_or(Value::Other("a list of other things"), Value::List)
        }
        toml::Value::String(line) => Value::Words(line.clone()),
        other => Value::Words(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_named(name: &str, text: &str) -> Result<Option<Vec<String>>, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        // `Some(["none"])`: it counts and says nothing about the key.
        let Some(settings) = read(&path)? else { return Ok(None) };
        Ok(Some(settings.list("python_files")?.unwrap_or_else(|| vec!["none".to_owned()])))
    }

    #[test]
    fn each_kind_of_file_says_it_in_its_own_way() {
        let list = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        for (name, text, want) in [
            ("pytest.ini", "[pytest]\npython_files =\n  a.py\n  'b c.py'\n", list(&["a.py", "b c.py"])),
            ("pytest.ini", "[other]\n", list(&["none"])),
            (".pytest.ini", "", list(&["none"])),
            ("tox.ini", "[other]\n", None),
            ("tox.ini", "[pytest]\n", list(&["none"])),
            ("setup.cfg", "[tool:pytest]\npython_files: x\n", list(&["x"])),
            ("setup.cfg", "[metadata]\n", None),
            ("pyproject.toml", "[tool.pytest.ini_options]\npython_files = 'x y'\n", list(&["x", "y"])),
            ("pyproject.toml", "[tool.pytest.ini_options]\npython_files = ['x y']\n", list(&["x y"])),
            ("pyproject.toml", "[tool.pytest.ini_options]\n", list(&["none"])),
            ("pyproject.toml", "[tool.pytest]\npython_files = ['x']\n", list(&["x"])),
            ("pyproject.toml", "[tool.pytest]\n", None),
            ("pyproject.toml", "[project]\n", None),
            ("pytest.toml", "", list(&["none"])),
            (".pytest.toml", "[pytest]\npython_files = ['x']\n", list(&["x"])),
            ("mine.toml", "[pytest]\npython_files = ['x']\n", list(&["x"])),
            ("mine.toml", "[tool.pytest]\npython_files = ['x']\n", list(&["x"])),
        ] {
            assert_eq!(read_named(name, text).unwrap(), want, "{name}: {text}");
        }
    }

    #[test]
    fn what_pytest_refuses_is_refused_with_its_place() {
        for (name, text, says) in [
            ("pytest.ini", "[pytest]\nwhat\n", "line 2: `what`"),
            ("setup.cfg", "[pytest]\n", "refuses"),
            ("pyproject.toml", "[tool.pytest\n", "line 1"),
            ("pyproject.toml", "[tool.pytest]\na = 1\n[tool.pytest.ini_options]\nb = 1\n", "has both"),
            ("pyproject.toml", "[tool.pytest]\npython_files = 'x'\n", "`python_files` is string, not a list"),
            ("pytest.toml", "python_files = ['x']\n", "stands in no table"),
            ("mine.toml", "[pytest]\n[tool.pytest]\na=1\n", "has both"),
            ("pytest.ini", "[pytest]\npython_files = 'x\n", "no closing '"),
            ("pytest.txt", "", "no file that pytest takes settings from"),
        ] {
            let error = read_named(name, text).unwrap_err();
            assert!(error.message.contains(says) && error.code == 4, "{error}");
        }
    }
}
