use crate::support::{folder, put};
use oomguard_core::Bytes;
use oomguard_sys::cgroup::Ancestors;
use std::path::Path;

const V2: &str = "9 8 0:30 / /cg rw - cgroup2 cgroup2 rw\n";

fn level(root: &Path, dir: &str, max: &str, current: Bytes, inactive: Bytes, active: Bytes) {
    put(root, &format!("{dir}/memory.max"), &format!("{max}\n"));
    put(root, &format!("{dir}/memory.current"), &format!("{}\n", current.0));
    let stat = format!(
        "anon 1\nfile 2\ninactive_anon 5\nactive_anon 6\ninactive_file {}\nactive_file {}\nunevictable 0\n",
        inactive.0, active.0
    );
    put(root, &format!("{dir}/memory.stat"), &stat);
}

fn v2(own: &str) -> tempfile::TempDir {
    let root = folder(&[("proc/self/mountinfo", V2), ("proc/self/cgroup", &*format!("0::{own}\n"))]);
    put(root.path(), "cg/cgroup.controllers", "cpu memory pids\n");
    root
}

fn open(root: &tempfile::TempDir) -> Ancestors {
    Ancestors::open(&root.path().join("proc"), root.path()).unwrap()
}

#[test]
fn without_a_limit_there_is_nothing_to_say() {
    let root = v2("/a/b");
    level(root.path(), "cg/a/b", "max", Bytes::gib(1), Bytes::ZERO, Bytes::ZERO);
    level(root.path(), "cg/a", "max", Bytes::gib(2), Bytes::ZERO, Bytes::ZERO);
    assert_eq!(open(&root).headroom(), None);
}

#[test]
fn file_cache_can_be_given_back_and_the_tightest_level_counts() {
    let root = v2("/a/b");
    let (one, four, eight) = (Bytes::gib(1), Bytes::gib(4), Bytes::gib(8));
    level(root.path(), "cg/a/b", &eight.0.to_string(), four, one, one);
    level(root.path(), "cg/a", &Bytes::gib(9).0.to_string(), eight, one, Bytes::gib(2));
    // b: 8 - (4 - 2) = 6; a: 9 - (8 - 3) = 4.
    assert_eq!(open(&root).headroom(), Some((Bytes::gib(4), eight)));
}

#[test]
fn a_level_over_its_limit_has_nothing_left() {
    let root = v2("/a");
    level(root.path(), "cg/a", "4096", Bytes(8192), Bytes::ZERO, Bytes::ZERO);
    assert_eq!(open(&root).headroom(), Some((Bytes::ZERO, Bytes(4096))));
}

#[test]
fn a_limit_that_appears_later_is_noticed() {
    let root = v2("/a");
    level(root.path(), "cg/a", "max", Bytes(0), Bytes::ZERO, Bytes::ZERO);
    let mut ancestors = open(&root);
    assert_eq!(ancestors.headroom(), None);
    put(root.path(), "cg/a/memory.max", "8192\n");
    let seen = (0..100).find_map(|_| ancestors.headroom());
    assert_eq!(seen, Some((Bytes(8192), Bytes(8192))));
}

#[test]
fn the_tightest_limit_is_known_by_its_distance() {
    let root = v2("/a/b/c");
    level(root.path(), "cg/a", "8192", Bytes(4096), Bytes::ZERO, Bytes::ZERO);
    level(root.path(), "cg/a/b/c", "max", Bytes::ZERO, Bytes::ZERO, Bytes::ZERO);
    let mut ancestors = open(&root);
    ancestors.headroom();
    assert_eq!(ancestors.tightest(), Some(2), "a level that cannot be read is a step, too");
    let mut with_limit = |limit: &str| {
        put(root.path(), "cg/a/b/c/memory.max", limit);
        // It is not read at every look.
        (0..100).for_each(|_| _ = ancestors.headroom());
        ancestors.tightest()
    };
    assert_eq!(with_limit("4095\n"), Some(0));
    assert_eq!(with_limit("5000\n"), Some(2), "one that is nearer has more to give");
    let free = v2("/a");
    level(free.path(), "cg/a", "max", Bytes::ZERO, Bytes::ZERO, Bytes::ZERO);
    let mut free = open(&free);
    assert_eq!((free.headroom(), free.tightest()), (None, None));
}

#[test]
fn cgroup_v1_counts_the_whole_tree_below() {
    let mountinfo = "9 8 0:30 / /cg rw - cgroup cgroup rw,memory\n";
    let root = folder(&[
        ("proc/self/mountinfo", mountinfo),
        ("proc/self/cgroup", "4:memory:/a\n"),
        ("cg/memory.limit_in_bytes", "9223372036854771712\n"),
        ("cg/memory.usage_in_bytes", "100\n"),
        ("cg/memory.stat", "total_inactive_file 0\ntotal_active_file 0\n"),
        ("cg/a/memory.limit_in_bytes", "10000\n"),
        ("cg/a/memory.usage_in_bytes", "6000\n"),
        (
            "cg/a/memory.stat",
            "inactive_file 1\nactive_file 1\ntotal_inactive_file 1000\ntotal_active_file 500\n",
        ),
    ]);
    assert_eq!(open(&root).headroom(), Some((Bytes(5500), Bytes(10000))));
}

#[test]
fn a_level_that_cannot_be_understood_is_left_out() {
    let root = v2("/a");
    level(root.path(), "cg/a", "4096", Bytes(1), Bytes::ZERO, Bytes::ZERO);
    put(root.path(), "cg/a/memory.stat", "active_file 1");
    assert_eq!(open(&root).headroom(), None);
    put(root.path(), "cg/a/memory.max", "lots\n");
    assert_eq!(open(&root).headroom(), None);
}

#[test]
fn this_machine_can_be_asked() {
    let mut ancestors = Ancestors::open(Path::new("/proc"), Path::new("/")).unwrap();
    if let Some((available, total)) = ancestors.headroom() {
        assert!(available <= total);
    }
}
