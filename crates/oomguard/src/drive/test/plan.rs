//! What is to be run and how, from the command line, the configuration, the files themselves and what they took before.
//!
//! Decides all that stands before the first start. Starts nothing.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oomguard_core::{Bytes, Enforcement, HostPolicy, HostSample, JobPolicy};

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
/// Large blocks of torch's cache are not split, so that VRAM is not lost in pieces.
const MAX_SPLIT: &str = "max_split_size_mb:64";

/// A process of torch's gets no more than this share of a GPU.
const FRACTION: &str = "per_process_memory_fraction";

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
        let mut plan = Plan {
            cases: Vec::new(),
            jobs,
            python: PathBuf::new(),
            command,
            pytest: pytest_args(cli),
            options: suite.options,
            junitxml: cli.junitxml.clone().or(suite.junitxml.filter(|_| is_pytest)),
            paths: cli.paths.iter().map(|path| path.to_string_lossy().into_owned()).collect(),
            preload,
            env: shared_env(jobs, cores, &|name| std::env::var(name).ok()),
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

fn pytest_args(cli: &cli::Test) -> Vec<String> {
    let mut args = cli.pytest.clone();
    for (flag, value) in [("-k", &cli.keyword), ("-m", &cli.marker)] {
        if let Some(value) = value {
            args.extend([flag.to_owned(), value.clone()]);
        }
    }
    if cli.exitfirst {
        args.push("-x".to_owned());
    } else if let Some(maxfail) = cli.maxfail {
        args.push(format!("--maxfail={maxfail}"));
    }
    args
}

/// Another runner would run what was to be left out.
fn refuse_what_only_pytest_knows(cli: &cli::Test, files: &[TestFile]) -> Result<(), Error> {
    let given = [
        ("`-k`", cli.keyword.is_some()),
        ("`-m`", cli.marker.is_some()),
        ("what stands behind `--`", !cli.pytest.is_empty()),
        ("a single test (`FILE::TEST`)", files.iter().any(|file| !file.select.is_empty())),
    ];
    match given.iter().find(|(_, is_given)| *is_given) {
        None => Ok(()),
        Some((what, _)) => {
            Err(Error::new(format!("{what} is for pytest, and the files are run by a command"))
                .hint("write it into the command; each file is run whole")
                .code(4))
        }
    }
}

/// A node id of pytest (relative to the root directory) as an argument that is right from everywhere.
fn node(path: &Path, id: &str) -> String {
    match id.split_once("::") {
        Some((_, test)) => format!("{}::{test}", path.display()),
        None => path.to_string_lossy().into_owned(),
    }
}

/// The words of a command, with quotes as in a shell, and nothing else of a shell.
fn words(text: &str) -> Result<Vec<String>, Error> {
    let words = shlex::split(text).filter(|words| !words.is_empty());
    let words = words.ok_or_else(|| Error::new(format!("`--command {text}`: a quote is not closed")))?;
    if !words.iter().any(|word| word.contains("{file}")) {
        return Err(Error::new(format!("`--command {text}` does not say where the file goes"))
            .hint("put `{file}` where each file's path belongs: `python -m unittest {file}`"));
    }
    Ok(words)
}

/// What everybody gets: no more threads together than there are cores, and a cache of torch that does not crumble.
/// What the user has set stays.
fn shared_env(jobs: u16, cores: u64, env: &dyn Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let threads = (cores / u64::from(jobs)).max(1).to_string();
    for name in ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"] {
        if jobs > 1 && env(name).is_none() {
            all.insert(name.to_owned(), threads.clone());
        }
    }
    let name = alloc_conf(env);
    all.insert(name.to_owned(), with_setting(env(name).as_deref(), MAX_SPLIT));
    all
}

/// What keeps torch, JAX and TensorFlow to a share of a GPU. What the user has set stays.
pub fn vram_env(
    limit: Bytes,
    total: Bytes,
    torch_obeys: bool,
    set: &dyn Fn(&str) -> Option<String>,
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    // Rounded down: never more than what was allowed.
    let fraction = (limit.0 as f64 / total.0.max(1) as f64 * 10_000.0).floor().max(1.0) / 10_000.0;
    if torch_obeys {
        let name = alloc_conf(set);
        let setting = format!("{FRACTION}:{fraction}");
        all.insert(name.to_owned(), with_setting(set(name).as_deref(), &setting));
    }
    for (name, value) in [
        ("XLA_PYTHON_CLIENT_MEM_FRACTION", fraction.to_string()),
        // Else it takes all of it at once.
        ("TF_FORCE_GPU_ALLOW_GROWTH", "true".to_owned()),
    ] {
        if set(name).is_none() {
            all.insert(name.to_owned(), value);
        }
    }
    all
}

/// Whether this interpreter's torch knows [`FRACTION`] (2.9 on). Its version is asked for, torch itself is not loaded.
pub fn torch_obeys(python: &Path) -> bool {
    let ask = "import importlib.metadata as m; print(m.version('torch'))";
    let asked =
        std::process::Command::new(python).args(["-c", ask]).stderr(std::process::Stdio::null()).output();
    asked.is_ok_and(|said| knows_fraction(&String::from_utf8_lossy(&said.stdout)))
}

fn knows_fraction(version: &str) -> bool {
    let mut numbers = version.trim().split('.').map_while(|number| number.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (2, 9)
}

/// torch reads the new name first.
fn alloc_conf(env: &dyn Fn(&str) -> Option<String>) -> &'static str {
    if env("PYTORCH_ALLOC_CONF").is_some() { "PYTORCH_ALLOC_CONF" } else { "PYTORCH_CUDA_ALLOC_CONF" }
}

/// A list of `key:value` with one more, unless the key is there already.
pub fn with_setting(list: Option<&str>, setting: &str) -> String {
    let key = setting.split(':').next().unwrap_or_default();
    match list.map(str::trim).filter(|list| !list.is_empty()) {
        None => setting.to_owned(),
        Some(list) if list.split(',').any(|one| one.split(':').next().is_some_and(|it| it.trim() == key)) => {
            list.to_owned()
        }
        Some(list) => format!("{list},{setting}"),
    }
}

/// The command for one file.
pub fn command(words: &[String], file: &Path) -> Vec<OsString> {
    let file = file.to_string_lossy();
    words.iter().map(|word| word.replace("{file}", &file).into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torchs_settings_are_merged_with_the_users() {
        assert_eq!(with_setting(None, MAX_SPLIT), MAX_SPLIT);
        let user = "expandable_segments:True";
        assert_eq!(with_setting(Some(user), MAX_SPLIT), "expandable_segments:True,max_split_size_mb:64");
        let set = "max_split_size_mb:512,backend:native";
        assert_eq!(with_setting(Some(set), MAX_SPLIT), set);
    }

    #[test]
    fn frameworks_are_told_their_share_and_the_users_word_stays() {
        let set = |name: &str| match name {
            "PYTORCH_CUDA_ALLOC_CONF" => Some(MAX_SPLIT.to_owned()),
            "XLA_PYTHON_CLIENT_MEM_FRACTION" => Some(".5".to_owned()),
            _ => None,
        };
        let env = vram_env(Bytes::gib(2), Bytes::gib(16), true, &set);
        assert_eq!(env["PYTORCH_CUDA_ALLOC_CONF"], "max_split_size_mb:64,per_process_memory_fraction:0.125");
        assert_eq!(env["TF_FORCE_GPU_ALLOW_GROWTH"], "true");
        assert!(!env.contains_key("XLA_PYTHON_CLIENT_MEM_FRACTION"));
        let old = vram_env(Bytes::gib(1), Bytes::gib(3), false, &|_| None);
        assert!(!old.contains_key("PYTORCH_CUDA_ALLOC_CONF"), "it would not start");
        assert_eq!(old["XLA_PYTHON_CLIENT_MEM_FRACTION"], "0.3333");
        for (version, knows) in [("2.9.0+cu128\n", true), ("2.10.1", true), ("2.8.0", false), ("", false)] {
            assert_eq!(knows_fraction(version), knows, "{version}");
        }
    }

    #[test]
    fn threads_are_shared_among_the_files_and_the_users_number_stays() {
        let env = |name: &str| (name == "OMP_NUM_THREADS").then(|| "3".to_owned());
        let shared = shared_env(4, 16, &env);
        assert_eq!(shared.get("OMP_NUM_THREADS"), None);
        assert_eq!(shared["MKL_NUM_THREADS"], "4");
        assert_eq!(shared_env(32, 16, &env)["MKL_NUM_THREADS"], "1");
        assert!(!shared_env(1, 16, &env).contains_key("MKL_NUM_THREADS"));
    }

    #[test]
    fn a_command_is_words_and_never_a_shell() {
        let words = words("run 'a b' {file} --x={file}; rm").unwrap();
        assert_eq!(words, ["run", "a b", "{file}", "--x={file};", "rm"]);
        let file = Path::new("/t/a b.py");
        assert_eq!(command(&words, file)[2..4], ["/t/a b.py", "--x=/t/a b.py;"]);
        assert!(super::words("run 'a").is_err());
        assert!(super::words("run all").unwrap_err().hint.unwrap().contains("{file}"));
    }

    #[test]
    fn a_node_id_is_right_from_everywhere() {
        assert_eq!(node(Path::new("/r/t/a.py"), "t/a.py::T::x[a::b]"), "/r/t/a.py::T::x[a::b]");
    }
}
