//! GPUs: a job that holds more than it may, a GPU of which too little is left, what the dead keep, and what is not known.

use std::time::Duration;

use oomguard_core::sample::{DeviceMemory, DeviceSample, HeldSample};
use oomguard_core::{
    Amount, Bytes, Cause, DeviceId, Effect, Enforcement, Event, HostPolicy, Input, Instant, JobId, JobPolicy,
    Pause, Phase, Reading, Reason, Restart, Why,
};

use crate::world::gpus::OnGpu;
use crate::world::{FOREVER, Kind, World, millis, secs, worker};

const CG2: Enforcement = Enforcement::Cgroup2;
const CARD: Bytes = Bytes::gib(16);

/// A machine with this many cards of 16 GiB; `reserve` must be left of each.
fn machine(cards: usize, reserve: Option<Amount>) -> World {
    let host = HostPolicy { vram_reserve: reserve, ..HostPolicy::for_machine(Bytes::gib(64), 8) };
    let mut world = World::with(Bytes::gib(64), host);
    for _ in 0..cards {
        world.gpu(CARD);
    }
    world
}

fn limited(limit: Amount) -> JobPolicy {
    JobPolicy { vram_limit: Some(limit), grace: secs(10), ..worker(CG2) }
}

fn steady() -> Kind {
    Kind::steady(Bytes::gib(1))
}

fn ended(world: &World, wanted: JobId) -> Vec<Cause> {
    let ended = |(_, event)| match event {
        Event::Ended { job, cause, .. } if job == wanted => Some(cause),
        _ => None,
    };
    world.story.events().filter_map(ended).collect()
}

fn is_about_vram(event: &Event) -> bool {
    let text = format!("{event:?}");
    text.starts_with("Vram")
}

#[test]
fn over_its_limit_a_job_gets_term_and_after_the_grace_kill_and_nobody_else_does() {
    let mut world = machine(1, None);
    let grows = OnGpu::grows(0, Bytes::gib(1), Bytes::mib(500));
    let policy = JobPolicy { restart: Restart::Never, ..limited(Amount::Bytes(Bytes::gib(4))) };
    let over = world.add(policy, steady().ignores_term().on_gpu(grows));
    let other = world.add(limited(Amount::Percent(50)), steady().on_gpu(OnGpu::holds(0, Bytes::gib(7))));
    world.until(secs(60), "kill", |e| matches!(e, Event::Kill { .. }));
    world.run_for(secs(20));
    assert_eq!(world.story.stages(over), ["start", "terminate", "kill", "clean"], "{}", world.story);
    assert_eq!(ended(&world, over), [Cause::Vram]);
    assert_eq!(world.story.stages(other), ["start"], "{}", world.story);
    let braked = world.story.events().find_map(|(_, event)| match event {
        Event::VramBrake { job, device, reason, used, limit, .. } => Some((job, device, reason, used, limit)),
        _ => None,
    });
    let Some((job, device, reason, used, limit)) = braked else { panic!("{}", world.story) };
    assert_eq!((job, device, reason), (over, DeviceId(0), Reason::OverLimit));
    assert_eq!(limit, Some(Bytes::gib(4)));
    assert!(used > Bytes::gib(4) && used < Bytes::gib(5), "{used}");
}

#[test]
fn a_job_that_listens_gives_back_and_then_stops_by_itself_and_is_not_ended() {
    let mut world = machine(1, None);
    let gpu = OnGpu { cache: Bytes::mib(400), ..OnGpu::grows(0, Bytes::gib(1), Bytes::mib(200)) };
    let job = world.add(limited(Amount::Percent(25)), steady().cooperates().on_gpu(gpu));
    world.until(secs(60), "relief", |e| matches!(e, Event::VramRelieve { .. }));
    world.until(secs(60), "prune", |e| matches!(e, Event::Prune { cause: Cause::Vram, .. }));
    world.until(secs(5), "resume", |e| matches!(e, Event::Resume { .. }));
    assert_eq!(world.story.stages(job), ["start", "relieve", "prune", "resume"], "{}", world.story);
    assert!(world.vram(job) < Bytes::gib(4));
}

#[test]
fn relief_alone_may_be_enough() {
    let mut world = machine(1, None);
    let gpu = OnGpu { cache: Bytes::gib(3), ..OnGpu::holds(0, Bytes::mib(5120)) };
    // What it does not need is all above its limit.
    let kind = Kind { gpu: Some(OnGpu { base: Bytes::gib(2), rate: Bytes::gib(8), ..gpu }), ..steady() };
    let job = world.add(limited(Amount::Bytes(Bytes::gib(4))), kind.promises());
    world.until(secs(10), "relief", |e| matches!(e, Event::VramRelieve { .. }));
    world.slots_gpu(job, OnGpu::holds(0, Bytes::gib(2)));
    world.run_for(secs(20));
    assert_eq!(world.story.stages(job), ["start", "relieve"], "{}", world.story);
}

#[test]
fn what_was_read_before_a_job_gave_back_does_not_brake_it() {
    for reserve in [None, Some(Amount::Bytes(Bytes::gib(12)))] {
        let mut world = machine(1, reserve);
        let policy = if reserve.is_none() { limited(Amount::Bytes(Bytes::gib(4))) } else { worker(CG2) };
        let on = OnGpu { cache: Bytes::gib(3), ..OnGpu::holds(0, Bytes::mib(5120)) };
        let job = world.add(policy, steady().promises().on_gpu(on));
        world.until(secs(10), "relief", |e| matches!(e, Event::VramRelieve { .. }));
        world.slots_gpu(job, OnGpu::holds(0, Bytes::gib(2)));
        let read = world.now;
        world.until(secs(2), "answer", |e| matches!(e, Event::Relieved { .. }));
        assert!(world.now > read);
        let memory = Reading::Known(DeviceMemory { total: Bytes::gib(16), free: Bytes::gib(11) });
        let devices = [DeviceSample { device: DeviceId(0), memory }];
        let held = [HeldSample { job, device: DeviceId(0), used: Reading::Known(Bytes::gib(5)) }];
        world.input(Input::Vram(read, &devices, &held));
        world.run_for(secs(20));
        assert_eq!(world.story.stages(job), ["start", "relieve"], "{}", world.story);
    }
}

#[test]
fn asked_in_vain_it_is_told_to_stop() {
    let mut world = machine(1, None);
    let grows = OnGpu::grows(0, Bytes::gib(1), Bytes::mib(500));
    let policy = JobPolicy { restart: Restart::Never, ..limited(Amount::Percent(25)) };
    let job = world.add(policy, steady().promises().on_gpu(grows));
    world.run_for(secs(40));
    assert_eq!(
        world.story.stages(job),
        ["start", "relieve", "prune", "terminate", "terminate-tree", "clean"],
        "{}",
        world.story
    );
    let at = |wanted: &dyn Fn(&Effect) -> bool| world.story.did(wanted)[0];
    let prune = at(&|e| matches!(e, Effect::Prune(..)));
    let term = at(&|e| matches!(e, Effect::Terminate(..)));
    assert!(term.since(prune) >= secs(5) && term.since(prune) < millis(5500), "{:?}", term.since(prune));
}

#[test]
fn for_a_shortage_on_one_gpu_nobody_on_another_goes() {
    let mut world = machine(2, Some(Amount::Bytes(Bytes::gib(2))));
    let there = world.add(worker(CG2), steady().on_gpu(OnGpu::grows(1, Bytes::gib(12), Bytes::mib(20))));
    let small = world.add(worker(CG2), steady().on_gpu(OnGpu::holds(0, Bytes::gib(1))));
    let here = world.add(worker(CG2), steady().on_gpu(OnGpu::grows(0, Bytes::gib(8), Bytes::mib(300))));
    world.until(secs(60), "shortage", |e| matches!(e, Event::VramShort { device: DeviceId(0), .. }));
    world.until(secs(10), "brake", |e| matches!(e, Event::VramBrake { .. }));
    world.until(secs(30), "enough", |e| matches!(e, Event::VramEnough { device: DeviceId(0), .. }));
    assert_eq!(world.story.stages(there), ["start"], "{}", world.story);
    assert_eq!(world.story.stages(small), ["start"], "{}", world.story);
    assert_eq!(&world.story.stages(here)[..2], ["start", "terminate"], "{}", world.story);
}

#[test]
fn all_on_the_short_gpu_are_asked_to_give_back_before_anybody_goes() {
    let mut world = machine(2, Some(Amount::Percent(10)));
    let cached = OnGpu { cache: Bytes::gib(5), ..OnGpu::holds(0, Bytes::gib(6)) };
    let first = world.add(worker(CG2), steady().promises().on_gpu(cached.clone()));
    let second = world.add(worker(CG2), steady().promises().on_gpu(OnGpu::holds(0, Bytes::gib(4))));
    let third = world.add(worker(CG2), steady().promises().on_gpu(OnGpu { device: 1, ..cached }));
    world.run_for(secs(5));
    world.driver.gpus[0].strangers = Bytes::mib(5 * 1024).0 as f64;
    // Its need is what it holds beside the cache.
    world.slots_gpu(first, OnGpu::holds(0, Bytes::gib(1)));
    world.until(secs(5), "enough", |e| matches!(e, Event::VramEnough { .. }));
    world.run_for(secs(10));
    for job in [first, second] {
        assert_eq!(world.story.stages(job), ["start", "relieve"], "{}", world.story);
    }
    assert_eq!(world.story.stages(third), ["start"], "{}", world.story);
}

#[test]
fn a_reserve_that_leaves_nothing_of_a_gpu_is_no_rule_for_it() {
    for reserve in [Amount::Percent(100), Amount::Bytes(Bytes::gib(20))] {
        let mut world = machine(1, Some(reserve));
        let job = world.add(worker(CG2), steady().on_gpu(OnGpu::holds(0, Bytes::gib(15))));
        world.run_for(secs(30));
        assert_eq!(world.story.stages(job), ["start"], "{}", world.story);
    }
}

#[test]
fn a_stranger_who_fills_a_gpu_costs_nobody_his_work() {
    let mut world = machine(1, Some(Amount::Bytes(Bytes::gib(4))));
    let job = world.add(worker(CG2), steady().on_gpu(OnGpu::holds(0, Bytes::mib(100))));
    world.run_for(secs(5));
    world.driver.gpus[0].strangers = CARD.0 as f64 * 0.98;
    world.until(secs(5), "helplessness", |e| matches!(e, Event::VramNoVictim { .. }));
    world.run_for(secs(60));
    assert_eq!(world.story.stages(job), ["start"], "{}", world.story);
    assert_eq!(world.story.said(|e| matches!(e, Event::VramNoVictim { .. })).len(), 1);
}

#[test]
fn what_is_not_known_brakes_nobody_and_is_said_once() {
    let mut world = machine(2, Some(Amount::Percent(10)));
    let grows = |device| OnGpu::grows(device, Bytes::gib(1), Bytes::mib(500));
    let jobs = [0, 1].map(|on| world.add(limited(Amount::Percent(50)), steady().on_gpu(grows(on))));
    world.driver.gpus[0].why = Some(Why::Lost);
    world.driver.gpus[1].hides = true;
    world.run_for(secs(60));
    let unknown: Vec<Event> =
        world.story.events().map(|(_, e)| e).filter(|e| matches!(e, Event::VramUnknown { .. })).collect();
    let said = |device, job, why| Event::VramUnknown { device: Some(DeviceId(device)), job, why };
    assert_eq!(unknown, [said(0, None, Why::Lost), said(1, Some(jobs[1]), Why::NoPermission)]);
    for job in jobs {
        assert_eq!(world.story.stages(job), ["start"], "{}", world.story);
    }
    // Known again, it counts again.
    world.driver.gpus[0].why = None;
    world.run_for(secs(1));
    let said = |wanted: &dyn Fn(&Event) -> bool| world.story.said(wanted).len();
    assert_eq!(said(&|e| matches!(e, Event::VramKnown { device: Some(DeviceId(0)), .. })), 1);
    assert_eq!(said(&|e| matches!(e, Event::VramBrake { job: JobId(0), .. })), 1, "{}", world.story);
}

#[test]
fn a_gpu_that_is_lost_midway_is_an_event_and_takes_a_request_back() {
    let mut world = machine(1, None);
    let gpu = OnGpu::grows(0, Bytes::gib(1), Bytes::mib(500));
    let job = world.add(limited(Amount::Percent(25)), steady().promises().on_gpu(gpu));
    world.until(secs(30), "prune", |e| matches!(e, Event::Prune { .. }));
    world.driver.gpus[0].why = Some(Why::Lost);
    world.until(secs(2), "loss", |e| matches!(e, Event::VramUnknown { why: Why::Lost, .. }));
    world.run_for(secs(30));
    assert_eq!(world.story.stages(job), ["start", "relieve", "prune", "resume"], "{}", world.story);
}

#[test]
fn what_was_read_too_long_ago_is_not_known() {
    let mut world = machine(1, None);
    let gpu = OnGpu::holds(0, Bytes::gib(2));
    let job = world.add(limited(Amount::Percent(25)), steady().on_gpu(gpu));
    world.run_for(secs(5));
    let known = world.now;
    world.driver.hangs_until = Instant::NEVER;
    let said = world.until(secs(60), "silence", |e| matches!(e, Event::VramUnknown { .. }));
    let after = said.since(known);
    assert!(after > secs(14) && after < secs(16), "{after:?}");
    // A reading that took so long that it is none.
    let samples = [DeviceSample {
        device: DeviceId(0),
        memory: Reading::Known(DeviceMemory { total: CARD, free: Bytes::ZERO }),
    }];
    let held = [HeldSample { job, device: DeviceId(0), used: Reading::Known(CARD) }];
    let at = Instant(world.now.0 - 16_000_000_000);
    world.input(Input::Vram(at, &samples, &held));
    world.run_for(secs(60));
    assert_eq!(world.story.stages(job), ["start"], "{}", world.story);
}

#[test]
fn nobody_asks_for_gpus_without_a_rule() {
    let mut world = machine(1, None);
    let job = world.add(worker(CG2), steady().on_gpu(OnGpu::grows(0, Bytes::gib(1), Bytes::gib(1))));
    world.run_for(secs(60));
    assert!(!world.engine.wants_gpus());
    assert_eq!(world.story.said(is_about_vram), [], "{}", world.story);
    // With one, as long as a job is there that it is for.
    world.change(job, limited(Amount::Percent(100)));
    world.run_for(secs(1));
    assert!(world.engine.wants_gpus());
    world.input(Input::Remove(job, oomguard_core::Urgency::Now));
    world.run_for(secs(5));
    assert!(!world.engine.wants_gpus());
}

fn crashes(lingers: Duration) -> (World, JobId) {
    let mut world = machine(1, None);
    let gpu = OnGpu { lingers, ..OnGpu::holds(0, Bytes::gib(3)) };
    let kind = steady().ends(secs(20), 1).on_gpu(gpu);
    let job = world.add(limited(Amount::Percent(50)), kind);
    world.until(secs(60), "end", |e| matches!(e, Event::Ended { .. }));
    (world, job)
}

#[test]
fn a_worker_starts_again_when_the_vram_of_the_one_before_is_back() {
    let (mut world, job) = crashes(secs(4));
    let ended = world.now;
    let start = world.until(secs(30), "start", |e| matches!(e, Event::Started { attempt: 2, .. }));
    let after = start.since(ended);
    assert!(after > millis(3500) && after < millis(4600), "{after:?}");
    let back = |e: &Event| matches!(e, Event::VramBack { complete: true, .. });
    assert_eq!(world.story.said(back).len(), 1, "{}", world.story);
    assert_eq!(world.phase(job), Phase::Running);
}

#[test]
fn who_was_removed_before_anybody_looked_waits_for_its_vram_when_it_is_called_back() {
    let mut world = machine(1, None);
    let gpu = OnGpu { lingers: secs(4), ..OnGpu::holds(0, Bytes::gib(3)) };
    // For whose sake it is looked at all.
    world.add(limited(Amount::Percent(50)), steady().on_gpu(OnGpu::holds(0, Bytes::gib(1))));
    world.run_for(secs(5));
    let job = world.add(limited(Amount::Percent(50)), steady().on_gpu(gpu));
    world.until(secs(5), "start", |e| matches!(e, Event::Started { .. }));
    world.run_for(millis(50));
    world.input(Input::Remove(job, oomguard_core::Urgency::Now));
    let ended = world.until(secs(5), "end", |e| matches!(e, Event::Ended { .. }));
    world.run_for(secs(1));
    world.input(Input::Restart(job));
    let start = world.until(secs(30), "start", |e| matches!(e, Event::Started { attempt: 2, .. }));
    assert!(start.since(ended) > millis(3500), "{}", world.story);
}

#[test]
fn a_gpu_that_the_dead_hold_is_not_used_again_and_that_is_said() {
    let (mut world, job) = crashes(secs(60));
    let ended = world.now;
    let stuck = world.until(
        secs(30),
        "stuck",
        |e| matches!(e, Event::VramStuck { device: DeviceId(0), held, .. } if *held == Bytes::gib(3)),
    );
    assert!(stuck.since(ended) > millis(9900) && stuck.since(ended) < secs(11));
    // Nor by others who may use it.
    let other = world.add(worker(CG2), steady().on_gpu(OnGpu::holds(0, Bytes::gib(1))));
    let start = world.until(secs(60), "start", |e| matches!(e, Event::Started { attempt: 2, .. }));
    assert!(start.since(ended) > secs(59), "{}", world.story);
    world.run_for(secs(5));
    assert_eq!([job, other].map(|job| world.phase(job)), [Phase::Running; 2]);
}

#[test]
fn a_process_that_does_not_die_keeps_its_gpu_from_others() {
    let mut world = machine(2, Some(Amount::Percent(5)));
    let seen = |device| OnGpu::holds(device, Bytes::gib(3));
    let dead = world.add(worker(CG2), steady().stuck(FOREVER).ignores_term().on_gpu(seen(0)));
    let [same, free] =
        [0, 1].map(|device| world.add(worker(CG2), steady().ends(secs(30), 1).on_gpu(seen(device))));
    world.run_for(secs(5));
    world.input(Input::Remove(dead, oomguard_core::Urgency::Now));
    world.until(secs(20), "unkillable", |e| matches!(e, Event::Unkillable { .. }));
    world.until(secs(2), "stuck", |e| matches!(e, Event::VramStuck { device: DeviceId(0), .. }));
    world.run_for(secs(60));
    assert_eq!(world.phase(same), Phase::Waiting, "{}", world.story);
    let waits = |e: &Event| matches!(e, Event::Waiting { job, pause: Pause::Vram, .. } if *job == same);
    assert_eq!(world.story.said(waits).len(), 1, "{}", world.story);
    assert!(world.story.did(|e| *e == Effect::Start(free)).len() > 1, "{}", world.story);
}

#[test]
fn what_cannot_be_seen_is_waited_for_a_while_and_then_let_be() {
    let (mut world, _) = crashes(FOREVER);
    let ended = world.now;
    world.driver.gpus[0].why = Some(Why::NoAnswer);
    let back =
        world.until(secs(30), "end of the wait", |e| matches!(e, Event::VramBack { complete: false, .. }));
    assert!(back.since(ended) > millis(9900) && back.since(ended) < secs(11), "{:?}", back.since(ended));
    world.until(secs(2), "start", |e| matches!(e, Event::Started { attempt: 2, .. }));
}
