//! What happens when the host is short.

use std::time::Duration;

use oomguard_core::{Bytes, Cause, Effect, Enforcement, Event, HostPolicy, JobId, JobPolicy, Level, Reason};

use crate::world::{FOREVER, Kind, Order, World, millis, run, secs, worker};

const WATCH: Enforcement = Enforcement::WatchOnly;

/// A worker without a limit of its own: only the host's reserve can stop it.
fn unlimited(enforcement: Enforcement) -> JobPolicy {
    JobPolicy { limit: None, max_age: None, ..worker(enforcement) }
}

fn kills(world: &World) -> usize {
    world.story.did(|e| matches!(e, Effect::Kill(_, Cause::Reserve))).len()
}

fn victims(world: &World) -> usize {
    let told = |e: &Event| matches!(e, Event::Brake { cause: Cause::Reserve, .. });
    world.story.said(told).len()
}

/// `count` jobs that spike at 8 GiB a second each, all at once, on a machine that has room for their base.
fn spike(count: u16) -> World {
    let policy = HostPolicy {
        worst_rate: Bytes::gib(8 * u64::from(count)),
        ..HostPolicy::for_machine(Bytes::gib(64), 8)
    };
    let mut world = World::with(Bytes::gib(64), policy);
    for _ in 0..count {
        world.add(unlimited(WATCH), Kind::spikes(Bytes::mib(512), secs(20)));
    }
    world.run_for(secs(60));
    world
}

/// Memory that is gone before the guard can have acted: at the edge it looks every millisecond, looks again,
/// and acts, with what its own work costs on the way.
fn unavoidable(count: u64) -> Bytes {
    let rate = Bytes::gib(8 * count).0 as f64;
    let freezes = 0.000_06 * count as f64;
    Bytes((rate * (0.001 + 2.0 * 0.000_15 + 0.000_06 + freezes)) as u64)
}

fn survives_a_spike(count: u16) {
    let world = spike(count);
    let reserve = world.engine.host_policy().reserve;
    let lost = reserve.minus(world.least);
    assert_eq!(world.exhausted, 0, "{}", world.story);
    assert!(kills(&world) >= 1, "{}", world.story);
    // What TERM and a look that is not at the edge may cost on top of the unavoidable: a twentieth of a second
    // of one job, for the first estimate of the rate.
    let bound = Bytes(unavoidable(count.into()).0 * 3 / 2).plus(Bytes::mib(410));
    assert!(lost <= bound, "lost {lost} of the reserve, {bound} allowed");
}

#[test]
fn one_spike_is_killed_before_the_memory_is_gone() {
    survives_a_spike(1);
}

#[test]
fn four_spikes_at_once_are_survived() {
    survives_a_spike(4);
}

#[test]
fn sixteen_spikes_at_once_are_survived() {
    survives_a_spike(16);
}

#[test]
fn the_spiker_goes_and_its_steady_neighbours_stay() {
    let mut world = World::new(Bytes::gib(32));
    let steady: Vec<JobId> =
        (0..3).map(|_| world.add(unlimited(WATCH), Kind::steady(Bytes::gib(6)))).collect();
    let spiker = world.add(unlimited(WATCH), Kind::spikes(Bytes::gib(1), secs(30)));
    world.run_for(secs(40));
    assert_eq!(kills(&world), 1, "{}", world.story);
    for job in steady {
        assert_eq!(world.story.stages(job), ["start"], "{}", world.story);
    }
    assert!(world.story.stages(spiker).contains(&"kill"));
}

#[test]
fn a_slow_shortage_is_braked_gently_relieve_then_prune_then_resume() {
    let mut world = World::new(Bytes::gib(16));
    world.stranger(Bytes::gib(8), Bytes::ZERO);
    let job = world.add(
        unlimited(Enforcement::Cgroup2),
        Kind::grows(Bytes::gib(1), secs(5), Bytes::mib(100)).cooperates(),
    );
    world.run_for(secs(75));
    assert_eq!(world.story.stages(job), ["start", "relieve", "prune", "resume"], "{}", world.story);
    let at = |wanted: &dyn Fn(&Effect) -> bool| world.story.did(wanted)[0];
    let level = |to: Level| world.story.said(|e| matches!(e, Event::Level { to: t, .. } if *t == to))[0];
    assert_eq!(at(&|e| matches!(e, Effect::Relieve(_))), level(Level::Warning));
    let prune = at(&|e| matches!(e, Effect::Prune(..)));
    assert!(prune.since(level(Level::Critical)) <= millis(5), "after one more look");
    let resume = at(&|e| matches!(e, Effect::Resume(_)));
    assert!(resume.since(prune) <= millis(250), "as soon as it answered");
}

#[test]
fn an_unanswered_prune_leads_to_term_after_the_patience_and_to_kill_after_the_grace() {
    let mut world = World::new(Bytes::gib(16));
    world.stranger(Bytes::gib(8), Bytes::ZERO);
    let policy = JobPolicy { grace: secs(10), ..unlimited(Enforcement::Cgroup2) };
    let kind = Kind { most: Bytes::mib(6200), ..Kind::grows(Bytes::gib(1), secs(5), Bytes::mib(100)) };
    let job = world.add(policy, kind.promises().ignores_term());
    world.until(secs(120), "kill", |e| matches!(e, Event::Kill { .. }));
    assert_eq!(
        world.story.stages(job),
        ["start", "relieve", "prune", "terminate", "kill"],
        "{}",
        world.story
    );
    let at = |wanted: &dyn Fn(&Effect) -> bool| world.story.did(wanted)[0];
    let prune = at(&|e| matches!(e, Effect::Prune(..)));
    let term = at(&|e| matches!(e, Effect::Terminate(..)));
    let kill = at(&|e| matches!(e, Effect::Kill(..)));
    let near = |d: Duration, wanted: Duration| d >= wanted && d <= wanted + millis(10);
    assert!(near(term.since(prune), secs(5)), "{:?}", term.since(prune));
    assert!(near(kill.since(term), secs(10)), "{:?}", kill.since(term));
    let after_grace = |e: &Event| matches!(e, Event::Kill { after_grace: true, .. });
    assert_eq!(world.story.said(after_grace).len(), 1);
}

#[test]
fn the_grace_is_cut_short_when_the_forecast_leaves_no_time() {
    let mut world = World::new(Bytes::gib(16));
    world.stranger(Bytes::gib(8), Bytes::ZERO);
    // 256 MiB/s: after 7 s of the 1.75 GiB above the last eighth of the reserve there is nothing left.
    let kind = Kind::grows(Bytes::gib(1), secs(5), Bytes::mib(256)).ignores_term();
    let job = world.add(unlimited(WATCH), kind);
    world.run_for(secs(60));
    assert_eq!(world.story.stages(job)[..3], ["start", "terminate", "kill"], "{}", world.story);
    let term = world.story.did(|e| matches!(e, Effect::Terminate(..)))[0];
    let kill = world.story.did(|e| matches!(e, Effect::Kill(..)))[0];
    let had = kill.since(term);
    assert!(had > secs(5) && had < secs(8), "killed {had:?} after TERM");
    assert_eq!(world.exhausted, 0);
}

#[test]
fn with_nothing_left_and_nothing_moving_nobody_waits_for_a_grace() {
    // As a guard finds it that is started too late: all stand in the allocator, so nothing grows.
    let mut world = World::new(Bytes::gib(16));
    world.stranger(Bytes::mib(10 * 1024 - 100), Bytes::ZERO);
    let kind = Kind::steady(Bytes::gib(6)).promises().ignores_term();
    world.adopt(unlimited(WATCH), kind, secs(600), 1);
    let from = world.now;
    world.run_for(secs(30));
    let kill = world.story.did(|e| matches!(e, Effect::Kill(_, Cause::Reserve)));
    assert!(kill.first().is_some_and(|at| at.since(from) < secs(1)), "{}", world.story);
}

#[test]
fn memory_that_comes_back_for_ten_seconds_is_waited_for_as_long_as_it_comes() {
    let mut world = World::new(Bytes::gib(32));
    for _ in 0..2 {
        let kind = Kind { dies_per_gib: secs(4), ..Kind::steady(Bytes::gib(8)) };
        world.add(unlimited(WATCH), kind.ignores_term());
    }
    world.run_for(secs(20));
    world.crowd(Bytes::mib(700));
    world.run_for(secs(20));
    assert_eq!(victims(&world), 1, "{}", world.story);
}

#[test]
fn a_victim_that_nobody_restarts_is_waited_for_as_well() {
    let mut world = World::new(Bytes::gib(32));
    let policy = JobPolicy { limit: None, ..run(WATCH, Bytes::ZERO) };
    for _ in 0..3 {
        world.add(policy, Kind::steady(Bytes::gib(5)).order(Order::ExitedEmptiedMemory));
    }
    world.run_for(secs(20));
    world.crowd_at(Bytes::mib(500), Bytes::mib(1900));
    world.run_for(secs(20));
    assert_eq!(victims(&world), 1, "{}", world.story);
}

#[test]
fn a_victim_counts_for_what_it_held_and_not_for_what_was_last_seen_of_it() {
    // Looks are two seconds apart here, and it takes 2.4 GiB between two of them.
    let policy = HostPolicy { worst_rate: Bytes::gib(1), ..HostPolicy::for_machine(Bytes::gib(16), 8) };
    let mut world = World::with(Bytes::gib(16), policy);
    let bystander = world.add(unlimited(WATCH), Kind::steady(Bytes::gib(5)));
    world.run_for(secs(20));
    world.crowd(Bytes::mib(4200));
    world.run_for(secs(5));
    let kind = Kind { stuck: millis(2500), ..Kind::steady(Bytes::gib(6)).fills(Bytes::gib(8)) };
    let gone = world.add(unlimited(WATCH), kind);
    world.until(secs(2), "start", |e| matches!(e, Event::Started { job, .. } if *job == gone));
    world.run_for(millis(300));
    world.input(oomguard_core::Input::Remove(gone, oomguard_core::Urgency::Now));
    world.run_for(secs(10));
    assert!(world.least < Bytes::gib(2));
    assert_eq!(world.story.stages(bystander), ["start"], "{}", world.story);
}

#[test]
fn what_dies_meanwhile_counts_before_asking_turns_into_ending() {
    let mut world = World::new(Bytes::gib(32));
    let policy = JobPolicy { prune_patience: secs(3), grace: secs(3), ..unlimited(WATCH) };
    let asked = world.add(policy, Kind::grows(Bytes::gib(6), secs(30), Bytes::mib(40)).promises());
    let leaving = world.add(policy, Kind::steady(Bytes::gib(8)).ignores_term().stuck(secs(2)));
    world.run_for(secs(40));
    world.crowd(Bytes::mib(4000));
    while world.available() > Bytes::mib(2048 + 60) {
        world.run_for(millis(100));
    }
    world.input(oomguard_core::Input::Restart(leaving));
    let prune = world.until(secs(5), "prune", |e| matches!(e, Event::Prune { .. }));
    world.run_for(secs(8));
    let kill = world.story.did(|e| matches!(e, Effect::Kill(..)))[0];
    assert!(kill.since(prune) < secs(3), "before the patience is over");
    assert!(!world.story.stages(asked).contains(&"terminate"), "{}", world.story);
    assert!(world.story.stages(asked).contains(&"resume"), "{}", world.story);
}

#[test]
fn a_job_that_got_its_term_is_never_told_to_go_on() {
    let mut world = World::new(Bytes::gib(32));
    let job = world.add(unlimited(WATCH), Kind::steady(Bytes::gib(8)).promises().ignores_term());
    world.run_for(secs(20));
    world.crowd_at(Bytes::mib(200), Bytes::mib(1900));
    world.until(secs(30), "term", |e| matches!(e, Event::Terminate { .. }));
    world.strangers.clear();
    world.run_for(secs(20));
    assert_eq!(world.story.stages(job), ["start", "relieve", "prune", "terminate"], "{}", world.story);
}

#[test]
fn one_shortage_takes_one_victim_though_memory_returns_slowly() {
    let mut world = World::new(Bytes::gib(64));
    for _ in 0..3 {
        world.add(unlimited(WATCH), Kind::steady(Bytes::gib(17)).fills(Bytes::gib(4)));
    }
    world.run_for(secs(20));
    // 17 GiB at a fifth of a second each: 3.4 s to die.
    world.stranger(Bytes::gib(2), Bytes::gib(6));
    world.strangers[0].most = Bytes::gib(12).0 as f64;
    world.run_for(secs(4));
    world.strangers[0].used = Bytes::gib(4).0 as f64;
    world.run_for(secs(20));
    assert_eq!(victims(&world), 1, "{}", world.story);
}

#[test]
fn one_shortage_takes_one_victim_though_the_kernel_hides_what_came_back() {
    let mut world = World::new(Bytes::gib(32));
    (world.hides_percent, world.hides_for) = (90, secs(2));
    for _ in 0..5 {
        world.add(
            unlimited(WATCH),
            Kind { term: crate::world::Term::Exits(millis(20)), ..Kind::steady(Bytes::mib(1500)) },
        );
    }
    world.run_for(secs(10));
    // The kernel counts 150 MiB of the 1.5 GiB: still below the reserve.
    world.crowd(Bytes::mib(1500));
    world.run_for(secs(10));
    assert_eq!(victims(&world), 1, "{}", world.story);
}

#[test]
fn a_victim_that_hid_its_memory_in_shm_is_cleaned_up_before_another_one_goes() {
    for enforcement in [Enforcement::Cgroup2, WATCH] {
        let mut world = World::new(Bytes::gib(32));
        let hoarder = Kind { order: Order::MemoryExitedEmptied, ..Kind::spikes(Bytes::gib(1), secs(20)) };
        world.add(unlimited(enforcement), hoarder.shm(95));
        for _ in 0..3 {
            world.add(unlimited(enforcement), Kind::steady(Bytes::gib(4)));
        }
        world.run_for(secs(35));
        assert_eq!(kills(&world), 1, "{enforcement:?}: {}", world.story);
        assert_eq!(victims(&world), 1, "{enforcement:?}: {}", world.story);
    }
}

#[test]
fn a_job_that_ends_by_itself_in_a_shortage_is_its_victim() {
    // It holds 10 GiB and exits at the very moment at which a stranger makes memory short.
    let mut world = World::new(Bytes::gib(32));
    let kind = Kind { order: Order::ExitedMemoryEmptied, ..Kind::steady(Bytes::gib(10)) };
    let leaver = world.add(unlimited(WATCH), kind.ends(secs(20), 0));
    world.add(unlimited(WATCH), Kind::steady(Bytes::gib(10)));
    world.run_for(millis(20_020 - 4_750));
    let room = world.available();
    assert_eq!(room.as_gib().round(), 12.0);
    world.crowd(Bytes::mib(2560));
    world.crowd(Bytes::mib(2040));
    world.run_for(secs(10));
    assert_eq!(victims(&world), 0, "{}", world.story);
    assert!(world.story.stages(leaver).contains(&"clean"));
}

#[test]
fn a_shortage_that_returns_while_its_victim_has_its_grace_is_the_same_shortage() {
    let mut world = World::new(Bytes::gib(32));
    for _ in 0..2 {
        world.add(unlimited(WATCH), Kind::steady(Bytes::gib(8)).ignores_term());
    }
    let stranger = world.stranger(Bytes::gib(10), Bytes::ZERO);
    world.run_for(secs(20));
    for _ in 0..6 {
        world.strangers[stranger].most = Bytes::mib(14 * 1024 + 256).0 as f64;
        world.strangers[stranger].rate = Bytes::gib(1).0 as f64;
        world.run_for(secs(8));
        world.strangers[stranger].rate = -(Bytes::gib(1).0 as f64);
        world.run_for(secs(3));
    }
    assert_eq!(world.story.did(|e| matches!(e, Effect::Terminate(..))).len(), 1, "{}", world.story);
    assert_eq!(kills(&world), 0, "{}", world.story);
}

#[test]
fn strangers_are_never_touched_and_it_is_said_once_that_none_of_ours_can_help() {
    let mut world = World::new(Bytes::gib(16));
    let small = world.add(unlimited(WATCH), Kind::steady(Bytes::mib(15)));
    world.stranger(Bytes::gib(8), Bytes::gib(1));
    world.strangers[0].most = Bytes::mib(15 * 1024).0 as f64;
    world.run_for(secs(120));
    assert_eq!(world.story.said(|e| matches!(e, Event::NoVictim { .. })).len(), 1, "{}", world.story);
    assert_eq!(world.story.stages(small), ["start"]);
}

#[test]
fn a_helpless_guard_still_sees_a_spike_in_time() {
    let mut world = World::new(Bytes::gib(16));
    world.stranger(Bytes::mib(15 * 1024 + 300), Bytes::ZERO);
    let policy = JobPolicy { limit: None, ..run(WATCH, Bytes::ZERO) };
    for _ in 0..4 {
        world.add(policy, Kind::spikes(Bytes::mib(4), secs(10)));
    }
    world.run_for(secs(20));
    assert_eq!(world.exhausted, 0, "{}", world.story);
    assert!(kills(&world) >= 1, "{}", world.story);
}

#[test]
fn stalls_with_little_memory_brake_and_stalls_with_plenty_do_not() {
    for (used, expected) in [(Bytes::gib(8), 0), (Bytes::gib(18), 1)] {
        let mut world = World::new(Bytes::gib(32));
        world.add(unlimited(WATCH), Kind::steady(Bytes::gib(10)));
        world.stranger(used.plus(Bytes::mib(1200)), Bytes::ZERO);
        world.run_for(secs(20));
        assert!(world.available() > Bytes::gib(2));
        world.stalled_percent = 60;
        world.run_for(secs(5));
        world.stalled_percent = 0;
        world.run_for(secs(60));
        assert_eq!(victims(&world), expected, "{}", world.story);
    }
}

#[test]
fn other_growers_are_held_while_the_victim_dies_and_then_go_on() {
    let mut world = World::new(Bytes::gib(32));
    let jobs: Vec<JobId> = (0..3)
        .map(|i| world.add(unlimited(WATCH), Kind::grows(Bytes::gib(4), secs(10), Bytes::gib(1 + i))))
        .collect();
    world.until(secs(60), "kill", |e| matches!(e, Event::Kill { .. }));
    let kill = world.story.did(|e| matches!(e, Effect::Kill(..)))[0];
    let frozen = world.story.did(|e| matches!(e, Effect::Freeze(_)));
    assert_eq!(frozen.len(), 2, "{}", world.story);
    assert!(frozen.iter().all(|at| at.since(kill) < millis(1)));
    assert!(world.story.stages(jobs[2]).contains(&"kill"), "the fastest goes");
    let back =
        world.until(secs(10), "memory back", |e| matches!(e, Event::MemoryBack { complete: true, .. }));
    world.run_for(millis(100));
    let thawed = world.story.did(|e| matches!(e, Effect::Thaw(_)));
    assert_eq!(thawed.len(), 2, "{}", world.story);
    assert!(thawed.iter().all(|at| *at >= back && at.since(back) < millis(30)), "{}", world.story);
}

#[test]
fn a_job_that_begins_to_grow_while_a_victim_dies_is_held_as_well() {
    let mut world = World::new(Bytes::gib(32));
    world.add(unlimited(WATCH), Kind::spikes(Bytes::gib(1), secs(30)).stuck(secs(2)));
    let late = world.add(
        unlimited(WATCH),
        Kind {
            steps: vec![(millis(25_700), 0), (FOREVER, Bytes::gib(8).0 as i64)],
            ..Kind::steady(Bytes::gib(9))
        },
    );
    world.run_for(secs(60));
    assert!(world.story.stages(late).contains(&"freeze"), "{}", world.story);
    assert_eq!(world.exhausted, 0, "{}", world.story);
}

#[test]
fn when_the_one_that_was_asked_is_not_the_one_that_spikes_the_spiker_is_killed() {
    let mut world = World::new(Bytes::gib(32));
    let asked = world.add(unlimited(WATCH), Kind::grows(Bytes::gib(4), secs(10), Bytes::mib(200)).promises());
    let spiker = world.add(unlimited(WATCH), Kind::spikes(Bytes::gib(4), millis(122_900)));
    let prune = world.until(secs(300), "prune", |e| matches!(e, Event::Prune { .. }));
    world.run_for(millis(3000));
    assert_eq!(world.story.stages(spiker)[..2], ["start", "kill"], "{}", world.story);
    assert_eq!(world.story.stages(asked)[..4], ["start", "relieve", "prune", "resume"], "{}", world.story);
    let kill = world.story.did(|e| matches!(e, Effect::Kill(..)))[0];
    assert!(kill.since(prune) < secs(1));
}

#[test]
fn the_reason_names_what_was_true() {
    let mut world = World::new(Bytes::gib(32));
    let old = world.add(unlimited(WATCH), Kind::steady(Bytes::gib(8)));
    world.run_for(secs(600));
    let young = world.add(unlimited(WATCH), Kind::steady(Bytes::gib(8)));
    world.run_for(secs(60));
    world.crowd(Bytes::mib(1800));
    world.run_for(secs(10));
    let brakes: Vec<(JobId, Reason)> = world
        .story
        .events()
        .filter_map(|(_, e)| match e {
            Event::Brake { job, reason, .. } => Some((job, reason)),
            _ => None,
        })
        .collect();
    assert_eq!(brakes, [(young, Reason::LeastWorkLost)], "not {old:?}");
}

#[test]
fn the_next_test_file_in_the_slot_of_a_victim_is_not_stopped_in_its_place() {
    use oomguard_core::{Exit, Input};
    let mut world = World::new(Bytes::gib(16));
    let policy = JobPolicy { limit: None, ..run(WATCH, Bytes::ZERO) };
    let slot = world.add(policy, Kind::steady(Bytes::gib(4)).promises());
    world.run_for(secs(10));
    world.crowd_at(Bytes::gib(1), Bytes::mib(2100));
    world.strangers[0].most += Bytes::mib(200).0 as f64;
    world.strangers[0].rate = Bytes::mib(100).0 as f64;
    world.until(secs(10), "prune", |e| matches!(e, Event::Prune { .. }));
    // It ends by itself, the next one takes its slot, and its memory has gone to somebody else.
    world.input(Input::Exited(slot, Exit::Code(0)));
    world.vanish(slot);
    world.strangers[0].most = f64::MAX;
    world.strangers[0].used += Bytes::gib(4).0 as f64;
    world.strangers[0].rate = 0.0;
    world.add_again(slot, policy, Kind { starts_in: Duration::ZERO, ..Kind::steady(Bytes::ZERO) });
    world.run_for(secs(4));
    let stages = ["start", "relieve", "prune", "terminate-tree", "clean", "start"];
    assert_eq!(world.story.stages(slot), stages, "{}", world.story);
}

#[test]
fn a_job_that_is_ending_anyway_goes_before_one_at_work() {
    let mut world = World::new(Bytes::gib(32));
    let leaving = world.add(unlimited(WATCH), Kind::steady(Bytes::gib(6)).ignores_term());
    let working = world.add(unlimited(WATCH), Kind::steady(Bytes::gib(8)));
    world.run_for(secs(30));
    world.input(oomguard_core::Input::Restart(leaving));
    world.crowd(Bytes::mib(1900));
    world.run_for(secs(20));
    assert_eq!(world.story.stages(working), ["start"], "{}", world.story);
}
