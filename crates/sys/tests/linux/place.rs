//! Where the parent goes, and what is said where it can go nowhere.

use crate::support::{folder, put};
use oomguard_sys::cgroup::{Parent, ParentOptions, Refusal};
use std::path::{Path, PathBuf};

fn refusal(root: &Path, explicit: Option<&str>) -> Refusal {
    Parent::open(&ParentOptions {
        explicit: explicit.map(PathBuf::from),
        proc_root: root.join("proc"),
        sys_root: root.to_owned(),
        ..ParentOptions::default()
    })
    .unwrap_err()
}

fn machine(mountinfo: &str, own: &str) -> tempfile::TempDir {
    folder(&[("proc/self/mountinfo", mountinfo), ("proc/self/cgroup", own)])
}

const V2: &str = "9 8 0:30 / /cg rw - cgroup2 cgroup2 rw\n";

#[test]
fn without_any_hierarchy_both_kinds_are_named() {
    let root = machine("", "");
    let refusal = refusal(root.path(), None);
    let said = refusal.to_string();
    assert!(
        said.contains("cgroup v2 is not mounted") && said.contains("cgroup v1 with the memory"),
        "{said}"
    );
    assert!(said.contains("\nhint: ") && refusal.remedy.contains("cgroup_disable=memory"), "{said}");
}

#[test]
fn every_candidate_is_listed_with_what_went_wrong() {
    let root = machine(V2, "0::/a/b\n");
    put(root.path(), "cg/cgroup.controllers", "cpu memory\n");
    put(root.path(), "cg/a/b/cgroup.procs", "1\n2\n");
    let refusal = refusal(root.path(), None);
    let at: Vec<_> =
        refusal.attempts.iter().map(|a| a.at.strip_prefix(root.path()).unwrap().to_owned()).collect();
    assert!(at.contains(&PathBuf::from("cg/a/b")) && at.contains(&PathBuf::from("cg/a")), "{refusal}");
    assert!(refusal.to_string().contains("other processes are in it"), "{refusal}");
    assert!(refusal.remedy.contains("Delegate=yes"), "{refusal}");
}

#[test]
fn what_was_made_in_vain_is_removed_again() {
    let root = machine(V2, "0::/a/b\n");
    put(root.path(), "cg/cgroup.controllers", "memory\n");
    put(root.path(), "cg/cgroup.subtree_control", "memory\n");
    std::fs::create_dir_all(root.path().join("cg/a/b")).unwrap();
    // A plain folder grows no files, so the probe has to fail.
    let refusal = refusal(root.path(), None);
    assert!(!root.path().join("cg/oomguard").exists(), "{refusal}");
    assert!(refusal.attempts.iter().any(|a| a.at.ends_with("cg/oomguard")), "{refusal}");
}

#[test]
fn a_path_that_climbs_is_refused_before_anything_is_made() {
    for path in ["/", "", "../x", "/a/../../b", "/a/./../b"] {
        let root = machine(V2, "0::/\n");
        let refusal = refusal(root.path(), Some(path));
        assert_eq!(refusal.attempts.len(), 1, "{path}: {refusal}");
        assert_eq!(refusal.attempts[0].errno, Some(libc::EINVAL));
    }
}

#[test]
fn a_read_only_container_gets_advice_for_containers() {
    // /proc is a file system in which nobody can make directories: v1 under it fails as in a sealed container.
    let root = machine("9 8 0:30 / /sealed rw - cgroup cgroup rw,memory\n", "4:memory:/\n");
    std::os::unix::fs::symlink("/proc/sys", root.path().join("sealed")).unwrap();
    let refusal = refusal(root.path(), Some("/oomguard-test"));
    assert!(refusal.attempts.iter().any(|a| a.errno.is_some()), "{refusal}");
    assert!(refusal.to_string().contains("cannot make it"), "{refusal}");
}
