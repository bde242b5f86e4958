//! `oomguard run`: one command, its tree held to a limit, otherwise as if we were not there.
//!
//! The command keeps our terminal, our process group and our standard streams, so Ctrl-C, Ctrl-Z and the shell's
//! job control reach it directly. We talk on stderr only, and only about what it would not say itself.

use std::cell::RefCell;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use oomguard_core::{
    Bytes, Cause, Engine, Event, Exit, Holding, HostPolicy, HostSample, Input, Instant, JobId, JobPolicy,
    Urgency,
};
use oomguard_sys::cgroup::Limits;
use oomguard_sys::gpu::Variables;
use oomguard_sys::process::{Process, Signal};
use oomguard_sys::spawn::{Session, Spawn, SpawnError};
use oomguard_sys::wait::{Interest, Received};
use oomguard_sys::{clock, oneself, page};

use super::frameworks::{framework_env, is_python, torch_obeys};
use super::{Begun, Guard, Hand, JOB_OOM_SCORE, Place, Sensors, VERB_TOKENS, Verb, place, prepare, sensors};
use crate::cli;
use crate::error::{Error, FAILED, MEMORY, NOT_EXECUTABLE, NOT_FOUND, REFUSED, TIMED_OUT};
use crate::notify::{Heard, Notify, Said};
use crate::record::{Entry, Record, Roster, Told};
use crate::sink::human::{harmless, one_line};
use crate::sink::report::Closing;
use crate::sink::{Human, JsonLines, Report, Sinks};
use crate::state::Runtime;

const JOB: JobId = JobId(0);
/// The variable that members of the job are known by.
const MARK: &str = "OOMGUARD_RUN";

/// Runs the command; gives the exit code.
pub fn run(cli: cli::Run) -> Result<u8, Error> {
    let mut sensors = Sensors::open()?;
    let host = sensors.machine();
    let policy = host_policy(&cli, &host);
    preflight(&host, &policy)?;
    if let Some(path) = &cli.report {
        // Not after hours of work.
        Report::can_be_written(path)?;
    }
    let limit = cli.memory_limit.map(|limit| limit.of(host.total));
    let place = Place::find(cli.place.cgroup_parent.as_deref());
    if let Err(error) = place.must_be(cli.require).and_then(|()| is_enough(&cli, limit, &place)) {
        place.leave();
        return Err(error);
    }
    let job = JobPolicy {
        limit,
        vram_limit: cli.vram_limit,
        grace: cli.grace,
        timeout: cli.timeout,
        on_limit: cli.on_limit.into(),
        ..JobPolicy::once(place.enforcement)
    };
    sweep(&place);
    let report = Rc::new(RefCell::new(Report::new(&words(&cli.command))));
    let mut guard = arm(&cli, &host, policy, place, &job, sensors, &report)?;
    let talk = Talk::open(&mut guard);
    let vram_env = vram_env(&cli, &mut guard);
    let (asked, error, ended, brake, vram) = (None, None, None, None, None);
    let mut verb =
        Run { cli: &cli, job, talk, vram_env, asked, interrupted: false, error, ended, brake, vram };
    guard.engine.handle(clock::now(), Input::Add(JOB, job));
    guard.guard(&mut verb)?;
    let code = verb.exit_code();
    verb.last_line(&guard, host.total);
    guard.sinks.finish();
    if let Some(parent) = guard.parent.take() {
        // Other guards may share it.
        let _ = parent.remove();
    }
    if let Some(path) = &cli.report {
        let closing = Closing { exit_code: code, largest: guard.hands[0].largest.clone() };
        // What the command came to is worth more than how it is told.
        if let Err(error) = report.borrow().write(path, &closing) {
            crate::complain(&format!("oomguard: {}", harmless(&error.message)));
        }
    }
    if verb.interrupted && code == 128 + Signal::INT.as_raw() as u8 {
        oneself::end_by(Signal::INT);
    }
    Ok(code)
}

/// A limit that was asked for is enforced, or somebody has said that it need not be.
fn is_enough(cli: &cli::Run, limit: Option<Bytes>, place: &Place) -> Result<(), Error> {
    match (limit, &place.refusal) {
        (Some(_), Some(refusal)) if cli.require.is_none() && !cli.best_effort => Err(Error::new(format!(
            "no cgroup can hold the tree to its limit here\n{refusal}"
        ))
        .hint(
            "`--require rlimit` accepts a limit per process with the guard watching the sum; `--best-effort` \
                 whatever there is",
        )),
        _ => Ok(()),
    }
}

/// Removes the empty cgroups of runs whose guard was killed.
fn sweep(place: &Place) {
    let Some(parent) = &place.parent else { return };
    for name in parent.leaves().unwrap_or_default() {
        let Some(pid) = name.strip_prefix("run-").and_then(|pid| pid.parse().ok()) else { continue };
        if Process::open(pid).is_ok() {
            continue;
        }
        if let Ok(leaf) = parent.leaf(&name)
            && leaf.is_populated().is_ok_and(|populated| !populated)
        {
            // In use after all, or gone: both are fine.
            let _ = leaf.remove();
        }
    }
}

fn words(command: &[OsString]) -> Vec<String> {
    command.iter().map(|word| word.to_string_lossy().into_owned()).collect()
}

fn host_policy(cli: &cli::Run, host: &HostSample) -> HostPolicy {
    let defaults = HostPolicy::for_machine(host.total, sensors::cores());
    let reserve = cli.reserve.map_or(defaults.reserve, |reserve| reserve.of(host.total));
    let vram_reserve = cli.vram_reserve;
    HostPolicy { reserve, warning: defaults.warning.max(reserve), vram_reserve, ..defaults }
}

/// Nothing is started on a machine that is short already.
fn preflight(host: &HostSample, policy: &HostPolicy) -> Result<(), Error> {
    if host.available >= policy.reserve {
        return Ok(());
    }
    let (available, reserve) = (host.available, policy.reserve);
    Err(Error::new(format!("no room: {available} available, and {reserve} of it is the reserve"))
        .hint("end something first, or set a smaller `--reserve`")
        .code(REFUSED))
}

fn arm(
    cli: &cli::Run,
    host: &HostSample,
    policy: HostPolicy,
    place: Place,
    job: &JobPolicy,
    sensors: Sensors,
    report: &Rc<RefCell<Report>>,
) -> Result<Guard, Error> {
    let notes = prepare::notes(&place);
    let armed = prepare::armed("run", &place, host, &policy, notes);
    let mut sinks = Sinks::new();
    if cli.json {
        sinks.add(JsonLines::stderr());
    } else if cli.verbose {
        sinks.add(Human::stderr(false));
    }
    sinks.add(Rc::clone(report));
    let mut roster = Roster::new(policy.reserve, policy.warning);
    let label = words(&cli.command[..1]).remove(0);
    roster.set(JOB, Entry { name: "run".to_owned(), label, limit: job.limit, ..Entry::default() });
    let enforcement = place.enforcement;
    let seed = u64::from(std::process::id());
    let mut guard = Guard::new(Engine::new(policy, seed), sensors, place, sinks, roster)?;
    if let Some(path) = &cli.record {
        guard.record(path, "run", seed)?;
    }
    let limits = job.limit.map(|memory| Limits {
        swap: Some(cli.swap_limit.of(host.total)),
        whole_job: cli.on_limit == cli::LimitScope::Job,
        ..Limits::new(memory)
    });
    guard.hands.push(Hand::new(format!("run-{}", std::process::id()), enforcement, limits));
    guard.note(armed);
    Ok(guard)
}

/// What the command's frameworks are told. Nothing runs yet, so that the driver may be waited for.
fn vram_env(cli: &cli::Run, guard: &mut Guard) -> Vec<(OsString, OsString)> {
    let says = |name: &str| std::env::var(name).ok();
    let sees = Variables::from_env(says);
    guard.hands[JOB.index()].sees = sees.clone();
    if cli.vram_limit.is_none() {
        return Vec::new();
    }
    let program = words(&cli.command[..1]).remove(0);
    let torch_obeys = is_python(&program) && torch_obeys(Path::new(&program));
    guard.see_gpus_first();
    framework_env(&guard.gpus, &sees, cli.vram_limit, torch_obeys, &says)
}

fn code(error: &SpawnError) -> u8 {
    match error {
        SpawnError::NotFound(_) => NOT_FOUND,
        SpawnError::NotExecutable { .. } => NOT_EXECUTABLE,
        SpawnError::NoCwd { .. } | SpawnError::Other { .. } => FAILED,
    }
}

/// How a command that knows us is asked to give memory back or to stop, before the wall: its page, and the socket on
/// which it answers.
struct Talk {
    page: PathBuf,
    notify: Notify,
}

impl Talk {
    /// Only where there is a private place for it, and nobody else (systemd, a guard above us) listens to the command
    /// already. Without it the limit holds all the same.
    fn open(guard: &mut Guard) -> Option<Talk> {
        let env = |name: &str| std::env::var(name).ok();
        let uid = rustix::process::geteuid().as_raw();
        if env("NOTIFY_SOCKET").is_some() || (uid != 0 && env("XDG_RUNTIME_DIR").is_none()) {
            return None;
        }
        let name = format!("run-{}", std::process::id());
        let runtime = Runtime::locate(Path::new(&name), &env, uid);
        runtime.create().ok()?;
        let notify = Notify::bind(&runtime.notify()).ok()?;
        let page = runtime.page(&name);
        let _ = std::fs::remove_file(&page);
        guard.hands[JOB.index()].page = Some(page::Writer::create(&page).ok()?);
        guard.poller.add(notify.as_fd(), Interest::Read, VERB_TOKENS);
        Some(Talk { page, notify })
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.page);
    }
}

/// What `run` knows while it guards.
struct Run<'a> {
    cli: &'a cli::Run,
    job: JobPolicy,
    talk: Option<Talk>,
    /// What tells frameworks about its limit on GPUs.
    vram_env: Vec<(OsString, OsString)>,
    /// The last signal that asked for an end.
    asked: Option<(i32, Instant)>,
    /// Ctrl-C was pressed on our terminal.
    interrupted: bool,
    error: Option<(u8, String)>,
    ended: Option<(Cause, Exit, Bytes, Duration)>,
    brake: Option<Bytes>,
    /// What it held of a GPU when it was braked for that.
    vram: Option<Holding>,
}

impl Verb for Run<'_> {
    fn start(&mut self, _: JobId, _: u32, hand: &mut Hand) -> Result<Begun, SpawnError> {
        // Whoever runs away from the tree carries this along; it is looked for only where no cgroup holds it.
        let mark = format!("{}-{:x}", std::process::id(), clock::now().0);
        hand.mark = Some((MARK.to_owned(), mark.clone()));
        let mut env: Vec<(OsString, Option<OsString>)> = vec![(MARK.into(), Some(mark.into()))];
        if let Some(talk) = &self.talk {
            env.push(("OOMGUARD_PAGE".into(), Some(talk.page.clone().into())));
            env.push(("NOTIFY_SOCKET".into(), Some(talk.notify.path().into())));
        }
        env.extend(self.vram_env.iter().map(|(key, value)| (key.clone(), Some(value.clone()))));
        let spawn = Spawn {
            env: &env,
            leaf: hand.leaf.as_ref(),
            rlimit_data: place::rlimit_data(hand.enforcement, self.job.limit),
            oom_score_adj: Some(JOB_OOM_SCORE),
            session: Session::Inherit,
            argv: &self.cli.command,
            ..Spawn::default()
        };
        spawn
            .start()
            .map(Begun::Runs)
            .inspect_err(|error| self.error = Some((code(error), error.to_string())))
    }

    /// The terminal's signals have reached the command already; those that were sent to us alone are passed on.
    /// The second within the grace kills.
    fn signal(&mut self, guard: &mut Guard, signal: Received) {
        let number = Signal::from_named_raw(signal.signal);
        if let Some(Signal::USR1 | Signal::USR2) = number {
            return pass_on(guard, signal.signal);
        }
        let now = clock::now();
        self.interrupted |= number == Some(Signal::INT) && signal.is_from_terminal();
        let again = self.asked.is_some_and(|(_, at)| now.since(at) <= self.cli.grace);
        self.asked = Some((signal.signal, now));
        if again {
            guard.engine.handle(now, Input::Remove(JOB, Urgency::Now));
        } else if !signal.is_from_terminal() {
            pass_on(guard, signal.signal);
        }
    }

    fn ready(&mut self, guard: &mut Guard, _: u64) {
        let Some(talk) = &mut self.talk else { return };
        for Heard { pid, said } in talk.notify.receive() {
            let Some(job) = guard.job_of(pid) else { continue };
            match said {
                Said::Status(_) => {}
                Said::Vram(told) => guard.hear_torch(job, pid, told),
                Said::Word(word) => guard.engine.handle(clock::now(), Input::Heard(job, word)),
            }
        }
    }

    fn told(&mut self, _: &mut Guard, record: &Record) {
        match record.told {
            Told::Engine(Event::Ended { cause, exit, peak, age, .. }) => {
                self.ended = Some((cause, exit, peak, age));
            }
            Told::Engine(Event::Kill { available, .. } | Event::Brake { available, .. }) => {
                self.brake = Some(available);
            }
            Told::Engine(Event::VramBrake { device, used, limit, .. }) => {
                self.vram = Some(Holding { device, used, limit });
            }
            _ => {}
        }
    }
}

/// To the command, unless it has ended this moment.
fn pass_on(guard: &Guard, signal: i32) {
    let hand = &guard.hands[JOB.index()];
    if let Some(main) = hand.main.as_ref().filter(|_| hand.has_main()) {
        let _ = main.signal_number(signal);
    }
}

impl Run<'_> {
    fn exit_code(&self) -> u8 {
        let signal = |n: i32| 128u8.saturating_add(n as u8);
        match (&self.error, self.ended) {
            (Some((code, _)), _) => *code,
            (None, None) => FAILED,
            (None, Some((cause, exit, ..))) => match (cause, exit) {
                (Cause::Timeout, _) => TIMED_OUT,
                (cause, _) if cause.is_memory() => MEMORY,
                (Cause::Requested, _) => signal(self.asked.map_or(Signal::KILL.as_raw(), |(n, _)| n)),
                (_, Exit::Code(code)) => code as u8,
                (_, Exit::Signal(n)) => signal(n),
                (_, Exit::Unknown) => FAILED,
            },
        }
    }

    /// One line about an end that the command could not explain itself.
    fn last_line(&self, guard: &Guard, total: Bytes) {
        let line = match (&self.error, self.ended) {
            (Some((_, error)), _) => error.clone(),
            (None, Some((cause, _, peak, age))) if cause.is_memory() => {
                self.memory_line(guard, cause, peak, age, total)
            }
            (None, Some((Cause::Timeout, .., age))) => {
                format!("ended after {:.0?} because of --timeout", age)
            }
            _ => return,
        };
        if !self.cli.json {
            // The program's and the process's name are their own.
            crate::complain(&format!("oomguard: {}", one_line(&line)));
        }
    }

    fn memory_line(&self, guard: &Guard, cause: Cause, peak: Bytes, age: Duration, total: Bytes) -> String {
        let who = guard.hands[0].largest.as_ref().map_or_else(String::new, |(pid, name, usage)| {
            format!("; largest process: {name} (pid {pid}, {usage})")
        });
        let by = guard.hands[0].enforcement.name();
        let after = format!("peak {peak} after {:.1} s", age.as_secs_f64());
        if let (Cause::Vram, Some(Holding { device, used, limit })) = (cause, self.vram) {
            let gpu = guard.roster.gpu(device);
            return match limit.filter(|limit| used > *limit) {
                Some(limit) => format!(
                    "killed: the job held {used} of {gpu}, above its VRAM limit of {limit} ({after}); raise \
                     --vram-limit or make the job smaller"
                ),
                None => format!(
                    "killed: too little was left of {gpu}, of which the job held {used} ({after}); use a GPU with \
                     more room, or make the job smaller"
                ),
            };
        }
        match (cause, self.job.limit) {
            (Cause::Limit, Some(limit)) => format!(
                "killed: the job reached its memory limit of {limit} ({after}, {by}){who}; raise --memory-limit \
                 or make the job smaller"
            ),
            _ => {
                let reserve = guard.engine.host_policy().reserve;
                let left = self.brake.map_or_else(String::new, |left| format!(", {left} were left"));
                format!(
                    "killed: the machine's reserve of {reserve} (of {total}) was touched{left} ({after}){who}; \
                     give the job a --memory-limit that fits beside the rest"
                )
            }
        }
    }
}
