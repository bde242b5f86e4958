//! What one look costs, for `bench/look_cost.py`; prints one JSON object a line.
//!
//! `look jobs N...`: guards of so many jobs, in leaves of their own under `$OOMGUARD_CGROUP_PARENT` or where the guard
//! would put them. `look watch PROC ROUNDS`: a scan of all processes of the procfs at PROC. All in nanoseconds, the
//! median of the rounds. Signals nobody: its reserve is nothing, and it never performs what `watch` decides.
#![expect(clippy::unwrap_used, reason = "a measurement that cannot be set up has failed")]
#![expect(clippy::print_stdout, reason = "the measurement")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant as Stopwatch};

use oomguard::drive::{Begun, Guard, Hand, Place, Sensors, Verb};
use oomguard::record::{Entry, Roster};
use oomguard::sink::Sinks;
use oomguard_core::watch::{Policy, Standing, Watch};
use oomguard_core::{Bytes, Engine, HostPolicy, Input, Instant, JobId, JobPolicy, JobSample, Reading};
use oomguard_sys::cgroup::Limits;
use oomguard_sys::process::Process;
use oomguard_sys::processes::Processes;
use oomguard_sys::spawn::SpawnError;
use oomguard_sys::wait::Received;
use oomguard_sys::{clock, oneself, page};

/// At ease: the file cache of each job is read, too.
const IDLE: Duration = Duration::from_secs(2);
/// Where memory is about to run out.
const EDGE: Duration = Duration::from_millis(1);
const LIMIT: Bytes = Bytes::gib(1);
const ROUNDS: usize = 100;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match &words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["jobs", counts @ ..] => counts.iter().for_each(|count| jobs(count.parse().unwrap())),
        ["watch", proc_root, rounds] => watch(Path::new(proc_root), rounds.parse().unwrap()),
        _ => panic!("unknown: {words:?}"),
    }
}

/// Nobody is ended for memory: the machine is never short.
fn policy() -> HostPolicy {
    HostPolicy { reserve: Bytes::ZERO, warning: Bytes::ZERO, worst_rate: Bytes::gib(8), vram_reserve: None }
}

/// What a guard does for itself, as far as it is allowed, so that a busy machine is in neither's way.
fn as_a_guard() {
    let _ = oneself::raise_open_files();
    let _ = oneself::schedule_first();
}

/// Median of `rounds` calls of `act`, each given a moment `step` after the one before.
fn median(rounds: usize, now: &mut Instant, step: Duration, mut act: impl FnMut(Instant)) -> u128 {
    let mut taken: Vec<u128> = (0..rounds)
        .map(|_| {
            *now = now.after(step);
            let begun = Stopwatch::now();
            act(*now);
            begun.elapsed().as_nanos()
        })
        .collect();
    taken.sort_unstable();
    taken[rounds / 2]
}

/// All jobs are one process that sleeps, outside of their leaves: what is read of an empty leaf costs the same.
struct Sleeper(Child);

impl Verb for Sleeper {
    fn start(&mut self, _: JobId, _: u32, _: &mut Hand) -> Result<Begun, SpawnError> {
        Ok(Begun::Later)
    }
    fn signal(&mut self, _: &mut Guard, _: Received) {}
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn jobs(count: u16) {
    let explicit = std::env::var_os("OOMGUARD_CGROUP_PARENT");
    let place = Place::probe(explicit.as_deref().map(Path::new));
    let enforcement = place.enforcement;
    let mut verb = Sleeper(
        Command::new("sleep").arg("100000").stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap(),
    );
    let roster = Roster::new(Bytes::ZERO, Bytes::ZERO);
    let engine = Engine::new(policy(), 0);
    let mut guard = Guard::new(engine, Sensors::open().unwrap(), place, Sinks::new(), roster).unwrap();
    let pages = std::env::temp_dir().join(format!("look-{}", std::process::id()));
    std::fs::create_dir(&pages).unwrap();
    as_a_guard();
    let job_policy = JobPolicy { limit: Some(LIMIT), max_age: None, ..JobPolicy::worker(enforcement) };
    let mut now = clock::now();
    for job in (0..count).map(JobId) {
        let name = format!("look-{}-{}", std::process::id(), job.0);
        guard.roster.set(job, Entry { name: name.clone(), limit: Some(LIMIT), ..Entry::default() });
        let mut hand = Hand::new(name, enforcement, Some(Limits::new(LIMIT)));
        hand.page = Some(page::Writer::create(&pages.join(job.0.to_string())).unwrap());
        guard.hands.push(hand);
        guard.engine.handle(now, Input::Add(job, job_policy));
    }
    guard.turn(&mut verb);
    for job in (0..count).map(JobId) {
        guard.hands[job.index()].hold(Process::open(verb.0.id()).unwrap());
        guard.engine.handle(now, Input::Started(job));
    }
    guard.turn(&mut verb);
    let idle = median(ROUNDS, &mut now, IDLE, |now| guard.look(now));
    let edge = median(ROUNDS, &mut now, EDGE, |now| guard.look(now));
    let host = median(ROUNDS, &mut now, EDGE, |_| {
        std::hint::black_box(guard.sensors.host(guard.parent.as_ref()));
    });
    let samples: Vec<JobSample> = (0..count)
        .map(|job| JobSample {
            job: JobId(job),
            usage: Reading::Known(Bytes::mib(300 + u64::from(job) % 100)),
        })
        .collect();
    let sample = guard.host();
    let decide = median(ROUNDS, &mut now, EDGE, |now| {
        guard.engine.handle(now, Input::Sample(&sample, &samples));
    });
    for hand in guard.hands.drain(..) {
        hand.leaf.map_or(Ok(()), |leaf| leaf.remove()).unwrap();
    }
    guard.parent.take().map_or(Ok(()), |parent| parent.remove()).unwrap();
    std::fs::remove_dir_all(&pages).unwrap();
    let enforcement = enforcement.name();
    let figures = serde_json::json!({
        "jobs": count, "enforcement": enforcement, "idle_ns": idle, "edge_ns": edge, "host_ns": host, "decide_ns": decide,
    });
    println!("{figures}");
}

fn watch(proc_root: &Path, rounds: usize) {
    let mut processes = Processes::open(proc_root).unwrap();
    let mut sensors = Sensors::open().unwrap();
    // Never below the warning threshold either, however small the machine.
    let host = HostPolicy { warning: Bytes::mib(64), ..policy() };
    let mut watch = Watch::new(Policy { host, grace: Duration::from_secs(10), enforce: false });
    as_a_guard();
    let mut now = clock::now();
    let mut scan = |afresh| {
        processes.scan(afresh, false, |_| Standing::Ordinary).unwrap();
    };
    let first = median(1, &mut now, IDLE, |_| scan(true));
    let again = median(rounds, &mut now, IDLE, |_| scan(false));
    let in_shortage = median(rounds, &mut now, IDLE, |_| scan(true));
    let host = sensors.machine();
    let decide = median(rounds, &mut now, 5 * IDLE, |now| {
        watch.look(now, &host, None);
        watch.scan(now, Duration::ZERO, processes.rows());
    });
    // How long nobody asks for another after one of this cost.
    watch.scan(now, Duration::from_nanos(again as u64), processes.rows());
    let scanned = now;
    while !watch.look(now, &host, None) {
        now = watch.next_look();
    }
    let every = now.since(scanned).as_nanos();
    let figures = serde_json::json!({
        "processes": processes.rows().len(), "first_ns": first, "again_ns": again, "shortage_ns": in_shortage,
        "decide_ns": decide, "every_ns": every,
    });
    println!("{figures}");
}
