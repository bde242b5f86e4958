//! Once armed, look -> decide -> kill allocates nothing: counted in the real guard, with a real process in a real
//! cgroup.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![expect(clippy::print_stdout, reason = "a skipped test says why")]
#![expect(unsafe_code, reason = "an allocator that counts")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::OsString;
use std::time::{Duration, Instant};

use oomguard::drive::{Begun, Guard, Hand, Place, Sensors, Verb};
use oomguard::record::{Record, Roster, Told};
use oomguard::sink::Sinks;
use oomguard_core::{
    Bytes, Cause, Enforcement, Engine, Event, HostPolicy, Input, JobId, JobPolicy, Restart, Urgency,
};
use oomguard_sys::cgroup::Limits;
use oomguard_sys::clock;
use oomguard_sys::spawn::{Session, Spawn, SpawnError, Stream};
use oomguard_sys::wait::Received;
use support::{PATIENCE, World, has_cgroup, lives, text, wait_until};

thread_local! {
    static COUNTED: Cell<Option<u64>> = const { Cell::new(None) };
}

struct Counting;

fn count() {
    // Only where this thread counts; a thread that is ending does not.
    let _ = COUNTED.try_with(|counted| counted.set(counted.get().map(|count| count + 1)));
}

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as asked of us.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as asked of us.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as asked of us.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn counted<T>(act: impl FnOnce() -> T) -> (T, u64) {
    COUNTED.set(Some(0));
    let result = act();
    (result, COUNTED.take().unwrap())
}

/// One job that takes memory and does not listen.
struct Deaf {
    argv: Vec<OsString>,
    events: Vec<Event>,
}

impl Verb for Deaf {
    fn start(&mut self, _: JobId, _: u32, hand: &mut Hand) -> Result<Begun, SpawnError> {
        let stdio = [Stream::Null, Stream::Null, Stream::Null];
        Spawn {
            argv: &self.argv,
            leaf: hand.leaf.as_ref(),
            stdio,
            session: Session::NewSession,
            ..Spawn::default()
        }
        .start()
        .map(Begun::Runs)
    }
    fn signal(&mut self, guard: &mut Guard, _: Received) {
        guard.shut_down(Urgency::Now, "the test was interrupted".to_owned());
    }
    fn told(&mut self, _: &mut Guard, record: &Record) {
        if let Told::Engine(event) = record.told {
            self.events.push(event);
        }
    }
}

const JOB: JobId = JobId(0);

/// A guard with one running job of so many MiB.
fn armed(world: &World, place: Place, policy: JobPolicy, mib: u32) -> (Guard, Deaf, u32) {
    let mut sensors = Sensors::open().unwrap();
    let total = sensors.machine().total;
    let host = HostPolicy { reserve: Bytes::mib(64), ..HostPolicy::for_machine(total, 2) };
    let enforcement = place.enforcement;
    let roster = Roster::new(host.reserve, host.warning);
    let mut guard = Guard::new(Engine::new(host, 1), sensors, place, Sinks::new(), roster).unwrap();
    // What comes in is written down as well, and takes no memory either.
    guard.record(&world.path("tape"), "run", 1).unwrap();
    let limits = policy.limit.map(Limits::new);
    guard.hands.push(Hand::new("armed".to_owned(), enforcement, limits));
    let script = format!("trap '' TERM; {} hold {mib} & echo $! > pid; wait; wait", world.hog());
    let script = format!("cd {}; {script}", world.project().display());
    let argv = ["sh", "-c", &script].map(OsString::from).to_vec();
    let mut verb = Deaf { argv, events: Vec::new() };
    guard.engine.handle(clock::now(), Input::Add(JOB, policy));
    assert!(!guard.turn(&mut verb));
    let pid = support::pid_in(&world.path("pid"));
    let statm = std::path::PathBuf::from(format!("/proc/{pid}/statm"));
    let resident =
        || text(&statm).split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096;
    wait_until(PATIENCE, "it has its memory", || resident() >= u64::from(mib) << 20);
    (guard, verb, pid)
}

/// Look and act, again and again as the engine wants it, until the kill was performed; allocations meanwhile.
fn until_killed(guard: &mut Guard, pid: u32) -> u64 {
    let end = Instant::now() + PATIENCE;
    let mut allocated = 0;
    while lives(pid) && Instant::now() < end {
        let now = clock::now();
        let (performed, count) = counted(|| {
            if guard.engine.next_look() <= now {
                guard.look(now);
            } else {
                guard.engine.handle(now, Input::Tick);
            }
            guard.perform_all()
        });
        let _ = performed;
        allocated += count;
        // Dying takes a moment; so does the next look.
        wait_until(Duration::from_secs(5), "the next look is due or it is gone", || {
            !lives(pid) || guard.engine.deadline() <= clock::now()
        });
    }
    assert!(!lives(pid), "it was not killed");
    allocated
}

/// The rest, as the guard does it.
fn finish(mut guard: Guard, verb: &mut Deaf, world: &World) {
    guard.engine.set_host_policy(HostPolicy { reserve: Bytes::mib(64), ..*guard.engine.host_policy() });
    guard.guard(verb).unwrap();
    if let Some(parent) = guard.parent.take() {
        parent.remove().unwrap();
    }
    assert_eq!(world.cgroups(), Vec::<std::path::PathBuf>::new());
}

fn place(world: &World) -> Place {
    Place::find(Some(std::path::Path::new(&world.cgroup_parent())))
}

#[test]
fn a_shortage_of_the_host_from_the_look_to_the_kill() {
    if !has_cgroup() {
        return;
    }
    let world = World::new();
    let place = place(&world);
    let policy = JobPolicy {
        grace: Duration::from_millis(50),
        restart: Restart::Never,
        ..JobPolicy::once(place.enforcement)
    };
    let (mut guard, mut verb, pid) = armed(&world, place, policy, 400);
    // A reserve that is touched, by so much that the job is worth ending.
    let reserve = guard.sensors.machine().available.plus(Bytes::mib(200));
    guard.engine.set_host_policy(HostPolicy { reserve, warning: reserve, ..*guard.engine.host_policy() });
    let allocated = until_killed(&mut guard, pid);
    finish(guard, &mut verb, &world);
    let cause = verb.events.iter().find_map(|event| match event {
        Event::Ended { cause, .. } => Some(*cause),
        _ => None,
    });
    assert_eq!(cause, Some(Cause::Reserve), "{:?}", verb.events);
    assert!(verb.events.iter().any(|event| matches!(event, Event::Kill { .. })), "{:?}", verb.events);
    assert_eq!(allocated, 0, "allocations between arming and the kill");
}

#[test]
fn a_tree_over_its_limit_without_a_cgroup_from_the_look_to_the_kill() {
    let world = World::new();
    let options = place(&world).options;
    let place =
        Place { parent: None, enforcement: Enforcement::Rlimit, notes: Vec::new(), refusal: None, options };
    let policy = JobPolicy { limit: Some(Bytes::mib(60)), ..JobPolicy::once(Enforcement::Rlimit) };
    let (mut guard, mut verb, pid) = armed(&world, place, policy, 100);
    // It knows its members by now.
    guard.look(clock::now());
    let allocated = until_killed(&mut guard, pid);
    guard.guard(&mut verb).unwrap();
    assert!(
        verb.events.iter().any(|event| matches!(event, Event::Kill { cause: Cause::Limit, .. })),
        "{:?}",
        verb.events
    );
    assert!(allocated <= 2, "only the list of all processes of the machine may grow: {allocated}");
    let _ = std::fs::remove_dir(format!("/sys/fs/cgroup/memory{}", world.cgroup_parent()));
}
