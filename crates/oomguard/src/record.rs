//! What the sinks render: an event with its two times, and the facts about jobs that make it readable.
//!
//! Only data. The engine's events carry numbers; what only a driver knows (paths, names, texts) comes as a
//! [`Notice`]. Nothing here decides what is shown, and nothing is written.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use oomguard_core::watch::Shortage;
use oomguard_core::{Bytes, DeviceId, Enforcement, Event, Instant, JobId, Reason};
use serde::{Deserialize, Serialize};

use crate::outcome::FileOutcome;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Wall-clock time.
    pub ts: Timestamp,
    /// Monotonic time, the engine's own.
    pub mono: Instant,
    /// What.
    pub told: Told,
}

impl Record {
    /// An event of the engine, or a notice, at this monotonic moment; the wall clock is read here.
    pub fn now(mono: Instant, told: impl Into<Told>) -> Record {
        Record { ts: Timestamp::now(), mono, told: told.into() }
    }
}

/// Who says it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Told {
    /// The engine.
    Engine(Event),
    /// The driver.
    Notice(Notice),
}

impl From<Event> for Told {
    fn from(event: Event) -> Told {
        Told::Engine(event)
    }
}

impl From<Notice> for Told {
    fn from(notice: Notice) -> Told {
        Told::Notice(notice)
    }
}

/// What the drivers have to say. Texts that come from outside (a worker's status, a path) are kept as they
/// are; the renderings escape them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Notice {
    /// The guard is ready: the first event of every run.
    Armed {
        /// `up`, `run`, `test` or `watch`.
        verb: String,
        /// oomguard's version.
        version: String,
        /// The guard's process.
        guard_pid: u32,
        /// What holds jobs to their limit here.
        enforcement: Enforcement,
        /// What is missing on this machine and what replaces it, one sentence each.
        notes: Vec<String>,
        /// The cgroup that all jobs live under.
        parent: Option<String>,
        /// RAM, or the smallest cgroup limit above us.
        total: Bytes,
        /// Memory available now.
        available: Bytes,
        /// Available memory that must never be used.
        reserve: Bytes,
        /// Below it people are warned.
        warning: Bytes,
    },
    /// A living worker of an earlier guard was taken over.
    Adopted {
        /// Which.
        job: JobId,
        /// Its main process.
        pid: u32,
        /// For how long it has been running.
        age: Duration,
    },
    /// Something an earlier guard left behind was ended rather than taken over.
    OrphanEnded {
        /// The name it had.
        name: String,
        /// Its main process.
        pid: u32,
        /// Why it could not be taken over.
        why: String,
    },
    /// There is no room; nothing was started.
    Refused {
        /// What was asked for.
        what: String,
        /// Why not.
        why: String,
    },
    /// A GPU is watched from now on: what its number in events means.
    Gpu {
        /// Its number.
        device: DeviceId,
        /// What people call it: `GPU 0 (NVIDIA H200)`.
        name: String,
        /// What its driver calls it; empty if it does not.
        uuid: String,
        /// All memory that it has, if known.
        total: Option<Bytes>,
    },
    /// A job could not be started; the engine's `ended` follows.
    StartError {
        /// Which.
        job: JobId,
        /// Why.
        error: String,
    },
    /// The configuration was read again.
    ConfigReloaded {
        /// From where.
        path: PathBuf,
        /// What is different now, one sentence each.
        changes: Vec<String>,
    },
    /// The configuration was read again and is wrong; the old one stays in force.
    ConfigRefused {
        /// From where.
        path: PathBuf,
        /// The whole error text.
        error: String,
    },
    /// Somebody asked through the control socket.
    Asked {
        /// `restart`, `stop`, `reload`.
        request: String,
        /// For which worker, or all.
        target: Option<String>,
        /// The user who asked.
        uid: u32,
    },
    /// A worker says how it is doing (`STATUS=`).
    WorkerStatus {
        /// Which.
        job: JobId,
        /// Its words.
        text: String,
    },
    /// Shared-memory files whose owners are dead were removed.
    ShmRemoved {
        /// Whose they were.
        job: Option<JobId>,
        /// How many.
        files: u32,
        /// What came back.
        bytes: Bytes,
    },
    /// A log file was full and a new one was begun.
    LogRotated {
        /// Which.
        path: PathBuf,
    },
    /// An effect could not be performed.
    EffectFailed {
        /// For which job.
        job: Option<JobId>,
        /// The effect's name.
        effect: String,
        /// Why.
        error: String,
    },
    /// A sensor gives no reading here; said once.
    SensorUnknown {
        /// Which.
        sensor: String,
        /// Why.
        why: String,
    },
    /// The kernel counts a job's memory no longer, nor holds it to its limit: the guard adds up its processes.
    Unheld {
        /// Which.
        job: JobId,
        /// How that was noticed.
        error: String,
    },
    /// Trials that a dead worker left running were told to their study as pruned.
    TrialsReaped {
        /// Whose they were.
        job: Option<JobId>,
        /// The study.
        study: String,
        /// Their numbers.
        trials: Vec<u64>,
    },
    /// What an earlier guard wrote about its workers could not be read.
    StateDamaged {
        /// The file, kept aside.
        path: PathBuf,
        /// What is wrong with it.
        error: String,
        /// How many workers could be read all the same.
        #[serde(default)]
        workers: usize,
    },
    /// A log could not be written (disk full?). The guard goes on; lines are counted.
    SinkFailed {
        /// Which.
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// It can be written again.
    SinkResumed {
        /// Which.
        path: PathBuf,
        /// Lines that are missing in it.
        lost: u64,
    },
    /// `watch` chose a family of processes that nobody has put under a guard.
    Chosen {
        /// The name under which what follows is told.
        job: JobId,
        /// It is acted on; else this is all (dry run).
        enforced: bool,
        /// What is short.
        shortage: Shortage,
        /// Why this family.
        reason: Reason,
        /// How many processes it has.
        processes: u32,
        /// The user of its oldest process.
        uid: u32,
        /// The cgroup of its oldest process.
        cgroup: String,
        /// What it uses.
        usage: Bytes,
        /// How much of that is new.
        took: Bytes,
        /// That, in bytes per second.
        rate: Bytes,
        /// Memory available on the host.
        available: Bytes,
    },
    /// The guard ends its jobs and then itself.
    GuardStopping {
        /// `SIGTERM`, `SIGINT`, `asked by user 1000`.
        why: String,
        /// Without SIGTERM first.
        now: bool,
    },
    /// `test` knows which files there are.
    SuiteFound {
        /// pytest's root directory, or where the command runs.
        rootdir: PathBuf,
        /// How many files.
        files: usize,
        /// So many run at a time.
        jobs: u16,
        /// What one file may use; `None`: not limited.
        limit: Option<Bytes>,
        /// GPU memory in use, percent.
        vram: Option<f64>,
    },
    /// How files are kept apart from each other.
    Isolated {
        /// `fork-collection`, `fork-imports`, `spawn`, `command`.
        how: String,
        /// Why not deeper, where it could have been.
        why: Option<String>,
        /// Modules that are imported once for all files.
        preloaded: Vec<String>,
        /// The interpreter's and pytest's versions, where they are known.
        python: Option<String>,
        /// See `python`.
        pytest: Option<String>,
    },
    /// A test file runs.
    FileStarted {
        /// In which slot.
        job: JobId,
        /// Which.
        path: String,
        /// The how-manieth run of it.
        attempt: u32,
        /// What it may use.
        limit: Option<Bytes>,
        /// GPU memory in use, percent.
        vram: Option<f64>,
    },
    /// A test file has ended.
    FileEnded {
        /// In which slot; `None`: it never had one.
        job: Option<JobId>,
        /// GPU memory in use, percent.
        vram: Option<f64>,
        /// Everything about it.
        outcome: Box<FileOutcome>,
    },
    /// Files wait until memory has come back.
    SuiteWaits {
        /// RAM in use, percent.
        ram: f64,
        /// ... and what it must fall below.
        target: u8,
        /// For how long it is waited at most.
        delay: Duration,
    },
    /// All files have ended.
    SuiteEnded {
        /// From the first start.
        seconds: f64,
        /// What `oomguard test` exits with.
        exit_code: u8,
        /// Why not all files were run, where they were not.
        stopped: Option<String>,
    },
    /// Anything else worth a line.
    Note {
        /// The line.
        text: String,
    },
}

/// What renderings need to know about one job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name in commands, files and events: `worker-1`.
    pub name: String,
    /// Its name in sentences: `Worker 1`.
    pub label: String,
    /// Its main process while it runs.
    pub pid: Option<u32>,
    /// What it may use.
    pub limit: Option<Bytes>,
    /// What it was last seen to use.
    #[serde(skip)]
    pub usage: Option<Bytes>,
    /// The how-manieth start in this slot.
    pub attempt: u32,
    /// Another one takes its place when it ends.
    pub restarts: bool,
    /// Where its output goes.
    pub log: Option<PathBuf>,
}

/// The jobs by their id, and the host's thresholds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Roster {
    /// Available memory that must never be used.
    pub reserve: Bytes,
    /// Below it people are warned.
    pub warning: Bytes,
    entries: Vec<Option<Entry>>,
    gpus: Vec<String>,
}

impl Roster {
    /// Nobody yet.
    pub fn new(reserve: Bytes, warning: Bytes) -> Roster {
        Roster { reserve, warning, entries: Vec::new(), gpus: Vec::new() }
    }

    /// Adds or replaces what is known about `job`.
    pub fn set(&mut self, job: JobId, entry: Entry) {
        if self.entries.len() <= job.index() {
            self.entries.resize(job.index() + 1, None);
        }
        self.entries[job.index()] = Some(entry);
    }

    /// What is known about `job`.
    pub fn get(&self, job: JobId) -> Option<&Entry> {
        self.entries.get(job.index()).and_then(Option::as_ref)
    }

    /// The same, to be brought up to date.
    pub fn get_mut(&mut self, job: JobId) -> Option<&mut Entry> {
        self.entries.get_mut(job.index()).and_then(Option::as_mut)
    }

    /// What a GPU is called from now on.
    pub fn set_gpu(&mut self, device: DeviceId, name: &str) {
        if self.gpus.len() <= device.index() {
            self.gpus.resize(device.index() + 1, String::new());
        }
        name.clone_into(&mut self.gpus[device.index()]);
    }

    /// What a GPU is called.
    pub fn gpu(&self, device: DeviceId) -> String {
        match self.gpus.get(device.index()) {
            Some(name) if !name.is_empty() => name.clone(),
            _ => format!("GPU number {}", device.0),
        }
    }

    /// Forgets `job`.
    pub fn remove(&mut self, job: JobId) {
        if let Some(slot) = self.entries.get_mut(job.index()) {
            *slot = None;
        }
    }

    /// All jobs, in order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (JobId, &Entry)> {
        let jobs = (0..=u16::MAX).map(JobId);
        jobs.zip(&self.entries).filter_map(|(job, entry)| Some((job, entry.as_ref()?)))
    }

    /// The job with this name.
    pub fn find(&self, name: &str) -> Option<JobId> {
        self.iter().find(|(_, entry)| entry.name == name).map(|(job, _)| job)
    }
}
