//! What can be typed. Only the words and their help; what they mean is worked out in `drive`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};
use oomguard_core::{Enforcement, OnLimit};

use crate::amount::{Amount, duration, limit};
use crate::config::test::{GpuFiles, Isolation, Jobs, RetryOn};
use crate::target::Target;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// Keeps machines that train models or run GPU tests from dying of memory.
#[derive(Debug, Parser)]
#[command(name = "oomguard", version, styles = STYLES, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

const EXAMPLES: &str = "Examples:
  oomguard doctor                                  what can this machine enforce?
  oomguard run --memory-limit 8GiB -- python train.py
  oomguard test tests/                             each test file in a process tree of its own
  oomguard up                                      the workers of ./oomguard.toml
  oomguard status                                  how are they?";

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run one command, its whole process tree held to a memory limit
    Run(Run),
    /// Run a test suite file by file, each file's process tree held to a memory limit
    Test(Box<Test>),
    /// Keep the pools of workers of oomguard.toml running
    Up(Up),
    /// Guard the whole machine: end the family of processes that took the memory (dry run unless --enforce)
    Watch(Watch),
    /// Make a systemd service of `watch`; shows the unit unless told to write it
    Install(Install),
    /// Write a commented oomguard.toml to start from
    Init(Init),
    /// Is there room? Exits with 0, or with 75 if not
    Check(Check),
    /// What can this machine enforce and see, with the proof and the remedy
    Doctor(Doctor),
    /// How the workers of a running `up` are
    Status(Status),
    /// Make a running `up` read its configuration again
    Reload(Talk),
    /// Restart workers of a running `up`, one after another
    Restart(Restart),
    /// End a running `up` and its workers
    Stop(Stop),
    /// End what a killed `test` has left (started by `test` itself)
    #[command(hide = true)]
    Keep(Keep),
    /// Tell a recorded run again, as this version decides it or under other limits
    Replay(Replay),
}

/// Flags about the cgroup that jobs are put under.
#[derive(Debug, Args)]
pub struct Place {
    /// Put jobs under this cgroup (relative to the memory hierarchy's root) instead of one found by probing
    #[arg(long, value_name = "PATH", env = "OOMGUARD_CGROUP_PARENT", help_heading = "Enforcement")]
    pub cgroup_parent: Option<PathBuf>,
}

/// What must hold a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Require {
    /// cgroup v2 `memory.max`
    Cgroup2,
    /// cgroup v1 or v2
    Cgroup,
    /// at least a limit per process
    Rlimit,
}

impl Require {
    /// Whether `found` is good enough.
    pub fn is_met_by(self, found: Enforcement) -> bool {
        match self {
            Require::Cgroup2 => found == Enforcement::Cgroup2,
            Require::Cgroup => matches!(found, Enforcement::Cgroup2 | Enforcement::Cgroup1),
            Require::Rlimit => found != Enforcement::WatchOnly,
        }
    }
}

/// `--on-limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LimitScope {
    /// the whole job ends
    Job,
    /// only the process that the kernel chose
    Process,
}

impl From<LimitScope> for OnLimit {
    fn from(scope: LimitScope) -> OnLimit {
        match scope {
            LimitScope::Job => OnLimit::Job,
            LimitScope::Process => OnLimit::Process,
        }
    }
}

/// `oomguard run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  oomguard run --memory-limit 8GiB -- python train.py
  oomguard run --memory-limit 50% --timeout 2h --report last.json -- make test
  oomguard run -- ./notebook.sh          no limit of its own, but the machine's reserve is guarded

Exit codes: the command's own; 75 no room (pre-flight), 124 time limit, 125 oomguard itself failed,
126 not executable, 127 not found, 128+n killed by signal n, 137 ended because of memory (the last
line on stderr says which limit).")]
pub struct Run {
    /// What the whole process tree may use: 8GiB, 512MiB, 60% (of all memory)
    #[arg(short = 'm', long, value_name = "SIZE|%", value_parser = limit, env = "OOMGUARD_MEMORY_LIMIT", allow_hyphen_values = true)]
    pub memory_limit: Option<Amount>,
    /// What it may hold of any one GPU: 4GiB, 50% (of the GPU's memory); torch, JAX and TensorFlow are told, too
    #[arg(long, value_name = "SIZE|%", value_parser = limit, env = "OOMGUARD_VRAM_LIMIT", allow_hyphen_values = true)]
    pub vram_limit: Option<Amount>,
    /// Available memory that must never be used [default: 2GiB; an eighth of small machines]
    #[arg(long, value_name = "SIZE|%", env = "OOMGUARD_RESERVE", allow_hyphen_values = true)]
    pub reserve: Option<Amount>,
    /// What must be left of every GPU that it holds memory of [default: GPUs are not watched]
    #[arg(long, value_name = "SIZE|%", env = "OOMGUARD_VRAM_RESERVE", allow_hyphen_values = true)]
    pub vram_reserve: Option<Amount>,
    /// Swap that the tree may use
    #[arg(long, value_name = "SIZE|%", default_value = "0", env = "OOMGUARD_SWAP_LIMIT")]
    pub swap_limit: Amount,
    /// End the command after this time (exit code 124)
    #[arg(long, value_name = "TIME", value_parser = duration, env = "OOMGUARD_TIMEOUT")]
    pub timeout: Option<Duration>,
    /// From SIGTERM to SIGKILL
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s", env = "OOMGUARD_GRACE")]
    pub grace: Duration,
    /// What ends when the kernel kills at the limit
    #[arg(long, value_enum, default_value = "job")]
    pub on_limit: LimitScope,
    /// Refuse to start unless the tree is really held by this
    #[arg(long, value_name = "ENFORCEMENT", value_enum, help_heading = "Enforcement")]
    pub require: Option<Require>,
    /// Start even if no cgroup can hold the tree; the guard then watches it
    #[arg(long, conflicts_with = "require", help_heading = "Enforcement")]
    pub best_effort: bool,
    /// Where the job's cgroup goes.
    #[command(flatten)]
    pub place: Place,
    /// Write what happened to FILE, as one JSON document
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub report: Option<PathBuf>,
    /// Write everything that the guard sees to FILE, for `oomguard replay` (an older one is kept as FILE.1)
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub record: Option<PathBuf>,
    /// Say what happens on stderr as JSON, one event a line
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    /// Say also what is not a problem
    #[arg(short, long, help_heading = "Output")]
    pub verbose: bool,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

fn jobs(text: &str) -> Result<Jobs, String> {
    match text {
        "auto" => Ok(Jobs::Auto),
        _ => match text.parse() {
            Ok(count @ 1..=1024) => Ok(Jobs::Count(count)),
            _ => Err(format!("`{text}` is neither `auto` nor a number from 1 to 1024")),
        },
    }
}

fn shard(text: &str) -> Result<(u32, u32), String> {
    let parts = text.split_once('/').and_then(|(m, n)| Some((m.parse().ok()?, n.parse().ok()?)));
    match parts {
        Some((m, n)) if 1 <= m && m <= n => Ok((m, n)),
        _ => Err(format!("`{text}` is not a shard (try `1/4`: the first of four)")),
    }
}

/// `oomguard test`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  oomguard test tests/
  oomguard test tests/unit -n auto -- -k 'not slow' --tb=short
  oomguard test --shard 2/4 --junitxml report.xml
  oomguard test --command 'python -m unittest {file}' tests/

Exit codes: pytest's own: 0 all passed, 1 failures (a memory kill is one), 2 interrupted, 3 pytest failed,
4 wrong use, 5 no tests; 75 no room (pre-flight); 125 oomguard itself failed.

A file is given its limits in the source, too: @pytest.mark.oomguard(memory=\"4GiB\", serial=True).")]
pub struct Test {
    /// Folders, files or node ids [default: what pytest would take]
    #[arg(value_name = "PATH")]
    pub paths: Vec<OsString>,
    /// Arguments for pytest
    #[arg(last = true, value_name = "PYTEST ARGS")]
    pub pytest: Vec<String>,
    /// Files that run together; `auto`: one a core, as far as memory reaches [default: 1]
    #[arg(short = 'n', long, value_name = "N|auto", value_parser = jobs, env = "OOMGUARD_TEST_JOBS")]
    pub jobs: Option<Jobs>,
    /// How files are kept apart [default: auto]
    #[arg(long, value_enum, env = "OOMGUARD_TEST_ISOLATION")]
    pub isolation: Option<Isolation>,
    /// Run this for each file instead of pytest; `{file}` is the file (no shell)
    #[arg(long, value_name = "CMD")]
    pub command: Option<String>,
    /// The interpreter [default: the active environment's, else the one beside oomguard]
    #[arg(long, value_name = "PATH")]
    pub python: Option<PathBuf>,
    /// What the process tree of one file may use [default: 8GiB]
    #[arg(long, value_name = "SIZE|%", value_parser = limit, env = "OOMGUARD_MEMORY_LIMIT", help_heading = "Limits")]
    pub memory_limit: Option<Amount>,
    /// GPU memory that one file may use
    #[arg(long, value_name = "SIZE", value_parser = limit, env = "OOMGUARD_VRAM_LIMIT", help_heading = "Limits")]
    pub vram_limit: Option<Amount>,
    /// Start nothing if more RAM than this is used [default: 70%]
    #[arg(long, value_name = "%", value_parser = share, env = "OOMGUARD_RAM_PREFLIGHT", help_heading = "Limits")]
    pub ram_preflight: Option<u8>,
    /// Start nothing if more of a GPU's memory than this is used [default: 80%]
    #[arg(long, value_name = "%", value_parser = share, env = "OOMGUARD_VRAM_PREFLIGHT", help_heading = "Limits")]
    pub vram_preflight: Option<u8>,
    /// Start a further file only below this [default: 70%]
    #[arg(long, value_name = "%", value_parser = share, env = "OOMGUARD_RAM_TARGET", help_heading = "Limits")]
    pub ram_target: Option<u8>,
    /// ... and wait so long for it before giving up (exit code 75) [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = duration, env = "OOMGUARD_TEST_WAIT", help_heading = "Limits")]
    pub wait: Option<Duration>,
    /// Available memory that must never be used; the file that grows goes [default: 10%: RAM > 90%]
    #[arg(long, value_name = "SIZE|%", env = "OOMGUARD_RESERVE", help_heading = "Limits")]
    pub reserve: Option<Amount>,
    /// A file that takes longer is ended
    #[arg(long, value_name = "TIME", value_parser = duration, env = "OOMGUARD_TEST_TIMEOUT", help_heading = "Limits")]
    pub timeout: Option<Duration>,
    /// How GPU files share a GPU [default: serial]
    #[arg(long, value_enum, help_heading = "Limits")]
    pub gpu: Option<GpuFiles>,
    /// Let files use what they like (NOT RECOMMENDED: one file can then fill the machine)
    #[arg(long, help_heading = "Limits")]
    pub disable_memory_limit: bool,
    /// Do not end the file that grows when the machine is short (NOT RECOMMENDED)
    #[arg(long, help_heading = "Limits")]
    pub disable_watchdog: bool,
    /// Where the files' cgroups go.
    #[command(flatten)]
    pub place: Place,
    /// Refuse to start unless files are really held by this
    #[arg(long, value_name = "ENFORCEMENT", value_enum, help_heading = "Enforcement")]
    pub require: Option<Require>,
    /// Only tests that match, as in pytest
    #[arg(short = 'k', value_name = "EXPR", help_heading = "Selection")]
    pub keyword: Option<String>,
    /// Only tests with these markers, as in pytest
    #[arg(short = 'm', value_name = "EXPR", help_heading = "Selection")]
    pub marker: Option<String>,
    /// The m-th of n parts, balanced by recorded time
    #[arg(long, visible_alias = "partition", value_name = "M/N", value_parser = shard, help_heading = "Selection")]
    pub shard: Option<(u32, u32)>,
    /// Only what failed last time (all, if nothing did)
    #[arg(long, visible_alias = "lf", help_heading = "Selection")]
    pub last_failed: bool,
    /// Say which files there are, and start nothing
    #[arg(long, help_heading = "Selection")]
    pub list: bool,
    /// Say what would be run, with which limits, and start nothing
    #[arg(long, help_heading = "Selection")]
    pub dry_run: bool,
    /// Stop after the first failure
    #[arg(short = 'x', long = "exitfirst", visible_alias = "fail-fast", help_heading = "Failures")]
    pub exitfirst: bool,
    /// Stop after so many failed tests
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Failures")]
    pub maxfail: Option<u32>,
    /// Run a file again that did not pass, so often (one that memory killed is run once more in any case)
    #[arg(long, value_name = "N", help_heading = "Failures")]
    pub retries: Option<u32>,
    /// ... after these [default: crash,timeout,failure; memory is run again once in any case]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT", help_heading = "Failures")]
    pub retry_on: Vec<RetryOn>,
    /// Write JUnit's XML
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub junitxml: Option<PathBuf>,
    /// Write everything as one JSON document, with the memory of each test
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub report: Option<PathBuf>,
    /// Where the lines before and after each file go [default: memory_profile.log in the state directory]
    #[arg(long, value_name = "FILE", conflicts_with = "no_memory_profile", help_heading = "Output")]
    pub memory_profile: Option<PathBuf>,
    /// Write no such lines
    #[arg(long, help_heading = "Output")]
    pub no_memory_profile: bool,
    /// Say what happens on stdout as JSON, one event a line
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    /// Say only what failed, and the summary
    #[arg(short, long, conflicts_with = "verbose", help_heading = "Output")]
    pub quiet: bool,
    /// Show every file's line and output
    #[arg(short, long, help_heading = "Output")]
    pub verbose: bool,
}

/// Where the configuration of an `up` is.
#[derive(Debug, Args)]
pub struct ConfigFile {
    /// The configuration [default: oomguard.toml or pyproject.toml here or above]
    #[arg(short, long, value_name = "FILE", env = "OOMGUARD_CONFIG")]
    pub config: Option<PathBuf>,
}

/// `oomguard up`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  oomguard up                            the pools of ./oomguard.toml
  oomguard up -c train.toml --json

A minimal oomguard.toml:
  [pool.train]
  command = [\"python\", \"train.py\"]
  count = 2
  memory_limit = \"8GiB\"

The first Ctrl-C ends the workers in good order, the second kills them. SIGHUP reads the
configuration again.")]
pub struct Up {
    /// Which configuration.
    #[command(flatten)]
    pub config: ConfigFile,
    /// Where the jobs' cgroups go.
    #[command(flatten)]
    pub place: Place,
    /// Say what happens on stderr as JSON, one event a line
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    /// Say nothing on the terminal; the logs are written all the same
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,
    /// Write everything that the guard sees to FILE, for `oomguard replay` (an older one is kept as FILE.1)
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub record: Option<PathBuf>,
}

/// `oomguard watch`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  oomguard watch                                   say whom it would end, and do nothing
  oomguard watch --enforce --avoid user:postgres --prefer 'cgroup:/ci.slice/*'
  oomguard watch --enforce --only user:ci          nobody else's processes

WHO is `name:GLOB` (the short name, 15 bytes), `cgroup:GLOB` or `user:NAME`; a bare GLOB is a name.
A family is what one process has started and what shares its process group, within one cgroup. Never
chosen: init, kernel threads, the guard and what is above it, login shells, sshd, service managers,
and whatever has an oom_score_adj of -1000.")]
pub struct Watch {
    /// Act: SIGTERM, grace, SIGKILL; without it only what would be done is said
    #[arg(long)]
    pub enforce: bool,
    /// Available memory that must never be used [default: 2GiB; an eighth of small machines]
    #[arg(long, value_name = "SIZE|%", env = "OOMGUARD_RESERVE", allow_hyphen_values = true)]
    pub reserve: Option<Amount>,
    /// Below this much available memory look closely [default: twice the reserve]
    #[arg(long, value_name = "SIZE|%", env = "OOMGUARD_WARNING", allow_hyphen_values = true)]
    pub warning: Option<Amount>,
    /// From SIGTERM to SIGKILL, if memory lasts so long
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s", env = "OOMGUARD_GRACE")]
    pub grace: Duration,
    /// End these before all others
    #[arg(long, value_name = "WHO", help_heading = "Whom")]
    pub prefer: Vec<Target>,
    /// End these only when no other can help
    #[arg(long, value_name = "WHO", help_heading = "Whom")]
    pub avoid: Vec<Target>,
    /// Never end anybody but these
    #[arg(long, value_name = "WHO", help_heading = "Whom")]
    pub only: Vec<Target>,
    /// Say what happens on stderr as JSON, one event a line
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    /// Write everything that the guard sees to FILE, for `oomguard replay` (an older one is kept as FILE.1)
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub record: Option<PathBuf>,
}

/// `oomguard install`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  oomguard install --system                         what would be written, and where
  sudo oomguard install --system --yes -- --enforce --avoid user:postgres")]
#[command(group = clap::ArgGroup::new("scope").required(true).args(["system", "user"]))]
pub struct Install {
    /// For the machine: /etc/systemd/system
    #[arg(long)]
    pub system: bool,
    /// For this user: ~/.config/systemd/user
    #[arg(long)]
    pub user: bool,
    /// Write it
    #[arg(long)]
    pub yes: bool,
    /// Flags of `oomguard watch`; without --enforce the service is a dry run
    #[arg(last = true, value_name = "FLAG")]
    pub flags: Vec<OsString>,
}

/// `oomguard init`.
#[derive(Debug, Args)]
pub struct Init {
    /// Where to; `-` for stdout
    #[arg(default_value = "oomguard.toml")]
    pub file: PathBuf,
}

/// `oomguard check`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  oomguard check && python train.py
  oomguard check --max-ram 70% --min-available 6GiB --json
  oomguard check --max-vram 80%          the fullest GPU of those that CUDA_VISIBLE_DEVICES leaves")]
pub struct Check {
    /// Refuse if more than this share of memory is used
    #[arg(long, value_name = "%", default_value = "70%", value_parser = share, env = "OOMGUARD_MAX_RAM")]
    pub max_ram: u8,
    /// Refuse if less than this is available
    #[arg(long, value_name = "SIZE|%", env = "OOMGUARD_MIN_AVAILABLE")]
    pub min_available: Option<Amount>,
    /// Refuse if more than this share of a GPU's memory is used, or if that cannot be known [default: not looked at]
    #[arg(long, value_name = "%", value_parser = share, env = "OOMGUARD_MAX_VRAM")]
    pub max_vram: Option<u8>,
    /// One JSON object on stdout
    #[arg(long)]
    pub json: bool,
}

fn share(text: &str) -> Result<u8, String> {
    match text.parse()? {
        Amount::Percent(percent) => Ok(percent),
        Amount::Bytes(_) => Err(format!("`{text}` is not a share of memory (try `70%`)")),
    }
}

/// `oomguard doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Where a job's cgroup would go.
    #[command(flatten)]
    pub place: Place,
    /// One JSON object on stdout
    #[arg(long)]
    pub json: bool,
}

/// `oomguard status`.
#[derive(Debug, Args)]
pub struct Status {
    /// Of which `up`.
    #[command(flatten)]
    pub config: ConfigFile,
    /// One JSON object on stdout
    #[arg(long)]
    pub json: bool,
    /// Show it again every two seconds, until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
}

/// `oomguard reload`.
#[derive(Debug, Args)]
pub struct Talk {
    /// Which `up`.
    #[command(flatten)]
    pub config: ConfigFile,
    /// One JSON object on stdout
    #[arg(long)]
    pub json: bool,
}

/// `oomguard restart`.
#[derive(Debug, Args)]
pub struct Restart {
    /// A worker's name, as `status` shows it [default: all]
    pub worker: Option<String>,
    /// Which `up`.
    #[command(flatten)]
    pub talk: Talk,
}

/// `oomguard stop`.
#[derive(Debug, Args)]
pub struct Stop {
    /// Without SIGTERM and grace
    #[arg(long)]
    pub now: bool,
    /// Which `up`.
    #[command(flatten)]
    pub talk: Talk,
}

/// `oomguard keep`.
#[derive(Debug, Args)]
pub struct Keep {
    /// Cgroups whose names begin so.
    pub prefix: String,
    /// The run's mark.
    pub run: String,
    /// Where they are.
    #[command(flatten)]
    pub place: Place,
}

/// `oomguard replay`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  oomguard replay run.jsonl                        what happened
  oomguard replay run.jsonl --diff                 would this version have decided otherwise?
  oomguard replay run.jsonl --memory-limit 6GiB --diff

The world of a recording does not answer back: a job that another policy would have ended goes on in
it, and goes on growing. What a what-if says is right up to its first different decision.

Exit codes: 0; 1 if this version decides otherwise, or if --diff found a difference; 125 if the
recording is damaged, after telling what could be read.")]
pub struct Replay {
    /// What `--record` wrote
    pub file: PathBuf,
    /// One JSON object a line, as the run itself wrote them
    #[arg(long)]
    pub json: bool,
    /// Stop this long after the recording began
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub until: Option<Duration>,
    /// Only what differs: `-` the run told then, `+` is told now
    #[arg(long)]
    pub diff: bool,
    /// What if so much available memory had been the reserve?
    #[arg(long, value_name = "SIZE|%", help_heading = "What if")]
    pub reserve: Option<Amount>,
    /// What if every job had had this limit?
    #[arg(short = 'm', long, value_name = "SIZE|%", value_parser = limit, help_heading = "What if")]
    pub memory_limit: Option<Amount>,
    /// What if every job had had this limit on each GPU?
    #[arg(long, value_name = "SIZE|%", value_parser = limit, help_heading = "What if")]
    pub vram_limit: Option<Amount>,
    /// What if there had been so much time from SIGTERM to SIGKILL?
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "What if")]
    pub grace: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_words_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_of_the_command_are_the_commands() {
        let cli =
            Cli::try_parse_from(["oomguard", "run", "-m", "1G", "python", "-c", "x", "--json"]).unwrap();
        let Verb::Run(run) = cli.verb else { panic!("not run") };
        assert_eq!(run.command, ["python", "-c", "x", "--json"]);
        assert!(!run.json);
    }
}
