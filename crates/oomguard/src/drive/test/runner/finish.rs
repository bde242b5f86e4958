//! A file has ended: what that means, and whether it is run once more.

use std::time::Duration;

use oomguard_core::{Bytes, Cause, Exit, Instant, JobId};

use super::super::super::Guard;
use super::super::gpu::Gpus;
use super::super::plan::Case;
use super::super::queue::Need;
use super::super::slot::Slot;
use super::super::verdict::End;
use super::{NO_TEST_FAILED, Runner, SLOT};
use crate::config::test::RetryOn;
use crate::outcome::{COMMAND, FileOutcome, TestVerdict, Verdict};
use crate::record::Notice;

impl Runner {
    pub(super) fn ended(
        &mut self,
        guard: &mut Guard,
        job: JobId,
        cause: Cause,
        exit: Exit,
        age: Duration,
        peak: Bytes,
    ) {
        let Some(mut slot) = self.slots[job.index()].take() else { return };
        guard.poller.remove(SLOT + u64::from(job.0));
        slot.listen();
        self.queue.ended(slot.case);
        let hand = &guard.hands[job.index()];
        let left = hand.left.iter().map(|(pid, name)| format!("process {name} ({pid})"));
        slot.left.splice(0..0, left);
        let largest = hand.largest.as_ref().map(|(_, name, usage)| (name.clone(), *usage));
        let peak = peak.max(hand.charged_peak.minus(hand.charged_cache));
        let case = slot.case;
        let vram = self.gpus.as_mut().and_then(Gpus::percent);
        if let (Some(gpus), Some(held)) = (&mut self.gpus, &slot.gpu) {
            gpus.ended(&self.plan.cases[case].name, held);
        }
        let outcome = self.outcome(slot, cause, exit, age, peak, largest);
        let again = outcome.again;
        let (memory, verdict) = (outcome.peak_ram.unwrap_or_default(), outcome.verdict);
        if !again {
            self.failed_tests += failures(&outcome);
        }
        self.outcomes.insert(case, outcome.clone());
        guard.note(Notice::FileEnded { job: Some(job), vram, outcome: Box::new(outcome) });
        if again {
            // pytest refuses a test that is not there any more.
            let it = &mut self.plan.cases[case];
            if std::mem::take(&mut it.args_are_old) && verdict == Verdict::Usage {
                (it.args, it.was_renewed) = (it.whole(), true);
            }
            self.queue.again(case, Need { memory, ..self.plan.cases[case].need });
        }
        if let Some(most) = self.plan.maxfail.filter(|most| self.failed_tests >= *most) {
            self.stop(guard, format!("stopped after {most} failure(s)"), None);
        }
        // The next file comes when this end has been told to everybody: until then the slot has this one's name.
        self.again_at = Instant(0);
    }

    pub(super) fn outcome(
        &self,
        slot: Slot,
        cause: Cause,
        exit: Exit,
        age: Duration,
        peak: Bytes,
        largest: Option<(String, Bytes)>,
    ) -> FileOutcome {
        let details = slot.details();
        let case = &self.plan.cases[slot.case];
        let running = slot.beats.running().map(str::to_owned);
        let end = End {
            cause,
            exit,
            announced: slot.beats.end(),
            pytest: self.plan.command.is_none(),
            running: running.as_deref(),
            limit: slot.limit,
            peak,
            timeout: case.timeout,
            available: slot.available,
            largest: largest.as_ref().map(|(name, usage)| (name.as_str(), *usage)),
        };
        let (verdict, message) = end.verdict();
        let died = end.was_left()
            || !matches!(
                verdict,
                Verdict::Passed | Verdict::Failed | Verdict::NoTests | Verdict::Usage | Verdict::Internal
            );
        let message = slot.error.clone().or(message);
        let seconds = age.as_secs_f64();
        // One that we have interrupted has nothing to answer for.
        let at_work = if verdict == Verdict::Interrupted { TestVerdict::NotRun } else { TestVerdict::Killed };
        let death = died.then(|| (at_work, message.as_deref().unwrap_or_default(), seconds));
        let tests = slot.beats.tests(&details, death);
        let silent = verdict == Verdict::Failed && !tests.iter().any(|test| test.outcome.is_failure());
        let message = message.or_else(|| silent.then(|| NO_TEST_FAILED.to_owned()));
        FileOutcome {
            path: case.name.clone(),
            verdict,
            again: self.stopped.is_none() && self.is_worth_another(slot.case, slot.attempt, verdict, cause),
            message,
            running: running.filter(|_| died),
            attempt: slot.attempt,
            seconds,
            peak_ram: Some(peak).filter(|peak| *peak > Bytes::ZERO),
            peak_vram: slot.gpu.as_ref().and_then(|held| held.peak),
            limit: slot.limit,
            isolation: if self.plan.command.is_some() { COMMAND } else { slot.isolation }.to_owned(),
            exit_code: if let Exit::Code(code) = exit { Some(code) } else { None },
            signal: if let Exit::Signal(signal) = exit { Some(signal) } else { None },
            left_behind: slot.left,
            log: Some(slot.log),
            tests,
        }
    }

    /// Killed by memory: once, alone, with all that there is; at its own limit only if that may be raised, or it would
    /// die of it again. What failed last and is not there any more: once, the whole file. Everything else as often as was
    /// asked for.
    pub(super) fn is_worth_another(&self, case: usize, attempt: u32, verdict: Verdict, cause: Cause) -> bool {
        let asked = |what| self.plan.retry_on.contains(&what) && attempt <= self.plan.retries;
        match verdict {
            Verdict::MemoryReserve => attempt == 1 || asked(RetryOn::Memory),
            Verdict::MemoryLimit => {
                let may_be_raised = !self.plan.cases[case].limit_is_meant || cause != Cause::Limit;
                (attempt == 1 && may_be_raised) || asked(RetryOn::Memory)
            }
            Verdict::Crash => asked(RetryOn::Crash),
            Verdict::Timeout => asked(RetryOn::Timeout),
            Verdict::Failed => asked(RetryOn::Failure),
            Verdict::Usage => self.plan.cases[case].args_are_old,
            _ => false,
        }
    }
}

pub(super) fn failures(outcome: &FileOutcome) -> u32 {
    let counts = outcome.counts();
    let tests = (counts.failed + counts.errors) as u32;
    tests.max(u32::from(!outcome.verdict.is_good()))
}

pub(super) fn not_run(case: &Case, why: &str) -> FileOutcome {
    FileOutcome {
        path: case.name.clone(),
        verdict: Verdict::NotRun,
        message: Some(why.to_owned()),
        running: None,
        attempt: 0,
        again: false,
        seconds: 0.0,
        peak_ram: None,
        peak_vram: None,
        limit: case.limit,
        isolation: String::new(),
        exit_code: None,
        signal: None,
        left_behind: Vec::new(),
        log: None,
        tests: Vec::new(),
    }
}
