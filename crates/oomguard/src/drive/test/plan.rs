//! What is to be run and how, from the command line, the configuration, the files themselves and what they took before.
//!
//! Decides all that stands before the first start. Starts nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use oomguard_core::{Bytes, Enforcement, HostPolicy, HostSample, JobPolicy};

use super::super::frameworks::{shared_env, vram_env};
use super::argv::{node, pytest_args, refuse_what_only_pytest_knows, words};
use super::queue::Need;
use crate::amount::Amount;
use crate::cli;
use crate::config::test::{GpuFiles, Isolation, Jobs, RetryOn, Settings};
use crate::error::Error;
use crate::state::History;
use crate::suite::{Suite, TestFile};

/// What one file may use, unless something else is said.
const MEMORY_LIMIT: Bytes = Bytes::gib(8);
/// From the request to end (SIGINT, on which pytest writes its reports) to SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// The reserve, in percent of RAM: the watchdog acts when more than 90 % are used.
const RESERVE_PERCENT: u64 = 10;
/// Options of pytest by which it leaves out tests of a file.
const LEAVE_OUT: [&str; 6] = ["-k", "-m", "--deselect", "--lf", "--last-failed", "--stepwise"];

/// One file.
#[derive(Clone, Debug)]
pub struct Case {
    /// Where it is.
    pub path: PathBuf,
    /// From the root directory: what people read, and what the books are kept under.
    pub name: String,
    /// What pytest is told to run: the file, or node ids in it.
    pub args: Vec<String>,
    /// Those are what failed last: they may be gone by now.
    pub args_are_old: bool,
    /// They were, and all of the file was run.
    pub was_renewed: bool,
    /// What it may use.
    pub limit: Option<Bytes>,
    /// Somebody chose that limit: it is never raised.
    pub limit_is_meant: bool,
    /// What it asks of the machine.
    pub need: Need,
    /// What it may use of a GPU; a share of one, before one is known.
    pub vram_limit: Option<Amount>,
    /// What frameworks are told so that they keep to it. Theirs when they begin: a fork can have it, too.
    pub vram_env: BTreeMap<String, String>,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// Its own environment: it cannot be forked from a process that has another.
    pub env: BTreeMap<String, String>,
    /// How it is kept apart.
    pub isolation: Isolation,
}

/// Everything.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The files, in the order in which they are tried.
    pub cases: Vec<Case>,
    /// So many at a time.
    pub jobs: u16,
    /// The interpreter.
    pub python: PathBuf,
    /// Another runner, with `{file}` in it.
    pub command: Option<Vec<String>>,
    /// Arguments for pytest.
    pub pytest: Vec<String>,
    /// All options of pytest in effect, those of its settings among them.
    pub options: Vec<String>,
    /// Where JUnit's XML goes: one for all files, wherever it was asked for.
    pub junitxml: Option<PathBuf>,
    /// What the user named, for the zygote.
    pub paths: Vec<String>,
    /// Modules that most files import.
    pub preload: Vec<String>,
    /// pytest's root directory.
    pub rootdir: PathBuf,
    /// Where the user stands.
    pub cwd: PathBuf,
    /// What is added to everybody's environment.
    pub env: BTreeMap<String, String>,
    /// Refuse above this, percent of RAM.
    pub ram_preflight: u8,
    /// ... and of a GPU's memory.
    pub vram_preflight: u8,
    /// A further file starts below this.
    pub ram_target: u8,
    /// Waiting for it.
    pub wait: Duration,
    /// What one file may use when nothing else is said about it.
    pub limit: Option<Bytes>,
    /// How GPU files share.
    pub gpu: GpuFiles,
    /// The strictest isolation that was asked for the whole run.
    pub isolation: Isolation,
    /// How often a file that did not pass is run again.
    pub retries: u32,
    /// After what.
    pub retry_on: Vec<RetryOn>,
    /// Stop after so many failed tests.
    pub maxfail: Option<u32>,
}

impl Case {
    /// All of its file.
    pub fn whole(&self) -> Vec<String> {
        vec![self.path.to_string_lossy().into_owned()]
    }
}

impl Plan {
    /// Makes the plan. `total` is the machine's memory.
    pub fn new(
        cli: &cli::Test,
        settings: &Settings,
        suite: Suite,
        history: &History,
        cwd: PathBuf,
        total: Bytes,
        cores: u64,
    ) -> Result<Plan, Error> {
        let share = |amount: Amount| amount.of(total);
        let disabled = cli.disable_memory_limit || settings.disable_memory_limit.unwrap_or(false);
        let meant = cli.memory_limit.map(share);
        let limit = match (disabled, meant, settings.memory_limit) {
            (true, ..) => None,
            (_, Some(meant), _) => Some(meant),
            (_, None, Some(said)) => said,
            (_, None, None) => Some(MEMORY_LIMIT),
        };
        let jobs = match cli.jobs.or(settings.jobs).unwrap_or(Jobs::Count(1)) {
            Jobs::Auto => u16::try_from(cores).unwrap_or(u16::MAX),
            Jobs::Count(count) => count,
        };
        let gpu = cli.gpu.or(settings.gpu).unwrap_or(GpuFiles::Serial);
        let command = match &cli.command {
            Some(text) => Some(words(text)?),
            None => settings.command.clone(),
        };
        let is_pytest = command.is_none();
        if !is_pytest {
            refuse_what_only_pytest_knows(cli, &suite.files)?;
        }
        let isolation = cli.isolation.or(settings.isolation).unwrap_or(Isolation::Auto);
        let timeout = cli.timeout.map(Some).or(settings.timeout).flatten();
        let preload = crate::suite::preload(&suite.files, &suite.roots);
        let env = |name: &str| std::env::var(name).ok();
        let written = |path: String| cwd.join(crate::suite::expand(&path, &env));
        let mut plan = Plan {
            cases: Vec::new(),
            jobs,
            python: PathBuf::new(),
            command,
            pytest: pytest_args(cli),
            options: suite.options,
            junitxml: cli.junitxml.clone().or(suite.junitxml.filter(|_| is_pytest).map(written)),
            paths: cli.paths.iter().map(|path| path.to_string_lossy().into_owned()).collect(),
            preload,
            env: shared_env(jobs, cores, &env),
            ram_preflight: cli.ram_preflight.or(settings.ram_preflight).unwrap_or(70),
            vram_preflight: cli.vram_preflight.or(settings.vram_preflight).unwrap_or(80),
            ram_target: cli.ram_target.or(settings.ram_target).unwrap_or(70),
            wait: cli.wait.or(settings.wait).unwrap_or(Duration::from_secs(60)),
            limit,
            gpu,
            isolation,
            retries: cli.retries.or(settings.retries).unwrap_or(0),
            retry_on: retry_on(cli, settings),
            maxfail: if cli.exitfirst { Some(1) } else { cli.maxfail },
            rootdir: suite.rootdir.clone(),
            cwd,
        };
        let case = |file: &TestFile| plan.case(file, settings, history, cli, timeout, disabled, meant);
        let cases: Vec<Case> = suite.files.iter().map(case).collect();
        plan.cases = cases;
        if jobs > 1 {
            // The longest first, so that none is left over at the end; what is new counts as long.
            let known = |case: &Case| history.get(&case.name).and_then(|past| past.seconds);
            let seconds = |case: &Case| known(case).unwrap_or(f64::INFINITY);
            plan.cases.sort_by(|a, b| seconds(b).total_cmp(&seconds(a)));
        }
        Ok(plan)
    }

    #[expect(clippy::too_many_arguments, reason = "each is one place where a file's rules come from")]
    fn case(
        &self,
        file: &TestFile,
        settings: &Settings,
        history: &History,
        cli: &cli::Test,
        timeout: Option<Duration>,
        disabled: bool,
        meant: Option<Bytes>,
    ) -> Case {
        let own = settings.of(&file.path);
        let path = self.rootdir.join(&file.path);
        let name = file.path.to_string_lossy().into_owned();
        // The nearer to the file, the stronger: its marks, then its override; a flag is stronger than the table, and a
        // mark than a flag, because it is about this file.
        let overridden = own.memory_limit.filter(|said| Some(*said) != settings.memory_limit);
        let limit = match (disabled, file.marks.memory, overridden, meant) {
            (true, ..) => None,
            (_, Some(marked), ..) => Some(marked),
            (_, None, Some(said), _) => said,
            _ => self.limit,
        };
        let limit_is_meant = file.marks.memory.is_some()
            || overridden.is_some()
            || meant.is_some()
            || settings.memory_limit.is_some();
        let said = own.vram_limit.filter(|said| Some(*said) != settings.vram_limit);
        let vram_limit = match (disabled, file.marks.vram, said) {
            (true, ..) => None,
            (_, Some(marked), _) => Some(Amount::Bytes(marked)),
            (_, None, Some(said)) => said,
            _ => cli.vram_limit.or(settings.vram_limit.flatten()),
        };
        let past = history.get(&name);
        let before = past.and_then(|past| past.peak_ram);
        let known = match (before, limit) {
            (Some(peak), Some(limit)) => peak.min(limit),
            (Some(peak), None) => peak,
            (None, limit) => limit.unwrap_or(MEMORY_LIMIT),
        };
        let failed = past.map(|past| past.failed.clone()).filter(|_| cli.last_failed).unwrap_or_default();
        let whole = path.to_string_lossy().into_owned();
        let args: Vec<String> = match (failed.is_empty(), file.select.is_empty()) {
            (false, _) => failed.iter().map(|id| node(&path, id)).collect(),
            (true, false) => file.select.iter().map(|test| format!("{whole}::{test}")).collect(),
            (true, true) => vec![whole.clone()],
        };
        let args_are_old = !failed.is_empty() && args != [whole];
        let own_timeout = if cli.timeout.is_some() { timeout } else { own.timeout.unwrap_or(timeout) };
        Case {
            path,
            name,
            args,
            args_are_old,
            was_renewed: false,
            limit,
            limit_is_meant,
            need: Need {
                memory: known,
                alone: file.marks.serial || own.serial.unwrap_or(false),
                gpu: file.gpu.is_some() || file.marks.vram.is_some(),
                vram: past.and_then(|past| past.peak_vram),
            },
            vram_limit,
            vram_env: BTreeMap::new(),
            timeout: own_timeout,
            env: own.env,
            isolation: own.isolation.unwrap_or(self.isolation),
        }
    }

    /// Whether tests of this file may have been left out.
    pub fn is_narrowed(&self, case: usize) -> bool {
        let case = &self.cases[case];
        let leaves_out = |arg: &String| LEAVE_OUT.iter().any(|option| arg.starts_with(option));
        let options = self.options.iter().chain(&self.pytest);
        !case.was_renewed && (case.args != case.whole() || options.into_iter().any(leaves_out))
    }

    /// Whether any file uses a GPU.
    pub fn uses_gpu(&self) -> bool {
        self.cases.iter().any(|case| case.need.gpu)
    }

    /// There is none: such files are files like any other, which skip their tests or use something else.
    pub fn without_gpu(&mut self) {
        for case in &mut self.cases {
            case.need.gpu = false;
        }
    }

    /// There is one of this size: limits become bytes, and frameworks are told. `torch_obeys`: its allocator knows the
    /// word for it, as an older one would refuse to begin.
    pub fn with_gpu(&mut self, total: Option<Bytes>, torch_obeys: bool) {
        for case in self.cases.iter_mut().filter(|case| case.need.gpu) {
            let (Some(total), Some(limit)) = (total, case.vram_limit) else { continue };
            let limit = limit.of(total).min(total);
            case.need.vram = Some(case.need.vram.map_or(limit, |peak| peak.min(limit)));
            let set = |name: &str| self.env.get(name).cloned().or_else(|| std::env::var(name).ok());
            case.vram_env = vram_env(limit, total, torch_obeys, &set);
        }
    }

    /// The engine's rules for a file.
    pub fn policy(case: &Case, limit: Option<Bytes>, enforcement: Enforcement) -> JobPolicy {
        JobPolicy {
            limit,
            grace: GRACE,
            timeout: case.timeout,
            leaves_nothing: true,
            ..JobPolicy::once(enforcement)
        }
    }
}

/// The watchdog's thresholds.
pub fn host_policy(cli: &cli::Test, settings: &Settings, host: &HostSample, cores: u64) -> HostPolicy {
    let defaults = HostPolicy::for_machine(host.total, cores);
    if cli.disable_watchdog || settings.disable_watchdog.unwrap_or(false) {
        return HostPolicy { reserve: Bytes::ZERO, warning: Bytes::ZERO, ..defaults };
    }
    let reserve = cli.reserve.map_or(host.total.percent(RESERVE_PERCENT), |reserve| reserve.of(host.total));
    HostPolicy { reserve, warning: defaults.warning.max(reserve), ..defaults }
}

fn retry_on(cli: &cli::Test, settings: &Settings) -> Vec<RetryOn> {
    if !cli.retry_on.is_empty() {
        return cli.retry_on.clone();
    }
    let all = || vec![RetryOn::Crash, RetryOn::Timeout, RetryOn::Failure];
    settings.retry_on.clone().unwrap_or_else(all)
}
