//! Renderings of a run of tests: the terminal, JUnit's XML, the memory profile, one JSON document.
//!
//! All of them are made from the same records; none knows of the others.

mod github;
mod junit;
mod profile;
mod report;
mod terminal;

pub use junit::Junit;
pub use profile::Profile;
pub use report::SuiteReport;
pub use terminal::{SuiteTerminal, Wants};

/// `12.3%`, or `unknown`: never a number that nobody has measured.
fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "unknown".to_owned(), |value| format!("{value:.1}%"))
}

#[cfg(test)]
mod tests {
    use crate::outcome::{FileOutcome, TestOutcome, Verdict};

    pub(super) fn outcome(path: &str, verdict: Verdict, tests: Vec<TestOutcome>) -> FileOutcome {
        FileOutcome {
            path: path.to_owned(),
            verdict,
            message: (!verdict.is_good()).then(|| verdict.word().to_owned()),
            running: None,
            attempt: 1,
            again: false,
            seconds: 1.5,
            peak_ram: Some(oomguard_core::Bytes::mib(100)),
            peak_vram: None,
            limit: Some(oomguard_core::Bytes::gib(8)),
            isolation: "spawn".to_owned(),
            exit_code: Some(0),
            signal: None,
            left_behind: Vec::new(),
            log: None,
            tests,
        }
    }
}
