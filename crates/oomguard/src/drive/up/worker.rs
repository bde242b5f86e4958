//! One worker: what it is called, how it is started, what it says, where its output goes.

use std::ffi::OsString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use oomguard_core::{Enforcement, Holding, Input, Instant, JobId, Word};
use oomguard_sys::cgroup::Limits;
use oomguard_sys::gpu::Variables;
use oomguard_sys::process::Process;
use oomguard_sys::spawn::{Session, Spawn, SpawnError, Stream};
use oomguard_sys::wait::Interest;
use oomguard_sys::{clock, page};

use super::super::{Guard, Hand, JOB_OOM_SCORE, place};
use super::{NOTIFY, Up};
use crate::config::{OnLimit, Pool, WorkerName};
use crate::notify::{Heard, Said};
use crate::record::{Entry, Notice};
use crate::worker_log::WorkerLog;

/// The variable that tells the members of one start from all others.
pub(super) const JOB: &str = "OOMGUARD_JOB";

/// Words of workers between two looks; the rest wait, as their senders then do.
pub(super) const MOST_WORDS: u32 = 1000;
/// From a log that could not be moved aside to the next try.
const TURN_AGAIN: Duration = Duration::from_secs(60);

/// A slot of a pool.
pub(super) struct Worker {
    pub(super) job: JobId,
    pub(super) pool: Pool,
    pub(super) number: u16,
    pub(super) names: WorkerName,
    pub(super) log: WorkerLog,
    /// The helper that moves a full log aside.
    pub(super) turning: Option<JoinHandle<std::io::Result<()>>>,
    /// When that is tried again, after it could not be done.
    pub(super) turn_after: Instant,
    pub(super) pid: Option<u32>,
    pub(super) start_time: u64,
    pub(super) attempt: u32,
    pub(super) started: Instant,
    pub(super) started_ts: Timestamp,
    /// What tells its frameworks about its limit on GPUs.
    pub(super) vram_env: Vec<(OsString, OsString)>,
    /// What it held of a GPU when it was braked for that.
    pub(super) vram: Option<Holding>,
    /// It listens when asked.
    pub(super) checks: bool,
    /// The trial it is at.
    pub(super) trial: Option<u32>,
    /// The configuration knows it no more.
    pub(super) leaving: bool,
    /// Somebody has stopped it, by its name.
    pub(super) stopped: bool,
    /// ... and then again, before it was gone.
    pub(super) again: Option<(Pool, u16)>,
    /// Its own words.
    pub(super) status: Option<String>,
}

impl Up {
    /// Makes every worker of the configuration that there is not yet, adopting what lives.
    pub(super) fn engage(&mut self, guard: &mut Guard, enforcement: Enforcement) {
        let mut found = self.survivors(guard);
        self.know_gpus(guard, found.is_empty());
        let wanted: Vec<(Pool, u16)> =
            self.config.workers().map(|(pool, number)| (pool.clone(), number)).collect();
        for (pool, number) in wanted {
            let job = self.make_worker(guard, pool, number, enforcement);
            self.adopt_or_add(guard, job, enforcement, &mut found);
        }
        self.tell_frameworks(guard);
        self.end_orphans(guard, found);
        self.save(guard);
    }

    /// A slot for one worker, with its hand and its names, but without a job.
    pub(super) fn make_worker(
        &mut self,
        guard: &mut Guard,
        pool: Pool,
        number: u16,
        enforcement: Enforcement,
    ) -> JobId {
        let names = self.config.worker_name(&pool, number);
        let job = JobId(guard.hands.len() as u16);
        let log =
            WorkerLog::new(&self.config.log.dir, &names.name, self.config.log.max_size, self.config.log.keep);
        let limits = limits(&pool, self.config.memory.swap_limit);
        guard.roster.set(
            job,
            Entry {
                name: names.name.clone(),
                label: names.label.clone(),
                limit: pool.memory_limit,
                restarts: pool.restart != oomguard_core::Restart::Never,
                log: Some(log.path().to_owned()),
                ..Entry::default()
            },
        );
        guard.hands.push(Hand::new(self.leaf_name(&names.name), enforcement, limits));
        self.workers.push(Worker {
            job,
            pool,
            number,
            names,
            log,
            turning: None,
            turn_after: Instant(0),
            pid: None,
            start_time: 0,
            attempt: 0,
            started: Instant(0),
            started_ts: Timestamp::UNIX_EPOCH,
            vram_env: Vec::new(),
            vram: None,
            checks: false,
            trial: None,
            leaving: false,
            stopped: false,
            again: None,
            status: None,
        });
        job
    }

    /// Unique among the guards that share a parent.
    pub(super) fn leaf_name(&self, worker: &str) -> String {
        format!("{}-{worker}", self.runtime.key())
    }

    /// `RUN/worker-1#3`: how a start is named in what outlives it.
    pub(super) fn token(&self, worker: &Worker) -> String {
        format!("{}/{}#{}", self.run_id, worker.names.name, worker.attempt)
    }

    pub(super) fn start_worker(
        &mut self,
        job: JobId,
        attempt: u32,
        hand: &mut Hand,
    ) -> Result<Process, SpawnError> {
        let failed = |doing: &'static str| move |error| SpawnError::Other { doing, error };
        let Some(index) = self.workers.iter().position(|worker| worker.job == job) else {
            return Err(failed("start a worker that is not configured")(std::io::ErrorKind::NotFound.into()));
        };
        // A number names one start only, also where a guard before this one has counted.
        let attempt = attempt.max(self.workers[index].attempt.saturating_add(1));
        self.workers[index].attempt = attempt;
        let token = self.token(&self.workers[index]);
        hand.mark = Some((JOB.to_owned(), token.clone()));
        let worker = &mut self.workers[index];
        let page = self.runtime.page(&worker.names.name);
        let _ = std::fs::remove_file(&page);
        let shared = page::Writer::create(&page);
        let told = shared.as_ref().map(drop).map_err(|error| std::io::Error::other(error.to_string()));
        self.unsaid.push((page.clone(), told));
        hand.page = shared.ok();
        let _ = worker.log.banner(&format!(
            "{} attempt {attempt} started {}",
            worker.names.name,
            Timestamp::now()
        ));
        let output = worker.log.open().and_then(|log| Ok([log.try_clone()?, log]));
        let told =
            output.as_ref().map(drop).map_err(|error| std::io::Error::new(error.kind(), error.to_string()));
        self.unsaid.push((worker.log.path().to_owned(), told));
        // A worker is worth more than what it says.
        let [stdout, stderr] = output.map_or_else(
            |_| [Stream::Null, Stream::Null],
            |logs| logs.map(|log| Stream::File(OwnedFd::from(log))),
        );
        let argv: Vec<OsString> = worker.pool.command.iter().map(OsString::from).collect();
        let mut env: Vec<(OsString, Option<OsString>)> = Vec::new();
        let mut set = |key: &str, value: OsString| env.push((key.into(), Some(value)));
        if std::env::var_os("PYTHONUNBUFFERED").is_none() {
            // Into a file Python would hold its lines back, and a killed worker would take them along.
            set("PYTHONUNBUFFERED", "1".into());
        }
        for (key, value) in &worker.pool.env {
            set(key, value.into());
        }
        let says = |name: &str| worker.pool.env.get(name).cloned().or_else(|| std::env::var(name).ok());
        for (key, value) in worker.pool.malloc.env(says) {
            set(key, value.into());
        }
        hand.sees = Variables::from_env(says);
        for (key, value) in &worker.vram_env {
            env.push((key.clone(), Some(value.clone())));
        }
        let mut set = |key: &str, value: OsString| env.push((key.into(), Some(value)));
        set("OOMGUARD_PAGE", page.into());
        set("OOMGUARD_STATE", self.state.path().into());
        set(JOB, token.into());
        set("OOMGUARD_WORKER", worker.number.to_string().into());
        set("NOTIFY_SOCKET", self.runtime.notify().into());
        let spawn = Spawn {
            argv: &argv,
            env: &env,
            cwd: Some(worker.pool.cwd.clone()),
            leaf: hand.leaf.as_ref(),
            rlimit_data: place::rlimit_data(hand.enforcement, worker.pool.memory_limit),
            oom_score_adj: Some(JOB_OOM_SCORE),
            stdio: [Stream::Null, stdout, stderr],
            session: Session::NewSession,
        };
        let main = spawn.start()?;
        worker.pid = Some(main.pid());
        worker.start_time = main.start_time();
        worker.started = clock::now();
        worker.started_ts = Timestamp::now();
        (worker.checks, worker.trial, worker.status, worker.vram) = (false, None, None, None);
        Ok(main)
    }

    /// Listens until so much has been said that it must wait for the next look: a worker that never stops talking
    /// would have the guard, which runs before everybody else, do nothing but listen.
    pub(super) fn hear_again(&mut self, guard: &mut Guard) {
        if std::mem::take(&mut self.words) >= MOST_WORDS {
            guard.poller.add(self.notify.as_fd(), Interest::Read, NOTIFY);
        }
    }

    /// Takes in what workers say about themselves.
    pub(super) fn listen(&mut self, guard: &mut Guard) {
        let heard = self.notify.receive();
        // What means nothing costs as much.
        self.words = self.words.saturating_add(heard.len().max(1) as u32);
        if self.words >= MOST_WORDS {
            guard.poller.remove(NOTIFY);
        }
        for Heard { pid, said } in heard {
            let Some(job) = guard.job_of(pid) else { continue };
            let Some(worker) = self.worker(job) else { continue };
            match said {
                Said::Status(text) => {
                    worker.status = Some(text.clone());
                    guard.note(Notice::WorkerStatus { job, text });
                }
                Said::Vram(told) => guard.hear_torch(job, pid, told),
                Said::Word(word) => {
                    if let Word::Trial(trial) = word {
                        worker.trial = trial;
                    }
                    let learnt = word == Word::Checks && !std::mem::replace(&mut worker.checks, true);
                    guard.engine.handle(clock::now(), Input::Heard(job, word));
                    if learnt {
                        self.save(guard);
                    }
                }
            }
        }
    }

    /// Full logs are moved aside by a helper, which holds the worker for the moment that the last lines take.
    pub(super) fn rotate_logs(&mut self, guard: &mut Guard) {
        let now = clock::now();
        for worker in &mut self.workers {
            if worker.turning.as_ref().is_some_and(|thread| !thread.is_finished()) {
                continue;
            }
            if let Some(thread) = worker.turning.take() {
                let path = worker.log.path().to_owned();
                match thread.join() {
                    Ok(Ok(())) => {
                        self.unsaid.push((path.clone(), Ok(())));
                        guard.note(Notice::LogRotated { path });
                    }
                    // The log stays whole. Each try costs a copy of it.
                    Ok(failed) => {
                        worker.turn_after = now.after(TURN_AGAIN);
                        self.unsaid.push((path, failed));
                    }
                    Err(_) => worker.turn_after = now.after(TURN_AGAIN),
                }
            }
            if now >= worker.turn_after && worker.log.due() {
                let log = worker.log.clone();
                let still = guard.hands[worker.job.index()].still(guard.parent.as_ref());
                worker.turning =
                    Some(std::thread::spawn(move || log.rotate(|| still.hold(), || still.release())));
            }
        }
    }
}

/// What the kernel is to hold a worker of this pool to.
pub(super) fn limits(pool: &Pool, swap: oomguard_core::Bytes) -> Option<Limits> {
    let whole_job = pool.on_limit == OnLimit::Job;
    pool.memory_limit.map(|memory| Limits { swap: Some(swap), whole_job, ..Limits::new(memory) })
}
