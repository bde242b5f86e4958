//! `status`, `reload`, `restart`, `stop`: the asking side of a running `up`.

use std::io::IsTerminal;
use std::time::Duration;

use serde_json::Value;

use super::up::locate;
use crate::cli;
use crate::control::{Request, Status, Verb, render_table, request};
use crate::error::Error;
use crate::sink::human::one_line;
use crate::sink::jsonl::plain;
use crate::state::Lock;

/// An answer takes microseconds; a guard that is busy killing may need a moment.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two pictures of `--watch`.
const AGAIN: Duration = Duration::from_secs(2);

fn ask(file: &cli::ConfigFile, what: &Request) -> Result<Value, Error> {
    let (state, runtime) = locate(file)?;
    // Where the guard said that it listens, whatever our environment is.
    let socket = Lock::holder(&state).map_or_else(|| runtime.socket(), |guard| guard.socket);
    request(&socket, what, PATIENCE)
}

/// Shows how the workers are.
pub fn status(cli: &cli::Status) -> Result<u8, Error> {
    loop {
        let mut answer = ask(&cli.config, &Request::new(Verb::Status))?;
        let status = answer["status"].take();
        if cli.json {
            crate::say(&plain(&status));
        } else {
            let status: Status = serde_json::from_value(status)
                .map_err(|error| Error::new(format!("the guard's answer was not understood: {error}")))?;
            let terminal = std::io::stdout().is_terminal();
            let color = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            let clear = if cli.watch && terminal { "\x1b[2J\x1b[H" } else { "" };
            crate::say(&format!("{clear}{}", render_table(&status, color).trim_end()));
        }
        if !cli.watch {
            return Ok(0);
        }
        std::thread::sleep(AGAIN);
    }
}

fn done(cli: &cli::Talk, what: &Request, key: &str, nothing: &str) -> Result<u8, Error> {
    let answer = ask(&cli.config, what)?;
    if cli.json {
        crate::say(&plain(&answer));
        return Ok(0);
    }
    let lines: Vec<&str> =
        answer[key].as_array().into_iter().flatten().filter_map(|line| line.as_str()).collect();
    if lines.is_empty() {
        crate::say(&nothing);
    }
    for line in lines {
        crate::say(&format!("{key}: {}", one_line(line)));
    }
    Ok(0)
}

/// Has the configuration read again.
pub fn reload(cli: &cli::Talk) -> Result<u8, Error> {
    done(cli, &Request::new(Verb::Reload), "changes", "nothing has changed")
}

/// Restarts workers, one after another.
pub fn restart(cli: &cli::Restart) -> Result<u8, Error> {
    let what = Request { worker: cli.worker.clone(), ..Request::new(Verb::Restart) };
    done(&cli.talk, &what, "restarting", "there is nothing to restart")
}

/// Ends the guard and its workers.
pub fn stop(cli: &cli::Stop) -> Result<u8, Error> {
    done(
        &cli.talk,
        &Request { now: cli.now, ..Request::new(Verb::Stop) },
        "stopping",
        "there is nothing to stop",
    )
}
