//! Whether a quantity grows for good, how fast, and how sure that is.
//!
//! Keeps the lowest value of each window (a training loop breathes, so only its floors count), the newest 16 of them,
//! in place. The slope is Theil and Sen's: the median of the slopes between any two floors, which a third of them being
//! off does not move. The confidence is Mann and Kendall's: how rarely chance alone would order the floors like this.
//! Floors that bend or swing around the line depend on each other and count for less (Yue and Wang's correction with
//! the lag-1 autocorrelation of the residuals). Whole numbers only; never guesses from fewer than four floors.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Instant, nanos};
use crate::units::Bytes;

/// Floors that are kept.
const MOST: usize = 16;
/// Pairs among them.
const PAIRS: usize = MOST * (MOST - 1) / 2;
/// Below this nothing is said at all.
const FEWEST: usize = 4;
/// Below this nothing is certain: half a ring, so that both halves of it have a slope of their own ...
const CERTAIN: usize = MOST / 2;
/// ... or three quarters of one, where the floors leave their line by more than a 16th of the growth: what wanders slowly
/// goes up eight times in a row, too.
const CERTAIN_IF_BENT: usize = MOST * 3 / 4;
/// Less growth than this since the first floor is breathing.
pub const LEAST_GROWTH: Bytes = Bytes::mib(32);
/// The interval of the slope: one end is beyond it in one case out of twenty (thousandths of a standard deviation).
const INTERVAL: u64 = 1645;

/// Nothing is farther from its line than the largest machine is large; keeps squares in range.
const FARTHEST: i128 = 1 << 52;

/// How sure, in thousandths; 999 at the most. Written as a fraction of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "f64", from = "f64")]
pub struct Confidence(pub u16);

impl Confidence {
    /// From here on people are told. Asked anew at every window, so one in a hundred is not too strict.
    pub const SURE: Confidence = Confidence(990);

    /// Whole percent, rounded down: 99 at the most.
    pub const fn percent(self) -> u16 {
        self.0 / 10
    }

    /// A fraction of one.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 1000.0
    }

    /// One-sided, from thousandths of a standard deviation of the normal distribution; between the entries a line.
    fn from_deviations(milli: u64) -> Confidence {
        const NORMAL: [(u64, u64); 10] = [
            (0, 500),
            (253, 600),
            (524, 700),
            (842, 800),
            (1282, 900),
            (1645, 950),
            (1960, 975),
            (2326, 990),
            (2576, 995),
            (3090, 999),
        ];
        let after = NORMAL.iter().position(|(z, _)| milli < *z).unwrap_or(NORMAL.len());
        let Some((z1, p1)) = NORMAL.get(after) else { return Confidence(999) };
        let (z0, p0) = NORMAL[after.saturating_sub(1)];
        let part = (p1 - p0) * (milli - z0) / (z1 - z0);
        Confidence(u16::try_from(p0 + part).unwrap_or(999))
    }
}

impl From<Confidence> for f64 {
    fn from(confidence: Confidence) -> f64 {
        confidence.fraction()
    }
}

impl From<f64> for Confidence {
    fn from(fraction: f64) -> Confidence {
        Confidence((fraction.clamp(0.0, 0.999) * 1000.0).round() as u16)
    }
}

/// What the floors say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Bytes per second; negative while it shrinks.
    pub slope: i64,
    /// With 95 % certainty the slope is no less ...
    pub at_least: i64,
    /// ... and with 95 % no more.
    pub at_most: i64,
    /// That it grows, or, where `slope` is negative, that it shrinks.
    pub confidence: Confidence,
    /// Growth over all floors, with 95 % certainty no less.
    pub gained: Bytes,
    /// The newer half of the floors is where no floor has been before them.
    pub is_new_ground: bool,
    /// The newer half grows by less than four fifths of the older one: a warm-up that comes to its end.
    pub settles: bool,
    is_long_enough: bool,
}

impl Estimate {
    /// It grows for good: half a ring of floors, beyond chance, by something that matters, and not less and less.
    pub fn is_growth(&self) -> bool {
        self.is_long_enough
            && self.at_least > 0
            && self.confidence >= Confidence::SURE
            && self.gained >= LEAST_GROWTH
            && self.is_new_ground
            && !self.settles
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Floor {
    at: Instant,
    bytes: Bytes,
}

/// Follows one quantity.
#[derive(Clone, Copy, Debug)]
pub struct Trend {
    window: Duration,
    floors: [Floor; MOST],
    filled: usize,
    window_ends: Option<Instant>,
    lowest: Option<Floor>,
    /// The highest floor that is kept no more: up to there it came once, and came back.
    passed: Bytes,
}

impl Trend {
    /// With floors of this many seconds each; zero makes each value a floor.
    pub const fn new(window: Duration) -> Trend {
        let floors = [Floor { at: Instant(0), bytes: Bytes::ZERO }; MOST];
        Trend { window, floors, filled: 0, window_ends: None, lowest: None, passed: Bytes::ZERO }
    }

    /// Takes the value at `now`. Whether a window has ended, so that [`Trend::estimate`] has something new.
    pub fn update(&mut self, now: Instant, bytes: Bytes) -> bool {
        let ends = *self.window_ends.get_or_insert(now.after(self.window));
        let lowest = match self.lowest {
            Some(lowest) if lowest.bytes <= bytes => lowest,
            _ => Floor { at: now, bytes },
        };
        self.lowest = Some(lowest);
        if now < ends {
            return false;
        }
        self.lowest = None;
        self.window_ends = Some(now.after(self.window));
        self.push(lowest);
        true
    }

    fn push(&mut self, floor: Floor) {
        if self.filled == MOST {
            self.passed = self.passed.max(self.floors[0].bytes);
            self.floors.rotate_left(1);
            self.filled -= 1;
        }
        self.floors[self.filled] = floor;
        self.filled += 1;
    }

    /// How many floors there are: 16 at the most.
    pub fn floors(&self) -> usize {
        self.filled
    }

    /// What they say; nothing from fewer than four. Some microseconds.
    pub fn estimate(&self) -> Option<Estimate> {
        let floors = &self.floors[..self.filled];
        let mut room = [0; PAIRS];
        let slopes = slopes(floors, &mut room);
        if self.filled < FEWEST || slopes.is_empty() {
            return None;
        }
        let (slope, pairs) = (median(slopes), slopes.len() as u64);
        let (order, variance) = kendall(floors);
        let bend = Bend::new(floors, slope);
        let variance = variance * bend.dependence() / 1000;
        let deviations = (order.unsigned_abs().saturating_sub(1).pow(2) * 18_000_000).checked_div(variance);
        let reach = (variance * INTERVAL.pow(2) / 18_000_000).isqrt();
        let low = slopes[(pairs.saturating_sub(reach) / 2) as usize];
        let high = slopes[((pairs + reach).div_ceil(2).min(pairs - 1)) as usize];
        Some(Estimate {
            slope,
            at_least: low,
            at_most: high,
            confidence: Confidence::from_deviations(deviations.map_or(0, u64::isqrt)),
            gained: gained(floors, low),
            is_new_ground: self.is_new_ground(),
            settles: settles(floors),
            is_long_enough: self.filled >= if bend.is_within(16) { CERTAIN } else { CERTAIN_IF_BENT },
        })
    }

    fn is_new_ground(&self) -> bool {
        let newer = &self.floors[self.filled / 2..self.filled];
        newer.iter().all(|floor| floor.bytes >= self.passed)
    }
}

fn gained(floors: &[Floor], low: i64) -> Bytes {
    let time = nanos(floors[floors.len() - 1].at.since(floors[0].at));
    Bytes(u64::try_from(i128::from(low) * i128::from(time) / 1_000_000_000).unwrap_or(0))
}

/// Slopes between any two floors, bytes per second, in order.
fn slopes<'room>(floors: &[Floor], room: &'room mut [i64; PAIRS]) -> &'room [i64] {
    let mut count = 0;
    for (index, later) in floors.iter().enumerate() {
        for earlier in &floors[..index] {
            let time = i128::from(nanos(later.at.since(earlier.at)));
            let grown = i128::from(later.bytes.0) - i128::from(earlier.bytes.0);
            if let Some(slope) = (grown * 1_000_000_000).checked_div(time) {
                room[count] = i64::try_from(slope).unwrap_or(if slope > 0 { i64::MAX } else { i64::MIN });
                count += 1;
            }
        }
    }
    room[..count].sort_unstable();
    &room[..count]
}

fn median(sorted: &[i64]) -> i64 {
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        i64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    }
}

/// Kendall's S (pairs in order less pairs out of order), and eighteen times its variance by chance, ties taken off.
fn kendall(floors: &[Floor]) -> (i64, u64) {
    let mut order = 0;
    let part = |n: u64| n * n.saturating_sub(1) * (2 * n + 5);
    let mut variance = part(floors.len() as u64);
    for (index, later) in floors.iter().enumerate() {
        let equal = floors.iter().filter(|floor| floor.bytes == later.bytes).count() as u64;
        let met_before = floors[..index].iter().any(|floor| floor.bytes == later.bytes);
        variance -= if met_before { 0 } else { part(equal) };
        order += floors[..index].iter().map(|earlier| later.bytes.cmp(&earlier.bytes) as i64).sum::<i64>();
    }
    (order, variance)
}

/// How far the floors are from their line, as a mean square, and how much each resembles the one before.
struct Bend {
    squares: i128,
    products: i128,
    grown: i128,
    count: i128,
}

impl Bend {
    fn new(floors: &[Floor], slope: i64) -> Bend {
        let mut residuals = [0_i128; MOST];
        let residuals = &mut residuals[..floors.len()];
        let first = floors[0].at;
        for (residual, floor) in residuals.iter_mut().zip(floors) {
            let along = i128::from(slope) * i128::from(nanos(floor.at.since(first))) / 1_000_000_000;
            *residual = (i128::from(floor.bytes.0) - along).clamp(-FARTHEST, FARTHEST);
        }
        let mean = residuals.iter().sum::<i128>() / residuals.len() as i128;
        residuals.iter_mut().for_each(|residual| *residual -= mean);
        let grown = floors[floors.len() - 1].bytes.0.abs_diff(floors[0].bytes.0);
        Bend {
            squares: residuals.iter().map(|residual| residual * residual).sum(),
            products: residuals.windows(2).map(|pair| pair[0] * pair[1]).sum(),
            grown: i128::from(grown).min(FARTHEST),
            count: floors.len() as i128,
        }
    }

    /// The root of the mean square is no more than this part of the growth.
    fn is_within(&self, part: i128) -> bool {
        self.squares <= (self.grown / part).pow(2) * self.count
    }

    /// By how much the variance is larger than if floors did not depend on each other, in thousandths: 1000 to 9000.
    /// Rounding and the moments of the looks bend every line a little: a 64th of the growth is straight.
    fn dependence(&self) -> u64 {
        if self.is_within(64) {
            return 1000;
        }
        let correlation = (self.products * 1000 / self.squares).clamp(0, 800) as u64;
        1000 * (1000 + correlation) / (1000 - correlation)
    }
}

fn settles(floors: &[Floor]) -> bool {
    let (older, newer) = floors.split_at(floors.len() / 2);
    let slope = |floors: &[Floor]| median_or_zero(slopes(floors, &mut [0; PAIRS]));
    let (older, newer) = (i128::from(slope(older)), i128::from(slope(newer)));
    newer * 5 < older * 4
}

fn median_or_zero(sorted: &[i64]) -> i64 {
    if sorted.is_empty() { 0 } else { median(sorted) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(n: u64) -> Instant {
        Instant(n * 1_000_000_000)
    }

    /// One floor a second.
    fn of(values: &[u64]) -> Trend {
        let mut trend = Trend::new(Duration::ZERO);
        for (at, value) in values.iter().enumerate() {
            assert!(trend.update(second(at as u64), Bytes(*value)));
        }
        trend
    }

    #[test]
    fn three_floors_say_nothing_and_four_a_slope() {
        assert_eq!(of(&[1, 2, 3]).estimate(), None);
        assert_eq!(of(&[10, 20, 30, 40]).estimate().map(|e| e.slope), Some(10));
        assert_eq!(of(&[40, 30, 20, 10]).estimate().map(|e| e.slope), Some(-10));
    }

    #[test]
    fn one_floor_far_off_does_not_move_the_slope() {
        let mut values: Vec<u64> = (0..16).map(|n| 1000 + 100 * n).collect();
        values[7] = 100_000;
        assert_eq!(of(&values).estimate().map(|e| e.slope), Some(100));
    }

    #[test]
    fn a_window_counts_by_its_lowest_value_at_its_moment() {
        let mut trend = Trend::new(Duration::from_secs(10));
        let ended =
            (0..=88).filter(|s| trend.update(second(*s), Bytes(500 + s + if s % 10 == 4 { 0 } else { 900 })));
        assert_eq!(ended.collect::<Vec<_>>(), [10, 20, 30, 40, 50, 60, 70, 80]);
        let estimate = trend.estimate().unwrap();
        assert_eq!((estimate.slope, estimate.at_least, estimate.at_most), (1, 1, 1));
    }

    #[test]
    fn the_confidence_is_that_of_the_mann_kendall_test() {
        // n = 8, all in order: z = (28 - 1) / sqrt(8 * 7 * 21 / 18) = 3.34.
        assert_eq!(of(&[1, 2, 3, 4, 5, 6, 7, 8]).estimate().unwrap().confidence, Confidence(999));
        // One pair of neighbours out of order: S = 26, z = 3.09, less what the bend takes.
        assert!(of(&[10, 20, 30, 50, 40, 60, 70, 80]).estimate().unwrap().confidence >= Confidence(990));
        // n = 4, all in order: z = 5 / sqrt(8.67) = 1.70, P = 0.955 (0.954 by the table).
        assert_eq!(of(&[1, 2, 3, 4]).estimate().unwrap().confidence, Confidence(954));
        let flat = of(&[5; 12]).estimate().unwrap();
        assert_eq!((flat.slope, flat.confidence), (0, Confidence(500)));
    }

    #[test]
    fn the_interval_holds_the_slope_and_widens_with_noise() {
        let noisy = |swing: u64| {
            let values: Vec<u64> = (0..16).map(|n| 100_000 + 100 * n + n * 7919 % 13 * swing).collect();
            of(&values).estimate().unwrap()
        };
        let (quiet, loud) = (noisy(1), noisy(40));
        for estimate in [quiet, loud] {
            assert!(estimate.at_least <= 100 && 100 <= estimate.at_most, "{estimate:?}");
        }
        assert!(loud.at_most - loud.at_least > 4 * (quiet.at_most - quiet.at_least));
    }

    #[test]
    fn a_wave_is_less_certain_than_noise_of_its_size_over_the_same_line() {
        let line = |n: u64| 1_000_000 + 3000 * n;
        let wave: Vec<u64> =
            (0..16).map(|n| line(n) + [0, 20, 28, 20, 0, 0, 0, 0][n as usize % 8] * 1000).collect();
        let noise: Vec<u64> =
            (0..16).map(|n| line(n) + [0, 28, 0, 20, 0, 20, 0, 0][n as usize % 8] * 1000).collect();
        let of = |values: &[u64]| of(values).estimate().unwrap().confidence;
        assert!(of(&wave) < of(&noise), "{:?} {:?}", of(&wave), of(&noise));
    }

    #[test]
    fn growth_for_good_is_large_lasting_and_on_new_ground() {
        let mib =
            |values: Vec<u64>| of(&values.iter().map(|v| v << 20).collect::<Vec<_>>()).estimate().unwrap();
        assert!(mib((0..8).map(|n| 1000 + 22 * n).collect()).is_growth());
        assert!(!mib((0..7).map(|n| 1000 + 22 * n).collect()).is_growth(), "too few");
        assert!(!mib((0..8).map(|n| 1000 + 4 * n).collect()).is_growth(), "28 MiB");
        assert!(mib((0..8).map(|n| 1000 + 100 * n - 8 * n * n).collect()).settles, "less and less");
        let again = [3000; 16].into_iter().chain((0..16).map(|n| 1000 + 100 * n)).collect();
        assert!(!mib(again).is_growth(), "it has been there before");
    }

    #[test]
    fn nonsense_does_not_overflow() {
        for values in [[0, u64::MAX, 0, u64::MAX, 0, u64::MAX], [u64::MAX; 6], [0, 0, 0, 0, 0, u64::MAX]] {
            assert!(of(&values).estimate().is_some());
        }
        let mut trend = Trend::new(Duration::ZERO);
        for (at, value) in [(0, 0), (1, u64::MAX), (u64::MAX, 1), (u64::MAX, u64::MAX), (u64::MAX, 0)] {
            trend.update(Instant(at), Bytes(value));
        }
        assert!(trend.estimate().is_some());
    }
}
