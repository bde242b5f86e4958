//! Which processes belong together, what they use, and what they have taken since the machine was last at ease.
//!
//! A family is what a parent has started, and what shares its process group, within one cgroup and up to the next
//! process that keeps unrelated others (init, a service manager, sshd, the shell of a terminal). So one job of a
//! shell is one family, one service is one, one application of a desktop is one, and thirty children are not thirty.
//! Nothing here decides who goes. In a shortage it allocates only for more than some hundred new processes.

use std::time::Duration;

use super::row::{Row, Standing, Who};
use crate::clock::Instant;
use crate::units::Bytes;

/// With less than the warning threshold available, growth is judged over this long to twice as long.
const HALF_WINDOW: Duration = Duration::from_secs(30);

/// At ease there is room for so many processes more: nothing is allocated in a shortage.
const SPARE: usize = 256;

/// Processes that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Its oldest process.
    pub leader: Who,
    /// How many there are.
    pub processes: u32,
    /// Their anonymous memory, and the most shared memory that one of them maps.
    pub usage: Bytes,
    /// How much of that is new since the beginning of [`Families::window`].
    pub took: Bytes,
    /// The most careful thing that was said of one of them.
    pub standing: Standing,
    /// Another oomguard looks after one of them.
    pub guarded: bool,
}

/// What is remembered of a process.
#[derive(Clone, Copy, Debug)]
struct Known {
    who: Who,
    parent: u32,
    /// Shared with its parent when it was forked: not new, and not its own while that parent lives.
    inherited: Bytes,
    /// Private and shared, at the two last marks.
    old: [Bytes; 2],
    young: [Bytes; 2],
}

impl Known {
    /// What it shared with its parent is its own now, and still not new.
    fn orphaned(self, parent: u32) -> Known {
        let at_least = |[private, shared]: [Bytes; 2]| [private.max(self.inherited), shared];
        let (old, young) = (at_least(self.old), at_least(self.young));
        Known { parent, inherited: Bytes::ZERO, old, young, ..self }
    }
}

/// Everybody, family by family.
#[derive(Debug, Default)]
pub struct Families {
    known: Vec<Known>,
    before: Vec<Known>,
    /// For each row, the row that stands for its family; itself if it stands alone.
    roots: Vec<u32>,
    /// Rows by cgroup and group.
    order: Vec<u32>,
    list: Vec<Family>,
    /// The shared memory of each family, now and at the mark.
    shared: Vec<[Bytes; 2]>,
    old_since: Option<Instant>,
    young_since: Instant,
}

impl Families {
    /// Takes a scan, in order of process ids. At ease, everything that is there now is no news from here on.
    pub fn update(&mut self, now: Instant, rows: &[Row], at_ease: bool) {
        self.remember(rows);
        self.tie(rows);
        self.count(rows);
        self.mark(now, rows, at_ease);
        if at_ease {
            self.make_room(rows.len() + SPARE);
        }
    }

    /// So many processes may there be before anything is allocated again.
    fn make_room(&mut self, processes: usize) {
        fn room<T>(list: &mut Vec<T>, processes: usize) {
            list.reserve(processes.saturating_sub(list.len()));
        }
        room(&mut self.known, processes);
        room(&mut self.before, processes);
        room(&mut self.roots, processes);
        room(&mut self.order, processes);
        room(&mut self.list, processes);
        room(&mut self.shared, processes);
    }

    /// All families that could be chosen, in no particular order.
    pub fn list(&self) -> &[Family] {
        &self.list
    }

    /// For how long [`Family::took`] has been counted.
    pub fn window(&self, now: Instant) -> Duration {
        self.old_since.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// The rows, by index, of the family that this process leads or is in.
    pub fn members<'a>(&'a self, rows: &'a [Row], who: Who) -> impl Iterator<Item = usize> + 'a {
        let at = find(rows, who.pid).filter(|at| rows[*at].who == who && !rows[*at].is_out_of_reach());
        let root = at.map(|at| self.roots[at]);
        (0..rows.len()).filter(move |row| Some(self.roots[*row]) == root)
    }

    /// The process groups of that family that are all its own: what turns up in one of them later belongs to it.
    pub fn groups(&self, rows: &[Row], who: Who, groups: &mut Vec<u32>) {
        groups.clear();
        let leads = |group: u32| find(rows, group).map(|at| rows[at].is_out_of_reach());
        for row in self.members(rows, who).map(|at| &rows[at]) {
            if leads(row.group) != Some(true) && !groups.contains(&row.group) {
                groups.push(row.group);
            }
        }
    }

    /// Carries over what is known, and looks at what is new.
    fn remember(&mut self, rows: &[Row]) {
        std::mem::swap(&mut self.known, &mut self.before);
        self.known.clear();
        let first_scan = self.old_since.is_none();
        for row in rows {
            let held = [row.private, row.shared];
            let at = self.before.binary_search_by_key(&row.who, |known| known.who);
            let (who, parent, nothing) = (row.who, row.parent, [Bytes::ZERO; 2]);
            self.known.push(match at {
                Ok(at) if self.before[at].parent == parent => self.before[at],
                Ok(at) => self.before[at].orphaned(parent),
                Err(_) if first_scan => Known { who, parent, inherited: Bytes::ZERO, old: held, young: held },
                Err(_) => {
                    Known { who, parent, inherited: inherited(rows, row), old: nothing, young: nothing }
                }
            });
        }
    }

    fn tie(&mut self, rows: &[Row]) {
        self.roots.clear();
        self.roots.extend(0..rows.len() as u32);
        for (at, row) in rows.iter().enumerate() {
            let parent = find(rows, row.parent).filter(|parent| rows[*parent].who.start <= row.who.start);
            if let Some(parent) = parent
                && belong(row, &rows[parent])
            {
                self.join(at as u32, parent as u32);
            }
        }
        self.order.clear();
        self.order.extend(0..rows.len() as u32);
        let place = |at: &u32| (rows[*at as usize].cgroup, rows[*at as usize].group, *at);
        self.order.sort_unstable_by_key(place);
        for pair in 1..self.order.len() {
            let [a, b] = [self.order[pair - 1], self.order[pair]];
            let [one, other] = [&rows[a as usize], &rows[b as usize]];
            // A group that a keeper leads (the first script of a container) says nothing about who belongs to whom.
            let kept = find(rows, one.group).is_some_and(|leader| rows[leader].is_out_of_reach());
            if one.group == other.group && belong(one, other) && !kept {
                self.join(a, b);
            }
        }
        for at in 0..rows.len() as u32 {
            self.roots[at as usize] = self.root(at);
        }
    }

    fn root(&self, mut at: u32) -> u32 {
        while self.roots[at as usize] != at {
            at = self.roots[at as usize];
        }
        at
    }

    fn join(&mut self, a: u32, b: u32) {
        let [a, b] = [self.root(a), self.root(b)];
        self.roots[a.max(b) as usize] = a.min(b);
    }

    fn count(&mut self, rows: &[Row]) {
        self.list.clear();
        self.shared.clear();
        // Where in the list the family of a root is; reuses the order, which has done its work.
        self.order.clear();
        self.order.resize(rows.len(), 0);
        for (at, row) in rows.iter().enumerate().filter(|(_, row)| !row.is_out_of_reach()) {
            let root = self.roots[at] as usize;
            if root == at {
                self.order[at] = self.list.len() as u32;
                self.shared.push([Bytes::ZERO; 2]);
                self.list.push(Family {
                    leader: row.who,
                    processes: 0,
                    usage: Bytes::ZERO,
                    took: Bytes::ZERO,
                    standing: row.standing,
                    guarded: false,
                });
            }
            let at_list = self.order[root] as usize;
            let (family, shared, known) =
                (&mut self.list[at_list], &mut self.shared[at_list], &self.known[at]);
            family.processes += 1;
            family.guarded |= row.guarded;
            family.leader = family.leader.older(row.who);
            family.usage = family.usage.plus(row.private.minus(known.inherited));
            family.took = family.took.plus(row.private.minus(known.inherited.max(known.old[0])));
            family.standing = more_careful(family.standing, row.standing);
            *shared = [shared[0].max(row.shared), shared[1].max(known.old[1])];
        }
        for (family, [now, then]) in self.list.iter_mut().zip(&self.shared) {
            family.usage = family.usage.plus(*now);
            family.took = family.took.plus(now.minus(*then));
        }
    }

    fn mark(&mut self, now: Instant, rows: &[Row], at_ease: bool) {
        let due = now.since(self.young_since) >= HALF_WINDOW;
        if at_ease || self.old_since.is_none() {
            for (known, row) in self.known.iter_mut().zip(rows) {
                (known.old, known.young) = ([row.private, row.shared], [row.private, row.shared]);
            }
            (self.old_since, self.young_since) = (Some(now), now);
        } else if due {
            for (known, row) in self.known.iter_mut().zip(rows) {
                (known.old, known.young) = (known.young, [row.private, row.shared]);
            }
            (self.old_since, self.young_since) = (Some(self.young_since), now);
        }
    }
}

/// Who has turned up since a family was held: children of the held, and what is in its groups.
pub fn newcomers<'a>(
    rows: &'a [Row],
    groups: &'a [u32],
    is_held: impl Fn(Who) -> bool + 'a,
) -> impl Iterator<Item = Who> + 'a {
    rows.iter().filter_map(move |row| {
        let parent = find(rows, row.parent).map(|at| rows[at].who);
        let belongs = parent.is_some_and(&is_held) || groups.contains(&row.group);
        (belongs && !row.is_out_of_reach() && !is_held(row.who)).then_some(row.who)
    })
}

impl Who {
    fn older(self, other: Who) -> Who {
        if (other.start, other.pid) < (self.start, self.pid) { other } else { self }
    }
}

/// The row of a process id.
fn find(rows: &[Row], pid: u32) -> Option<usize> {
    rows.binary_search_by_key(&pid, |row| row.who.pid).ok()
}

fn belong(one: &Row, other: &Row) -> bool {
    one.cgroup == other.cgroup && !one.is_out_of_reach() && !other.is_out_of_reach()
}

/// Avoid outweighs prefer: what must not be ended is not ended for its company.
fn more_careful(one: Standing, other: Standing) -> Standing {
    match (one, other) {
        (Standing::Ordinary, said) | (said, Standing::Ordinary) => said,
        (one, other) => one.max(other),
    }
}

/// What a process seen for the first time shares with the parent that it was forked from. A child that has begun
/// something else has another address space, and shares nothing.
fn inherited(rows: &[Row], row: &Row) -> Bytes {
    match find(rows, row.parent).map(|at| &rows[at]) {
        Some(parent) if row.space >= Bytes(parent.space.0 / 8 * 7) => row.private.min(parent.private),
        _ => Bytes::ZERO,
    }
}
