//! Whom the watch may end: whom people meant, whom it has the right to, and whose end would help.
//!
//! Judges one process by what is known of it; reads nothing.

use oomguard_core::watch::Standing;
use oomguard_sys::oneself;
use oomguard_sys::processes::About;

use crate::cli;
use crate::target::Target;

/// What was said, and where we are.
pub(super) struct Rules {
    prefer: Vec<Target>,
    avoid: Vec<Target>,
    only: Vec<Target>,
    /// Not root: we can only end our own.
    pub own: Option<u32>,
    cgroup: Vec<u8>,
    /// How many steps above our cgroup the limit stands that leaves less than the machine does.
    limit: Option<usize>,
}

impl Rules {
    /// What the flags say, for a guard in this cgroup.
    pub fn new(cli: &cli::Watch, cgroup: Vec<u8>) -> Rules {
        let own = (!oneself::is_root()).then(|| rustix::process::geteuid().as_raw());
        let (prefer, avoid, only) = (cli.prefer.clone(), cli.avoid.clone(), cli.only.clone());
        Rules { prefer, avoid, only, own, cgroup, limit: None }
    }

    /// Where the limit stands now; `None`: there is none.
    pub fn limited(&mut self, limit: Option<usize>) {
        self.limit = limit;
    }

    /// The cgroup whose limit is what is short, unless it is the machine.
    pub fn wall(&self) -> Option<&[u8]> {
        Some(up(&self.cgroup, self.limit?))
    }

    /// Who is outside of the limit that we are under has none of what is short here: its end would give nothing back.
    pub fn judge(&self, about: &About<'_>) -> Standing {
        let meant = |targets: &[Target]| targets.iter().any(|target| target.means(about));
        let outside = !self.only.is_empty() && !meant(&self.only);
        if outside
            || self.own.is_some_and(|own| own != about.uid)
            || self.wall().is_some_and(|wall| !lies_in(about.cgroup, wall))
        {
            Standing::Never
        } else if meant(&self.avoid) {
            Standing::Avoid
        } else if meant(&self.prefer) {
            Standing::Prefer
        } else {
            Standing::Ordinary
        }
    }
}

/// `/a/b/c`, one step up: `/a/b`.
fn up(path: &[u8], steps: usize) -> &[u8] {
    (0..steps).fold(path, |path, _| match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => &path[..at.max(1)],
        None => path,
    })
}

/// A stranger to our cgroup namespace is shown as `/../there`.
fn lies_in(path: &[u8], wall: &[u8]) -> bool {
    match wall {
        b"/" => !path.starts_with(b"/.."),
        _ => path.strip_prefix(wall).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oomguard_core::watch::Who;

    fn judged(own: &str, limit: Option<usize>, cgroup: &str) -> Standing {
        let (prefer, avoid, only) = (Vec::new(), Vec::new(), Vec::new());
        let rules = Rules { prefer, avoid, only, own: None, cgroup: own.into(), limit };
        rules.judge(&About { who: Who::default(), name: b"python", uid: 0, cgroup: cgroup.as_bytes() })
    }

    #[test]
    fn who_is_not_under_our_limit_cannot_help() {
        let job = "/slurm/job_1/step_0";
        for cgroup in ["/slurm/job_1", "/slurm/job_1/step_0", "/slurm/job_1/step_1/task"] {
            assert_eq!(judged(job, Some(1), cgroup), Standing::Ordinary, "{cgroup}");
        }
        for cgroup in ["/slurm/job_10", "/slurm", "/", "/user.slice"] {
            assert_eq!(judged(job, Some(1), cgroup), Standing::Never, "{cgroup}");
            assert_eq!(judged(job, None, cgroup), Standing::Ordinary, "{cgroup}");
        }
        assert_eq!(judged("/a", Some(1), "/b"), Standing::Ordinary, "the root holds everybody");
        assert_eq!(judged("/", Some(0), "/../other"), Standing::Never);
    }
}
