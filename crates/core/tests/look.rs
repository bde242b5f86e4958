//! When the engine wants to be called: seldom when idle, every millisecond at the edge, never in vain.

use oomguard_core::{Bytes, Cause, Effect, Enforcement, Event, HostPolicy, JobPolicy};

use crate::world::{FOREVER, Kind, World, run, secs, worker};

fn wakes_a_second(world: &mut World, seconds: u64) -> f64 {
    let before = world.wakes;
    world.run_for(secs(seconds));
    (world.wakes - before) as f64 / seconds as f64
}

#[test]
fn an_idle_host_with_eight_workers_is_looked_at_less_than_once_a_second() {
    let mut world = World::new(Bytes::gib(256));
    for _ in 0..8 {
        world.add(worker(Enforcement::Cgroup2), Kind::steady(Bytes::gib(2)));
    }
    world.run_for(secs(30));
    let wakes = wakes_a_second(&mut world, 600);
    assert!(wakes <= 1.0, "{wakes} a second");
}

#[test]
fn watched_jobs_cost_a_few_looks_a_second_at_most() {
    let mut world = World::new(Bytes::gib(256));
    for _ in 0..8 {
        world.add(worker(Enforcement::WatchOnly), Kind::steady(Bytes::gib(2)));
    }
    world.run_for(secs(30));
    let wakes = wakes_a_second(&mut world, 600);
    assert!(wakes <= 2.0, "{wakes} a second");
}

#[test]
fn at_the_edge_the_looks_are_a_millisecond_apart() {
    let mut world = World::new(Bytes::gib(64));
    world.add(JobPolicy { limit: None, ..worker(Enforcement::WatchOnly) }, Kind::steady(Bytes::gib(8)));
    world.run_for(secs(20));
    world.crowd(Bytes::mib(2048 + 20));
    let wakes = wakes_a_second(&mut world, 10);
    assert!((900.0..=1010.0).contains(&wakes), "{wakes} a second");
    assert!(world.story.did(|e| matches!(e, Effect::Kill(..))).is_empty());
}

#[test]
fn the_looks_come_closer_as_memory_goes() {
    let mut world = World::with(Bytes::gib(64), HostPolicy::for_machine(Bytes::gib(64), 8));
    world.add(JobPolicy { limit: None, ..worker(Enforcement::WatchOnly) }, Kind::steady(Bytes::gib(1)));
    world.run_for(secs(5));
    let mut last = 0.0;
    for available in [40, 20, 10, 6, 4, 3] {
        world.crowd(Bytes::gib(available));
        let wakes = wakes_a_second(&mut world, 10);
        assert!(wakes > last, "{wakes} after {last} at {available} GiB");
        last = wakes;
    }
    assert!(last < 100.0, "{last} a second a gigabyte above the reserve");
}

#[test]
fn once_all_is_over_nothing_but_a_slow_look_is_wanted() {
    let mut world = World::new(Bytes::gib(64));
    for _ in 0..3 {
        world.add(run(Enforcement::Cgroup2, Bytes::gib(8)), Kind::steady(Bytes::gib(2)).ends(secs(5), 0));
    }
    world.run_for(secs(20));
    assert!(world.engine.is_done());
    let wakes = wakes_a_second(&mut world, 60);
    assert!(wakes <= 1.1, "{wakes} a second");
}

#[test]
fn a_tree_in_d_state_is_not_looked_at_for_ever() {
    let mut world = World::new(Bytes::gib(256));
    let policy = JobPolicy { max_age: Some(secs(10)), grace: secs(1), ..worker(Enforcement::Cgroup2) };
    world.add(policy, Kind::steady(Bytes::gib(2)).ignores_term().stuck(FOREVER));
    world.run_for(secs(40));
    let wakes = wakes_a_second(&mut world, 60);
    assert!(wakes <= 1.0, "{wakes} a second");
}

#[test]
fn the_ceiling_follows_strangers_down_and_up() {
    let mut world = World::new(Bytes::gib(64));
    world.add(worker(Enforcement::Cgroup2), Kind::steady(Bytes::gib(4)));
    let stranger = world.stranger(Bytes::gib(10), Bytes::ZERO);
    for used in [10, 30, 20, 50, 5] {
        let goal = Bytes::gib(used).0 as f64;
        let down = world.strangers[stranger].used > goal;
        world.strangers[stranger].most = if down { f64::INFINITY } else { goal };
        world.strangers[stranger].rate = Bytes::gib(2).0 as f64 * if down { -1.0 } else { 1.0 };
        world.run_for(secs(1));
        let left = (goal - world.strangers[stranger].used).abs() / Bytes::gib(2).0 as f64;
        world.run_for(std::time::Duration::from_secs_f64(left));
        world.strangers[stranger].rate = 0.0;
        world.run_for(secs(3));
        // What strangers leave, less half the reserve, within an eighth of the reserve.
        let ideal = Bytes(64 << 30).minus(Bytes(world.strangers[stranger].used as u64)).minus(Bytes::gib(1));
        let off = ideal.minus(world.ceiling()).max(world.ceiling().minus(ideal));
        assert!(off <= Bytes::mib(257), "{off} off at {used} GiB: {}", world.story);
    }
}

#[test]
fn the_ceiling_leaves_the_brake_time_to_choose_before_the_kernel_does() {
    // The large one is steady, the small one grows: the kernel would take the large one.
    let mut world = World::new(Bytes::gib(32));
    let policy = JobPolicy { limit: None, ..worker(Enforcement::Cgroup2) };
    let large = world.add(policy, Kind::steady(Bytes::gib(16)));
    let kind = Kind::grows(Bytes::gib(1), secs(30), Bytes::mib(600)).ignores_term();
    let grower = world.add(policy, kind);
    world.run_for(secs(60));
    assert_eq!(world.story.stages(large), ["start"], "{}", world.story);
    let brake = |e: &Event| matches!(e, Event::Brake { job, cause: Cause::Reserve, .. } if *job == grower);
    assert!(!world.story.said(brake).is_empty(), "{}", world.story);
    assert!(world.story.said(|e| matches!(e, Event::KernelKill { .. })).is_empty(), "{}", world.story);
}
