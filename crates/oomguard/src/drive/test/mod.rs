//! `oomguard test`: a test suite file by file, each file's process tree held to its limit, the machine to its reserve.
//!
//! Sets the scene (configuration, files, history, room), runs, closes the books. What is done about memory is decided
//! by the engine, as for every other verb.

mod argv;
mod beats;
mod cover;
mod gpu;
mod keeper;
mod list;
mod plan;
mod preflight;
mod queue;
mod runner;
mod slot;
mod standby;
mod verdict;
mod zygote;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use oomguard_core::{Engine, HostSample};
use oomguard_sys::clock;
use rustix::fs::{FlockOperation, flock};

use super::frameworks::torch_obeys;
use super::vram::Vram;
use super::{Guard, Hand, Place, Sensors, prepare, sensors};
use crate::cli;
use crate::config::test::{Settings, load};
use crate::error::Error;
use crate::outcome::{TestVerdict, Verdict};
use crate::record::{Notice, Roster};
use crate::sink::suite::{Junit, Profile, SuiteReport, SuiteTerminal, Wants};
use crate::sink::{JsonLines, Sinks};
use crate::state::{History, Past, StateDir};
use crate::suite::{Request, Suite, discover, shard};

pub use keeper::keep;

use gpu::Gpus;
use keeper::{Keeper, RUN};
use plan::Plan;
use runner::Runner;

/// Logs of so many runs are kept.
const RUNS_KEPT: usize = 5;

/// Runs the suite; gives pytest's exit code, or 75 where there is no room.
pub fn test(cli: &cli::Test) -> Result<u8, Error> {
    let cwd = std::env::current_dir()
        .map_err(|error| Error::io("find the working directory", Path::new("."), &error))?;
    let mut sensors = Sensors::open()?;
    let host = sensors.machine();
    let settings = load(None, &cwd, host.total)?;
    let suite = find(cli, &settings, &cwd)?;
    let env = |name: &str| std::env::var(name).ok();
    let state = StateDir::open(&StateDir::of(&suite.rootdir, &suite.rootdir, &env))?;
    let (history, complaint) = History::load(state.path());
    let suite = select(cli, suite, &history)?;
    if cli.list {
        return Ok(list::list(cli, &suite));
    }
    let cores = sensors::cores();
    let notes: Vec<String> = suite.notes.iter().cloned().chain(complaint).collect();
    let (rootdir, files) = (suite.rootdir.clone(), suite.files.len());
    let mut plan = Plan::new(cli, &settings, suite, &history, cwd, host.total, cores)?;
    let own = std::env::current_exe().ok();
    let asked = cli.python.as_deref().or(settings.python.as_deref());
    plan.python = zygote::interpreter(asked, &|name| std::env::var_os(name), own.as_deref());
    if cli.dry_run {
        return Ok(list::dry_run(cli, &plan));
    }
    let mut gpus = gpus(&mut plan)?;
    let vram = gpus.as_mut().map_or(Vram::None, Gpus::vram);
    preflight::check(&plan, &host, &vram)?;
    let place = Place::find(cli.place.cgroup_parent.as_deref());
    if let Err(error) = place.must_be(cli.require) {
        place.leave();
        return Err(error);
    }
    let policy = plan::host_policy(cli, &settings, &host, cores);
    let (dir, _held) = run_dir(&state)?;
    let enforcement = place.enforcement;
    let armed = prepare::armed("test", &place, &host, &policy, prepare::notes(&place));
    let sinks = sinks(cli, &settings, &state, plan.junitxml.as_deref())?;
    let roster = Roster::new(policy.reserve, policy.warning);
    let mut guard =
        Guard::new(Engine::new(policy, u64::from(std::process::id())), sensors, place, sinks, roster)?;
    for _ in 0..plan.jobs {
        guard.hands.push(Hand::new(String::new(), enforcement, None));
    }
    guard.note(armed);
    for text in notes {
        guard.note(Notice::Note { text });
    }
    let (jobs, limit) = (plan.jobs, plan.limit);
    guard.note(Notice::SuiteFound { rootdir, files, jobs, limit, vram: vram.percent() });
    if let Some(text) = gpus.as_mut().and_then(Gpus::complaint) {
        guard.note(Notice::Note { text });
    }
    let (python, options) = (plan.python.clone(), plan.options.clone());
    let began = clock::now();
    let run = format!("{}-{:x}", std::process::id(), began.0);
    plan.env.insert(RUN.to_owned(), run.clone());
    let prefix = format!("test-{}-", std::process::id());
    let keeper = Keeper::start(cli.place.cgroup_parent.as_deref(), &prefix, &run)?;
    let mut runner = Runner::new(plan, dir, enforcement, gpus);
    runner.begin(&mut guard)?;
    guard.guard(&mut runner)?;
    runner.end(guard.parent.as_ref());
    keeper.dismiss();
    remember(&runner, cli.shard.is_none(), &state, &mut guard);
    let covered = cover::report(&python, &runner.coverage, &options)?;
    let code = exit_code(&runner).max(covered);
    let seconds = clock::now().since(began).as_secs_f64();
    guard.note(Notice::SuiteEnded { seconds, exit_code: code, stopped: runner.stopped.clone() });
    guard.sinks.finish();
    if let Some(parent) = guard.parent.take() {
        // Other guards may share it.
        let _ = parent.remove();
    }
    if let Some(text) = &runner.refusal {
        crate::complain(text);
        if text.contains("No module named") {
            let python = python.display();
            crate::complain(&format!(
                "hint: install pytest and oomguard for `{python}`, or name another `--python`"
            ));
        }
    }
    Ok(code)
}

/// The GPUs, where any file uses one; nobody else has them looked for.
fn gpus(plan: &mut Plan) -> Result<Option<Gpus>, Error> {
    let mut gpus = if plan.uses_gpu() { Gpus::find(plan.wait)? } else { None };
    match &mut gpus {
        None => plan.without_gpu(),
        Some(gpus) => {
            let limited = plan.cases.iter().any(|case| case.need.gpu && case.vram_limit.is_some());
            let torch_obeys = limited && torch_obeys(&plan.python);
            plan.with_gpu(gpus.total(), torch_obeys);
        }
    }
    Ok(gpus)
}

/// RAM in use, in percent, by the rule of `oomguard check`.
fn percent_used(host: &HostSample) -> f64 {
    100.0 * host.total.minus(host.available).0 as f64 / host.total.0.max(1) as f64
}

fn find(cli: &cli::Test, settings: &Settings, cwd: &Path) -> Result<Suite, Error> {
    let request = Request {
        cwd: cwd.to_owned(),
        args: cli.paths.clone(),
        pytest_args: if cli.command.is_some() || settings.command.is_some() {
            Vec::new()
        } else {
            cli.pytest.clone()
        },
        addopts: std::env::var("PYTEST_ADDOPTS").ok(),
    };
    discover(&request)
}

/// The part of the suite that was asked for. It is cut before anything else: what failed here is not known elsewhere.
fn select(cli: &cli::Test, mut suite: Suite, history: &History) -> Result<Suite, Error> {
    if let Some((m, n)) = cli.shard {
        let seconds = |file: &crate::suite::TestFile| {
            history.get(&file.path.to_string_lossy()).and_then(|past| past.seconds)
        };
        suite.files = shard(&suite.files, m as usize, n as usize, seconds);
    }
    if cli.last_failed {
        let failed: Vec<&str> = history.failed().map(|(path, _)| path).collect();
        let chosen = suite.files.iter().filter(|file| failed.iter().any(|it| Path::new(it) == file.path));
        let chosen: Vec<_> = chosen.cloned().collect();
        // As pytest does: where nothing failed, everything runs.
        if !chosen.is_empty() {
            suite.files = chosen;
        }
    }
    Ok(suite)
}

/// A folder for the logs of this run, which is held as long as the file is open; those of old runs go, unless somebody
/// still holds them.
fn run_dir(state: &StateDir) -> Result<(PathBuf, Option<File>), Error> {
    let runs = state.file("runs");
    let name = format!("{}-{}", jiff::Zoned::now().strftime("%Y%m%dT%H%M%S"), std::process::id());
    let dir = runs.join(name);
    std::fs::create_dir_all(&dir).map_err(|error| Error::io("create", &dir, &error))?;
    let held = hold(&dir).ok();
    let mut old: Vec<PathBuf> =
        std::fs::read_dir(&runs).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    old.sort();
    for run in old.iter().rev().skip(RUNS_KEPT) {
        // Not every file system can say.
        let is_held = hold(run).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        if !is_held {
            let _ = std::fs::remove_dir_all(run);
        }
    }
    Ok((dir, held))
}

/// An error where somebody else does.
fn hold(dir: &Path) -> std::io::Result<File> {
    let file = File::open(dir)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

fn sinks(
    cli: &cli::Test,
    settings: &Settings,
    state: &StateDir,
    junitxml: Option<&Path>,
) -> Result<Sinks, Error> {
    let mut sinks = Sinks::new();
    // The line before a file is written before anything else is said of it.
    if !cli.no_memory_profile && settings.memory_profile.unwrap_or(true) {
        let path = cli.memory_profile.clone().unwrap_or_else(|| state.file("memory_profile.log"));
        sinks.add(Profile::open(&path)?);
    }
    if cli.json {
        sinks.add(JsonLines::stdout());
    } else {
        let wants = if cli.quiet {
            Wants::Little
        } else if cli.verbose {
            Wants::All
        } else {
            Wants::Usual
        };
        sinks.add(SuiteTerminal::new(wants));
    }
    if let Some(path) = junitxml {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| Error::io("create", folder, &error))?;
        }
        sinks.add(Junit::open(path)?);
    }
    if let Some(path) = &cli.report {
        sinks.add(SuiteReport::open(path)?);
    }
    Ok(sinks)
}

/// For the next run: time (of whole files in a `whole` suite), memory, failures.
fn remember(runner: &Runner, whole: bool, state: &StateDir, guard: &mut Guard) {
    // As it is now: others may have run meanwhile.
    let (mut history, _) = History::load(state.path());
    let ran = runner.outcomes.iter().filter(|(_, outcome)| outcome.verdict != Verdict::NotRun);
    for (case, outcome) in ran {
        let failed = outcome.tests.iter().filter(|test| test.outcome.is_failure());
        let mut failed: Vec<String> = failed.map(|test| test.nodeid.clone()).collect();
        // Of one that was interrupted nothing is known but what had failed before.
        let came_to_its_end = outcome.verdict != Verdict::Interrupted;
        if failed.is_empty() && !came_to_its_end {
            continue;
        }
        if failed.is_empty() && !outcome.verdict.is_good() {
            failed.push(outcome.path.clone());
        }
        // What was left out this time, or was not come to, fails as it did.
        let narrowed = runner.is_narrowed(*case);
        if let Some(past) = history.get(&outcome.path).filter(|_| narrowed || !outcome.verdict.is_good()) {
            let ran = outcome.tests.iter().filter(|test| test.outcome != TestVerdict::NotRun);
            let ran: BTreeSet<&str> = ran.map(|test| test.nodeid.as_str()).collect();
            let has_run = |id: &String| ran.contains(id.as_str());
            let left_out: Vec<String> = past.failed.iter().filter(|id| !has_run(id)).cloned().collect();
            failed.extend(left_out.into_iter().filter(|id| *id != outcome.path));
        }
        let now = Past {
            seconds: Some(outcome.seconds).filter(|_| whole && came_to_its_end && !narrowed),
            peak_ram: outcome.peak_ram,
            peak_vram: outcome.peak_vram,
            failed,
        };
        history.note(&outcome.path, now);
    }
    if let Err(error) = history.save(state.path()) {
        let text = format!("what the files took could not be written down: {error}");
        guard.note(Notice::Note { text });
    }
}

fn exit_code(runner: &Runner) -> u8 {
    let verdicts =
        runner.outcomes.values().map(|outcome| outcome.verdict).filter(|it| *it != Verdict::NotRun);
    runner.code.unwrap_or_else(|| verdict::exit_code(verdicts, runner.interrupted))
}
