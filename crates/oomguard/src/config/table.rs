//! One table of the file: its keys are taken one by one, with their type checked, and what is left is unknown.
//!
//! Every refusal points at the key or the value. It knows types (a size, a time, a list of words); which keys
//! there are and what they mean is for `parse`.

mod kinds;

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use oomguard_core::Bytes;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::source::{Source, nearest};
use crate::amount::{Amount, duration, limit};
use crate::error::Error;

/// A value and where it stands.
pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// A table that is being read.
pub(super) struct Table<'s, 't> {
    source: &'s Source<'s>,
    /// `[pool.train]`, or nothing for the top.
    name: String,
    left: Vec<(Spanned<String>, Value<'t>)>,
    known: Vec<&'static str>,
}

impl<'s, 't> Table<'s, 't> {
    pub(super) fn new(source: &'s Source<'s>, name: String, table: DeTable<'t>) -> Table<'s, 't> {
        let owned =
            |key: Spanned<std::borrow::Cow<'t, str>>| Spanned::new(key.span(), key.get_ref().to_string());
        let mut left: Vec<_> = table.into_iter().map(|(key, value)| (owned(key), value)).collect();
        left.sort_by_key(|(key, _)| key.span().start);
        Table { source, name, left, known: Vec::new() }
    }

    /// The value of `key`, which counts as known from here on.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Value<'t>> {
        self.known.push(key);
        let place = self.left.iter().position(|(found, _)| found.get_ref() == key)?;
        Some(self.left.remove(place).1)
    }

    /// All that is left, in the order of the file: for tables whose keys are names.
    pub(super) fn rest(self) -> Vec<(Spanned<String>, Value<'t>)> {
        self.left
    }

    /// An error at the first key that nobody took.
    pub(super) fn finish(self) -> Result<(), Error> {
        let Some((key, _)) = self.left.first() else { return Ok(()) };
        let place = if self.name.is_empty() { String::new() } else { format!(" in `{}`", self.name) };
        let error = self.source.error(key.span(), &format!("unknown key `{}`{place}", key.get_ref()));
        Err(match nearest(key.get_ref(), &self.known) {
            Some(known) => error.hint(format!("did you mean `{known}`?")),
            None => error.hint(format!("known here: {}", words(&self.known))),
        })
    }

    fn wrong(&self, span: Range<usize>, key: &str, why: &str) -> Error {
        self.source.error(span, &format!("wrong value of `{key}`: {why}"))
    }

    fn wrong_type(&self, value: &Value<'_>, key: &str, wanted: &str) -> Error {
        let found = kind(value.get_ref());
        self.source.error(value.span(), &format!("wrong type of `{key}`: {found}, where {wanted} is needed"))
    }

    pub(super) fn table(&mut self, key: &'static str, name: &str) -> Result<Option<Table<'s, 't>>, Error> {
        let Some(value) = self.take(key) else { return Ok(None) };
        self.as_table(value, key, name).map(Some)
    }

    pub(super) fn as_table(&self, value: Value<'t>, key: &str, name: &str) -> Result<Table<'s, 't>, Error> {
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(table) => Ok(Table::new(self.source, name.to_owned(), table)),
            other => Err(self.wrong_type(&Spanned::new(span, other), key, &format!("a table `[{key}]`"))),
        }
    }

    pub(super) fn text(&mut self, key: &'static str) -> Result<Option<Spanned<String>>, Error> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.get_ref().as_str() {
            Some(text) if text.contains('\0') => Err(self.wrong(value.span(), key, "it holds a zero byte")),
            Some("") => Err(self.wrong(value.span(), key, "it is empty")),
            Some(text) => Ok(Some(Spanned::new(value.span(), text.to_owned()))),
            None => Err(self.wrong_type(&value, key, "a string")),
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Result<Option<T>, Error> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        if let Some((_, meant)) = words.iter().find(|(word, _)| word == text.get_ref()) {
            return Ok(Some(*meant));
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let error = self.wrong(text.span(), key, &format!("`{}` is not known", text.get_ref()));
        Err(error.hint(format!("known: {}", self::words(&known))))
    }

    /// A size or a share, as bytes of `total`, and where it stands.
    pub(super) fn size(&mut self, key: &'static str, total: Bytes) -> Result<Option<Spanned<Bytes>>, Error> {
        self.amount(key, total, str::parse)
    }

    /// The same for a limit: not absurdly small; `"none"` is `Bytes::MAX`.
    pub(super) fn limit(&mut self, key: &'static str, total: Bytes) -> Result<Option<Spanned<Bytes>>, Error> {
        self.amount(key, total, |text| match text {
            "none" => Ok(Amount::Bytes(Bytes::MAX)),
            text => limit(text),
        })
    }

    /// A size or a share of a GPU's memory, which only the GPU knows; `"none"` is `None`.
    pub(super) fn of_device(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<Amount, String>,
    ) -> Result<Option<Option<Amount>>, Error> {
        let read = |text: &str| if text == "none" { Ok(None) } else { parse(text).map(Some) };
        let amount = self.typed(key, "a size such as `\"2GiB\"` or `\"50%\"`", read)?;
        Ok(amount.map(Spanned::into_inner))
    }

    fn amount(
        &mut self,
        key: &'static str,
        total: Bytes,
        parse: impl Fn(&str) -> Result<Amount, String>,
    ) -> Result<Option<Spanned<Bytes>>, Error> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let Some(text) = scalar(value.get_ref()) else {
            return Err(self.wrong_type(&value, key, "a size such as `\"8GiB\"` or `\"50%\"`"));
        };
        match parse(&text) {
            Ok(amount) => Ok(Some(Spanned::new(value.span(), amount.of(total)))),
            Err(why) => {
                let bare = matches!(value.get_ref(), DeValue::Integer(_)) && !text.starts_with('-');
                let error = self.wrong(value.span(), key, &why);
                Err(if bare {
                    error.hint(format!("a number alone is bytes; for gibibytes write `\"{text}GiB\"`"))
                } else {
                    error
                })
            }
        }
    }

    /// A time; a number alone is seconds.
    pub(super) fn time(&mut self, key: &'static str) -> Result<Option<Spanned<Duration>>, Error> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let Some(text) = scalar(value.get_ref()) else {
            return Err(self.wrong_type(&value, key, "a time such as `\"60m\"` or a number of seconds"));
        };
        match duration(&text) {
            Ok(time) => Ok(Some(Spanned::new(value.span(), time))),
            Err(why) => Err(self.wrong(value.span(), key, &why)),
        }
    }

    /// A time above zero; `"none"` means that there is none.
    pub(super) fn time_or_none(&mut self, key: &'static str) -> Result<Option<Option<Duration>>, Error> {
        let none = |(found, value): &(Spanned<String>, Value<'_>)| {
            found.get_ref() == key && value.get_ref().as_str() == Some("none")
        };
        if self.left.iter().any(none) {
            self.take(key);
            return Ok(Some(None));
        }
        match self.time(key)? {
            Some(time) if time.get_ref().is_zero() => {
                Err(self.wrong(time.span(), key, "it is zero").hint("for no limit write `\"none\"`"))
            }
            time => Ok(time.map(|time| Some(time.into_inner()))),
        }
    }

    pub(super) fn count(&mut self, key: &'static str, least: u32, most: u32) -> Result<Option<u32>, Error> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let DeValue::Integer(number) = value.get_ref() else {
            return Err(self.wrong_type(&value, key, "a whole number"));
        };
        match i64::from_str_radix(number.as_str(), number.radix()).ok().and_then(|n| u32::try_from(n).ok()) {
            Some(count) if (least..=most).contains(&count) => Ok(Some(count)),
            _ => Err(self.wrong(
                value.span(),
                key,
                &format!("`{number}` is not between {least} and {most}", number = number.as_str()),
            )),
        }
    }

    /// A command: a list with at least a program in it.
    pub(super) fn command(&mut self, key: &'static str) -> Result<Option<Vec<String>>, Error> {
        let Some(value) = self.take(key) else { return Ok(None) };
        if let Some(text) = value.get_ref().as_str() {
            let list: Vec<String> = text.split_whitespace().map(|part| format!("\"{part}\"")).collect();
            let error = self.wrong_type(&value, key, "a list of strings");
            return Err(error.hint(format!("no shell is involved; write `{key} = [{}]`", list.join(", "))));
        }
        let Some(parts) = value.get_ref().as_array() else {
            return Err(self.wrong_type(&value, key, "a list of strings"));
        };
        let mut command = Vec::new();
        for part in parts {
            match part.get_ref().as_str() {
                Some(text) if text.contains('\0') => {
                    return Err(self.wrong(part.span(), key, "it holds a zero byte"));
                }
                Some(text) => command.push(text.to_owned()),
                None => return Err(self.wrong_type(part, key, "a string (put it in quotes)")),
            }
        }
        match command.first() {
            Some(program) if !program.is_empty() => Ok(Some(command)),
            _ => Err(self.wrong(value.span(), key, "it names no program")),
        }
    }

    /// A directory that is there.
    pub(super) fn directory(
        &mut self,
        key: &'static str,
        base: &Path,
    ) -> Result<Option<std::path::PathBuf>, Error> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        let path = base.join(text.get_ref());
        if path.is_dir() {
            return Ok(Some(path));
        }
        Err(self.wrong(text.span(), key, &format!("there is no directory `{}`", path.display())))
    }
}

/// A string or a whole number, as it is to be read.
pub(super) fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(|n| n.to_string())
        }
        _ => None,
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn words(known: &[&str]) -> String {
    known.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}
