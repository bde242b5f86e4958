//! What can be typed, a file a verb. Only the words and their help; what they mean is worked out in `drive`.

mod check;
mod doctor;
mod init;
mod install;
mod keep;
mod replay;
mod run;
mod talk;
mod test;
mod up;
mod watch;

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};
use oomguard_core::Enforcement;

use crate::amount::Amount;

pub use check::Check;
pub use doctor::Doctor;
pub use init::Init;
pub use install::Install;
pub use keep::Keep;
pub use replay::Replay;
pub use run::{LimitScope, Run};
pub use talk::{Restart, Status, Stop, Talk};
pub use test::Test;
pub use up::Up;
pub use watch::Watch;

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

/// Where the configuration of an `up` is.
#[derive(Debug, Args)]
pub struct ConfigFile {
    /// The configuration [default: oomguard.toml or pyproject.toml here or above]
    #[arg(short, long, value_name = "FILE", env = "OOMGUARD_CONFIG")]
    pub config: Option<PathBuf>,
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

fn share(text: &str) -> Result<u8, String> {
    match text.parse()? {
        Amount::Percent(percent) => Ok(percent),
        Amount::Bytes(_) => Err(format!("`{text}` is not a share of memory (try `70%`)")),
    }
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
