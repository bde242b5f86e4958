//! Random machines, jobs and odd inputs at odd moments: whatever happens, the rules of the world hold.
//!
//! `OOMGUARD_SIM_CASES` asks for more worlds than the few of every day, and `OOMGUARD_SIM_SEED` for the same ones again
//! (`make simulate`). The seed of a world in which a rule was broken is kept, with its smallest plan, in
//! `random.proptest-regressions`, and lived again before all others from then on.

use std::cell::Cell;
use std::time::Duration;

use oomguard_core::{
    Amount, Bytes, Enforcement, Exit, HostPolicy, Input, JobId, JobPolicy, LimitEvent, OnLimit, Restart,
    Urgency, Why, Word,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestError, TestRunner};

use crate::world::gpus::OnGpu;
use crate::world::{FOREVER, Kind, Order, Story, Tape, Term, World, millis, secs};

/// What is asked of the world at a moment.
#[derive(Clone, Debug)]
enum Act {
    Restart(u16),
    Remove(u16, bool),
    Shutdown(bool),
    Exited(u16, bool),
    Emptied(u16),
    Heard(u16, u8),
    Limit(u16, u8),
    Started(u16),
    StartFailed(u16),
    Limits(u16, u64),
    Ages(u16, u64),
    /// A stranger begins to take or give this many MiB a second.
    Stranger(i32),
    /// All of the machine stalls for this share of the time.
    Stall(u64),
    /// A GPU is lost, or found again.
    Gpu(u16, bool),
    /// The driver does not answer for so long, in milliseconds; it is told that it does not, or nothing is.
    GpusHang(u64, bool),
    /// Readings come so late from here on, in milliseconds.
    GpusLate(u64),
    /// A stranger holds so many percent of a GPU.
    GpuStranger(u16, u64),
    /// Who holds what is hidden.
    GpuHides(u16, bool),
    /// Several inputs at the same moment.
    Tick(u8),
    Look(u8),
}

#[derive(Clone, Debug)]
struct Plan {
    gib: u64,
    cores: u64,
    hides: u64,
    gpus: u16,
    vram_reserve: Option<Amount>,
    seed: u64,
    /// Until everything is shut down.
    lasts_ms: u64,
    jobs: Vec<(JobPolicy, Kind, Option<u64>)>,
    /// In order, with their milliseconds from the beginning.
    acts: Vec<(u64, Act)>,
}

fn span(from_ms: u64, to_ms: u64) -> impl Strategy<Value = Duration> {
    (from_ms..to_ms).prop_map(millis)
}

fn size(from_mib: u64, to_mib: u64) -> impl Strategy<Value = Bytes> {
    (from_mib..to_mib).prop_map(Bytes::mib)
}

fn enforcement() -> impl Strategy<Value = Enforcement> {
    prop::sample::select(vec![
        Enforcement::Cgroup2,
        Enforcement::Cgroup2,
        Enforcement::Cgroup1,
        Enforcement::WatchOnly,
        Enforcement::WatchOnly,
        Enforcement::Rlimit,
        Enforcement::JobObject,
    ])
}

fn amount() -> impl Strategy<Value = Amount> {
    prop_oneof![size(100, 12_000).prop_map(Amount::Bytes), (1..=100u8).prop_map(Amount::Percent)]
}

fn on_gpu() -> impl Strategy<Value = OnGpu> {
    let lingers = prop_oneof![4 => Just(Duration::ZERO), 2 => span(1, 20_000), 1 => Just(FOREVER)];
    let rate = prop_oneof![1 => Just(Bytes::ZERO), 2 => size(1, 3_000)];
    (0..3u16, prop::bool::weighted(0.3), size(0, 9_000), rate, size(0, 4_000), lingers).prop_map(
        |(device, sees_all, base, rate, cache, lingers)| OnGpu {
            device,
            sees_all,
            base,
            rate,
            cache,
            lingers,
        },
    )
}

fn policy() -> impl Strategy<Value = JobPolicy> {
    let held = (prop::option::of(size(256, 10_000)), enforcement(), span(0, 20_000), span(100, 6_000));
    let ages = (
        prop::option::weighted(0.2, span(500, 60_000)),
        prop::option::weighted(0.4, span(2_000, 90_000)),
        span(0, 20_000),
    );
    let ends = (
        prop::sample::select(vec![OnLimit::Job, OnLimit::Job, OnLimit::Process]),
        prop::sample::select(vec![Restart::Never, Restart::OnFailure, Restart::OnFailure, Restart::Always]),
    );
    let vram = prop::option::weighted(0.4, amount());
    (held, ages, ends, vram).prop_map(|(held, ages, ends, vram_limit)| {
        let (limit, enforcement, grace, prune_patience) = held;
        let (timeout, max_age, stagger) = ages;
        let (on_limit, restart) = ends;
        let max_age = max_age.filter(|_| restart != Restart::Never);
        let leaves_nothing = stagger.subsec_millis() % 4 == 0;
        JobPolicy {
            limit,
            vram_limit,
            enforcement,
            grace,
            prune_patience,
            timeout,
            max_age,
            stagger,
            on_limit,
            restart,
            leaves_nothing,
        }
    })
}

fn shape() -> impl Strategy<Value = Kind> {
    let base = || size(0, 8_000);
    prop_oneof![
        3 => base().prop_map(Kind::steady),
        2 => (base(), span(0, 30_000), size(1, 400)).prop_map(|(b, a, r)| Kind::grows(b, a, r)),
        2 => (base(), span(0, 30_000)).prop_map(|(b, a)| Kind::spikes(b, a)),
        2 => (base(), size(10, 2_000), span(500, 8_000)).prop_map(|(b, s, h)| Kind::breathes(b, s, h)),
        1 => (base(), span(0, 20_000), 0..4i32).prop_map(|(b, a, code)| Kind::steady(b).ends(a, code / 2)),
        1 => Just(Kind::steady(Bytes::mib(10)).ends(Duration::ZERO, 1)),
        1 => Just(Kind::fails()),
    ]
}

fn kind() -> impl Strategy<Value = Kind> {
    let term = prop_oneof![3 => span(0, 3_000).prop_map(Term::Exits), 1 => Just(Term::Ignores)];
    let order = prop::sample::select(vec![
        Order::MemoryExitedEmptied,
        Order::ExitedMemoryEmptied,
        Order::MemoryEmptiedExited,
        Order::ExitedEmptiedMemory,
    ]);
    let stuck = prop_oneof![
        8 => Just(Duration::ZERO),
        1 => span(1, 15_000),
        1 => Just(FOREVER),
    ];
    let told = (
        prop::bool::ANY,
        prop::bool::weighted(0.2),
        prop::option::of((span(0, 8_000), size(0, 4_000))),
        size(0, 500),
    );
    let sweeps = prop_oneof![8 => span(0, 500), 1 => span(0, 15_000), 1 => Just(FOREVER)];
    let body = (0..40u64, 0..5u32, span(0, 400), 100..8_000u64, sweeps);
    let gpu = prop::option::weighted(0.6, on_gpu());
    (shape(), term, order, stuck, told, body, gpu).prop_map(|(shape, term, order, stuck, told, body, gpu)| {
        let (checks, echoes, prunes, relieves) = told;
        let (shm, children, dies_per_gib, fill, sweeps_in) = body;
        let shm_percent = if shm > 30 { (shm - 30) * 10 } else { 0 };
        let children = if children > 2 { 0 } else { children * 4 };
        let fill = Bytes::mib(fill);
        let kind = Kind { term, order, stuck, checks, echoes, prunes, relieves, ..shape };
        Kind { shm_percent, children, dies_per_gib, fill, sweeps_in, gpu, ..kind }
    })
}

fn act() -> impl Strategy<Value = Act> {
    let job = || 0..9u16;
    prop_oneof![
        2 => job().prop_map(Act::Restart),
        1 => (job(), prop::bool::ANY).prop_map(|(j, now)| Act::Remove(j, now)),
        1 => prop::bool::weighted(0.3).prop_map(Act::Shutdown),
        1 => (job(), prop::bool::ANY).prop_map(|(j, ok)| Act::Exited(j, ok)),
        1 => job().prop_map(Act::Emptied),
        3 => (job(), 0..7u8).prop_map(|(j, w)| Act::Heard(j, w)),
        2 => (job(), 0..3u8).prop_map(|(j, e)| Act::Limit(j, e)),
        1 => job().prop_map(Act::Started),
        1 => job().prop_map(Act::StartFailed),
        1 => (job(), 100..12_000u64).prop_map(|(j, mib)| Act::Limits(j, mib)),
        1 => (job(), 0..60u64).prop_map(|(j, s)| Act::Ages(j, s)),
        4 => (-4_000..4_000i32).prop_map(Act::Stranger),
        2 => (0..90u64).prop_map(Act::Stall),
        2 => (0..3u16, prop::bool::ANY).prop_map(|(gpu, lost)| Act::Gpu(gpu, lost)),
        1 => (0..25_000u64, prop::bool::ANY).prop_map(|(ms, told)| Act::GpusHang(ms, told)),
        1 => (0..20_000u64).prop_map(Act::GpusLate),
        3 => (0..3u16, 0..=100u64).prop_map(|(gpu, percent)| Act::GpuStranger(gpu, percent)),
        1 => (0..3u16, prop::bool::ANY).prop_map(|(gpu, hides)| Act::GpuHides(gpu, hides)),
        1 => (1..20u8).prop_map(Act::Tick),
        1 => (1..20u8).prop_map(Act::Look),
    ]
}

fn plan() -> impl Strategy<Value = Plan> {
    let adopted = || prop::option::weighted(0.15, 0..100u64);
    let jobs = prop::collection::vec((policy(), kind(), adopted()), 1..7);
    // Most of what can go wrong goes wrong soon after something has happened; some of it takes its time.
    let lasts = || prop_oneof![4 => 2_000..20_000u64, 1 => 20_000..65_000u64];
    let gpus = prop_oneof![2 => Just(0u16), 3 => 1..4u16];
    let reserve = prop::option::weighted(0.5, amount());
    let machine = (4..48u64, 1..16u64, 0..90u64, any::<u64>(), gpus, reserve);
    let acts = prop::collection::vec((0..1_000u64, act()), 0..25);
    (machine, lasts(), jobs, acts).prop_map(|(machine, lasts_ms, jobs, mut acts)| {
        let (gib, cores, hides, seed, gpus, vram_reserve) = machine;
        acts.iter_mut().for_each(|(at, _)| *at = *at * lasts_ms / 1_000);
        acts.sort_by_key(|(at, _)| *at);
        Plan { gib, cores, hides, gpus, vram_reserve, seed, lasts_ms, jobs, acts }
    })
}

/// Lives through a plan; the world fails by itself where a rule is broken.
fn live(plan: &Plan, tape: Option<Tape>) -> Story {
    let total = Bytes::gib(plan.gib);
    let host = HostPolicy { vram_reserve: plan.vram_reserve, ..HostPolicy::for_machine(total, plan.cores) };
    let mut world = World::with(total, host);
    for _ in 0..plan.gpus {
        world.gpu(Bytes::gib(8));
    }
    world.make_engine(plan.seed, tape);
    (world.hides_percent, world.hides_for) = (plan.hides, secs(1));
    let stranger = world.stranger(Bytes(total.0 / 4), Bytes::ZERO);
    world.strangers[stranger].most = total.0 as f64 * 0.9;
    for (policy, kind, adopted) in &plan.jobs {
        match adopted {
            Some(age) => world.adopt(*policy, kind.clone(), secs(*age), 3),
            None => world.add(*policy, kind.clone()),
        };
    }
    let begin = world.now;
    for (at, act) in &plan.acts {
        world.run_until(begin.after(millis(*at)));
        play(&mut world, act);
    }
    world.run_until(begin.after(millis(plan.lasts_ms)));
    world.strangers[stranger].rate = 0.0;
    world.finish()
}

fn play(world: &mut World, act: &Act) {
    let urgency = |now: bool| if now { Urgency::Now } else { Urgency::Graceful };
    // Odd news comes about jobs that have gone (late) or never were; news about a living job is true.
    let gone = |world: &World, job: u16| !world.may_be_alive(JobId(job));
    match *act {
        Act::Restart(job) => world.input(Input::Restart(JobId(job))),
        Act::Remove(job, now) => world.input(Input::Remove(JobId(job), urgency(now))),
        Act::Shutdown(now) => world.input(Input::Shutdown(urgency(now))),
        Act::Exited(job, ok) if gone(world, job) => {
            let exit = if ok { Exit::Code(0) } else { Exit::Signal(9) };
            world.input(Input::Exited(JobId(job), exit));
        }
        Act::Emptied(job) if gone(world, job) => world.input(Input::Emptied(JobId(job))),
        Act::Started(job) if !world.is_starting(JobId(job)) => world.input(Input::Started(JobId(job))),
        Act::StartFailed(job) if !world.is_starting(JobId(job)) => {
            world.input(Input::StartFailed(JobId(job)))
        }
        Act::Heard(job, word) => {
            let words = [
                Word::Ready,
                Word::Stopping,
                Word::Alive,
                Word::Checks,
                Word::Trial(None),
                Word::Checkpoint,
                Word::Relieved(Bytes::mib(1)),
            ];
            world.input(Input::Heard(JobId(job), words[usize::from(word)]));
        }
        Act::Limit(job, 0) => world.input(Input::Limit(JobId(job), LimitEvent::Soft)),
        Act::Limit(job, event) if gone(world, job) => {
            let event = if event == 1 { LimitEvent::KilledAtLimit } else { LimitEvent::KilledAbove };
            world.input(Input::Limit(JobId(job), event));
        }
        Act::Limits(job, mib) => {
            if let Some(policy) = world.policy(JobId(job)) {
                world.change(JobId(job), JobPolicy { limit: Some(Bytes::mib(mib)), ..policy });
            }
        }
        Act::Ages(job, age) => {
            if let Some(policy) = world.policy(JobId(job)).filter(|p| p.restart != Restart::Never) {
                let max_age = (age > 2).then(|| secs(age));
                world.change(JobId(job), JobPolicy { max_age, ..policy });
            }
        }
        Act::Stranger(mib) => world.strangers[0].rate = f64::from(mib) * 1048576.0,
        Act::Stall(percent) => world.stalled_percent = percent,
        Act::Tick(times) => (0..times).for_each(|_| world.input(Input::Tick)),
        Act::Look(times) => (0..times).for_each(|_| world.look()),
        Act::Gpu(gpu, lost) => {
            if let Some(gpu) = world.driver.gpus.get_mut(usize::from(gpu)) {
                gpu.why = lost.then_some(Why::Lost);
            }
        }
        Act::GpusHang(ms, told) => {
            world.driver.hangs_until = world.now.after(millis(ms));
            if told {
                world.gpus_unknown(Why::NoAnswer);
            }
        }
        Act::GpusLate(ms) => world.driver.late = millis(ms),
        Act::GpuStranger(gpu, percent) => {
            if let Some(gpu) = world.driver.gpus.get_mut(usize::from(gpu)) {
                gpu.strangers = gpu.total * percent as f64 / 100.0;
            }
        }
        Act::GpuHides(gpu, hides) => {
            if let Some(gpu) = world.driver.gpus.get_mut(usize::from(gpu)) {
                gpu.hides = hides;
            }
        }
        Act::Exited(..) | Act::Emptied(_) | Act::Started(_) | Act::StartFailed(_) | Act::Limit(..) => {}
    }
}

#[expect(clippy::disallowed_methods, reason = "which worlds, not what happens in them")]
fn asked<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    let number = text.parse().ok();
    assert!(number.is_some(), "`{text}` in `{name}` is not a number");
    number
}

fn config(few: u32) -> Config {
    let mut config = Config::with_cases(asked("OOMGUARD_SIM_CASES").unwrap_or(few));
    config.max_shrink_iters = 400;
    config.source_file = Some(file!());
    if let Some(seed) = asked("OOMGUARD_SIM_SEED") {
        config.rng_seed = RngSeed::Fixed(seed);
    }
    config
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Lives quietly: of the many lives of a shrinking failure only the last story is worth reading.
fn quietly<T>(live: impl FnOnce() -> T) -> Result<T, TestCaseError> {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                loud(info);
            }
        }));
    });
    QUIET.set(true);
    let lived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(live));
    QUIET.set(false);
    lived.map_err(|why| {
        let why = why.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic in the engine".to_owned());
        TestCaseError::fail(why)
    })
}

/// Lives through random plans; the smallest that fails is written down for `oomguard replay`.
fn all_hold(few: u32, test: impl Fn(&Plan) -> Result<(), TestCaseError>) {
    let (mut runner, lived, found) = (TestRunner::new(config(few)), Cell::new(0u32), Cell::new(0u32));
    let tried = runner.run(&plan(), |plan| {
        lived.set(lived.get() + 1);
        // All that follows is shrinking.
        test(&plan).inspect_err(|_| found.set(if found.get() == 0 { lived.get() } else { found.get() }))
    });
    let Err(failure) = tried else { return };
    let TestError::Fail(why, plan) = failure else { panic!("{failure}") };
    let tape = Tape::default();
    let _ = quietly(|| live(&plan, Some(tape.clone())));
    let file = format!("{}/world-{:016x}.jsonl", env!("CARGO_TARGET_TMPDIR"), plan.seed);
    let written = std::fs::write(&file, tape.bytes());
    let found = found.get();
    panic!(
        "{why}\nfound in world {found}; the smallest plan: {plan:?}\nhint: `oomguard replay {file}` tells it again ({written:?})"
    );
}

#[test]
fn whatever_happens_the_rules_hold() {
    all_hold(200, |plan| quietly(|| live(plan, None)).map(drop));
}

#[test]
fn the_same_world_is_lived_the_same_way_twice() {
    all_hold(40, |plan| {
        let (first, second) = quietly(|| (live(plan, None), live(plan, None)))?;
        prop_assert!(first == second, "two lives differ");
        Ok(())
    });
}
