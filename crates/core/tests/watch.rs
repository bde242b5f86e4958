//! The host guard under a virtual clock: processes are rows, memory is a number, and nothing sleeps.
#![expect(clippy::unwrap_used, reason = "a test that names nobody has failed")]

use std::time::Duration;

use oomguard_core::watch::{
    Effect, Event, Policy, Remains, Row, Shortage, Standing, Watch, Who, expose, newcomers,
};
use oomguard_core::{Bytes, HostPolicy, HostSample, Instant, Level, Reading, Reason, Why};

const SECOND: Duration = Duration::from_secs(1);
const HALF: Duration = Duration::from_millis(500);

/// A machine of 16 GiB whose shell (pid 100) has started whatever a test adds.
struct World {
    now: Instant,
    host: HostSample,
    rows: Vec<Row>,
    watch: Watch,
    held: Option<Who>,
    said: Vec<Event>,
    done: Vec<Effect>,
    scans: u32,
    /// What each of them takes of a core.
    cost: Duration,
    /// Shared memory of the dead is removed at once.
    sweeps: bool,
}

fn named(text: &str) -> [u8; 16] {
    let mut name = [0; 16];
    name[..text.len()].copy_from_slice(text.as_bytes());
    name
}

fn process(pid: u32, parent: u32, group: u32, name: &str, mib: u64) -> Row {
    Row {
        who: Who { pid, start: u64::from(pid) },
        parent,
        group,
        session: 100,
        has_terminal: true,
        name: named(name),
        uid: 1000,
        private: Bytes::mib(mib),
        space: Bytes::mib(mib + 100),
        ..Row::default()
    }
}

impl World {
    fn new(enforce: bool) -> World {
        let host = HostPolicy {
            reserve: Bytes::gib(2),
            warning: Bytes::gib(4),
            worst_rate: Bytes::gib(16),
            vram_reserve: None,
        };
        let policy = Policy { host, grace: 10 * SECOND, enforce };
        let init = Row { session: 1, has_terminal: false, ..process(1, 0, 1, "systemd", 10) };
        World {
            now: Instant(1_000_000_000_000),
            host: HostSample {
                available: Bytes::gib(10),
                total: Bytes::gib(16),
                swap_free: Bytes::ZERO,
                charged: Reading::Unknown(Why::NotSupported),
                stalled_us: Reading::Known(0),
            },
            rows: vec![init, process(100, 1, 100, "bash", 5)],
            watch: Watch::new(policy),
            held: None,
            said: Vec::new(),
            done: Vec::new(),
            scans: 0,
            cost: Duration::from_millis(1),
            sweeps: true,
        }
    }

    fn add(&mut self, row: Row) -> &mut World {
        self.rows.push(row);
        self.rows.sort_by_key(|row| row.who);
        self
    }

    fn row(&mut self, pid: u32) -> &mut Row {
        self.rows.iter_mut().find(|row| row.who.pid == pid).unwrap()
    }

    fn available(&mut self, mib: u64) -> &mut World {
        self.host.available = Bytes::mib(mib);
        self
    }

    /// Everybody who was stalled for so many percent of the time to come.
    fn pass(&mut self, time: Duration, stalled_percent: u64) -> &mut World {
        self.now = self.now.after(time);
        if let Reading::Known(stalled) = &mut self.host.stalled_us {
            *stalled += time.as_micros() as u64 * stalled_percent / 100;
        }
        self.look()
    }

    /// One look, as a driver does it.
    fn look(&mut self) -> &mut World {
        let remains = self.held.map(|leader| {
            let group = leader.pid;
            let of = |row: &&Row| row.who == leader || row.group == group;
            let held: Vec<&Row> = self.rows.iter().filter(of).collect();
            let usage = held.iter().fold(Bytes::ZERO, |sum, row| sum.plus(row.private));
            Remains { processes: held.len() as u32, usage }
        });
        if self.watch.look(self.now, &self.host, remains) {
            self.scans += 1;
            self.watch.scan(self.now, self.cost, &self.rows);
        }
        while let Some(effect) = self.watch.poll_effect() {
            match effect {
                Effect::Hold(leader) => self.held = Some(leader),
                Effect::Release => self.held = None,
                Effect::Sweep if self.sweeps => self.watch.swept(),
                Effect::Sweep => {}
                Effect::Terminate | Effect::Kill => {}
            }
            self.done.push(effect);
        }
        self.said.extend(std::iter::from_fn(|| self.watch.poll_event()));
        self
    }

    /// Looks whenever the guard wants to, for so long.
    fn run(&mut self, time: Duration, stalled_percent: u64) -> &mut World {
        let end = self.now.after(time);
        while self.now < end {
            let step = self.watch.next_look().since(self.now).max(Duration::from_micros(10));
            self.pass(step.min(end.since(self.now)), stalled_percent);
        }
        self
    }

    /// What is available falls evenly to so many MiB within five seconds.
    fn sink(&mut self, mib: u64) -> &mut World {
        let from = self.host.available.0 >> 20;
        for step in 1..=50 {
            self.available(from - (from - mib) * step / 50).pass(Duration::from_millis(100), 0);
        }
        self
    }

    fn end(&mut self, pid: u32) -> &mut World {
        self.rows.retain(|row| row.who.pid != pid);
        self
    }

    /// Leaders that were chosen, and why.
    fn chosen(&self) -> Vec<(u32, Reason)> {
        let chosen = self.said.iter().filter_map(|event| match event {
            Event::Chosen { choice, .. } => Some((choice.family.leader.pid, choice.reason)),
            _ => None,
        });
        chosen.collect()
    }

    fn signals(&self) -> Vec<Effect> {
        let is_signal = |effect: &&Effect| matches!(effect, Effect::Terminate | Effect::Kill);
        self.done.iter().filter(is_signal).copied().collect()
    }
}

#[test]
fn the_family_that_took_the_memory_goes_and_not_the_old_large_one() {
    let mut world = World::new(false);
    world.add(process(200, 100, 200, "database", 4000)).add(process(300, 100, 300, "pytest", 50));
    world.look();
    for child in 301..331 {
        world.add(process(child, 300, 300, "pytest", 260));
    }
    world.available(1900).run(SECOND, 0);
    assert_eq!(world.chosen(), [(300, Reason::FastestGrowth)]);
    let Some(Event::Chosen { choice, enforced, .. }) =
        world.said.iter().find(|event| matches!(event, Event::Chosen { .. }))
    else {
        panic!("nobody was chosen")
    };
    assert_eq!((choice.family.processes, *enforced), (31, false));
    assert_eq!(world.done, [], "a dry run does nothing");
}

#[test]
fn a_family_that_was_born_after_the_last_scan_is_looked_for_before_an_old_one_goes() {
    let mut world = World::new(false);
    world.add(process(200, 100, 200, "database", 9000)).available(4000).look();
    // Within the time in which a scan is believed.
    world.add(process(300, 100, 300, "hog", 2200)).available(1800).pass(Duration::from_millis(20), 0);
    world.pass(Duration::ZERO, 0);
    assert_eq!(world.chosen(), [(300, Reason::FastestGrowth)]);
}

#[test]
fn nothing_grew_so_it_is_the_largest() {
    let mut world = World::new(false);
    world.add(process(200, 100, 200, "a", 4000)).add(process(300, 100, 300, "b", 3000));
    world.available(1900).run(SECOND, 0);
    assert_eq!(world.chosen(), [(200, Reason::Largest)]);
}

#[test]
fn a_slow_leak_is_seen_although_it_began_long_ago() {
    let mut world = World::new(false);
    world.add(process(200, 100, 200, "old", 6000)).add(process(300, 100, 300, "leak", 1000));
    world.look();
    // 20 MiB/s from 10 GiB down.
    for second in 1..=410 {
        world.row(300).private = Bytes::mib(1000 + 20 * second);
        world.available(10 * 1024 - 20 * second).run(SECOND, 0);
    }
    assert_eq!(world.chosen(), [(300, Reason::FastestGrowth)]);
}

#[test]
fn one_shortage_has_one_victim_and_sigterm_comes_first() {
    let mut world = World::new(true);
    world.add(process(200, 100, 200, "a", 4000)).add(process(300, 100, 300, "b", 3000));
    world.available(5000).run(5 * SECOND, 0);
    world.row(200).private = Bytes::mib(7000);
    world.sink(1900).run(2 * SECOND, 0);
    assert_eq!(world.done, [Effect::Hold(Who { pid: 200, start: 200 }), Effect::Terminate]);
    world.run(8 * SECOND, 0);
    assert_eq!(world.signals(), [Effect::Terminate, Effect::Kill], "its grace of 10 s is over");
    // It dies, but its pages are counted half a second later.
    world.end(200).run(SECOND, 0);
    assert_eq!(world.chosen().len(), 1, "{:?}", world.said);
    world.available(8900).run(SECOND, 0);
    assert_eq!(world.chosen().len(), 1);
    assert_eq!(world.done.last(), Some(&Effect::Release));
    assert!(matches!(
        world.said[world.said.len() - 2..],
        [Event::Level { to: Level::Normal, .. }, Event::Back { complete: true, .. }]
            | [Event::Back { complete: true, .. }, Event::Level { .. }]
    ));
}

#[test]
fn with_no_time_left_it_is_sigkill_at_once() {
    let mut world = World::new(true);
    world.add(process(200, 100, 200, "spike", 100));
    world.look();
    // 8 GiB/s.
    for step in 1..=120u64 {
        world.row(200).private = Bytes::mib(100 + 80 * step);
        world.available((10 * 1024u64).saturating_sub(80 * step)).pass(Duration::from_millis(10), 0);
    }
    assert_eq!(world.signals(), [Effect::Kill]);
    assert_eq!(world.chosen(), [(200, Reason::OnlyOne)]);
}

#[test]
fn when_the_memory_comes_back_before_the_second_look_nobody_goes() {
    let mut world = World::new(true);
    world.add(process(200, 100, 200, "a", 4000));
    world.look();
    world.available(1900).pass(HALF, 0);
    world.available(5000).pass(Duration::ZERO, 0).run(3 * SECOND, 0);
    assert_eq!((world.chosen(), world.done.len()), (vec![], 0));
}

#[test]
fn a_victim_that_gives_back_in_its_grace_lives() {
    let mut world = World::new(true);
    world.add(process(200, 100, 200, "a", 4000)).look();
    world.sink(1950).run(2 * SECOND, 0);
    world.available(6000).run(20 * SECOND, 0);
    assert_eq!(world.signals(), [Effect::Terminate]);
}

#[test]
fn who_does_not_die_is_not_chosen_again() {
    let mut world = World::new(true);
    world.add(process(200, 100, 200, "stuck", 6000)).add(process(300, 100, 300, "b", 3000));
    world.available(1900).run(30 * SECOND, 0);
    let chosen: Vec<u32> = world.chosen().iter().map(|(pid, _)| *pid).collect();
    assert_eq!(chosen, [200, 300]);
    assert!(world.said.iter().any(|event| matches!(event, Event::Back { complete: false, .. })));
}

#[test]
fn prefer_goes_first_and_avoid_last() {
    for (standing, expected) in [(Standing::Prefer, 300), (Standing::Ordinary, 200), (Standing::Avoid, 200)] {
        let mut world = World::new(false);
        world.add(process(200, 100, 200, "a", 4000));
        world.add(Row { standing, ..process(300, 100, 300, "b", 3000) });
        world.available(1900).run(SECOND, 0);
        assert_eq!(world.chosen()[0].0, expected, "{standing:?}");
    }
    let mut world = World::new(false);
    world.add(Row { standing: Standing::Avoid, ..process(200, 100, 200, "a", 8000) });
    world.add(process(300, 100, 300, "small", 10));
    world.available(1900).run(SECOND, 0);
    assert_eq!(world.chosen(), [(200, Reason::OnlyOne)], "what cannot help is not asked instead");
}

#[test]
fn what_others_live_by_is_never_chosen() {
    let never = [
        process(1, 0, 1, "anything", 900),
        process(500, 1, 500, "sshd", 900),
        process(500, 1, 500, "systemd-journal", 900),
        Row { session: 500, ..process(500, 1, 500, "zsh", 900) },
        Row { session: 500, ..process(500, 1, 500, "-bash", 900) },
        Row { is_kernel: true, ..process(500, 2, 0, "kswapd0", 900) },
        Row { standing: Standing::Never, ..process(500, 100, 500, "ours", 9000) },
        Row { oom_score_adj: -1000, ..process(500, 100, 500, "exempt", 9000) },
    ];
    for row in never {
        let mut world = World::new(true);
        world.end(row.who.pid).add(row).available(1900).run(SECOND, 0);
        assert_eq!(world.chosen(), [], "{}", String::from_utf8_lossy(row.name()));
        assert!(world.said.iter().any(|event| matches!(event, Event::NoVictim { .. })));
    }
    // A script is no shell of a person, and a name does not hide gigabytes.
    for row in [process(500, 100, 500, "bash", 900), process(500, 1, 500, "sshd", 3000)] {
        let mut world = World::new(true);
        world.add(row).available(1900).run(SECOND, 0);
        assert_eq!(world.chosen().len(), 1);
    }
}

#[test]
fn families_end_at_the_keeper_and_at_the_cgroup() {
    let mut world = World::new(false);
    // Two jobs of one shell, one with a child that left its group; a container of the second job's child.
    world.add(process(200, 100, 200, "job", 100)).add(process(201, 200, 201, "child", 100));
    world.add(process(300, 100, 300, "other", 100));
    world.add(Row { cgroup: 7, ..process(301, 300, 300, "contained", 100) });
    world.look();
    let mut families: Vec<_> =
        world.watch.families().list().iter().map(|family| (family.leader.pid, family.processes)).collect();
    families.sort_unstable();
    assert_eq!(families, [(200, 2), (300, 1), (301, 1)]);
    let members: Vec<u32> = world
        .watch
        .families()
        .members(&world.rows, Who { pid: 200, start: 200 })
        .map(|at| world.rows[at].who.pid)
        .collect();
    assert_eq!(members, [200, 201]);
    assert_eq!(
        world.watch.families().members(&world.rows, Who { pid: 200, start: 1 }).count(),
        0,
        "another one"
    );
    // The group that the first script of a container gives to all of its children.
    let mut world = World::new(false);
    world.add(process(200, 1, 1, "a", 100)).add(process(300, 1, 1, "b", 100)).look();
    assert_eq!(world.watch.families().list().len(), 2);
    // Orphans of one pipeline, whose leader is gone.
    let mut world = World::new(false);
    world.add(process(201, 1, 200, "a", 100)).add(process(202, 1, 200, "b", 100)).look();
    assert_eq!(world.watch.families().list().len(), 1);
}

#[test]
fn many_who_hide_behind_names_are_found_by_what_they_hold_together() {
    let crowd = |uid: u32, mib: u64| {
        let mut world = World::new(false);
        world.add(Row { uid: 1001, ..process(200, 1, 200, "innocent", 700) });
        for pid in 300..303 {
            let hidden = Row { uid, shared: Bytes::mib(100), ..process(pid, 1, pid, "sshd", mib) };
            world.add(Row { session: pid, ..hidden });
        }
        expose(&mut world.rows, &mut Vec::new());
        world.look();
        let families = world.watch.families().list().iter();
        families.map(|family| family.leader.pid).filter(|pid| *pid >= 200).collect::<Vec<_>>()
    };
    assert_eq!(crowd(1000, 900), [200, 300, 301, 302], "3 GiB under one name are no way in");
    assert_eq!(crowd(1000, 500), [200], "what is small stays protected");
    assert_eq!(crowd(0, 900), [200], "root's are root's");
}

#[test]
fn pages_that_a_fork_shares_are_not_counted_twice() {
    let mut world = World::new(false);
    world.add(process(200, 100, 200, "loader", 4000)).add(process(300, 100, 300, "grower", 500)).look();
    for child in 201..205 {
        world.add(process(child, 200, 200, "loader", 4000));
    }
    world.row(300).private = Bytes::mib(2500);
    world.available(3000).run(3 * SECOND, 0);
    let loader = world.watch.families().list().iter().find(|family| family.leader.pid == 200).unwrap();
    assert_eq!((loader.usage, loader.took), (Bytes::mib(4000), Bytes::ZERO));
    // The parent is gone: what was shared is the children's own, and still not new.
    world.end(200).row(201).parent = 1;
    world.run(3 * SECOND, 0);
    let loader = world.watch.families().list().iter().find(|family| family.leader.pid == 201).unwrap();
    assert_eq!((loader.usage, loader.took), (Bytes::mib(4000), Bytes::ZERO));
    world.available(1900).run(SECOND, 0);
    assert_eq!(world.chosen(), [(300, Reason::FastestGrowth)]);
}

#[test]
fn shared_memory_counts_once_for_a_family() {
    let mut world = World::new(false);
    world.add(process(200, 100, 200, "a", 3000)).add(process(300, 100, 300, "pool", 100)).look();
    for child in 301..303 {
        world.add(Row { shared: Bytes::mib(4000), ..process(child, 300, 300, "worker", 50) });
    }
    world.available(1900).run(SECOND, 0);
    let pool = world.watch.families().list().iter().find(|family| family.leader.pid == 300).unwrap();
    assert_eq!((pool.usage, pool.took), (Bytes::mib(4200), Bytes::mib(4100)));
    assert_eq!(world.chosen(), [(300, Reason::FastestGrowth)]);
}

#[test]
fn neither_pressure_alone_nor_little_memory_with_swap_is_a_shortage() {
    // Heavy file I/O with memory to spare.
    let mut world = World::new(true);
    world.add(process(200, 100, 200, "copy", 4000)).available(6000).run(60 * SECOND, 60);
    assert_eq!((world.chosen(), world.said.len()), (vec![], 0));
    // Idle pages go to swap, and nobody waits.
    world.host.swap_free = Bytes::gib(8);
    world.available(1000).run(60 * SECOND, 2);
    assert_eq!(world.chosen(), []);
    // Without swap this is a shortage.
    world.host.swap_free = Bytes::mib(100);
    world.run(SECOND, 0);
    assert_eq!(world.chosen().len(), 1);
}

#[test]
fn thrash_is_pressure_and_little_memory() {
    let mut world = World::new(true);
    world.host.swap_free = Bytes::gib(8);
    world.add(process(200, 100, 200, "wide", 4000)).available(3000).run(10 * SECOND, 20);
    assert_eq!(world.chosen(), []);
    world.run(3 * SECOND, 35);
    let shortages: Vec<Shortage> = world
        .said
        .iter()
        .filter_map(|event| match event {
            Event::Chosen { shortage, .. } => Some(*shortage),
            _ => None,
        })
        .collect();
    assert_eq!(shortages, [Shortage::Thrash]);
    // Below the reserve less is enough: swap has room and is too slow.
    let mut world = World::new(true);
    world.host.swap_free = Bytes::gib(8);
    world.add(process(200, 100, 200, "wide", 4000)).available(1000).run(4 * SECOND, 15);
    assert_eq!(world.chosen().len(), 1);
}

#[test]
fn looks_are_rare_when_idle_and_never_later_than_the_fastest_growth() {
    let mut world = World::new(true);
    world.available(10 * 1024).look();
    assert_eq!(world.watch.next_look().since(world.now), HALF, "8 GiB above the reserve at 16 GiB/s");
    world.host.total = Bytes::gib(256);
    world.available(200 * 1024).look();
    assert_eq!(world.watch.next_look().since(world.now), 2 * SECOND);
    let before = world.scans;
    world.run(60 * SECOND, 0);
    assert_eq!(world.scans - before, 6, "a scan every ten seconds");
    world.available(2049).look();
    assert_eq!(world.watch.next_look().since(world.now), Duration::from_millis(1));
    // Little memory, but swap takes it: no reason to spin.
    world.host.swap_free = Bytes::gib(8);
    world.available(1000).look();
    assert!(world.watch.next_look().since(world.now) >= Duration::from_millis(5));
}

#[test]
fn the_dearer_a_scan_the_rarer_it_is_until_memory_moves() {
    let mut world = World::new(true);
    world.host.total = Bytes::gib(256);
    world.cost = Duration::from_millis(72);
    world.available(200 * 1024).look();
    let scans_in = |world: &mut World, seconds: u32| {
        let before = world.scans;
        world.run(seconds * SECOND, 0);
        world.scans - before
    };
    assert_eq!(scans_in(&mut world, 1440), 10, "72 ms every 144 s are 0.05 % of a core");
    world.cost = 10 * SECOND;
    world.run(145 * SECOND, 0);
    assert_eq!(scans_in(&mut world, 600), 2, "and never less than every five minutes");
    // A quarter of the warning threshold has gone, and come back: who has it?
    world.cost = Duration::from_millis(72);
    for available in [199, 200] {
        world.run(15 * SECOND, 0).available(available * 1024);
        assert_eq!(scans_in(&mut world, 12), 1, "{available} GiB");
    }
    // Below the warning threshold: 1 %.
    world.available(3 * 1024).run(10 * SECOND, 0);
    assert_eq!(scans_in(&mut world, 72), 10);
}

#[test]
fn a_dear_scan_is_over_before_the_shortage_begins() {
    let mut world = World::new(true);
    world.cost = Duration::from_millis(170);
    world.add(process(200, 100, 200, "spike", 100)).look();
    // 850 MiB/s, a look every 10 ms.
    let mut scanned = Vec::new();
    for step in 1..=1000u64 {
        world.row(200).private = Bytes::mib(100 + 17 * step / 2);
        let before = world.scans;
        world.available(10 * 1024 - 17 * step / 2).pass(Duration::from_millis(10), 0);
        if world.scans > before {
            scanned.push(world.now);
        }
        if world.host.available < Bytes::gib(2) {
            break;
        }
    }
    let ages: Vec<Duration> = scanned.iter().map(|at| world.now.since(*at)).collect();
    let [age] = ages[..] else { panic!("one is enough: {ages:?}") };
    assert!(world.cost <= age && age <= world.cost + Duration::from_millis(110), "{age:?}");
    world.pass(Duration::ZERO, 0);
    assert_eq!(world.chosen(), [(200, Reason::OnlyOne)]);
}

#[test]
fn no_victim_is_said_once_and_looked_for_again() {
    let mut world = World::new(true);
    world.available(1900).run(10 * SECOND, 0);
    let said = world.said.iter().filter(|event| matches!(event, Event::NoVictim { .. })).count();
    assert_eq!(said, 1);
    world.add(process(200, 100, 200, "late", 4000)).run(3 * SECOND, 0);
    assert_eq!(world.chosen().len(), 1);
}

#[test]
fn what_a_dying_family_has_started_belongs_to_it() {
    let mut world = World::new(true);
    world.add(process(200, 100, 200, "bomb", 100)).add(process(201, 200, 200, "bomb", 100));
    world.add(process(300, 100, 300, "other", 100)).look();
    let mut groups = Vec::new();
    world.watch.families().groups(&world.rows, Who { pid: 200, start: 200 }, &mut groups);
    assert_eq!(groups, [200]);
    // A child in a group of its own, and one whose parent is gone; the shell's next job is no newcomer.
    world.end(200).add(process(202, 201, 202, "bomb", 100)).add(process(203, 1, 200, "bomb", 100));
    world.add(process(400, 100, 400, "next", 100));
    let held = |who: Who| who.pid == 200 || who.pid == 201;
    let new: Vec<u32> = newcomers(&world.rows, &groups, held).map(|who| who.pid).collect();
    assert_eq!(new, [202, 203]);
}

#[test]
fn scans_are_recorded_by_what_has_changed() {
    use oomguard_core::watch::recording::{Changes, Input, Kept};
    let row = |pid, private| Row {
        who: Who { pid, start: 7 },
        private: Bytes::mib(private),
        name: *b"a name of 15 b.\0",
        oom_score_adj: -1000,
        ..Row::default()
    };
    let scans = [
        vec![row(1, 1), row(2, 1), row(4, 9)],
        vec![row(1, 1), row(2, 2), row(3, 1)],
        vec![],
        vec![row(5, 1)],
        vec![row(5, 1)],
    ];
    let (mut before, mut read) = (None, Vec::new());
    for scan in &scans {
        let line = serde_json::to_string(&Input::Scan(Changes { before, now: scan, cost: HALF })).unwrap();
        let Kept::Scan(changes) = serde_json::from_str(&line).unwrap() else { panic!("{line}") };
        changes.apply(&mut read);
        assert_eq!((&read, changes.cost()), (scan, HALF), "{line}");
        before = Some(scan.as_slice());
    }
    let last = serde_json::to_string(&Input::Scan(Changes { before, now: &scans[4], cost: HALF })).unwrap();
    assert_eq!(last, r#"{"scan":{"cost_ns":500000000,"all":false,"changed":[],"gone":[]}}"#);
    let old = r#"{"scan":{"all":false,"changed":[],"gone":[]}}"#;
    let Kept::Scan(changes) = serde_json::from_str(old).unwrap() else { panic!("{old}") };
    assert_eq!(changes.cost(), Duration::ZERO, "which nobody had measured");
}

#[test]
fn the_job_of_another_oomguard_is_left_to_it_while_there_is_time() {
    let guarded = |mib| Row { guarded: true, ..process(201, 200, 201, "train", mib) };
    let begin = || {
        let mut world = World::new(true);
        world
            .add(process(200, 100, 200, "oomguard", 5))
            .add(guarded(100))
            .add(process(300, 100, 300, "old", 5000));
        world.look();
        world.row(201).private = Bytes::mib(8000);
        world
    };
    // That one acts in time; nobody else has to go for it.
    let mut world = begin();
    world.available(1900).run(SECOND, 0).end(201).available(9000).run(SECOND, 0);
    assert_eq!((world.chosen(), world.done.len()), (vec![], 0));
    // It does not: half of the reserve is gone.
    let mut world = begin();
    world.available(1900).run(SECOND, 0).available(1000).run(HALF, 0);
    assert_eq!(world.chosen(), [(201, Reason::FastestGrowth)]);
    // It does not, and nothing gets worse.
    let mut world = begin();
    world.available(1900).run(9 * SECOND, 0);
    assert_eq!(world.chosen(), []);
    world.run(2 * SECOND, 0);
    assert_eq!(world.chosen(), [(201, Reason::FastestGrowth)]);
}

#[test]
fn where_nothing_is_left_thrash_is_seen_before_anybody_feels_it() {
    let mut world = World::new(true);
    world.host.swap_free = Bytes::gib(8);
    world.add(process(200, 100, 200, "wide", 8000)).available(1500).run(SECOND, 0);
    // Stalled in between, with something left: a second is waited for.
    world.run(Duration::from_millis(200), 90);
    assert_eq!(world.chosen(), []);
    world.available(50).run(Duration::from_millis(110), 50);
    assert_eq!(world.chosen().len(), 1);
    assert_eq!(world.signals(), [Effect::Kill]);
}

#[test]
fn a_shortage_that_comes_close_finds_everybody_looked_at() {
    let mut world = World::new(true);
    world.add(process(200, 100, 200, "spike", 100)).look();
    let mut scans = 0;
    for step in 1..=100u64 {
        world.row(200).private = Bytes::mib(100 + 85 * step);
        scans = world.scans;
        world.available(10 * 1024 - 85 * step).pass(Duration::from_millis(10), 0);
        if world.host.available < Bytes::gib(2) {
            break;
        }
    }
    assert_eq!(world.scans, scans, "it was looked at a moment ago");
    world.pass(Duration::ZERO, 0);
    assert_eq!(world.signals(), [Effect::Kill], "and the second look is the host's alone");
}

#[test]
fn shared_memory_of_the_dead_is_awaited_before_anybody_else_goes() {
    let mut world = World::new(true);
    world.sweeps = false;
    let shared = Row { shared: Bytes::mib(7000), ..process(200, 100, 200, "shm", 10) };
    world.add(shared).add(process(300, 100, 300, "other", 3000)).available(1900).run(2 * SECOND, 0);
    world.end(200).run(2 * SECOND, 0);
    assert_eq!(world.done.last(), Some(&Effect::Sweep));
    // It comes back slowly, but it does.
    for mib in [1970, 2040, 2110, 2180] {
        world.available(mib).run(2 * SECOND, 0);
    }
    assert_eq!(world.chosen().len(), 1);
    world.watch.swept();
    world.available(9000).run(SECOND, 0);
    assert_eq!((world.chosen().len(), world.done.last()), (1, Some(&Effect::Release)));
    // Nobody removes it: after three seconds without a sign the next one goes.
    let mut world = World::new(true);
    world.sweeps = false;
    world.add(shared).add(process(300, 100, 300, "other", 3000)).available(1900).run(2 * SECOND, 0);
    world.end(200).run(5 * SECOND, 0);
    assert_eq!(world.chosen().len(), 2);
}

#[test]
fn a_family_of_which_some_have_ended_in_time_is_seen_to_its_end() {
    let mut world = World::new(true);
    world.add(process(200, 100, 200, "a", 2000)).add(process(201, 200, 200, "a", 2000)).look();
    world.sink(1950).run(SECOND, 0);
    // The leader goes on for a moment; what it has started does not.
    world.end(201).available(3950).run(SECOND, 0);
    assert!(!world.done.contains(&Effect::Release), "{:?}", world.said);
    world.end(200).available(5950).run(SECOND, 0);
    assert_eq!(world.signals(), [Effect::Terminate]);
    assert!(
        world.said.iter().any(|event| matches!(event, Event::Back { complete: true, .. })),
        "{:?}",
        world.said
    );
}
