//! The memory profile: a line before and one after each file, on the disk at once.
//!
//! `[MEMORY-PROFILE 2025-11-15 23:00:00] BEFORE | Test: tests/test_a.py | RAM: 45.2% | VRAM: 12.3% | Process: 1024MB`
//!
//! The last line of such a log names the file at which a machine went down. A thread of its own writes and syncs, because
//! a busy disk may take seconds, and the guard has none to give.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use oomguard_core::Bytes;

use super::percent;
use crate::error::Error;
use crate::record::{Notice, Record, Roster, Told};
use crate::sink::{Sink, open_append};

/// Writes the lines.
pub struct Profile {
    file: Option<File>,
    writer: Option<(Sender<String>, JoinHandle<()>)>,
    zone: TimeZone,
    meminfo: Option<crate::drive::Sensors>,
}

impl Profile {
    /// Appends to `path`.
    pub fn open(path: &Path) -> Result<Profile, Error> {
        let file = open_append(path).map_err(|error| Error::io("write", path, &error))?;
        let zone = TimeZone::system();
        Ok(Profile { file: Some(file), writer: None, zone, meminfo: crate::drive::Sensors::open().ok() })
    }

    /// Starts the writer: with the first line, because a thread that is there before the guard has blocked its signals
    /// would be killed by them in the guard's place.
    fn start(&mut self) {
        let Some(file) = self.file.take() else { return };
        let (lines, receiver) = channel();
        let writer = std::thread::Builder::new().name("profile".to_owned()).stack_size(64 * 1024);
        match writer.spawn(move || write(file, &receiver)) {
            Ok(writer) => self.writer = Some((lines, writer)),
            Err(error) => crate::complain(&format!("oomguard: the memory profile has no writer: {error}")),
        }
    }

    fn say(&mut self, ts: Timestamp, when: &str, path: &str, vram: Option<f64>, process: Option<Bytes>) {
        let host = self.meminfo.as_mut().map(crate::drive::Sensors::machine);
        let ram =
            host.map(|host| 100.0 * host.total.minus(host.available).0 as f64 / host.total.0.max(1) as f64);
        let line = line(ts, &self.zone, when, path, ram, vram, process);
        self.start();
        if let Some((lines, _)) = &self.writer {
            // Without a writer there is nobody left to tell.
            let _ = lines.send(line);
        }
    }
}

fn line(
    ts: Timestamp,
    zone: &TimeZone,
    when: &str,
    path: &str,
    ram: Option<f64>,
    vram: Option<f64>,
    process: Option<Bytes>,
) -> String {
    let stamp = ts.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S");
    let process = process.map_or_else(|| "unknown".to_owned(), |size| format!("{}MB", size.0 >> 20));
    let (ram, vram) = (percent(ram), percent(vram));
    let path = crate::sink::human::one_line(path);
    format!(
        "[MEMORY-PROFILE {stamp}] {when} | Test: {path} | RAM: {ram} | VRAM: {vram} | Process: {process}\n"
    )
}

/// Writes what has come, and has it on the disk before it takes more.
fn write(mut file: File, lines: &Receiver<String>) {
    let mut failed = false;
    while let Ok(mut text) = lines.recv() {
        text.extend(lines.try_iter());
        // A full disk loses lines and nothing else.
        let written = file.write_all(text.as_bytes());
        if let Err(error) = &written
            && !failed
        {
            crate::complain(&format!(
                "oomguard: the memory profile cannot be written, lines are lost: {error}"
            ));
        }
        failed = written.is_err();
        // A pipe has nothing to sync.
        let _ = file.sync_data();
    }
}

impl Sink for Profile {
    fn tell(&mut self, record: &Record, _: &Roster) {
        match &record.told {
            Told::Notice(Notice::FileStarted { path, vram, .. }) => {
                // Nothing of it runs yet.
                self.say(record.ts, "BEFORE", path, *vram, Some(Bytes::ZERO));
            }
            Told::Notice(Notice::FileEnded { job: Some(_), vram, outcome }) => {
                self.say(record.ts, "AFTER", &outcome.path, *vram, outcome.peak_ram);
            }
            _ => {}
        }
    }

    fn finish(&mut self) {
        if let Some((lines, writer)) = self.writer.take() {
            drop(lines);
            let _ = writer.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_the_one_that_people_know() {
        let ts = "2025-11-15T23:00:00Z".parse().unwrap();
        let text = line(
            ts,
            &TimeZone::UTC,
            "BEFORE",
            "tests/unit/test_avatar_generator.py",
            Some(45.2),
            Some(12.3),
            Some(Bytes::gib(1)),
        );
        assert_eq!(
            text,
            "[MEMORY-PROFILE 2025-11-15 23:00:00] BEFORE | Test: tests/unit/test_avatar_generator.py | RAM: 45.2% | \
             VRAM: 12.3% | Process: 1024MB\n"
        );
        let text = line(ts, &TimeZone::UTC, "AFTER", "a\nb", None, None, None);
        assert_eq!(
            text,
            "[MEMORY-PROFILE 2025-11-15 23:00:00] AFTER | Test: a\\nb | RAM: unknown | VRAM: unknown | Process: unknown\n"
        );
    }
}
