//! More kinds of values: flags, shares, lists, what is typed as a text or a number, lists of tables.

use std::ops::Range;

use toml::Spanned;
use toml::de::DeValue;

use super::{Table, Value, scalar};
use crate::error::Error;

impl<'s, 't> Table<'s, 't> {
    pub(in crate::config) fn flag(&mut self, key: &'static str) -> Result<Option<bool>, Error> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::Boolean(flag) => Ok(Some(*flag)),
            _ => Err(self.wrong_type(&value, key, "true or false")),
        }
    }

    /// Whole percent from 0 to 100: `"70%"` or `70`.
    pub(in crate::config) fn percent(&mut self, key: &'static str) -> Result<Option<u8>, Error> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let Some(text) = scalar(value.get_ref()) else {
            return Err(self.wrong_type(&value, key, "a share such as `\"70%\"`"));
        };
        match text.trim().trim_end_matches('%').trim_end().parse() {
            Ok(percent @ 0..=100) => Ok(Some(percent)),
            _ => Err(self.wrong(value.span(), key, &format!("`{text}` is not a share from 0% to 100%"))),
        }
    }

    /// What `each` makes of every item of a list of strings.
    pub(in crate::config) fn list<T>(
        &mut self,
        key: &'static str,
        each: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<Vec<T>>, Error> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let Some(items) = value.get_ref().as_array() else {
            return Err(self.wrong_type(&value, key, "a list of strings"));
        };
        let read = |item: &Value<'_>| match item.get_ref().as_str() {
            Some(text) => each(text).map_err(|why| self.wrong(item.span(), key, &why)),
            None => Err(self.wrong_type(item, key, "a string (put it in quotes)")),
        };
        items.iter().map(read).collect::<Result<Vec<T>, Error>>().map(Some)
    }

    /// What `read` makes of a string or a number, as they are typed.
    pub(in crate::config) fn typed<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<Spanned<T>>, Error> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let Some(text) = scalar(value.get_ref()) else {
            return Err(self.wrong_type(&value, key, wanted));
        };
        match read(&text) {
            Ok(meant) => Ok(Some(Spanned::new(value.span(), meant))),
            Err(why) => Err(self.wrong(value.span(), key, &why)),
        }
    }

    /// The tables of `[[key]]`, each with where it stands.
    pub(in crate::config) fn tables(
        &mut self,
        key: &'static str,
        name: &str,
    ) -> Result<Vec<(Range<usize>, Table<'s, 't>)>, Error> {
        let Some(value) = self.take(key) else { return Ok(Vec::new()) };
        let span = value.span();
        match value.into_inner() {
            DeValue::Array(items) => {
                items.into_iter().map(|item| Ok((item.span(), self.as_table(item, key, name)?))).collect()
            }
            other => {
                let error = self.wrong_type(&Spanned::new(span, other), key, "a list of tables");
                Err(error.hint(format!("write `{name}`")))
            }
        }
    }
}
