use crate::support::{folder, put};
use oomguard_sys::cgroup::Mounts;
use std::path::Path;

const HYBRID: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime shared:9 master:1 - cgroup cgroup rw,freezer
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

const HYBRID_OWN: &str = "\
6:freezer:/
4:memory:/jobs/one
1:cpu,cpuacct:/
0::/
";

#[test]
fn a_hybrid_machine_has_both_and_memory_only_in_v1() {
    let root = folder(&[("proc/self/mountinfo", HYBRID), ("proc/self/cgroup", HYBRID_OWN)]);
    put(root.path(), "sys/fs/cgroup/unified/cgroup.controllers", "\n");
    let mounts = Mounts::discover(&root.path().join("proc"), root.path()).unwrap();
    let memory = mounts.memory1.unwrap();
    assert_eq!(memory.mount, root.path().join("sys/fs/cgroup/memory"));
    assert_eq!(memory.own.unwrap(), root.path().join("sys/fs/cgroup/memory/jobs/one"));
    assert_eq!(mounts.freezer1.unwrap().own.unwrap(), root.path().join("sys/fs/cgroup/freezer"));
    assert_eq!(mounts.unified.unwrap().own.unwrap(), root.path().join("sys/fs/cgroup/unified"));
    assert!(!mounts.unified_has_memory);
}

#[test]
fn a_container_sees_its_own_part_as_the_root() {
    // Docker on cgroup v1 without a cgroup namespace: a bind mount of its own directory.
    let mountinfo =
        "9 8 0:30 /docker/4f2a /sys/fs/cgroup/memory ro,nosuid master:15 - cgroup cgroup rw,memory\n";
    let root = folder(&[("proc/self/mountinfo", mountinfo), ("proc/self/cgroup", "4:memory:/docker/4f2a\n")]);
    let mounts = Mounts::discover(&root.path().join("proc"), root.path()).unwrap();
    assert_eq!(mounts.memory1.unwrap().own.unwrap(), root.path().join("sys/fs/cgroup/memory"));
}

#[test]
fn a_cgroup_outside_of_what_is_mounted_is_unknown() {
    for own in ["0::/../../other\n", "0::/elsewhere\n"] {
        let mountinfo = "9 8 0:30 /docker/4f2a /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        let root = folder(&[("proc/self/mountinfo", mountinfo), ("proc/self/cgroup", own)]);
        let mounts = Mounts::discover(&root.path().join("proc"), root.path()).unwrap();
        assert_eq!(mounts.unified.unwrap().own, None, "{own}");
    }
}

#[test]
fn blanks_in_a_mount_point_are_escaped() {
    let mountinfo = "9 8 0:30 / /a\\040b\\134c rw - cgroup2 none rw\n";
    let root = folder(&[("proc/self/mountinfo", mountinfo), ("proc/self/cgroup", "0::/x y\n")]);
    let mounts = Mounts::discover(&root.path().join("proc"), root.path()).unwrap();
    assert_eq!(mounts.unified.unwrap().own.unwrap(), root.path().join("a b\\c/x y"));
}

#[test]
fn garbage_and_nothing_are_no_hierarchies() {
    for text in ["", "garbage\n", "1 2 3 - cgroup2\n", " - \n", "9 8 0:30 / /x rw - ext4 /dev/vda rw\n"] {
        let root = folder(&[("proc/self/mountinfo", text), ("proc/self/cgroup", "nonsense\n::\n")]);
        let mounts = Mounts::discover(&root.path().join("proc"), root.path()).unwrap();
        assert_eq!(mounts, Mounts::default(), "{text:?}");
    }
    assert!(Mounts::discover(Path::new("/nonexistent"), Path::new("/")).is_err());
}
