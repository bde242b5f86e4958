//! The reading side: line by line, as far as they make sense, and then where and why no further.
//!
//! Never trusts a length or a number of a file, and never holds more than one line.

use std::io::{self, BufRead, Read as _};

use oomguard_core::recording::{Entry, Header, VERSION};
use serde::de::DeserializeOwned;

use super::Beside;
use crate::error::{Error, in_words};

/// No line comes near this: a scan of ten thousand processes is 3 MB.
const LONGEST: u64 = 64 << 20;

/// A recording that is being read.
pub struct Recording<R> {
    /// Its first line.
    pub header: Header,
    from: R,
    line: Vec<u8>,
    /// The number of the line that was read last, from 1.
    pub number: u64,
}

/// Where a recording makes no sense any more, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// The line, from 1.
    pub line: u64,
    /// Why.
    pub why: String,
    /// It only ends before its time: its guard was killed, or still runs.
    pub is_cut: bool,
}

impl<R: BufRead> Recording<R> {
    /// Reads the first line. `name` is how errors call it.
    pub fn open(from: R, name: &str) -> Result<Recording<R>, Error> {
        let mut line = Vec::new();
        let mut from = from;
        let no = |why: String| {
            Error::new(format!("`{name}` is not a recording: {why}"))
                .hint("`oomguard run`, `up` and `watch` write one with `--record FILE`")
        };
        read_line(&mut from, &mut line).map_err(|error| no(in_words(&error)))?;
        let version = serde_json::from_slice(&line)
            .ok()
            .and_then(|line: serde_json::Value| line.get("recording").and_then(serde_json::Value::as_u64));
        match version {
            Some(version) if version != u64::from(VERSION) => {
                return Err(Error::new(format!(
                    "`{name}` is a recording of form {version}; this oomguard reads form {VERSION}"
                ))
                .hint("replay it with the version that wrote it: `build` in its first line"));
            }
            _ => {}
        }
        let header = serde_json::from_slice(&line).map_err(|error| no(said(&error)))?;
        Ok(Recording { header, from, line, number: 1 })
    }

    /// The next line; `None` at the end.
    pub fn entry<I: DeserializeOwned>(&mut self) -> Result<Option<Entry<I, Beside>>, Flaw> {
        let read = read_line(&mut self.from, &mut self.line);
        if matches!(read, Ok(0)) {
            return Ok(None);
        }
        self.number += 1;
        let flaw = |why: String, is_cut| Flaw { line: self.number, why, is_cut };
        if let Err(error) = read {
            return Err(flaw(in_words(&error), false));
        }
        let ends = self.line.last() == Some(&b'\n');
        match serde_json::from_slice(&self.line) {
            Ok(entry) if ends => Ok(Some(entry)),
            _ if !ends && (self.line.len() as u64) < LONGEST => {
                Err(flaw("the line was not written to its end".to_owned(), true))
            }
            Err(error) => Err(flaw(said(&error), false)),
            Ok(_) => Err(flaw(format!("it is longer than {LONGEST} bytes"), false)),
        }
    }
}

/// What is wrong with a line; its number is ours to say.
fn said(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column", " at column")
}

fn read_line(from: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<usize> {
    line.clear();
    from.by_ref().take(LONGEST).read_until(b'\n', line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oomguard_core::recording::{Kept, Machine, Made};
    use oomguard_core::{Bytes, HostPolicy, Instant};

    fn recording() -> Vec<u8> {
        let policy = HostPolicy::for_machine(Bytes::gib(32), 4);
        let header = Header {
            recording: VERSION,
            build: "1".to_owned(),
            verb: "run".to_owned(),
            mono: Instant(7),
            unix_ns: 1,
            machine: Machine { kernel: "6".to_owned(), cores: 1, total: Bytes::gib(32) },
            engine: Made::Jobs { policy, seed: 1 },
        };
        let mut bytes = serde_json::to_vec(&header).unwrap();
        for now in 0..3 {
            bytes.push(b'\n');
            serde_json::to_writer(&mut bytes, &Entry::<_, Beside>::In(Instant(now), Kept::Tick)).unwrap();
        }
        bytes.push(b'\n');
        bytes
    }

    #[test]
    fn a_recording_from_before_there_were_rules_about_gpus_is_read() {
        let old = concat!(
            r#"{"recording":1,"build":"0.1.0","verb":"up","mono":7,"unix_ns":1,"machine":{"kernel":"6","cores":1,"total":9},"#,
            r#""engine":{"jobs":{"policy":{"reserve":1,"warning":2,"worst_rate":3},"seed":1}}}"#,
            "\n",
            r#"{"in":[8,{"add":[0,{"limit":5,"enforcement":"cgroup2","grace":{"secs":1,"nanos":0},"#,
            r#""prune_patience":{"secs":1,"nanos":0},"timeout":null,"max_age":null,"stagger":{"secs":0,"nanos":0},"#,
            r#""on_limit":"job","restart":"Never"}]}]}"#,
            "\n",
            r#"{"told":{"record":{"ts":"2026-01-02T01:23:31Z","mono":9,"told":{"event":"health","job":0,"#,
            r#""age":{"secs":1,"nanos":0},"max_age":null,"usage":1,"available":1}}}}"#,
            "\n",
        );
        let mut recording = Recording::open(old.as_bytes(), "x").unwrap();
        let Made::Jobs { policy, .. } = recording.header.engine else { panic!("{:?}", recording.header) };
        assert_eq!(policy.vram_reserve, None);
        let Ok(Some(Entry::In(_, Kept::Add(_, policy)))) = recording.entry::<Kept>() else {
            panic!("no job")
        };
        assert_eq!(policy.vram_limit, None);
        let told = recording.entry::<Kept>().unwrap();
        assert!(matches!(told, Some(Entry::Told(Beside::Record(_)))), "{told:?}");
        assert_eq!(recording.entry::<Kept>(), Ok(None));
    }

    #[test]
    fn cut_at_any_byte_it_is_read_to_the_last_whole_line() {
        let whole = recording();
        let header = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for end in 0..=whole.len() {
            let cut = &whole[..end];
            let opened = Recording::open(cut, "x");
            // A header that lacks nothing but its line feed is one.
            assert_eq!(opened.is_ok(), end >= header - 1, "{end}");
            let Ok(mut recording) = opened else { continue };
            let lines = cut.iter().filter(|byte| **byte == b'\n').count();
            let mut read = 0;
            let flaw = loop {
                match recording.entry::<Kept>() {
                    Ok(Some(_)) => read += 1,
                    Ok(None) => break None,
                    Err(flaw) => break Some(flaw),
                }
            };
            assert_eq!(read, lines.saturating_sub(1), "{end}");
            assert_eq!(flaw.is_some(), end >= header && cut.last() != Some(&b'\n'), "{end}");
            assert!(flaw.is_none_or(|flaw| flaw.is_cut && flaw.line == lines as u64 + 1));
        }
    }
}
