//! Records as JSON lines: `events.jsonl`, `--json` and the control socket's `watch`.
//!
//! One object a line: `schema`, `ts` (RFC 3339), `mono_ns`, `event`, then the event's own fields. Sizes are whole
//! bytes, times are seconds in keys that end in `_s`, jobs are named (`worker`, `pid`). It never leaves out a
//! field because its value is not known: that is `null`.

use std::time::Duration;

use oomguard_core::DeviceId;
use serde_json::{Map, Value};

use super::human::acts;
use super::terminal::Terminal;
use super::{LogFile, Sink};
use crate::record::{Notice, Record, Roster, Told};

/// Changes when a field changes its meaning or goes; new fields do not change it.
pub const SCHEMA: u32 = 1;

/// Every field of an event that is a length of time.
const TIMES: [&str; 6] = ["after", "age", "delay", "grace", "max_age", "reaches_limit_in"];

/// The record as one JSON object.
pub fn object(record: &Record, roster: &Roster) -> Map<String, Value> {
    let mut line = Map::new();
    line.insert("schema".to_owned(), SCHEMA.into());
    line.insert("ts".to_owned(), record.ts.to_string().into());
    line.insert("mono_ns".to_owned(), record.mono.0.into());
    for (key, value) in fields(&record.told) {
        match key.as_str() {
            "job" => worker(&mut line, &value, roster),
            "device" => {
                let device = value.as_u64().and_then(|id| u16::try_from(id).ok()).map(DeviceId);
                line.insert("gpu".to_owned(), device.map(|device| roster.gpu(device)).into());
                line.insert(key, value);
            }
            time if TIMES.contains(&time) => {
                line.insert(format!("{time}_s"), seconds(&value));
            }
            _ => {
                line.insert(key, value);
            }
        }
    }
    line
}

/// The record as one line, with its line feed.
pub fn line(record: &Record, roster: &Roster) -> String {
    format!("{}\n", plain(&Value::Object(object(record, roster))))
}

/// A value as JSON on one line that does nothing to a terminal: what one would act on is escaped, which JSON demands
/// below 32 only.
pub fn plain(value: &Value) -> String {
    let text = value.to_string();
    if !text.contains(acts) {
        return text;
    }
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match acts(letter) {
            // Outside of strings JSON has no such letter, and none of them needs two units.
            true => safe.push_str(&format!("\\u{:04x}", u32::from(letter))),
            false => safe.push(letter),
        }
    }
    safe
}

fn fields(told: &Told) -> Map<String, Value> {
    match serde_json::to_value(told) {
        Ok(Value::Object(fields)) => fields,
        // Every event and notice is a tagged struct; should that change, the line still says so.
        other => Map::from_iter([("event".to_owned(), format!("unrenderable: {other:?}").into())]),
    }
}

fn worker(line: &mut Map<String, Value>, job: &Value, roster: &Roster) {
    let id = job.as_u64().and_then(|id| u16::try_from(id).ok()).map(oomguard_core::JobId);
    let entry = id.and_then(|id| roster.get(id));
    let name = entry.map(|entry| entry.name.clone()).or(id.map(|id| format!("job-{}", id.0)));
    line.insert("worker".to_owned(), name.into());
    if !line.contains_key("pid") {
        line.insert("pid".to_owned(), entry.and_then(|entry| entry.pid).into());
    }
}

/// Serde writes a duration as `{"secs":..,"nanos":..}`.
fn seconds(value: &Value) -> Value {
    match serde_json::from_value::<Duration>(value.clone()) {
        Ok(time) => time.as_secs_f64().into(),
        Err(_) => Value::Null,
    }
}

#[derive(Debug)]
enum Out {
    File(LogFile),
    Terminal(Terminal),
}

/// The lines in a file or on a stream.
#[derive(Debug)]
pub struct JsonLines(Out);

impl JsonLines {
    /// In a file.
    pub fn file(file: LogFile) -> JsonLines {
        JsonLines(Out::File(file))
    }

    /// On standard error, which is oomguard's own (standard output belongs to the command).
    pub fn stderr() -> JsonLines {
        JsonLines(Out::Terminal(Terminal::err()))
    }

    /// On standard output, where there is no command.
    pub fn stdout() -> JsonLines {
        JsonLines(Out::Terminal(Terminal::out()))
    }
}

impl Sink for JsonLines {
    fn tell(&mut self, record: &Record, roster: &Roster) {
        let line = line(record, roster);
        match &mut self.0 {
            Out::File(file) => file.write(&line),
            Out::Terminal(terminal) => terminal.write(&line),
        }
    }

    fn trouble(&mut self) -> Option<Notice> {
        match &mut self.0 {
            Out::File(file) => file.trouble(),
            Out::Terminal(_) => None,
        }
    }

    fn reopen(&mut self) {
        if let Out::File(file) = &mut self.0 {
            file.reopen();
        }
    }

    fn finish(&mut self) {
        if let Out::Terminal(terminal) = &mut self.0 {
            terminal.flush(Duration::from_secs(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_on_a_terminal_is_only_shown() {
        let value = Value::String("a\u{1b}[2J\u{7f}\u{9b}31m\u{202e}é".to_owned());
        let text = plain(&value);
        assert_eq!(text, "\"a\\u001b[2J\\u007f\\u009b31m\\u202eé\"");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
