//! Restarts: planned ones one after another, failed ones ever later.

use oomguard_core::pool::stagger;
use oomguard_core::{
    Bytes, Cause, Effect, Enforcement, Event, Input, Instant, JobId, JobPolicy, Parked, Phase, Restart,
};

use crate::world::{Kind, World, millis, secs, worker};

const CG2: Enforcement = Enforcement::Cgroup2;

fn starts(world: &World, job: JobId) -> Vec<Instant> {
    world.story.did(|e| *e == Effect::Start(job))
}

/// Gaps between the end of each job of a slot and its next start, in seconds.
fn pauses(world: &World, wanted: JobId) -> Vec<f64> {
    let ended = world.story.said(|e| matches!(e, Event::Ended { job, .. } if *job == wanted));
    let starts = starts(world, wanted);
    starts[1..].iter().zip(ended).map(|(start, end)| start.since(end).as_secs_f64()).collect()
}

#[test]
fn planned_restarts_are_spread_and_never_more_than_one_is_in_flight() {
    let mut world = World::new(Bytes::gib(64));
    let age = secs(600);
    let jobs: Vec<JobId> = (0..4)
        .map(|i| {
            let policy = JobPolicy { max_age: Some(age), stagger: stagger(age, i, 4), ..worker(CG2) };
            world.add(policy, Kind::steady(Bytes::gib(2)).exits_in(secs(20)))
        })
        .collect();
    world.run_for(secs(3600));
    let mut moments: Vec<Instant> = world.story.did(|e| matches!(e, Effect::Terminate(_, Cause::Age)));
    assert!(moments.len() >= 16, "{}", world.story);
    moments.sort();
    let closest = moments.windows(2).map(|pair| pair[1].since(pair[0])).min();
    assert!(closest > Some(secs(60)), "{closest:?} apart");
    assert!(jobs.iter().all(|job| world.phase(*job) == Phase::Running));
}

#[test]
fn a_rolling_restart_goes_one_by_one() {
    let mut world = World::new(Bytes::gib(64));
    let jobs: Vec<JobId> =
        (0..5).map(|_| world.add(worker(CG2), Kind::steady(Bytes::gib(2)).exits_in(secs(3)))).collect();
    world.run_for(secs(10));
    jobs.iter().for_each(|job| world.input(Input::Restart(*job)));
    world.run_for(secs(60));
    // That two never meet is a rule of the world; here, that all had their turn, and at once.
    for job in &jobs {
        assert_eq!(starts(&world, *job).len(), 2, "{}", world.story);
    }
    assert!(pauses(&world, jobs[4]) < vec![0.1]);
}

#[test]
fn a_crashing_worker_comes_back_ever_later_and_is_given_up_at_last() {
    let mut world = World::new(Bytes::gib(64));
    let job = world.add(worker(CG2), Kind::steady(Bytes::mib(10)).ends(millis(100), 1));
    world.run_for(secs(600));
    let pauses = pauses(&world, job);
    for (pause, wanted) in pauses.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]) {
        assert!(*pause >= wanted && *pause <= (wanted * 1.25f64).min(60.0) + 0.01, "{pauses:?}");
    }
    assert_eq!(pauses.len(), 9);
    assert_eq!(world.phase(job), Phase::Parked);
    world.runs_next(job, Kind::steady(Bytes::mib(10)));
    world.input(Input::Restart(job));
    world.run_for(secs(5));
    assert_eq!(world.phase(job), Phase::Running, "a restart by hand gives it another chance");
}

#[test]
fn what_cannot_be_started_is_tried_ever_later_and_given_up() {
    let mut world = World::new(Bytes::gib(64));
    let job = world.add(worker(CG2), Kind::fails());
    world.run_for(secs(600));
    assert_eq!(starts(&world, job).len(), 10, "{}", world.story);
    assert_eq!(world.phase(job), Phase::Parked);
}

#[test]
fn what_can_never_be_started_is_given_up_at_once_and_tried_again_when_asked() {
    let mut world = World::new(Bytes::gib(64));
    let job = world.add(worker(CG2), Kind { hopeless: true, ..Kind::fails() });
    world.run_for(secs(60));
    assert_eq!(starts(&world, job).len(), 1, "{}", world.story);
    let hopeless = |e: &Event| matches!(e, Event::Parked { parked: Parked::CannotStart, failures: 1, .. });
    assert_eq!(world.story.said(hopeless).len(), 1);
    world.input(Input::Restart(job));
    world.run_for(secs(60));
    assert_eq!((starts(&world, job).len(), world.phase(job)), (2, Phase::Parked));
}

#[test]
fn failures_that_an_earlier_guard_had_counted_go_on_from_there() {
    let mut world = World::new(Bytes::gib(64));
    let job = world.add(worker(CG2), Kind::fails());
    world.engine.recall(job, 7);
    world.run_for(secs(600));
    assert_eq!(starts(&world, job).len(), 3, "{}", world.story);
    assert_eq!(world.phase(job), Phase::Parked);
    world.engine.recall(JobId(99), 7);
}

#[test]
fn a_limit_that_is_too_small_parks_the_worker_after_three_early_deaths() {
    let mut world = World::new(Bytes::gib(64));
    let policy = JobPolicy { limit: Some(Bytes::gib(2)), ..worker(CG2) };
    let job = world.add(policy, Kind::steady(Bytes::gib(3)).fills(Bytes::gib(8)));
    world.run_for(secs(60));
    assert_eq!(starts(&world, job).len(), 3, "{}", world.story);
    let early = |e: &Event| matches!(e, Event::Parked { parked: Parked::EarlyMemoryDeaths, .. });
    assert_eq!(world.story.said(early).len(), 1);
}

#[test]
fn a_worker_that_ends_with_success_is_done_unless_it_is_to_run_for_ever() {
    let mut world = World::new(Bytes::gib(64));
    let kind = || Kind::steady(Bytes::mib(10)).ends(secs(2), 0);
    let done = world.add(worker(CG2), kind());
    let ever = world.add(JobPolicy { restart: Restart::Always, ..worker(CG2) }, kind());
    world.run_for(secs(130));
    assert_eq!(world.phase(done), Phase::Over);
    assert_eq!(starts(&world, ever).len(), 3, "once a minute: {}", world.story);
}

#[test]
fn workers_wait_for_memory_and_start_when_it_is_there() {
    let mut world = World::new(Bytes::gib(16));
    let stranger = world.stranger(Bytes::mib(15 * 1024), Bytes::ZERO);
    let job = world.add(worker(CG2), Kind::steady(Bytes::gib(1)));
    world.run_for(secs(30));
    assert!(starts(&world, job).is_empty(), "{}", world.story);
    assert_eq!(world.story.said(|e| matches!(e, Event::Waiting { .. })).len(), 1, "said once");
    world.strangers[stranger].used = Bytes::gib(2).0 as f64;
    let freed = world.now;
    world.run_for(secs(5));
    let start = starts(&world, job)[0];
    assert!(start.since(freed) < millis(700), "{:?}", start.since(freed));
}

#[test]
fn a_worker_starts_with_the_first_look() {
    let mut world = World::new(Bytes::gib(64));
    let job = world.add(worker(CG2), Kind::steady(Bytes::gib(1)));
    let begin = world.now;
    world.run_for(secs(2));
    assert!(starts(&world, job)[0].since(begin) < millis(1), "{}", world.story);
}

#[test]
fn workers_that_a_shortage_ended_come_back_one_by_one_as_there_is_room_for_them() {
    // Four of 3 GiB each, and a stranger who takes so much that only two have room.
    let mut world = World::new(Bytes::gib(24));
    let policy = JobPolicy { limit: None, ..worker(Enforcement::WatchOnly) };
    let jobs: Vec<JobId> = (0..4).map(|_| world.add(policy, Kind::steady(Bytes::gib(3)))).collect();
    world.run_for(secs(100));
    world.crowd(Bytes::mib(1500));
    world.run_for(secs(2));
    world.crowd(Bytes::mib(1500));
    world.run_for(secs(120));
    let victims = world.story.said(|e| matches!(e, Event::Brake { .. })).len();
    assert_eq!(victims, 2, "nobody is started only to be ended again: {}", world.story);
    let waiting = jobs.iter().filter(|job| world.phase(**job) == Phase::Waiting).count();
    assert_eq!(waiting, 2, "{}", world.story);
    // Room for one of them: they do not both take it for theirs.
    world.strangers.last_mut().into_iter().for_each(|s| s.used -= Bytes::mib(2800).0 as f64);
    world.run_for(secs(30));
    let waiting = jobs.iter().filter(|job| world.phase(**job) == Phase::Waiting).count();
    assert_eq!(waiting, 1, "{}", world.story);
    assert_eq!(world.story.said(|e| matches!(e, Event::Brake { .. })).len(), 2, "{}", world.story);
    world.strangers.clear();
    world.run_for(secs(30));
    assert!(jobs.iter().all(|job| world.phase(*job) == Phase::Running), "{}", world.story);
}
