//! How one job is held to its limit.

use oomguard_core::{
    Bytes, Cause, Effect, Enforcement, Event, Exit, Input, JobId, JobPolicy, OnLimit, Phase, Word,
};

use crate::world::{Kind, World, millis, run, secs, worker};

fn roomy() -> World {
    World::new(Bytes::gib(64))
}

fn causes(world: &World, wanted: JobId) -> Vec<(Cause, Exit)> {
    let ended = |(_, event)| match event {
        Event::Ended { job, cause, exit, .. } if job == wanted => Some((cause, exit)),
        _ => None,
    };
    world.story.events().filter_map(ended).collect()
}

#[test]
fn a_leak_under_cooperation_is_relieved_then_pruned_then_resumed() {
    let mut world = roomy();
    let leak = Kind::grows(Bytes::gib(5), secs(5), Bytes::mib(50));
    let job = world.add(worker(Enforcement::Cgroup2), leak.cooperates());
    let relieve = world.until(secs(200), "relieve", |e| matches!(e, Event::Relieve { .. }));
    assert!(world.used(job) >= Bytes::gib(8).percent(80) && world.used(job) < Bytes::gib(8).percent(82));
    world.until(millis(100), "relieved", |e| matches!(e, Event::Relieved { .. }));
    world.input(Input::Heard(job, Word::Relieved(Bytes::gib(1))));
    let said = world.story.events().filter(|(_, e)| matches!(e, Event::Relieved { .. })).count();
    assert_eq!(said, 1, "one answer to one request");
    let prune = world.until(secs(60), "prune", |e| matches!(e, Event::Prune { .. }));
    assert!(prune > relieve && world.used(job) < Bytes::gib(8).percent(92), "{}", world.used(job));
    let resume = world.until(secs(5), "resume", |e| matches!(e, Event::Resume { .. }));
    assert!(resume.since(prune) < millis(300), "{:?}", resume.since(prune));
    assert_eq!(world.story.stages(job), ["start", "relieve", "prune", "resume"], "{}", world.story);
    assert_eq!(world.phase(job), Phase::Running);
}

#[test]
fn an_unanswered_request_leads_to_term_once_it_is_full_and_to_kill_after_the_grace() {
    let mut world = roomy();
    let policy = JobPolicy { grace: secs(10), ..worker(Enforcement::Cgroup2) };
    let kind = Kind { most: Bytes::mib(7600), ..Kind::grows(Bytes::gib(5), secs(5), Bytes::mib(50)) };
    let job = world.add(policy, kind.promises().ignores_term());
    world.until(secs(300), "kill", |e| matches!(e, Event::Kill { .. }));
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
    assert!(term.since(prune) >= secs(5) && term.since(prune) < millis(5100), "{:?}", term.since(prune));
    assert!(kill.since(term) >= millis(9999) && kill.since(term) < millis(10_100), "{:?}", kill.since(term));
}

#[test]
fn a_request_is_not_taken_back_and_made_again_while_its_reason_stands() {
    // Between half and four fifths of the limit, and fast: the forecast alone is why.
    let mut world = roomy();
    let kind = Kind::grows(Bytes::gib(4), secs(5), Bytes::gib(4)).promises();
    let job = world.add(run(Enforcement::Cgroup2, Bytes::gib(8)), kind);
    world.run_for(secs(30));
    let stages = world.story.stages(job);
    assert_eq!(stages.iter().filter(|s| **s == "prune").count(), 1, "{}", world.story);
    assert!(!stages.contains(&"resume"), "{}", world.story);
}

#[test]
fn a_worker_that_does_not_listen_gets_its_term_a_tenth_before_the_wall() {
    let mut world = roomy();
    let job = world.add(worker(Enforcement::Cgroup2), Kind::grows(Bytes::gib(6), secs(5), Bytes::mib(100)));
    world.until(secs(120), "term", |e| matches!(e, Event::Terminate { cause: Cause::Limit, .. }));
    assert!(world.used(job) <= Bytes::gib(8).percent(92));
    world.run_for(secs(5));
    assert_eq!(causes(&world, job), [(Cause::Limit, Exit::Signal(15))]);
}

#[test]
fn a_spike_meets_the_kernels_wall_and_the_whole_job_ends_of_its_limit() {
    for enforcement in [Enforcement::Cgroup2, Enforcement::Cgroup1] {
        let mut world = roomy();
        let kind = Kind::spikes(Bytes::gib(1), secs(10)).children(3).ignores_term();
        let job = world.add(run(enforcement, Bytes::gib(8)), kind);
        world.run_for(secs(20));
        assert_eq!(
            causes(&world, job),
            [(Cause::Limit, Exit::Signal(9))],
            "{enforcement:?}: {}",
            world.story
        );
        assert_eq!(world.story.said(|e| matches!(e, Event::KernelKill { cause: Cause::Limit, .. })).len(), 1);
        assert!(world.available() > Bytes::gib(63));
    }
}

#[test]
fn a_job_may_outlive_a_child_that_the_kernel_took() {
    let mut world = roomy();
    let policy = JobPolicy { on_limit: OnLimit::Process, ..run(Enforcement::Cgroup2, Bytes::gib(8)) };
    let kind = Kind { most: Bytes::mib(8192), ..Kind::spikes(Bytes::gib(1), secs(10)) };
    let job = world.add(policy, Kind { steps: vec![(secs(10), 0), (secs(1), 8 << 30)], ..kind }.children(3));
    world.run_for(secs(60));
    assert_eq!(world.phase(job), Phase::Running, "{}", world.story);
    assert!(!world.story.said(|e| matches!(e, Event::KernelKill { .. })).is_empty());
    assert!(!world.story.stages(job).contains(&"kill"));
}

#[test]
fn a_main_process_that_the_kernel_took_at_the_limit_died_of_the_limit_in_either_order() {
    for limit_first in [true, false] {
        let mut world = roomy();
        let policy = JobPolicy { on_limit: OnLimit::Process, ..run(Enforcement::Cgroup1, Bytes::gib(8)) };
        let job = world.add(policy, Kind::steady(Bytes::gib(1)));
        world.run_for(secs(5));
        let limit = Input::Limit(job, oomguard_core::LimitEvent::KilledAtLimit);
        let exited = Input::Exited(job, Exit::Signal(9));
        let order = if limit_first { [limit, exited] } else { [exited, limit] };
        order.into_iter().for_each(|input| world.input(input));
        world.run_for(secs(5));
        assert_eq!(causes(&world, job), [(Cause::Limit, Exit::Signal(9))], "{}", world.story);
    }
}

#[test]
fn success_is_not_turned_into_a_limit_by_what_the_kernel_does_to_the_leftovers() {
    let mut world = roomy();
    let job = world.add(run(Enforcement::Cgroup2, Bytes::gib(8)), Kind::steady(Bytes::gib(1)));
    world.run_for(secs(5));
    world.input(Input::Exited(job, Exit::Code(0)));
    world.input(Input::Limit(job, oomguard_core::LimitEvent::KilledAtLimit));
    world.run_for(secs(5));
    assert_eq!(causes(&world, job), [(Cause::Finished, Exit::Code(0))], "{}", world.story);
}

#[test]
fn a_watched_run_over_its_limit_is_killed_and_a_watched_worker_has_its_grace() {
    for (policy, stage) in
        [(run(Enforcement::WatchOnly, Bytes::gib(8)), "kill"), (worker(Enforcement::WatchOnly), "terminate")]
    {
        let mut world = roomy();
        let job = world.add(policy, Kind::grows(Bytes::gib(7), secs(5), Bytes::mib(100)));
        world.run_for(secs(30));
        assert_eq!(world.story.stages(job)[..2], ["start", stage], "{}", world.story);
    }
}

#[test]
fn a_watched_worker_has_no_grace_where_its_growth_leaves_the_host_no_time_for_it() {
    let mut world = roomy();
    let kind = Kind { most: Bytes::mib(9000), ..Kind::spikes(Bytes::gib(1), secs(10)) };
    let job = world.add(worker(Enforcement::WatchOnly), kind);
    world.run_for(secs(12));
    assert_eq!(world.story.stages(job)[..2], ["start", "kill"], "{}", world.story);
}

#[test]
fn a_touched_throttle_is_let_go_after_two_seconds_and_comes_back_after_ten() {
    let mut world = roomy();
    // It hangs on the mark: throttled, it neither grows nor answers. Nobody restarts it, so it is not stopped.
    let policy = run(Enforcement::Cgroup2, Bytes::gib(8));
    let kind = Kind { most: Bytes::mib(7500), ..Kind::grows(Bytes::gib(6), secs(5), Bytes::mib(100)) };
    world.add(policy, kind.promises());
    world.run_for(secs(60));
    let touched = world.story.lines.iter().find_map(|(at, line)| match line {
        crate::world::Line::In(input) if input.contains("Soft") => Some(*at),
        _ => None,
    });
    let touched = touched.unwrap_or_else(|| world.fail("the mark was not touched"));
    let sets = world.story.lines.iter().filter_map(|(at, line)| match line {
        crate::world::Line::Did(Effect::SetSoft(_, mark)) if *at > touched => Some((*at, mark.is_some())),
        _ => None,
    });
    let sets: Vec<_> = sets.collect();
    assert!(sets.len() >= 4, "{}", world.story);
    assert!(!sets[0].1 && sets[0].0.since(touched) <= millis(2001), "{}", world.story);
    for pair in sets.windows(2) {
        assert_ne!(pair[0].1, pair[1].1);
        let lasted = pair[1].0.since(pair[0].0);
        let expected = if pair[0].1 { millis(2100) } else { millis(10_100) };
        assert!(lasted <= expected, "{lasted:?}: {}", world.story);
    }
}

#[test]
fn a_worker_that_says_again_and_again_that_it_listens_does_not_prolong_its_throttle() {
    let mut world = roomy();
    let kind = Kind { most: Bytes::mib(7500), ..Kind::grows(Bytes::gib(6), secs(5), Bytes::mib(100)) };
    let job = world.add(run(Enforcement::Cgroup2, Bytes::gib(8)), kind.promises());
    for _ in 0..120 {
        world.run_for(millis(250));
        // The rules of the world fail where a touched throttle lasts longer than 2 s.
        world.input(Input::Heard(job, Word::Checks));
    }
    assert!(!world.story.did(|e| matches!(e, Effect::SetSoft(_, None))).is_empty(), "{}", world.story);
}

#[test]
fn a_leak_is_forecast_and_the_worker_restarted_in_time_with_that_cause() {
    let mut world = roomy();
    // 10 MiB/s under breathing: five minutes make it certain, and then there are less than 130 s to the limit.
    let policy = JobPolicy { max_age: None, limit: Some(Bytes::gib(8)), ..worker(Enforcement::Cgroup2) };
    let kind = Kind::grows(Bytes::gib(3), secs(1), Bytes::mib(10));
    let job = world.add(policy, kind.clone());
    world.run_for(secs(700));
    assert_eq!(causes(&world, job).first().map(|c| c.0), Some(Cause::Leak), "{}", world.story);
    let leak = world.story.said(|e| matches!(e, Event::Leak { .. }));
    assert!(!leak.is_empty());
    assert!(world.story.said(|e| matches!(e, Event::Waiting { .. })).is_empty(), "no failure");
}

#[test]
fn breathing_is_no_leak() {
    let mut world = roomy();
    let policy = JobPolicy { max_age: None, ..worker(Enforcement::Cgroup2) };
    let job = world.add(policy, Kind::breathes(Bytes::gib(2), Bytes::mib(100), secs(20)));
    world.run_for(secs(1200));
    assert_eq!(world.story.stages(job), ["start"], "{}", world.story);
    assert!(world.story.said(|e| matches!(e, Event::Leak { .. })).is_empty());
}

#[test]
fn a_new_limit_reaches_the_kernel_and_a_lifted_one_as_well() {
    let mut world = roomy();
    let policy = worker(Enforcement::Cgroup2);
    let job = world.add(policy, Kind::steady(Bytes::gib(2)));
    world.run_for(secs(10));
    world.change(job, JobPolicy { limit: Some(Bytes::gib(4)), ..policy });
    world.change(job, JobPolicy { limit: None, ..policy });
    let limits = world.story.lines.iter().filter_map(|(_, line)| match line {
        crate::world::Line::Did(Effect::SetLimit(_, limit)) => Some(*limit),
        _ => None,
    });
    assert_eq!(limits.collect::<Vec<_>>(), [Bytes::gib(4), Bytes::MAX], "{}", world.story);
}

#[test]
fn a_job_without_a_limit_is_asked_for_its_caches_at_every_shortage() {
    let mut world = World::new(Bytes::gib(32));
    let policy = JobPolicy { limit: None, max_age: None, ..worker(Enforcement::WatchOnly) };
    world.add(policy, Kind::steady(Bytes::gib(8)).cooperates());
    let stranger = world.stranger(Bytes::gib(1), Bytes::ZERO);
    world.strangers[stranger].most = Bytes::mib(20_700).0 as f64;
    for _ in 0..3 {
        world.strangers[stranger].rate = Bytes::gib(2).0 as f64;
        world.run_for(secs(15));
        world.strangers[stranger].rate = -(Bytes::gib(2).0 as f64);
        world.run_for(secs(10));
    }
    let asked = world.story.did(|e| matches!(e, Effect::Relieve(_))).len();
    assert_eq!(asked, 3, "{}", world.story);
}

#[test]
fn the_look_at_a_watched_job_comes_before_it_can_have_passed_its_limit_by_much() {
    let mut world = roomy();
    let job = world.add(run(Enforcement::WatchOnly, Bytes::gib(8)), Kind::spikes(Bytes::gib(1), secs(10)));
    world.until(secs(20), "kill", |e| matches!(e, Event::Kill { .. }));
    // 10 ms at 8 GiB/s.
    assert!(world.used(job) < Bytes::mib(8192 + 120), "{}", world.used(job));
}

#[test]
fn a_job_that_the_kernel_lets_go_of_is_held_by_looking() {
    for (policy, spared) in [(run(Enforcement::Cgroup2, Bytes::gib(8)), 0), (worker(Enforcement::Cgroup2), 1)]
    {
        let mut world = roomy();
        let job = world.add(policy, Kind::grows(Bytes::gib(2), secs(5), Bytes::mib(500)));
        world.run_for(secs(5));
        world.unplug(job);
        world.until(secs(60), "end", |e| matches!(e, Event::Ended { .. }));
        let limit = policy.limit.unwrap_or(Bytes::ZERO);
        let stopped = world.story.did(|e| matches!(e, Effect::Terminate(..) | Effect::Kill(..)));
        assert_eq!(stopped.len(), 1, "{}", world.story);
        assert_eq!(world.story.did(|e| matches!(e, Effect::Terminate(..))).len(), spared, "{}", world.story);
        let peak = world.story.events().find_map(|(_, event)| match event {
            Event::Ended { peak, cause: Cause::Limit, .. } => Some(peak),
            _ => None,
        });
        assert!(peak.is_some_and(|peak| peak < limit.percent(105)), "{peak:?}: {}", world.story);
    }
}
