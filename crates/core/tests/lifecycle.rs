//! How jobs start and end.

use std::time::Duration;

use oomguard_core::{
    Bytes, Cause, Effect, Enforcement, Event, Exit, Input, JobId, JobPolicy, Phase, Urgency,
};

use crate::world::{FOREVER, Kind, Order, World, millis, run, secs, worker};

const CG2: Enforcement = Enforcement::Cgroup2;

fn roomy() -> World {
    World::new(Bytes::gib(64))
}

fn ends(world: &World, wanted: JobId) -> Vec<(Cause, Exit)> {
    let ended = |(_, event)| match event {
        Event::Ended { job, cause, exit, .. } if job == wanted => Some((cause, exit)),
        _ => None,
    };
    world.story.events().filter_map(ended).collect()
}

#[test]
fn the_exit_of_a_run_is_kept_in_whatever_order_its_end_is_seen() {
    for order in [
        Order::MemoryExitedEmptied,
        Order::ExitedMemoryEmptied,
        Order::MemoryEmptiedExited,
        Order::ExitedEmptiedMemory,
    ] {
        for (code, cause) in [(0, Cause::Finished), (3, Cause::Crash)] {
            let mut world = roomy();
            let kind = Kind::steady(Bytes::gib(1)).ends(secs(5), code).order(order);
            let job = world.add(run(CG2, Bytes::gib(8)), kind);
            world.run_for(secs(10));
            assert_eq!(ends(&world, job), [(cause, Exit::Code(code))], "{order:?}: {}", world.story);
            assert!(world.engine.is_done());
        }
    }
}

#[test]
fn a_tree_that_is_empty_and_never_reaped_ends_all_the_same() {
    let mut world = roomy();
    let job = world.add(run(CG2, Bytes::gib(8)), Kind::steady(Bytes::gib(1)));
    world.run_for(secs(5));
    world.vanish(job);
    world.run_for(secs(4));
    assert_eq!(ends(&world, job), [(Cause::Crash, Exit::Unknown)], "{}", world.story);
}

#[test]
fn a_run_that_ends_by_itself_does_not_wait_for_memory_that_stays_in_shm() {
    let mut world = roomy();
    let job = world.add(run(CG2, Bytes::gib(8)), Kind::steady(Bytes::gib(4)).shm(90).ends(secs(10), 0));
    world.until(secs(20), "end", |e| matches!(e, Event::Ended { .. }));
    let exited = world.story.did(|e| matches!(e, Effect::TerminateTree(_)))[0];
    assert!(world.now.since(exited) < millis(50), "{}", world.story);
    assert_eq!(ends(&world, job), [(Cause::Finished, Exit::Code(0))]);
}

#[test]
fn a_killed_job_whose_memory_stays_in_shm_is_cleaned_up_soon_after_its_last_process() {
    let mut world = World::new(Bytes::gib(32));
    let job = world.add(run(CG2, Bytes::gib(8)), Kind::steady(Bytes::gib(6)).shm(90).ignores_term());
    world.run_for(secs(10));
    world.input(Input::Shutdown(Urgency::Now));
    world.until(secs(20), "end", |e| matches!(e, Event::Ended { .. }));
    let kill = world.story.did(|e| matches!(e, Effect::Kill(..)))[0];
    let clean = world.story.did(|e| matches!(e, Effect::Clean(_)))[0];
    assert!(clean.since(kill) < secs(2), "{:?}: {}", clean.since(kill), world.story);
    assert_eq!(ends(&world, job), [(Cause::Requested, Exit::Signal(9))]);
}

#[test]
fn leftovers_of_a_run_get_term_and_two_seconds() {
    let mut world = roomy();
    let kind = Kind::steady(Bytes::gib(1)).children(4).ignores_term().ends(secs(5), 0);
    let job = world.add(run(CG2, Bytes::gib(8)), kind);
    world.run_for(secs(10));
    assert_eq!(world.story.stages(job), ["start", "terminate-tree", "kill", "clean"], "{}", world.story);
    let tree = world.story.did(|e| matches!(e, Effect::TerminateTree(_)))[0];
    let kill = world.story.did(|e| matches!(e, Effect::Kill(..)))[0];
    assert!(kill.since(tree) >= secs(2) && kill.since(tree) < millis(2010));
    assert_eq!(ends(&world, job), [(Cause::Finished, Exit::Code(0))]);
}

#[test]
fn a_timeout_is_term_then_grace_then_kill_with_that_cause() {
    let mut world = roomy();
    let policy = JobPolicy { timeout: Some(secs(30)), ..run(CG2, Bytes::gib(8)) };
    let job = world.add(policy, Kind::steady(Bytes::gib(1)).ignores_term());
    let started = world.until(secs(5), "start", |e| matches!(e, Event::Started { .. }));
    world.run_for(secs(60));
    assert_eq!(world.story.stages(job), ["start", "terminate", "kill", "clean"], "{}", world.story);
    let term = world.story.did(|e| matches!(e, Effect::Terminate(..)))[0];
    let kill = world.story.did(|e| matches!(e, Effect::Kill(..)))[0];
    assert_eq!(term.since(started), secs(30));
    assert_eq!(kill.since(term), secs(10));
    assert_eq!(ends(&world, job), [(Cause::Timeout, Exit::Signal(9))]);
}

#[test]
fn a_successor_starts_only_when_the_old_tree_is_empty_and_its_memory_is_back() {
    let mut world = roomy();
    let policy = JobPolicy { max_age: Some(secs(60)), grace: secs(5), ..worker(CG2) };
    let kind = Kind::steady(Bytes::gib(6)).children(3).ignores_term().order(Order::ExitedMemoryEmptied);
    let job = world.add(policy, kind);
    world.run_for(secs(90));
    let stages = world.story.stages(job);
    assert_eq!(stages, ["start", "terminate", "kill", "clean", "start"], "{}", world.story);
    let kill = world.story.did(|e| matches!(e, Effect::Kill(..)))[0];
    let next = world.story.did(|e| matches!(e, Effect::Start(_)))[1];
    // 6 GiB at a fifth of a second each.
    assert!(next.since(kill) >= millis(1200) && next.since(kill) < millis(1300), "{:?}", next.since(kill));
}

#[test]
fn a_graceful_shutdown_waits_and_the_second_one_kills() {
    let mut world = roomy();
    let jobs: Vec<JobId> =
        (0..3).map(|_| world.add(worker(CG2), Kind::steady(Bytes::gib(2)).ignores_term())).collect();
    let polite = world.add(worker(CG2), Kind::steady(Bytes::gib(2)));
    world.run_for(secs(10));
    world.input(Input::Shutdown(Urgency::Graceful));
    world.run_for(secs(10));
    assert_eq!(ends(&world, polite), [(Cause::Requested, Exit::Signal(15))], "{}", world.story);
    assert_eq!(world.story.did(|e| matches!(e, Effect::Kill(..))).len(), 0);
    world.input(Input::Shutdown(Urgency::Now));
    world.run_for(secs(2));
    for job in jobs {
        assert_eq!(ends(&world, job), [(Cause::Requested, Exit::Signal(9))], "{}", world.story);
    }
    assert!(world.engine.is_done());
    assert_eq!(world.story.said(|e| matches!(e, Event::Done)).len(), 1);
}

#[test]
fn what_is_called_off_while_it_starts_is_ended_once_it_runs() {
    for urgency in [Urgency::Graceful, Urgency::Now] {
        let mut world = roomy();
        world.look();
        let job = world.add(worker(CG2), Kind::steady(Bytes::gib(1)));
        world.input(Input::Shutdown(urgency));
        assert_eq!(world.phase(job), Phase::Starting);
        world.run_for(secs(5));
        assert_eq!(ends(&world, job).len(), 1, "{}", world.story);
        assert!(world.engine.is_done());
    }
}

#[test]
fn nothing_is_added_after_the_shutdown() {
    let mut world = roomy();
    let first = world.add(worker(CG2), Kind::steady(Bytes::gib(1)));
    world.run_for(secs(5));
    world.input(Input::Shutdown(Urgency::Graceful));
    let late = world.add(worker(CG2), Kind::steady(Bytes::gib(1)));
    world.run_for(secs(5));
    assert!(world.story.stages(late).is_empty(), "{}", world.story);
    assert!(world.engine.is_done() && !ends(&world, first).is_empty());
}

#[test]
fn an_unkillable_tree_keeps_its_slot_until_it_is_empty() {
    let mut world = roomy();
    let policy = JobPolicy { max_age: Some(secs(20)), grace: secs(2), ..worker(CG2) };
    let job = world.add(policy, Kind::steady(Bytes::gib(2)).ignores_term().stuck(secs(60)));
    let other = world.add(policy, Kind::steady(Bytes::gib(2)));
    world.run_for(secs(50));
    assert_eq!(world.phase(job), Phase::Unkillable, "{}", world.story);
    assert_eq!(world.story.said(|e| matches!(e, Event::Unkillable { .. })).len(), 1);
    assert!(world.story.stages(other).len() > 1, "others go on");
    world.run_for(secs(60));
    assert_eq!(
        world.story.stages(job)[..5],
        ["start", "terminate", "kill", "clean", "start"],
        "{}",
        world.story
    );
}

#[test]
fn a_tree_that_never_empties_is_never_followed_by_another() {
    let mut world = roomy();
    let policy = JobPolicy { max_age: Some(secs(20)), grace: secs(2), ..worker(CG2) };
    let job = world.add(policy, Kind::steady(Bytes::gib(2)).ignores_term().stuck(FOREVER));
    world.run_for(secs(600));
    assert_eq!(world.story.stages(job), ["start", "terminate", "kill"], "{}", world.story);
    world.input(Input::Restart(job));
    world.run_for(secs(60));
    assert_eq!(world.story.stages(job), ["start", "terminate", "kill"], "{}", world.story);
    world.input(Input::Shutdown(Urgency::Graceful));
    assert!(world.engine.is_done(), "it does not hold up the end");
}

#[test]
fn an_adopted_job_keeps_its_age_and_its_number() {
    let mut world = roomy();
    let policy = JobPolicy { max_age: Some(secs(3600)), ..worker(CG2) };
    let job = world.adopt(policy, Kind::steady(Bytes::gib(2)), secs(3000), 7);
    let view = world.engine.view(job, world.now).unwrap_or_else(|| world.fail("no slot"));
    assert_eq!(view.attempt, 7);
    assert!(view.restart_in.is_some_and(|left| left > secs(599) && left <= secs(600)), "{view:?}");
    world.run_for(secs(590));
    assert_eq!(world.phase(job), Phase::Running);
    world.run_for(secs(30));
    assert_eq!(ends(&world, job), [(Cause::Age, Exit::Signal(15))], "{}", world.story);
    let next = |e: &Event| matches!(e, Event::Started { attempt: 8, adopted: false, .. });
    assert_eq!(world.story.said(next).len(), 1, "{}", world.story);
}

#[test]
fn the_last_number_of_a_start_is_not_followed_by_the_first() {
    let mut world = roomy();
    let job = world.adopt(worker(CG2), Kind::steady(Bytes::gib(2)), secs(30), u32::MAX);
    world.input(Input::Restart(job));
    world.run_for(secs(30));
    let next = |e: &Event| matches!(e, Event::Started { attempt: u32::MAX, adopted: false, .. });
    assert_eq!(world.story.said(next).len(), 1, "{}", world.story);
}

#[test]
fn an_adopted_job_that_is_over_age_is_replaced_at_once() {
    let mut world = roomy();
    let policy = JobPolicy { max_age: Some(secs(3600)), ..worker(CG2) };
    let job = world.adopt(policy, Kind::steady(Bytes::gib(2)), secs(9000), 7);
    world.run_for(secs(5));
    assert_eq!(ends(&world, job), [(Cause::Age, Exit::Signal(15))], "{}", world.story);
}

#[test]
fn news_about_slots_that_do_not_exist_is_ignored() {
    let mut world = roomy();
    for job in [JobId(0), JobId(7), JobId(u16::MAX)] {
        world.input(Input::Restart(job));
        world.input(Input::Exited(job, Exit::Code(0)));
        world.input(Input::Emptied(job));
        world.input(Input::Started(job));
        world.input(Input::Remove(job, Urgency::Now));
    }
    assert!(world.story.did(|_| true).is_empty(), "{}", world.story);
}

#[test]
fn the_gap_before_a_high_number_is_no_slot() {
    let mut world = roomy();
    world.add(run(CG2, Bytes::gib(1)), Kind::steady(Bytes::ZERO));
    let policy = worker(CG2);
    world.input(Input::Add(JobId(3), policy));
    world.input(Input::Restart(JobId(1)));
    world.input(Input::Restart(JobId(2)));
    let started = world.story.did(|e| matches!(e, Effect::Start(JobId(1) | JobId(2))));
    assert!(started.is_empty(), "{}", world.story);
}

#[test]
fn what_was_stopped_is_started_again_when_that_is_asked_for() {
    for between in [secs(60), millis(100)] {
        let mut world = roomy();
        let other = world.add(worker(CG2), Kind::steady(Bytes::gib(1)));
        // It takes a second to end: the second request comes after that, or meanwhile.
        let job = world.add(worker(CG2), Kind::steady(Bytes::gib(1)).exits_in(secs(1)));
        world.run_for(secs(5));
        world.input(Input::Remove(job, Urgency::Graceful));
        world.run_for(between);
        world.input(Input::Restart(job));
        world.run_for(secs(20));
        assert_eq!(world.phase(job), Phase::Running, "{between:?}: {}", world.story);
        assert_eq!(ends(&world, job).len(), 1, "{between:?}: {}", world.story);
        world.input(Input::Shutdown(Urgency::Graceful));
        world.input(Input::Restart(other));
        world.run_for(secs(30));
        assert!(world.engine.is_done(), "nothing begins in a shutdown: {}", world.story);
    }
}

#[test]
fn times_beyond_all_reason_mean_never() {
    let mut world = roomy();
    let ages = JobPolicy {
        max_age: Some(Duration::MAX),
        stagger: Duration::MAX,
        timeout: Some(Duration::MAX),
        grace: Duration::MAX,
        ..worker(CG2)
    };
    let leaks = Kind::grows(Bytes::gib(1), secs(0), Bytes::mib(2)).ignores_term();
    let job = world.add(ages, leaks);
    world.run_for(secs(600));
    assert_eq!(world.phase(job), Phase::Terminating, "a leak is not waited for: {}", world.story);
}

#[test]
fn what_a_death_of_memory_left_in_shm_is_removed_before_its_successor_starts() {
    let mut world = World::new(Bytes::gib(32));
    let hoards = Kind { steps: vec![(secs(5), 0), (FOREVER, 1 << 30)], ..Kind::steady(Bytes::gib(6)) };
    let job = world.add(worker(CG2), hoards.shm(90).sweeps_in(secs(4)));
    world.until(secs(30), "restart", |e| matches!(e, Event::Started { attempt: 2, .. }));
    let sweep = world.story.did(|e| *e == Effect::Sweep(job))[0];
    let ended = world.story.said(|e| matches!(e, Event::Ended { .. }))[0];
    assert!(ended.since(sweep) >= secs(4), "{}", world.story);
    assert_eq!(world.story.stages(job), ["start", "terminate", "terminate-tree", "clean", "start"]);
}

#[test]
fn a_sweep_that_does_not_get_on_is_not_waited_for_for_ever() {
    let mut world = World::new(Bytes::gib(32));
    let hoards = Kind { steps: vec![(secs(5), 0), (FOREVER, 1 << 30)], ..Kind::steady(Bytes::gib(6)) };
    let job = world.add(worker(CG2), hoards.shm(90).sweeps_in(FOREVER));
    world.until(secs(60), "end", |e| matches!(e, Event::Ended { .. }));
    let sweep = world.story.did(|e| *e == Effect::Sweep(job))[0];
    assert!((secs(10)..millis(10_010)).contains(&world.now.since(sweep)), "{}", world.story);
}
