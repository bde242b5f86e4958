//! The threads that may be interrupted, and what each waits for: atomics only, for the sampling thread, a signal handler
//! and a forked child all look here.
//!
//! Decides who is interrupted. How, stands in [`crate::interrupt`].

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering::SeqCst};

/// Nobody asked this thread for anything.
const QUIET: u64 = 0;
/// It is to be interrupted.
const ASKED: u64 = 1;
/// The exception has been raised in it, and the shortage is not over yet.
const HEARD: u64 = 2;
/// One of the three above is in the low bits of `state`. What is above them goes up by one whenever the seat is armed anew
/// or a guard is left, so that a request made for one guard cannot reach another.
const STATES: u64 = 3;

/// One thread inside guards that interrupt, or inside a shield. A seat is never freed, only used again.
#[derive(Debug)]
pub(crate) struct Seat {
    /// Python's name for the thread; 0: nobody sits here.
    ident: AtomicU64,
    /// The kernel's name for it.
    native: AtomicI32,
    main: AtomicBool,
    /// Guards that interrupt, and shields: while there are any, the seat is taken.
    guards: AtomicU32,
    shields: AtomicU32,
    /// Interrupted while less is available (0: never) ...
    critical: AtomicU64,
    /// ... or while this process holds as much (`u64::MAX`: never).
    limit: AtomicU64,
    state: AtomicU64,
    next: OnceLock<Box<Seat>>,
}

static FIRST: Seat = Seat::empty();

/// What a guard has to put back when it leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before {
    critical: u64,
    limit: u64,
}

/// A thread, by both its names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Who {
    pub(crate) ident: u64,
    pub(crate) native: i32,
    pub(crate) main: bool,
}

impl Seat {
    const fn empty() -> Seat {
        Seat {
            ident: AtomicU64::new(0),
            native: AtomicI32::new(0),
            main: AtomicBool::new(false),
            guards: AtomicU32::new(0),
            shields: AtomicU32::new(0),
            critical: AtomicU64::new(0),
            limit: AtomicU64::new(u64::MAX),
            state: AtomicU64::new(QUIET),
            next: OnceLock::new(),
        }
    }

    /// A guard that interrupts is entered.
    pub(crate) fn arm(&self, critical: u64, limit: u64) -> Before {
        let before = Before { critical: self.critical.load(SeqCst), limit: self.limit.load(SeqCst) };
        if self.guards.load(SeqCst) == 0 {
            self.begin_anew(QUIET);
        }
        self.critical.fetch_max(critical, SeqCst);
        self.limit.fetch_min(limit, SeqCst);
        self.guards.fetch_add(1, SeqCst);
        before
    }

    /// It is left. Whether no other one is around it: then nothing may arrive any more.
    pub(crate) fn disarm(&self, before: Before) -> bool {
        self.critical.store(before.critical, SeqCst);
        self.limit.store(before.limit, SeqCst);
        let last = self.guards.fetch_sub(1, SeqCst) == 1;
        // What was asked for this guard's thresholds is nothing to the one around it. What was heard counts for both: the
        // exception may be on its way through them.
        let heard = !last && self.state.load(SeqCst) & STATES == HEARD;
        self.begin_anew(if heard { HEARD } else { QUIET });
        if last {
            self.leave();
        }
        last
    }

    fn begin_anew(&self, first: u64) {
        let state = self.state.load(SeqCst);
        self.state.store((state | STATES) + 1 + first, SeqCst);
    }

    /// From one state to another, unless it has changed since `seen`.
    fn turn(&self, seen: u64, from: u64, to: u64) -> bool {
        seen & STATES == from && self.state.compare_exchange(seen, seen - from + to, SeqCst, SeqCst).is_ok()
    }

    /// Nothing arrives until the shield is down again.
    pub(crate) fn shield(&self) {
        self.shields.fetch_add(1, SeqCst);
    }

    /// Takes the shield down.
    pub(crate) fn unshield(&self) {
        self.shields.fetch_sub(1, SeqCst);
        self.leave();
    }

    fn leave(&self) {
        if self.guards.load(SeqCst) == 0 && self.shields.load(SeqCst) == 0 {
            self.ident.store(0, SeqCst);
        }
    }

    /// Takes note of whether it should stop. Whether it has to be poked (again).
    pub(crate) fn update(&self, should_stop: impl FnOnce(u64, u64) -> bool) -> bool {
        // Before the thresholds are read: they are this guard's, and so is what follows from them.
        let seen = self.state.load(SeqCst);
        if self.guards.load(SeqCst) == 0 {
            return false;
        }
        let wanted = should_stop(self.critical.load(SeqCst), self.limit.load(SeqCst));
        match wanted {
            true => self.turn(seen, QUIET, ASKED),
            false => self.turn(seen, HEARD, QUIET) || self.turn(seen, ASKED, QUIET),
        };
        self.is_due()
    }

    /// Whether an interrupt may arrive now.
    pub(crate) fn is_due(&self) -> bool {
        self.guards.load(SeqCst) > 0
            && self.shields.load(SeqCst) == 0
            && self.state.load(SeqCst) & STATES == ASKED
    }

    /// The interrupt has arrived: whether it was still wanted.
    pub(crate) fn hear(&self) -> bool {
        let seen = self.state.load(SeqCst);
        self.is_due() && self.turn(seen, ASKED, HEARD)
    }

    /// Below how many available bytes it is interrupted, and from how many held on.
    pub(crate) fn thresholds(&self) -> (u64, Option<u64>) {
        let limit = self.limit.load(SeqCst);
        (self.critical.load(SeqCst), (limit != u64::MAX).then_some(limit))
    }

    pub(crate) fn is_main(&self) -> bool {
        self.main.load(SeqCst)
    }

    pub(crate) fn native(&self) -> i32 {
        self.native.load(SeqCst)
    }

    pub(crate) fn ident(&self) -> u64 {
        self.ident.load(SeqCst)
    }

    fn sit(&self, who: Who) -> bool {
        if self.ident.compare_exchange(0, who.ident, SeqCst, SeqCst).is_err() {
            return false;
        }
        self.native.store(who.native, SeqCst);
        self.main.store(who.main, SeqCst);
        self.critical.store(0, SeqCst);
        self.limit.store(u64::MAX, SeqCst);
        true
    }
}

/// Every seat, taken or not.
pub(crate) fn all() -> impl Iterator<Item = &'static Seat> {
    std::iter::successors(Some(&FIRST), |seat| seat.next.get().map(|next| &**next))
}

/// The seat of a thread, if it has one.
pub(crate) fn of(ident: u64) -> Option<&'static Seat> {
    all().find(|seat| seat.ident() == ident)
}

/// The seat of a thread; it gets one if it has none. Called by that thread.
pub(crate) fn take(who: Who) -> &'static Seat {
    if let Some(seat) = of(who.ident) {
        return seat;
    }
    let mut seat = &FIRST;
    while !seat.sit(who) {
        seat = seat.next.get_or_init(|| Box::new(Seat::empty()));
    }
    seat
}

/// A forked child has one thread, which left no guard and will leave none.
pub(crate) fn after_fork_in_child() {
    for seat in all() {
        seat.guards.store(0, SeqCst);
        seat.shields.store(0, SeqCst);
        seat.ident.store(0, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: u64 = u64::MAX;

    fn short(critical: u64, _: u64) -> bool {
        critical >= 5
    }

    #[test]
    fn one_shortage_interrupts_once() {
        let seat = Seat::empty();
        let before = seat.arm(5, NEVER);
        assert!(seat.update(short), "asked");
        assert!(seat.update(short), "and asked again, until it is heard");
        assert!(seat.hear());
        assert!(!seat.hear() && !seat.update(short), "its `finally` blocks are left alone");
        assert!(!seat.update(|_, _| false));
        assert!(seat.update(short), "the next shortage counts again");
        assert!(seat.disarm(before) && !seat.hear(), "what comes too late is nothing");
    }

    #[test]
    fn a_request_for_one_guard_does_not_reach_the_next() {
        let seat = Seat::empty();
        let before = seat.arm(5, NEVER);
        let late = |critical: u64, _: u64| {
            // While the sampling thread thinks, the guard is left and another one entered.
            seat.disarm(before);
            seat.arm(1, NEVER);
            critical == 5
        };
        assert!(!seat.update(late) && !seat.hear());
    }

    #[test]
    fn a_request_for_an_inner_guard_does_not_reach_the_outer_one() {
        let seat = Seat::empty();
        let outer = seat.arm(1, NEVER);
        let inner = seat.arm(5, NEVER);
        assert!(seat.update(short));
        assert!(!seat.disarm(inner) && !seat.is_due() && !seat.hear(), "asked, and left before it was heard");
        let inner = seat.arm(5, NEVER);
        let late = |critical: u64, _: u64| {
            seat.disarm(inner);
            critical == 5
        };
        assert!(!seat.update(late) && !seat.hear(), "asked while it was left");
        let inner = seat.arm(5, NEVER);
        assert!(seat.update(short) && seat.hear());
        seat.disarm(inner);
        assert!(!seat.update(|_, _| true), "one shortage interrupts once, on its way through both");
        seat.disarm(outer);
    }

    #[test]
    fn a_shield_delays_and_does_not_lose() {
        let seat = Seat::empty();
        let before = seat.arm(5, NEVER);
        seat.shield();
        assert!(!seat.update(short) && !seat.hear());
        seat.unshield();
        assert!(seat.update(short) && seat.hear());
        seat.disarm(before);
    }

    #[test]
    fn a_shortage_that_passes_unheard_is_taken_back() {
        let seat = Seat::empty();
        seat.arm(5, NEVER);
        assert!(seat.update(short));
        assert!(!seat.update(|_, _| false) && !seat.hear());
    }

    #[test]
    fn the_strictest_guard_counts_until_it_is_left() {
        let seat = Seat::empty();
        let outer = seat.arm(2, 100);
        let inner = seat.arm(5, 50);
        assert!(seat.update(|critical, limit| (critical, limit) == (5, 50)));
        assert!(!seat.disarm(inner), "the outer one is still there");
        assert!(seat.update(|critical, limit| (critical, limit) == (2, 100)));
        assert!(seat.disarm(outer));
    }

    #[test]
    fn seats_are_found_by_thread_and_used_again() {
        let who = |ident| Who { ident, native: 1, main: false };
        let seat = take(who(7));
        let before = seat.arm(1, NEVER);
        assert!(std::ptr::eq(seat, take(who(7))) && !std::ptr::eq(seat, take(who(8))));
        seat.disarm(before);
        assert!(of(7).is_none() && std::ptr::eq(seat, take(who(9))));
    }
}
