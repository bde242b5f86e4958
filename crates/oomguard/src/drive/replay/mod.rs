//! `oomguard replay`: a recorded run through the engine of this version, told as it was told then.
//!
//! Acts on nothing and reads no sensor. Where the engine says what the run said, its lines are the run's own to the
//! byte, with what only the driver knew (wall clock, pids, names, its notices) taken from the recording. From the
//! first difference on they are the engine's alone, at the times of its inputs.

mod difference;
mod feed;
mod follow;
mod jobs;
mod machine;

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use oomguard_core::recording::{Header, Made};
use oomguard_core::{Bytes, HostPolicy, Instant, JobPolicy};

use crate::amount::Amount;
use crate::cli;
use crate::error::Error;
use crate::record::{Record, Roster};
use crate::recording::{Flaw, Recording};
use crate::sink::{human, jsonl};

use difference::Difference;

/// Tells the recording; gives the exit code.
pub fn replay(cli: &cli::Replay) -> Result<u8, Error> {
    let name = cli.file.display().to_string();
    let file = File::open(&cli.file).map_err(|error| Error::io("read", &cli.file, &error))?;
    let recording = Recording::open(BufReader::new(file), &name)?;
    let header = recording.header.clone();
    let what_if = WhatIf::new(cli, &header)?;
    eprintln!(
        "`oomguard {}` of {name}, recorded by oomguard {} on {} ({} cores, {})",
        header.verb, header.build, header.machine.kernel, header.machine.cores, header.machine.total
    );
    if what_if.is_asked() {
        eprintln!(
            "what if: {what_if}. The world of a recording does not answer back: right up to the first difference"
        );
    }
    let mut teller = Teller::new(cli, &header);
    let end = tell(recording, &what_if, &mut teller);
    let told = teller.finish();
    if let Some(Flaw { line, why, is_cut }) = &end.flaw {
        let at = end.last.since(header.mono).as_secs_f64();
        let text = format!("line {line} of `{name}`, {at:.3} s after its beginning: {why}");
        if !is_cut {
            return Err(Error::new(text).hint("what stands before it was told; the rest is lost"));
        }
        eprintln!("the recording ends at {text} (its guard was killed, or still runs)");
    }
    if let Some((line, why)) = end.parted.filter(|_| !what_if.is_asked() && !cli.diff) {
        eprintln!("from line {line} on this is not what the run told: {why}; `--diff` shows what differs");
        return Ok(1);
    }
    Ok(u8::from(cli.diff && told.differs))
}

fn tell(recording: Recording<impl BufRead>, what_if: &WhatIf, teller: &mut Teller) -> End {
    match recording.header.engine {
        Made::Jobs { policy, seed } => jobs::tell(recording, what_if, policy, seed, teller),
        Made::Watch(policy) => machine::tell(recording, what_if, policy, teller),
    }
}

/// How a replay ended.
struct End {
    flaw: Option<Flaw>,
    /// The time of the last input.
    last: Instant,
    /// From this line on it was not what the run had told, and why.
    parted: Option<(u64, String)>,
}

/// Another policy than the run had.
#[derive(Clone, Copy)]
struct WhatIf {
    reserve: Option<Bytes>,
    limit: Option<Bytes>,
    vram_limit: Option<Amount>,
    grace: Option<Duration>,
    until: Instant,
}

impl WhatIf {
    fn new(cli: &cli::Replay, header: &Header) -> Result<WhatIf, Error> {
        let of = |amount: Amount| amount.of(header.machine.total);
        if (cli.memory_limit.is_some() || cli.vram_limit.is_some()) && matches!(header.engine, Made::Watch(_))
        {
            return Err(
                Error::new("`watch` holds nobody to a limit").hint("ask for `--reserve` or `--grace`")
            );
        }
        Ok(WhatIf {
            reserve: cli.reserve.map(of),
            limit: cli.memory_limit.map(of),
            vram_limit: cli.vram_limit,
            grace: cli.grace,
            until: cli.until.map_or(Instant::NEVER, |time| header.mono.after(time)),
        })
    }

    fn is_asked(&self) -> bool {
        self.reserve.is_some() || self.limit.is_some() || self.vram_limit.is_some() || self.grace.is_some()
    }

    fn host(&self, policy: HostPolicy) -> HostPolicy {
        let reserve = self.reserve.unwrap_or(policy.reserve);
        HostPolicy { reserve, warning: policy.warning.max(reserve), ..policy }
    }

    fn job(&self, policy: JobPolicy) -> JobPolicy {
        let vram_limit = self.vram_limit.or(policy.vram_limit);
        let (limit, grace) = (self.limit.or(policy.limit), self.grace.unwrap_or(policy.grace));
        JobPolicy { limit, vram_limit, grace, ..policy }
    }
}

impl std::fmt::Display for WhatIf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let asked = [
            self.reserve.map(|reserve| format!("a reserve of {reserve}")),
            self.limit.map(|limit| format!("a limit of {limit} for every job")),
            self.vram_limit.map(|limit| format!("a VRAM limit of {limit} for every job")),
            self.grace.map(|grace| format!("a grace of {grace:?}")),
        ];
        f.write_str(&asked.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// Where the lines go: to standard output, or to a comparison.
struct Teller {
    json: bool,
    zone: TimeZone,
    color: bool,
    header: Header,
    out: Box<dyn Write>,
    difference: Option<Difference>,
}

impl Teller {
    fn new(cli: &cli::Replay, header: &Header) -> Teller {
        let color = anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never;
        Teller {
            json: cli.json,
            zone: TimeZone::system(),
            color,
            header: header.clone(),
            out: Box::new(BufWriter::new(std::io::stdout())),
            difference: cli.diff.then(Difference::default),
        }
    }

    /// The wall clock at a moment of the engine's.
    fn clock(&self, at: Instant) -> Timestamp {
        let passed = i128::from(at.0) - i128::from(self.header.mono.0);
        Timestamp::from_nanosecond(i128::from(self.header.unix_ns) + passed).unwrap_or_default()
    }

    fn render(&self, record: &Record, roster: &Roster) -> String {
        match self.json {
            true => jsonl::line(record, roster),
            false => human::render(record, roster, &self.zone, self.color),
        }
    }

    /// What is told now.
    fn tell(&mut self, record: &Record, roster: &Roster) {
        let text = self.render(record, roster);
        match &mut self.difference {
            Some(difference) => difference.now(record, text),
            // A reader that has gone away is no reason to fail.
            None => drop(self.out.write_all(text.as_bytes())),
        }
    }

    /// What was told then.
    fn told(&mut self, record: &Record, roster: &Roster) {
        if self.difference.is_some() {
            let text = self.render(record, roster);
            self.difference.iter_mut().for_each(|difference| difference.then(record, text.clone()));
        }
    }

    fn finish(mut self) -> Told {
        let text = self.difference.take().map_or_else(String::new, |difference| difference.text());
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        Told { differs: !text.is_empty() }
    }
}

/// What came of it.
struct Told {
    differs: bool,
}

/// Tells any bytes as a recording is told: as it was, as it might have been, and what is different; whether they are one.
#[cfg(any(test, fuzzing))]
pub(crate) fn tell_bytes(bytes: &[u8]) -> bool {
    let then = cli::Replay {
        file: std::path::PathBuf::new(),
        json: true,
        until: Some(Duration::from_secs(90)),
        diff: false,
        reserve: None,
        memory_limit: None,
        vram_limit: None,
        grace: None,
    };
    let half = Some(Amount::Percent(50));
    let other = cli::Replay { json: false, until: None, reserve: half, grace: then.until, ..then.clone() };
    let both = cli::Replay { diff: true, ..other.clone() };
    [&then, &other, &both].into_iter().all(|cli| {
        let Ok(recording) = Recording::open(bytes, "x") else { return false };
        let Ok(what_if) = WhatIf::new(cli, &recording.header) else { return false };
        let mut teller = Teller::new(cli, &recording.header);
        teller.out = Box::new(std::io::sink());
        tell(recording, &what_if, &mut teller);
        teller.finish();
        true
    })
}
