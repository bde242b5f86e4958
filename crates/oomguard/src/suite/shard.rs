//! One part of the suite for each of several machines, by how long the files took before.
//!
//! Knows nothing of machines: it gives the same parts for the same files and times, and only then.

use super::TestFile;

/// Part `m` (from 1) of `n`: the longest file first, each to the part with the least to do, ties by path and by the
/// lower number. In the order of `files`. A file without a time counts as much as the median of those that have one.
///
/// All `n` machines must see the same files and times: with different ones they cut differently, and a file may run twice
/// or never. So a part changes no time, and one history of all of the suite is shared, or there is none anywhere.
pub fn shard(
    files: &[TestFile],
    m: usize,
    n: usize,
    seconds: impl Fn(&TestFile) -> Option<f64>,
) -> Vec<TestFile> {
    let known: Vec<Option<f64>> =
        files.iter().map(|file| seconds(file).filter(|time| time.is_finite() && *time >= 0.0)).collect();
    let usual = median(known.iter().copied().flatten().collect()).unwrap_or(1.0);
    let weight = |index: usize| known[index].unwrap_or(usual);
    let mut order: Vec<usize> = (0..files.len()).collect();
    order.sort_by(|a, b| weight(*b).total_cmp(&weight(*a)).then_with(|| files[*a].path.cmp(&files[*b].path)));
    // By time, then by count: a suite of files that take no time is still cut evenly.
    let mut parts = vec![(0.0_f64, 0_usize); n.max(1)];
    let mut mine = Vec::new();
    for index in order {
        let least = (0..parts.len())
            .min_by(|a, b| parts[*a].0.total_cmp(&parts[*b].0).then(parts[*a].1.cmp(&parts[*b].1)))
            .unwrap_or(0);
        parts[least].0 += weight(index);
        parts[least].1 += 1;
        if least + 1 == m {
            mine.push(index);
        }
    }
    mine.sort_unstable();
    mine.into_iter().map(|index| files[index].clone()).collect()
}

fn median(mut times: Vec<f64>) -> Option<f64> {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn files(names: &[&str]) -> Vec<TestFile> {
        names.iter().map(|name| TestFile { path: name.into(), ..TestFile::default() }).collect()
    }

    fn names(files: &[TestFile]) -> Vec<&str> {
        files.iter().filter_map(|file| file.path.to_str()).collect()
    }

    #[test]
    fn the_longest_goes_first_and_to_the_part_with_the_least() {
        let all = files(&["a", "b", "c", "d", "e"]);
        let times = BTreeMap::from([("a", 1.0), ("b", 9.0), ("c", 5.0), ("d", 5.0)]);
        let seconds = |file: &TestFile| times.get(file.path.to_str()?).copied();
        // `e` counts 5, the median: b9 | c5 d5, then e5 to the first (9 < 10), a1 to the second.
        assert_eq!(names(&shard(&all, 1, 2, seconds)), ["b", "e"]);
        assert_eq!(names(&shard(&all, 2, 2, seconds)), ["a", "c", "d"]);
    }

    #[test]
    fn without_any_times_the_counts_are_even() {
        let all = files(&["a", "b", "c", "d", "e"]);
        for seconds in [None, Some(0.0), Some(f64::NAN)] {
            let sizes = [1, 2, 3].map(|m| shard(&all, m, 3, |_| seconds).len());
            assert_eq!(sizes, [2, 2, 1], "{seconds:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_file_is_in_exactly_one_part(
            times in proptest::collection::vec(proptest::option::of(-1.0..1e9_f64), 0..40), n in 1_usize..7,
        ) {
            let all: Vec<TestFile> = (0..times.len())
                .map(|index| TestFile { path: format!("t{index}").into(), ..TestFile::default() })
                .collect();
            let time = |file: &TestFile| times[file.path.to_str()?[1..].parse::<usize>().ok()?];
            let mut together: Vec<TestFile> = (1..=n).flat_map(|m| shard(&all, m, n, time)).collect();
            together.sort_by_key(|file| all.iter().position(|other| other == file));
            proptest::prop_assert_eq!(&together, &all);
        }
    }
}
