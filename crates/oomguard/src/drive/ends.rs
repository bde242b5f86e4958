//! How jobs end, and what the kernel says of their limits: what is waited for, and what it means to the engine.
//!
//! The order counts: what a limit did is told before the death that follows from it.

use oomguard_core::{Exit, Input, Instant, JobId, LimitEvent};
use oomguard_sys::process::Signal;
use oomguard_sys::wait::{Interest, reap};
use oomguard_sys::{Error as SysError, clock};

use super::{EMPTY, EXIT, Guard, Hand, LIMIT, Verb};
use crate::error::Error;
use crate::record::Notice;

impl Guard {
    pub(super) fn take_signals(&mut self, verb: &mut impl Verb) -> Result<(), Error> {
        while let Some(signal) =
            self.signals.receive().map_err(|e| Error::new(format!("could not read signals: {e}")))?
        {
            if signal.signal == Signal::CHILD.as_raw() {
                self.reap();
            } else {
                verb.signal(self, signal);
            }
        }
        Ok(())
    }

    /// Our own child has an exit code; the end of one that was taken over is told to somebody else.
    pub(super) fn exited(&mut self, job: JobId) {
        self.reap();
        if self.hands[job.index()].has_main() {
            self.main_ended(job, Exit::Unknown);
        }
    }

    fn reap(&mut self) {
        let mut ended = [(0u32, Exit::Unknown); 64];
        loop {
            let mut count = 0;
            let _ = reap(|pid, exit| {
                if count < ended.len() {
                    ended[count] = (pid, exit);
                    count += 1;
                }
            });
            for &(pid, exit) in &ended[..count] {
                let of = |hand: &Hand| hand.main.as_ref().is_some_and(|main| main.pid() == pid);
                if let Some(index) = self.hands.iter().position(of) {
                    self.main_ended(JobId(index as u16), exit);
                }
            }
            if count < ended.len() {
                return;
            }
        }
    }

    /// The main process of a job has ended. Whether its limit was the reason is asked first.
    pub(super) fn main_ended(&mut self, job: JobId, exit: Exit) {
        self.poller.remove(EXIT | u64::from(job.0));
        self.read_limit_events(job);
        let hand = &mut self.hands[job.index()];
        if hand.has_main() {
            hand.main_has_ended();
            hand.see_who_is_left();
            self.engine.handle(clock::now(), Input::Exited(job, exit));
        }
    }

    pub(super) fn read_limit_events(&mut self, job: JobId) {
        let now = clock::now();
        match self.hands[job.index()].limit_event() {
            Ok(Some(event)) => {
                // Who it was is asked when all is over: reading the log takes memory and time.
                self.hands[job.index()].kernel_killed |= event != LimitEvent::Soft;
                self.engine.handle(now, Input::Limit(job, event));
            }
            Ok(None) => {}
            Err(error) => self.let_go_by_the_kernel(now, job, &error),
        }
    }

    /// The memory controller was taken away from under the job. What cannot be read stays ready for ever, and a guard
    /// that runs before everybody else would turn round in it until the machine stands still.
    fn let_go_by_the_kernel(&mut self, now: Instant, job: JobId, error: &SysError) {
        if self.poller.remove(LIMIT | u64::from(job.0)) {
            self.hands[job.index()].count_processes();
            self.note(Notice::Unheld { job, error: error.to_string() });
            self.engine.handle(now, Input::Unheld(job));
        }
    }

    /// Tells the engine which trees have no process left.
    pub(super) fn find_empty(&mut self, now: Instant) {
        for index in 0..self.hands.len() {
            if self.hands[index].has_become_empty() {
                let job = JobId(index as u16);
                self.read_limit_events(job);
                if std::mem::take(&mut self.hands[index].kernel_killed) {
                    self.hands[index].name_the_killed(self.kmsg.as_mut());
                }
                self.poller.remove(EMPTY | u64::from(job.0));
                self.engine.handle(now, Input::Emptied(job));
            }
        }
    }

    /// Registers what is to be waited for about a job that runs.
    pub(super) fn watch(&mut self, job: JobId) {
        let hand = &self.hands[job.index()];
        let number = u64::from(job.0);
        // SIGCHLD is for the orphans that come back to us.
        if let Some(main) = hand.main.as_ref().filter(|_| !hand.end_is_told) {
            self.poller.add(main.fd(), Interest::Read, EXIT | number);
        }
        let Some(leaf) = &hand.leaf else { return };
        if let Some(fd) = leaf.populated_fd() {
            self.poller.add(fd, Interest::Priority, EMPTY | number);
        }
        for (fd, interest) in leaf.event_fds().into_iter().flatten() {
            self.poller.add(fd, interest, LIMIT | number);
        }
    }

    /// Whoever was to tell the end of this job's main process cannot any more: from now on it is our own to see.
    pub(super) fn watch_end(&mut self, job: JobId) {
        let hand = &mut self.hands[job.index()];
        hand.end_is_told = false;
        if let Some(main) = hand.main.as_ref().filter(|_| hand.has_main()) {
            self.poller.add(main.fd(), Interest::Read, EXIT | u64::from(job.0));
        }
    }

    pub(super) fn unwatch(&mut self, job: JobId) {
        for kind in [EXIT, EMPTY, LIMIT] {
            self.poller.remove(kind | u64::from(job.0));
        }
    }
}
