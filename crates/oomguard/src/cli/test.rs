//! `test`: which files, how many at once, with which limits.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Place, Require, share};
use crate::amount::{Amount, duration, limit};
use crate::config::test::{GpuFiles, Isolation, Jobs, RetryOn};

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
