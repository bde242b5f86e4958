//! `--list` and `--dry-run`: what would be run, without running it.

use serde_json::json;

use super::plan::Plan;
use crate::cli;
use crate::suite::Suite;

/// The files, one a line.
pub fn list(cli: &cli::Test, suite: &Suite) -> u8 {
    if cli.json {
        let files: Vec<_> = suite.files.iter().map(|file| file.path.to_string_lossy()).collect();
        crate::say(&json!({
            "schema": 1, "rootdir": suite.rootdir, "inifile": suite.inifile, "files": files, "notes": suite.notes,
        }));
    } else {
        for file in &suite.files {
            crate::say(&file.path.display());
        }
        for note in &suite.notes {
            crate::complain(&format!("oomguard: {note}"));
        }
    }
    0
}

/// The files with what each of them would be given.
pub fn dry_run(cli: &cli::Test, plan: &Plan) -> u8 {
    if cli.json {
        let files: Vec<_> = plan
            .cases
            .iter()
            .map(|case| {
                json!({
                    "path": case.name, "args": case.args, "memory_limit": case.limit, "needs": case.need.memory,
                    "gpu": case.need.gpu, "serial": case.need.alone,
                    "timeout_s": case.timeout.map(|timeout| timeout.as_secs_f64()),
                })
            })
            .collect();
        crate::say(&json!({
            "schema": 1, "jobs": plan.jobs, "python": plan.python, "preload": plan.preload, "env": plan.env,
            "pytest_args": plan.pytest, "command": plan.command, "files": files,
        }));
        return 0;
    }
    for case in &plan.cases {
        let limit = case.limit.map_or_else(|| "no limit".to_owned(), |limit| limit.to_string());
        let gpu = if case.need.gpu { ", GPU" } else { "" };
        let alone = if case.need.alone { ", alone" } else { "" };
        let needs = case.need.memory;
        crate::say(&format!("{}  (limit {limit}, planned with {needs}{gpu}{alone})", case.name));
    }
    let preload = if plan.preload.is_empty() { "nothing".to_owned() } else { plan.preload.join(", ") };
    crate::complain(&format!(
        "oomguard: {} files, {} at a time, {} would import beforehand: {preload}",
        plan.cases.len(),
        plan.jobs,
        plan.python.display()
    ));
    0
}
