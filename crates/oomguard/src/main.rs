//! The `oomguard` command.

use std::process::ExitCode;

use clap::Parser;
use oomguard::cli::{Cli, Verb};
use oomguard::{drive, error};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { error::FAILED } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let done = match cli.verb {
        Verb::Run(cli) => drive::run::run(cli),
        Verb::Test(cli) => drive::test::test(&cli),
        Verb::Up(cli) => drive::up::up(cli),
        Verb::Watch(cli) => drive::watch::watch(cli),
        Verb::Install(cli) => drive::install::install(&cli),
        Verb::Init(cli) => drive::init::init(&cli),
        Verb::Check(cli) => drive::check::check(&cli),
        Verb::Doctor(cli) => drive::doctor::doctor(&cli),
        Verb::Status(cli) => drive::talk::status(&cli),
        Verb::Reload(cli) => drive::talk::reload(&cli),
        Verb::Restart(cli) => drive::talk::restart(&cli),
        Verb::Keep(cli) => drive::test::keep(&cli),
        Verb::Stop(cli) => drive::talk::stop(&cli),
        Verb::Replay(cli) => drive::replay::replay(&cli),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            oomguard::complain(&error);
            error.exit_code()
        }
    }
}
