//! The keeper: a process beside the guard that does nothing but outlive it.
//!
//! If the guard is killed with SIGKILL nobody is left to end the files that run. The keeper hears of it, because their
//! pipe closes, and ends what carries the run's names: its cgroups, and the processes that were started with its mark.
//! Touches nothing else, and nothing at all when the guard has said that all is done.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use oomguard_sys::cgroup::Parent;
use oomguard_sys::process::{Process, Signal};
use oomguard_sys::spawn::{Session, Spawn, Stream};
use oomguard_sys::{clock, tree};

use super::super::Place;
use crate::cli;
use crate::error::Error;

/// Every process of a run carries this variable; its value is the run's.
pub const RUN: &str = "OOMGUARD_TEST_RUN";
/// What was killed is gone by then, or hangs in the kernel.
const DEATH: Duration = Duration::from_secs(5);
/// What the guard says when there is nothing left to keep.
const DONE: &[u8] = b"done";

/// The guard's end.
pub struct Keeper {
    pipe: std::fs::File,
    process: Process,
}

impl Keeper {
    /// Starts one for the cgroups that begin with `prefix` and the processes marked with `run`.
    pub fn start(parent: Option<&Path>, prefix: &str, run: &str) -> Result<Keeper, Error> {
        let failed =
            |error: &dyn std::fmt::Display| Error::new(format!("could not start the keeper: {error}"));
        let own = std::env::current_exe().map_err(|error| failed(&error))?;
        let (theirs, ours) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|error| failed(&error))?;
        let mut argv: Vec<OsString> = vec![own.into(), "keep".into(), prefix.into(), run.into()];
        if let Some(parent) = parent {
            argv.extend(["--cgroup-parent".into(), parent.into()]);
        }
        let spawn = Spawn {
            argv: &argv,
            stdio: [Stream::File(theirs), Stream::Null, Stream::Null],
            session: Session::NewSession,
            ..Spawn::default()
        };
        let process = spawn.start().map_err(|error| failed(&error))?;
        Ok(Keeper { pipe: OwnedFd::into(ours), process })
    }

    /// All is done; it may go.
    pub fn dismiss(mut self) {
        let _ = self.pipe.write_all(DONE);
        drop(self.pipe);
        if !self.process.wait_exit(DEATH).unwrap_or(false) {
            let _ = self.process.signal(Signal::KILL);
        }
        let _ = oomguard_sys::wait::reap_one(self.process.pid());
    }
}

/// What the keeper does all its life: waits for the guard's last word, or for its silence.
pub fn keep(cli: &cli::Keep) -> Result<u8, Error> {
    let mut word = Vec::new();
    // An error is as good as silence.
    let _ = std::io::stdin().lock().take(64).read_to_end(&mut word);
    if word == DONE {
        return Ok(0);
    }
    let place = Place::probe(cli.place.cgroup_parent.as_deref());
    if let Some(parent) = place.parent {
        end_leaves(&parent, &cli.prefix);
        // Others may share it.
        let _ = parent.remove();
    }
    // Twice: what was just forked by what is being killed is found the second time.
    for _ in 0..2 {
        for process in tree::find_marked(Path::new("/proc"), RUN, &cli.run).unwrap_or_default() {
            if !tree::is_above_us(process.pid()) && process.pid() != std::process::id() {
                let _ = process.signal(Signal::KILL);
                let _ = process.wait_exit(DEATH);
            }
        }
    }
    Ok(0)
}

/// Ends who is in the cgroups that begin with `prefix`, and removes them.
pub fn end_leaves(parent: &Parent, prefix: &str) {
    let deadline = clock::now().after(DEATH);
    for name in parent.leaves().unwrap_or_default().into_iter().filter(|name| name.starts_with(prefix)) {
        // One whose last process has just died stays busy for a moment, on a busy machine for longer.
        while let Ok(leaf) = parent.leaf(&name) {
            if leaf.is_populated().unwrap_or(false) {
                let _ = leaf.kill();
            } else if leaf.remove().is_ok() {
                break;
            }
            if clock::now() >= deadline {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
