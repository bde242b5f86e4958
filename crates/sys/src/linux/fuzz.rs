//! Every reader of the kernel's text, on bytes that no kernel wrote: what `fuzz/` drives, and what must hold for any
//! bytes at all.
//!
//! Touches files in the folder it is given. In no build but those of fuzzers and of this crate's own tests.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a check that cannot be made has failed")]

use std::path::{Path, PathBuf};

use oomguard_core::Bytes;
use oomguard_core::watch::Standing;

use super::cgroup::{Ancestors, Hierarchy, Mounts, cache1, cache2};
use super::kept::Kept;
use super::kmsg::Search;
use super::meminfo::Meminfo;
use super::page::{MAGIC, Reader, SIZE, VERSION, Writer};
use super::processes::{About, Processes};
use super::procfs::{self, Stat};
use super::psi::Psi;
use super::zoneinfo::PerCpuPages;
use super::{clock, footprint, oneself, shm, text, tree};

/// A folder for this process's files, below the one for temporary files.
pub fn folder() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("oomguard-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for temporary files");
    folder
}

/// A pid that this machine's kernel never gives away.
const PID: u32 = 4_194_305;

fn put(path: &Path, bytes: &[u8]) {
    if let Some(parent) = path.parent().filter(|parent| !parent.is_dir()) {
        std::fs::create_dir_all(parent).unwrap();
    }
    std::fs::write(path, bytes).unwrap();
}

/// Where the whole says this, a part of it that says anything says the same: a file cut short is never believed with
/// another number in it.
fn agrees<T: PartialEq + std::fmt::Debug, E>(part: Result<T, E>, whole: &Result<T, E>) {
    if let (Ok(part), Ok(whole)) = (part, whole) {
        assert_eq!(part, *whole, "what was cut short says something else");
    }
}

/// `/proc/meminfo`, `/proc/pressure/memory`, `/proc/zoneinfo` and the boot's name, whole and cut in half.
pub fn host_files(dir: &Path, bytes: &[u8]) {
    let files = ["meminfo", "pressure/memory", "zoneinfo", "sys/kernel/random/boot_id"].map(|f| dir.join(f));
    let all = |bytes: &[u8]| {
        files.iter().for_each(|file| put(file, bytes));
        let _ = clock::boot_id_in(dir);
        let pages = PerCpuPages::open(dir).unwrap().read();
        (Meminfo::open(dir).unwrap().read(), Psi::open(dir).unwrap().read(), pages.is_ok())
    };
    let whole = all(bytes);
    let half = all(&bytes[..bytes.len() / 2]);
    agrees(half.0, &whole.0);
    agrees(half.1, &whole.1);
}

/// The numbers and tables of a cgroup, alone and as a level above us.
pub fn cgroup_files(dir: &Path, bytes: &[u8]) {
    let (whole, half) = (bytes, &bytes[..bytes.len() / 2]);
    let keys = ["high", "max", "oom", "oom_kill", "populated", "frozen"];
    let known = text::fields(whole, keys);
    for (part, whole) in text::fields(half, keys).iter().zip(known) {
        assert!(part.is_none() || *part == whole, "a table that was cut short says something else");
    }
    assert!(text::number(half).is_none() || text::number(half) == text::number(whole));
    let files = ["memory.max", "memory.current", "memory.stat"].map(|file| dir.join(file));
    let [_, _, stat] = &files;
    files.iter().for_each(|file| put(file, bytes));
    let table = Kept::read_only(stat).unwrap();
    let _ = (cache1(&table), cache2(&table));
    let own = Some(Hierarchy { mount: dir.to_owned(), own: Some(dir.to_owned()) });
    let v2 = Mounts { unified: own, unified_has_memory: true, ..Mounts::default() };
    // Its number is the limit as well as the usage: one and the same, there is nothing left but the cache.
    put(stat, b"inactive_file 0\nactive_file 0\n");
    if let Some((available, limit)) = Ancestors::of(&v2).headroom() {
        assert_eq!((available, Some(limit)), (Bytes::ZERO, text::number(bytes).map(Bytes)));
    }
}

/// `/proc/self/mountinfo`, a zero byte, `/proc/self/cgroup`.
pub fn mounts(dir: &Path, bytes: &[u8]) {
    let at = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    put(&dir.join("self/mountinfo"), &bytes[..at]);
    put(&dir.join("self/cgroup"), bytes.get(at + 1..).unwrap_or_default());
    let root = Path::new("/nonexistent");
    let mounts = Mounts::discover(dir, root).unwrap();
    for found in [mounts.memory1, mounts.freezer1, mounts.unified].into_iter().flatten() {
        let Some(own) = found.own else { continue };
        assert!(own.starts_with(&found.mount), "{own:?} lies outside of {:?}", found.mount);
        let below = own.strip_prefix(&found.mount).unwrap();
        assert!(below.components().all(|c| matches!(c, std::path::Component::Normal(_))), "{own:?} climbs");
    }
}

/// What a process says about itself: `stat`, `statm`, `status`, `maps`, `environ`, `cmdline`, `comm`.
pub fn process_files(dir: &Path, bytes: &[u8]) {
    if let Some(stat) = Stat::parse(bytes) {
        let name_ends = bytes.iter().rposition(|b| *b == b')').unwrap();
        assert!(bytes[name_ends..].contains(&stat.state), "a state that nobody wrote");
    }
    let whole = procfs::resident(bytes, 4096);
    let half = procfs::resident(&bytes[..bytes.len() / 2], 4096);
    assert!(half.is_none() || half == whole, "pages of a line that was cut short");
    assert!(text::lines(bytes).filter_map(shm::mapped_file).all(|id| id.ino != 0), "no file has this number");
    let _ = footprint::parse_status(bytes, ["RssAnon:", "RssShmem:"]);
    let words = String::from_utf8_lossy(bytes);
    let _ = oneself::capabilities(&words);
    assert!(oneself::code(&words).all(|(from, length)| from.checked_add(length).is_some()));
    let process = dir.join(PID.to_string());
    for file in ["environ", "cmdline", "comm", "stat", "smaps_rollup"] {
        put(&process.join(file), bytes);
    }
    put(&process.join("statm"), b"3 2 1 0 0 0 0\n");
    assert!(
        tree::find_marked(dir, "OOMGUARD_JOB", "r/w#1").unwrap().is_empty(),
        "a process that is not there"
    );
    let described = tree::describe_largest(dir, &[PID]).expect("a process with a name and a size");
    assert!(described.cmdline.chars().count() <= 80);
}

/// A machine with one process, as the scan of all processes sees it: `stat`, `status`, `cgroup`, `oom_score_adj`. What
/// was learnt about it is kept for the second scan, which reads less.
pub fn process_table(dir: &Path, bytes: &[u8]) {
    let process = dir.join(PID.to_string());
    for file in ["stat", "status", "cgroup", "oom_score_adj"] {
        put(&process.join(file), bytes);
    }
    let mut processes = Processes::open(dir).unwrap();
    let asked = std::cell::Cell::new(0);
    let mut scan = |afresh| {
        let judge = |about: &About<'_>| {
            asked.set(asked.get() + 1);
            assert_eq!(about.who.pid, PID);
            Standing::Ordinary
        };
        processes.scan(afresh, true, judge).unwrap().to_vec()
    };
    let (first, second) = (scan(true), scan(false));
    assert!(first.len() <= 1 && asked.get() <= 1, "one process, asked about once");
    assert_eq!(first, second);
    for row in &first {
        let cgroup = processes.cgroup(row);
        assert!(
            cgroup.is_empty() || cgroup == b"/" || bytes.windows(cgroup.len()).any(|part| part == cgroup)
        );
    }
}

/// Records of `/dev/kmsg`, one a line.
pub fn kernel_log(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut search = Search::new("run-7");
    text.lines().for_each(|record| search.line(record));
    if let Some(killed) = search.largest {
        assert!(
            text.contains("Killed process ") && text.contains(&killed.comm),
            "a victim that nobody named"
        );
    }
}

/// The page shared with a worker, as the worker maps it and as the next guard takes it over.
pub fn page(dir: &Path, bytes: &[u8]) {
    let path = dir.join("page");
    let mut whole = bytes.to_vec();
    // Most lengths are wrong in the same way; short ones stand for the beginning of a page.
    if bytes.len() < SIZE && bytes.len().is_multiple_of(2) {
        whole.resize(SIZE, 0);
    }
    put(&path, &whole);
    let word = |at: usize| whole.get(at..at + 4).map(|w| u32::from_ne_bytes(w.try_into().unwrap()));
    let ours = whole.len() == SIZE && whole[..8] == MAGIC.to_ne_bytes() && word(8) == Some(VERSION);
    let reader = Reader::open(&path);
    assert_eq!(reader.is_ok(), ours, "a page is taken for what it is");
    assert_eq!(Writer::reopen(&path).is_ok(), ours);
    if let Ok(reader) = reader {
        let said = (reader.stop(), reader.level(), reader.cause(), reader.limit());
        let seen = (reader.relieve(), reader.bell(), reader.beat(), reader.usage(), reader.available());
        let marks = (reader.reserve(), reader.warning(), reader.total());
        let _ = format!("{said:?} {seen:?} {marks:?}");
        assert_eq!(reader.guard_pid(), std::process::id(), "the new guard has signed it");
    }
}

#[cfg(test)]
#[path = "../../../../fuzz/each.rs"]
mod each;

#[cfg(test)]
mod tests {
    use super::each::each;
    use super::*;

    #[test]
    fn seeds_and_their_beginnings_hold() {
        each("host_files", false, host_files);
        each("cgroup_files", false, cgroup_files);
        each("mounts", false, mounts);
        each("process_files", false, process_files);
        each("process_table", false, process_table);
        each("kernel_log", false, |_, bytes| kernel_log(bytes));
        each("page", false, page);
    }
}
