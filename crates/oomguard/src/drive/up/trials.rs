//! When everything ends: the trials that dead workers left running are told to their studies, by the library
//! that knows them, in the interpreter that the workers used.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use oomguard_core::Exit;
use oomguard_sys::process::Signal;
use oomguard_sys::spawn::{Spawn, Stream};
use oomguard_sys::wait::reap_one;
use serde_json::Value;

use super::super::Guard;
use super::Up;
use crate::error::in_words;
use crate::record::Notice;

/// A storage that does not answer must not keep us.
const PATIENCE: Duration = Duration::from_secs(60);

impl Up {
    pub(super) fn reap_trials(&mut self, guard: &mut Guard) {
        let (studies, unreadable) = self.state.studies();
        let interpreters: BTreeSet<_> = studies.iter().map(|study| (&study.python, &study.cwd)).collect();
        let mut all_told = true;
        for (python, cwd) in interpreters {
            match self.ask(python, cwd) {
                Ok(told) => reaped(&told).into_iter().for_each(|notice| guard.note(notice)),
                Err(error) => {
                    all_told = false;
                    let python = python.display();
                    let text = format!("trials of dead workers may be left running: `{python}`: {error}");
                    guard.note(Notice::Note { text });
                }
            }
        }
        if all_told {
            // Whoever works on a study next registers it again.
            let file = self.state.file("studies.jsonl");
            if unreadable == 0 {
                let _ = std::fs::remove_file(file);
            } else {
                let aside = self.state.file("studies.jsonl.damaged");
                let text = format!(
                    "⚠️  {unreadable} lines of `studies.jsonl` could not be read: trials of dead workers may be left running there (kept as {})",
                    aside.display()
                );
                let _ = std::fs::rename(file, aside);
                guard.note(Notice::Note { text });
            }
        }
    }

    /// Has the trials of all registered studies reaped; what was said about it. Its output goes to a file: a pipe
    /// that nobody reads would stop it.
    fn ask(&self, python: &Path, cwd: &Path) -> Result<String, String> {
        let said = self.state.file("reap.out");
        let output = File::create(&said).map_err(|error| in_words(&error))?;
        let errors = output.try_clone().map_err(|error| in_words(&error))?;
        let argv = [
            python.into(),
            "-m".into(),
            "oomguard.optuna".into(),
            "reap".into(),
            "--json".into(),
            "--state".into(),
            self.state.path().into(),
        ];
        let spawn = Spawn {
            argv: &argv,
            cwd: Some(cwd.to_owned()),
            stdio: [Stream::Null, Stream::File(output.into()), Stream::File(errors.into())],
            ..Spawn::default()
        };
        let process = spawn.start().map_err(|error| error.to_string())?;
        if !process.wait_exit(PATIENCE).unwrap_or(false) {
            let _ = process.signal(Signal::KILL);
            return Err(format!("no answer within {PATIENCE:?}"));
        }
        let exit = reap_one(process.pid()).ok().flatten();
        let told = std::fs::read_to_string(&said).unwrap_or_default();
        let _ = std::fs::remove_file(&said);
        match exit {
            Some(Exit::Code(0)) => Ok(told),
            _ => Err(told.lines().last().unwrap_or("it failed without a word").to_owned()),
        }
    }
}

/// One notice a study, out of one JSON object a trial.
pub(crate) fn reaped(told: &str) -> Vec<Notice> {
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
