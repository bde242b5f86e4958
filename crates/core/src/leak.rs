//! Whether a job leaks: its floors rise for good, seen over minutes or over hours.
//!
//! Four trends, each with windows four times as long as the one before. There is no hurry to say what happens in hours:
//! a finer trend speaks of steep leaks only, and a slow one is left to the coarser trend, which cannot take one long
//! breath for a leak. Says a slope, how sure it is, and nothing about its cause.

use std::time::Duration;

use crate::clock::Instant;
use crate::forecast::time_to_use;
use crate::trend::{Confidence, Estimate, Trend};
use crate::units::Bytes;

/// One floor of the finest trend: half a ring of them is four minutes.
const WINDOW: Duration = Duration::from_secs(30);
/// The next coarser trend has floors so many times as long.
const COARSER: u32 = 4;
const SCALES: usize = 4;
/// What reaches the limit within so many times the time that the next coarser trend takes to be sure is steep.
const STEEP: u32 = 4;
/// A leak that was not seen for so many windows is over; one window may miss it.
const FORGOTTEN: u8 = 8;
/// Within this the brake speaks.
const LAST_WORDS: Duration = Duration::from_secs(120);

/// A leak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leak {
    /// Bytes per second.
    pub slope: Bytes,
    /// With 95 % certainty no less than this.
    pub at_least: Bytes,
    /// That it grows at all.
    pub confidence: Confidence,
}

impl Leak {
    fn new(estimate: &Estimate) -> Leak {
        let bytes = |slope: i64| Bytes(u64::try_from(slope).unwrap_or(0));
        let confidence = estimate.confidence;
        Leak { slope: bytes(estimate.slope), at_least: bytes(estimate.at_least), confidence }
    }

    /// Until it reaches `limit`.
    pub fn reaches(&self, limit: Bytes, usage: Bytes) -> Duration {
        time_to_use(limit.minus(usage), self.slope)
    }
}

/// Follows one job.
#[derive(Clone, Copy, Debug)]
pub struct LeakWatch {
    scales: [Trend; SCALES],
    leak: Option<Leak>,
    /// Windows since it was last seen.
    unseen: u8,
    /// What people were told last: the slope, and how long it would take from then.
    said: Option<(Bytes, Duration)>,
}

impl Default for LeakWatch {
    fn default() -> LeakWatch {
        let scale = |index| Trend::new(WINDOW * COARSER.pow(index as u32));
        LeakWatch { scales: std::array::from_fn(scale), leak: None, unseen: 0, said: None }
    }
}

impl LeakWatch {
    /// Takes the usage at `now`. Returns the leak, if there is one, at the end of a window.
    pub fn update(&mut self, now: Instant, limit: Bytes, usage: Bytes) -> Option<Leak> {
        let ended = self.scales.each_mut().map(|trend| trend.update(now, usage));
        if !ended.contains(&true) {
            return None;
        }
        let found = (0..SCALES).find_map(|scale| self.at(scale, limit, usage));
        self.unseen = if found.is_some() { 0 } else { self.unseen.saturating_add(1) };
        self.leak = found.or(self.leak.filter(|_| self.unseen < FORGOTTEN));
        self.said = self.said.filter(|_| self.leak.is_some());
        found
    }

    /// The leak that was seen in the last minutes.
    pub fn leak(&self) -> Option<Leak> {
        self.leak
    }

    fn at(&self, scale: usize, limit: Bytes, usage: Bytes) -> Option<Leak> {
        let estimate = self.scales[scale].estimate().filter(Estimate::is_growth)?;
        let leak = Leak::new(&estimate);
        let half_a_ring = WINDOW * 8 * COARSER.pow(scale as u32);
        let steep = scale + 1 == SCALES || leak.reaches(limit, usage) <= half_a_ring * COARSER * STEEP;
        steep.then_some(leak)
    }

    /// Whether `leak`, which reaches the limit after `reaches`, is other than what was said last: half as fast again,
    /// a third slower, or half of the time is over, as long as there is time to do something. Counts as said if so.
    pub fn is_news(&mut self, leak: &Leak, reaches: Duration) -> bool {
        let news = self.said.is_none_or(|(slope, time)| {
            leak.slope > slope.percent(150)
                || leak.slope < slope.percent(67)
                || (reaches < time / 2 && time > LAST_WORDS)
        });
        if news {
            self.said = Some((leak.slope, reaches));
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Bytes = Bytes::gib(8);
    const MIB: f64 = 1048576.0;

    /// Random numbers that are the same in every run (xorshift), evenly between -1 and 1.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self) -> f64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        }
    }

    /// Follows `usage` in MiB at each second until `last`, looking every 2 s as an idle guard does. When it spoke, and
    /// what it saw.
    fn follow(last: u64, mut usage: impl FnMut(f64) -> f64) -> Vec<(u64, Leak)> {
        let mut watch = LeakWatch::default();
        let mut said = Vec::new();
        for second in (0..=last).step_by(2) {
            let bytes = Bytes((usage(second as f64) * MIB) as u64);
            if let Some(leak) = watch.update(Instant(second * 1_000_000_000), LIMIT, bytes)
                && watch.is_news(&leak, leak.reaches(LIMIT, bytes))
            {
                said.push((second, leak));
            }
        }
        said
    }

    fn per_minute(leak: &Leak) -> f64 {
        leak.slope.0 as f64 * 60.0 / MIB
    }

    /// Said within `by`, with a slope within a tenth of `want`, and not more often than `times` (halvings of the rest).
    fn expect(said: &[(u64, Leak)], by: u64, want: f64, times: usize) {
        let (at, leak) = said.first().expect("nothing was said");
        assert!(*at <= by, "after {at} s");
        assert!((per_minute(leak) / want - 1.0).abs() < 0.1, "{leak:?}");
        assert!(leak.at_least <= leak.slope && leak.confidence >= Confidence::SURE, "{leak:?}");
        assert!(said.len() <= times, "{} times", said.len());
    }

    #[test]
    fn a_steep_clear_leak_is_known_after_four_minutes() {
        expect(&follow(300, |s| 1000.0 + 10.0 * s), 240, 600.0, 1);
        let breathing = |s: f64| 1000.0 + 2.0 * s + if s % 20.0 < 10.0 { 300.0 } else { 0.0 };
        expect(&follow(300, breathing), 240, 120.0, 1);
    }

    #[test]
    fn noise_makes_it_slower_and_does_not_hide_it() {
        let leak_under = |noise: f64| {
            let mut dice = Dice(7);
            follow(1500, move |s| 1000.0 + 2.0 * s + noise * dice.roll())
        };
        let (clear, noisy) = (leak_under(20.0), leak_under(400.0));
        expect(&clear, 240, 120.0, 2);
        expect(&noisy, 420, 120.0, 2);
        assert!(noisy[0].0 > clear[0].0, "{} s", noisy[0].0);
    }

    #[test]
    fn a_leak_of_each_split_is_found_over_hours() {
        let of_split = |mib: f64, length: f64| {
            // Half of each split fills a buffer of 400 MiB, which is free again at its end.
            move |s: f64| 1000.0 + mib * (s / length).floor() + 400.0 * ((s % length) / length).min(0.5)
        };
        expect(&follow(4 * 3600, of_split(22.0, 60.0)), 3840, 22.0, 3);
        expect(&follow(5400, of_split(73.0, 60.0)), 960, 73.0, 4);
        expect(&follow(4 * 3600, of_split(73.0, 300.0)), 3840, 14.6, 2);
        expect(&follow(8 * 3600, of_split(22.0, 600.0)), 15360, 2.2, 2);
    }

    #[test]
    fn a_leak_that_begins_late_is_found_as_soon() {
        let said = follow(8 * 3600, |s| 2000.0 + 2.0 * (s - 7.5 * 3600.0).max(0.0));
        expect(&said, 27_000 + 480, 120.0, 2);
    }

    #[test]
    fn warming_up_is_no_leak() {
        for minutes in [1.0, 2.5, 5.0, 10.0] {
            let saturates = |s: f64| 500.0 + 5000.0 * (1.0 - (-s / (60.0 * minutes)).exp());
            assert_eq!(follow(8 * 3600, saturates), [], "within {minutes} min");
        }
        assert_eq!(follow(8 * 3600, |s| 1000.0 + (s * 10.0).min(1500.0)), [], "loads for 150 s");
        assert_eq!(follow(8 * 3600, |s| 500.0 + (s * 0.3).min(552.0)), [], "fills a buffer for half an hour");
        assert_eq!(follow(8 * 3600, |s| 500.0 + 400.0 * (s / 40.0).floor().min(4.0)), [], "by steps");
    }

    #[test]
    fn saws_and_waves_are_no_leak() {
        for period in [20.0, 45.0, 90.0, 200.0, 600.0, 3600.0] {
            assert_eq!(
                follow(8 * 3600, |s| 1000.0 + 900.0 * (s % period) / period),
                [],
                "a saw of {period} s"
            );
            let wave = |s: f64| 1000.0 + 450.0 * (std::f64::consts::TAU * s / period).sin();
            assert_eq!(follow(8 * 3600, wave), [], "a wave of {period} s");
        }
        // Up once for longer than four minutes and steeply: a leak, as far as anybody can know. Never a second time.
        let said = follow(8 * 3600, |s| 1000.0 + 900.0 * (s % 1800.0) / 1800.0);
        assert!(said.len() <= 1, "{said:?}");
        assert_eq!(follow(8 * 3600, |s| 1024.0 + s / MIB), [], "bytes");
    }

    #[test]
    fn noise_alone_is_no_leak_in_eight_hours() {
        for (keep, noise) in [(0.0, 1000.0), (0.9, 100.0), (0.99, 100.0)] {
            for seed in 1..=12 {
                let (mut dice, mut level) = (Dice(seed * 7919), 0.0);
                let push = noise * f64::sqrt(1.0 - keep * keep);
                let said = follow(8 * 3600, |_| {
                    level = keep * level + push * dice.roll();
                    3000.0 + level
                });
                assert_eq!(said, [], "noise {noise} that keeps {keep}, seed {seed}");
            }
        }
    }

    #[test]
    fn what_was_said_is_said_again_when_half_of_the_time_is_over_and_forgotten_when_it_stops() {
        let said = follow(900, |s| 1000.0 + 8.0 * s);
        let times: Vec<u64> = said.iter().map(|(at, _)| *at).collect();
        assert_eq!(times, [240, 570, 750, 840], "899 s to go: 659 from the first, then halves");
        let mut watch = LeakWatch::default();
        let mut known = Vec::new();
        for second in (0..1200).step_by(2) {
            let bytes = Bytes::mib(1000 + 8 * second.min(400));
            watch.update(Instant(second * 1_000_000_000), LIMIT, bytes);
            known.push(watch.leak().is_some());
        }
        assert!(
            known[130] && known[200] && !known[599],
            "known while it grows, and over when it has stopped"
        );
    }
}
