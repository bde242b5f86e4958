//! When everything ends: the trials that dead workers left running are told to their studies, by the library
//! that knows them, in the interpreter that the workers used.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::time::Duration;

use oomguard_sys::process::Process;
use serde_json::Value;

use super::super::Guard;
use super::Up;
use crate::record::Notice;

/// A storage that does not answer must not keep us.
const PATIENCE: Duration = Duration::from_secs(60);

impl Up {
    pub(super) fn reap_trials(&mut self, guard: &mut Guard) {
        let studies = self.state.studies();
        let interpreters: BTreeSet<_> = studies.iter().map(|study| (&study.python, &study.cwd)).collect();
        for (python, cwd) in interpreters {
            let mut command = Command::new(python);
            command.args(["-m", "oomguard.optuna", "reap", "--json", "--state"]).arg(self.state.path());
            command.current_dir(cwd).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            match ask(command) {
                Ok(told) => reaped(&told).into_iter().for_each(|notice| guard.note(notice)),
                Err(error) => {
                    let python = python.display();
                    let text = format!("trials of dead workers may be left running: `{python}`: {error}");
                    guard.note(Notice::Note { text });
                }
            }
        }
    }
}

/// One notice a study, out of one JSON object a trial.
fn reaped(told: &str) -> Vec<Notice> {
    let mut studies: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in told.lines() {
        let Ok(trial) = serde_json::from_str::<Value>(line) else { continue };
        if let (Some(study), Some(number)) = (trial["study"].as_str(), trial["number"].as_u64()) {
            studies.entry(study.to_owned()).or_default().push(number);
        }
    }
    let notice = |(study, trials)| Notice::TrialsReaped { job: None, study, trials };
    studies.into_iter().map(notice).collect()
}

fn ask(mut command: Command) -> Result<String, String> {
    let child = command.spawn().map_err(|error| error.to_string())?;
    let process = Process::open(child.id()).map_err(|error| error.to_string())?;
    if !process.wait_exit(PATIENCE).unwrap_or(false) {
        let _ = process.signal(rustix::process::Signal::KILL);
        return Err(format!("no answer within {PATIENCE:?}"));
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}
