//! `oomguard up`: pools of workers, kept running.
//!
//! Sets the scene (configuration, state, sockets, logs), takes over what an earlier guard left, and answers what
//! comes in. What is done about memory, age and failures is decided by the engine.

mod adopt;
mod answer;
mod books;
mod frameworks;
mod reload;
mod trials;
mod worker;

use std::path::{Path, PathBuf};

use oomguard_core::{Engine, Event, Holding, JobId, Phase, Urgency};
use oomguard_sys::clock;
use oomguard_sys::folder::Folder;
use oomguard_sys::process::Signal;
use oomguard_sys::spawn::SpawnError;
use oomguard_sys::wait::Received;

use super::{Begun, Guard, Hand, Place, Sensors, VERB_TOKENS, Verb, prepare, sensors};
use crate::cli;
use crate::config::{self, Config, Overrides};
use crate::control::Server;
use crate::error::Error;
use crate::notify::Notify;
use crate::record::{Notice, Record, Roster, Told};
use crate::sink::{Human, JsonLines, LogFile, Sinks};
use crate::state::{Deaths, Lock, Runtime, StateDir};

#[cfg(any(test, fuzzing))]
pub(crate) use trials::reaped;
use worker::{MOST_WORDS, Worker};

const NOTIFY: u64 = VERB_TOKENS;
const CONTROL: u64 = VERB_TOKENS + 1;

/// What `up` holds beside the guard.
pub(crate) struct Up {
    config: Config,
    /// How the configuration was asked for, to read it again.
    source: Source,
    state: StateDir,
    runtime: Runtime,
    deaths: Deaths,
    notify: Notify,
    control: Server,
    workers: Vec<Worker>,
    run_id: String,
    /// Starts of an earlier guard that are over: what still carries their names is an orphan.
    dead: Vec<String>,
    boot_id: String,
    started: oomguard_core::Instant,
    asked: bool,
    /// Words of workers since the last look; many of them have to wait for the next.
    words: u32,
    troubled: bool,
    /// Files that could not be written when that was last tried.
    unwritten: Vec<PathBuf>,
    /// The same, met while nothing could be said.
    unsaid: Vec<(PathBuf, std::io::Result<()>)>,
    /// Which of them can be told about a limit on GPUs.
    interpreters: frameworks::Interpreters,
    /// What is missing on this machine, for `status`.
    notes: Vec<String>,
    _lock: Lock,
}

/// Where the configuration comes from.
struct Source {
    explicit: Option<PathBuf>,
    cwd: PathBuf,
    place: Option<PathBuf>,
}

pub(super) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl Source {
    fn new(file: &cli::ConfigFile, place: Option<PathBuf>) -> Result<Source, Error> {
        let cwd = std::env::current_dir()
            .map_err(|error| Error::io("find the working directory", Path::new("."), &error))?;
        Ok(Source { explicit: file.config.clone(), cwd, place })
    }

    fn read(&self, total: oomguard_core::Bytes) -> Result<Config, Error> {
        let flags = Overrides { cgroup_parent: self.place.clone(), ..Overrides::default() };
        let overrides = flags.or(Overrides::from_env(&env)?);
        config::load(self.explicit.as_deref(), &self.cwd, &overrides, total)
    }
}

/// The state directory and the sockets that belong to a configuration.
pub(super) fn locate(file: &cli::ConfigFile) -> Result<(PathBuf, Runtime), Error> {
    let total = Sensors::open()?.machine().total;
    let source = Source::new(file, None)?;
    let state = match source.read(total) {
        Ok(config) => StateDir::locate(&config, &env),
        // A file that was broken since its guard started must not keep people from that guard.
        Err(error) => {
            let overrides = Overrides::from_env(&env).map_err(|_| error.clone())?;
            let found = config::whereabouts(source.explicit.as_deref(), &source.cwd, &overrides, total);
            let state = found.map(|config| StateDir::locate(&config, &env));
            state.filter(|state| Lock::holder(state).is_some()).ok_or(error)?
        }
    };
    let runtime = Runtime::locate(&state, &env, rustix::process::getuid().as_raw());
    Ok((state, runtime))
}

/// Keeps the pools running until they are done or somebody says stop. 0 if all went well, 1 if a slot was given up.
pub fn up(cli: cli::Up) -> Result<u8, Error> {
    let mut sensors = Sensors::open()?;
    let host = sensors.machine();
    let source = Source::new(&cli.config, cli.place.cgroup_parent.clone())?;
    let config = source.read(host.total)?;
    config.need_pools()?;
    // The lock first: a second guard is refused before it has touched anything.
    let state = StateDir::open(&StateDir::locate(&config, &env))?;
    let runtime = Runtime::locate(state.path(), &env, rustix::process::getuid().as_raw());
    runtime.create()?;
    let lock = Lock::take(&state, &runtime.socket())?;
    // All that can fail comes before the cgroups: nobody else would remove them.
    let sinks = sinks(&cli, &config)?;
    let boot_id = clock::boot_id().map_err(|e| Error::new(format!("could not read the boot id: {e}")))?;
    let deaths = Deaths::open(&state)?;
    let notify = Notify::bind(&runtime.notify())?;
    let control = Server::bind(&runtime.socket())?;
    let place = Place::find(config.cgroup_parent.as_deref());
    if let Err(error) = require(&config, &place) {
        place.leave();
        return Err(error);
    }
    let policy = config.memory.host_policy(host.total, sensors::cores());
    let notes = prepare::notes(&place);
    let armed = prepare::armed("up", &place, &host, &policy, notes.clone());
    let enforcement = place.enforcement;
    let mut up = Up {
        deaths,
        notify,
        control,
        workers: Vec::new(),
        dead: Vec::new(),
        run_id: format!("{:x}-{:x}", std::process::id(), clock::now().0 / 1_000_000),
        boot_id,
        started: clock::now(),
        asked: false,
        words: MOST_WORDS,
        troubled: false,
        unwritten: Vec::new(),
        unsaid: Vec::new(),
        config,
        source,
        state,
        runtime,
        interpreters: frameworks::Interpreters::default(),
        notes,
        _lock: lock,
    };
    let roster = Roster::new(policy.reserve, policy.warning);
    let seed = clock::now().0;
    let mut guard = Guard::new(Engine::new(policy, seed), sensors, place, sinks, roster)?;
    if let Some(path) = &cli.record {
        guard.record(path, "up", seed)?;
    }
    guard.note(armed);
    if up.deaths.unreadable() > 0 {
        let (lines, file) = (up.deaths.unreadable(), up.state.file("deaths.jsonl"));
        let text = format!("⚠️  {lines} lines of {} could not be read; the others hold", file.display());
        guard.note(Notice::Note { text });
    }
    up.hear_again(&mut guard);
    up.watch_control(&mut guard);
    up.engage(&mut guard, enforcement);
    guard.guard(&mut up)?;
    up.leave(guard);
    Ok(u8::from(up.troubled))
}

fn require(config: &Config, place: &Place) -> Result<(), Error> {
    match config.memory.require {
        Some(wanted) if place.enforcement > wanted => {
            let why = place.refusal.clone().unwrap_or_else(|| place.notes.join("; "));
            let (wanted, found) = (wanted.name(), place.enforcement.name());
            Err(Error::new(format!(
                "`[memory] require = \"{wanted}\"`, but only `{found}` is to be had here\n{why}"
            ))
            .hint("`oomguard doctor` shows what was tried"))
        }
        _ => Ok(()),
    }
}

fn sinks(cli: &cli::Up, config: &Config) -> Result<Sinks, Error> {
    let log = &config.log;
    Folder::make(&log.dir, 0o777).map_err(|error| Error::io("create", &log.dir, &error))?;
    let file = |name: &str| LogFile::open(&log.dir.join(name), log.max_size, log.keep);
    let mut sinks = Sinks::new();
    sinks.add(Human::file(file("watchdog.log"))).add(JsonLines::file(file("events.jsonl")));
    if cli.json {
        sinks.add(JsonLines::stderr());
    } else if !cli.quiet {
        sinks.add(Human::stderr(true));
    }
    Ok(sinks)
}

impl Up {
    fn worker(&mut self, job: JobId) -> Option<&mut Worker> {
        self.workers.iter_mut().find(|worker| worker.job == job)
    }

    /// Last words: the trials of the dead are told, the books closed, what was made is removed.
    fn leave(&mut self, mut guard: Guard) {
        // A log that is being turned over is brought to its end, or its lines would lie in the helper's copy.
        for thread in self.workers.iter_mut().filter_map(|worker| worker.turning.take()) {
            let _ = thread.join();
        }
        self.reap_trials(&mut guard);
        let unkillable =
            |job| guard.engine.view(job, clock::now()).is_some_and(|v| v.phase == Phase::Unkillable);
        if !self.workers.iter().any(|worker| unkillable(worker.job)) {
            self.state.clear();
        }
        for worker in &self.workers {
            let _ = std::fs::remove_file(self.runtime.page(&worker.names.name));
        }
        self.control.finish(std::time::Duration::from_secs(1));
        guard.sinks.finish();
        if let Some(parent) = guard.parent.take() {
            let _ = parent.remove();
        }
    }
}

impl Verb for Up {
    fn start(&mut self, job: JobId, attempt: u32, hand: &mut Hand) -> Result<Begun, SpawnError> {
        self.start_worker(job, attempt, hand).map(Begun::Runs)
    }

    fn signal(&mut self, guard: &mut Guard, signal: Received) {
        let name = match Signal::from_named_raw(signal.signal) {
            Some(Signal::INT) => "Ctrl-C".to_owned(),
            Some(Signal::TERM) => "SIGTERM".to_owned(),
            _ => format!("signal {}", signal.signal),
        };
        match Signal::from_named_raw(signal.signal) {
            Some(Signal::HUP) => drop(self.reload(guard)),
            Some(Signal::USR1) => guard.sinks.reopen(),
            Some(Signal::USR2) => {}
            _ if std::mem::replace(&mut self.asked, true) => guard.shut_down(Urgency::Now, name),
            _ => guard.shut_down(Urgency::Graceful, name),
        }
    }

    fn ready(&mut self, guard: &mut Guard, token: u64) {
        match token {
            NOTIFY => self.listen(guard),
            _ => self.answer(guard),
        }
    }

    fn looked(&mut self, guard: &mut Guard) {
        self.hear_again(guard);
        self.rotate_logs(guard);
        self.say_unsaid(guard);
    }

    fn told(&mut self, guard: &mut Guard, record: &Record) {
        self.say_unsaid(guard);
        self.pass_on(guard, record);
        if let Told::Engine(event) = &record.told {
            if let Event::VramBrake { job, device, used, limit, .. } = *event
                && let Some(worker) = self.worker(job)
            {
                worker.vram = Some(Holding { device, used, limit });
            }
            self.book(guard, event, record);
            if matches!(event, Event::Ended { .. }) {
                self.see_off(guard);
            }
            self.troubled |= matches!(event, Event::Parked { .. } | Event::Unkillable { .. });
        }
    }
}
