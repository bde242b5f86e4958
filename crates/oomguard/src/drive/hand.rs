//! The hand on one job: its cgroup leaf or process tree, its main process, its page.
//!
//! Reads and acts on one job; when and why is not its business.

use std::time::{Duration, SystemTime};

use oomguard_core::{Bytes, Enforcement, Instant, LimitEvent, Reading};
use oomguard_sys::cgroup::{Counters, Leaf, Limits, Parent};
use oomguard_sys::error::Error;
use oomguard_sys::gpu::Variables;
use oomguard_sys::kmsg::Kmsg;
use oomguard_sys::page;
use oomguard_sys::process::{Process, Signal};
use oomguard_sys::reaper::Reaper;
use oomguard_sys::tree::{self, Tree};

use super::usage::{Charge, Shared};

/// How often a tree without a cgroup is searched for new members.
const RESCAN: Duration = Duration::from_millis(200);

/// What is held of one job.
pub struct Hand {
    /// The name of its leaf.
    pub name: String,
    /// What holds it.
    pub enforcement: Enforcement,
    /// What the kernel is to hold it to.
    pub limits: Option<Limits>,
    /// Its cgroup, from its start until it has been cleaned up.
    pub leaf: Option<Leaf>,
    /// Its processes, where there is no cgroup.
    pub tree: Option<Tree>,
    /// Its main process.
    pub main: Option<Process>,
    /// What it can read.
    pub page: Option<page::Writer>,
    /// When it was started, by the wall clock: shared-memory files younger than this may be its own.
    pub born: SystemTime,
    /// The largest process seen when it was last looked for.
    pub largest: Option<(u32, String, Bytes)>,
    /// The most that its cgroup was charged, read when it ended.
    pub charged_peak: Bytes,
    /// Pages of files that were left in the charge then.
    pub charged_cache: Bytes,
    /// What its members are known by where there is no cgroup: a variable of their environment and its value.
    pub mark: Option<(String, String)>,
    /// What asks its main process to end.
    pub stop_signal: Signal,
    /// What says which GPUs it may use.
    pub sees: Variables,
    /// The end of its main process is told by who started it: no child of ours.
    pub end_is_told: bool,
    /// Who outlives its main process is noted, for it is to leave nothing.
    pub leaves_nothing: bool,
    /// Who was still there when its main process had ended: pid and name; asked only where it is to leave nothing.
    pub left: Vec<(u32, String)>,
    /// The kernel has killed in it, and its log has not been asked yet whom.
    pub kernel_killed: bool,
    counters: Counters,
    charge: Charge,
    /// Nobody is charged for it any more.
    uncharged: bool,
    shared: Shared,
    pids: Vec<u32>,
    main_ended: bool,
    killed: bool,
    populated: bool,
    scanned: Instant,
}

impl Hand {
    /// A hand without a job.
    pub fn new(name: String, enforcement: Enforcement, limits: Option<Limits>) -> Hand {
        Hand {
            name,
            enforcement,
            limits,
            leaf: None,
            tree: None,
            main: None,
            page: None,
            born: SystemTime::UNIX_EPOCH,
            largest: None,
            charged_peak: Bytes::ZERO,
            charged_cache: Bytes::ZERO,
            mark: None,
            stop_signal: Signal::TERM,
            sees: Variables::default(),
            end_is_told: false,
            leaves_nothing: false,
            left: Vec::new(),
            kernel_killed: false,
            pids: Vec::with_capacity(256),
            counters: Counters::default(),
            charge: Charge::default(),
            uncharged: false,
            shared: Shared::default(),
            main_ended: false,
            killed: false,
            populated: false,
            scanned: Instant(0),
        }
    }

    /// Makes or opens the leaf, unless it has one, with its limit in force.
    pub fn make_leaf(&mut self, parent: Option<&Parent>) -> Result<(), Error> {
        let Some(parent) = parent else { return Ok(()) };
        let leaf = match self.leaf.take() {
            Some(leaf) => leaf,
            None => parent.leaf(&self.name)?,
        };
        let leaf = self.leaf.insert(leaf);
        self.limits.as_ref().map_or(Ok(()), |limits| leaf.set_limit(limits).map(|_| ()))
    }

    /// It holds a job from now on.
    pub fn hold(&mut self, main: Process) {
        if self.leaf.is_none() {
            let mark = self.mark.clone();
            self.tree = Process::adopt(main.pid(), main.start_time()).and_then(|p| Tree::new(p, mark)).ok();
            // A job that was taken over has descendants already.
            let _ = self.tree.as_mut().map(Tree::rescan);
        }
        (self.charge, self.uncharged, self.shared) = (Charge::default(), false, Shared::default());
        (self.largest, self.charged_peak, self.charged_cache) = (None, Bytes::ZERO, Bytes::ZERO);
        self.left.clear();
        self.main = Some(main);
        (self.main_ended, self.killed, self.kernel_killed) = (false, false, false);
        self.populated = true;
        self.scanned = Instant(0);
        self.counters = self.leaf.as_mut().and_then(|leaf| leaf.events().ok()).unwrap_or_default();
    }

    /// It holds nothing any more; the leaf stays until it is cleaned up.
    pub fn release(&mut self) {
        self.main = None;
        self.tree = None;
        self.populated = false;
    }

    /// The main process runs, as far as we know.
    pub fn has_main(&self) -> bool {
        self.main.is_some() && !self.main_ended
    }

    /// The main process was reaped.
    pub fn main_has_ended(&mut self) {
        self.main_ended = true;
    }

    /// Notes who has outlived the main process.
    pub fn see_who_is_left(&mut self) {
        if !self.leaves_nothing {
            return;
        }
        let main = self.main.as_ref().map(Process::pid);
        self.pids.clear();
        match (&self.leaf, &mut self.tree) {
            (Some(leaf), _) => drop(leaf.pids(&mut self.pids)),
            (None, Some(tree)) => {
                let _ = tree.rescan();
                self.pids.extend(tree.processes().map(Process::pid));
            }
            (None, None) => {}
        }
        let others = self.pids.iter().filter(|pid| Some(**pid) != main);
        self.left = others.filter_map(|pid| Some((*pid, left_behind(*pid)?))).collect();
    }

    /// What the job uses; `None` where there is no job. Allocates nothing as long as its cgroup is charged.
    pub fn usage(&mut self, now: Instant) -> Option<Reading<Bytes>> {
        match &self.leaf {
            Some(leaf) if self.uncharged => {
                self.pids.clear();
                if let Err(error) = leaf.pids(&mut self.pids) {
                    return Some(Reading::Unknown(error.why()));
                }
                let rss = match tree::rss(&self.pids) {
                    Ok(rss) => rss,
                    Err(error) => return Some(Reading::Unknown(error.why())),
                };
                let (shared, among) = (&mut self.shared, self.pids.len());
                let pss = || tree::pss(&self.pids).unwrap_or(rss);
                return Some(Reading::Known(shared.count_once(now, rss, self.limits, among, pss)));
            }
            Some(leaf) => return Some(self.charge.read(leaf, now)),
            None => {}
        }
        let tree = self.tree.as_mut()?;
        if now.since(self.scanned) >= RESCAN {
            self.scanned = now;
            let _ = tree.rescan();
        }
        let (rss, among) = (tree.rss(), tree.processes().count());
        Some(Reading::Known(self.shared.count_once(now, rss, self.limits, among, || tree.pss())))
    }

    /// Its cgroup is charged no longer: from here on its processes are added up.
    pub fn count_processes(&mut self) {
        self.uncharged = true;
    }

    /// What the kernel has done about the limit since this was last asked.
    pub fn limit_event(&mut self) -> Result<Option<LimitEvent>, Error> {
        let Some(leaf) = self.leaf.as_mut() else { return Ok(None) };
        let counters = leaf.events()?;
        let event = counters.since(&self.counters);
        // A limit is met before the kill is counted, and we may look in between: only a kill settles the account.
        self.counters = match event {
            Some(LimitEvent::KilledAtLimit | LimitEvent::KilledAbove) => counters,
            _ => Counters { high: counters.high, ..self.counters },
        };
        Ok(event)
    }

    /// Makes the descriptor quiet that tells of the first process of the leaf and of the last.
    pub fn quiet(&self) {
        if let Some(leaf) = &self.leaf {
            let _ = leaf.is_populated();
        }
    }

    /// True once: when the main process has ended and no other is left. Costs nothing while the main process runs.
    pub fn has_become_empty(&mut self) -> bool {
        // The last process of a leaf has left it before its end is told to us.
        if !self.populated || !self.main_ended {
            return false;
        }
        let empty = match (&mut self.leaf, &mut self.tree) {
            // A leaf that somebody has removed was empty, or it could not have been.
            (Some(leaf), _) => {
                leaf.is_populated().map_or_else(|error| error.errno() == Some(NO_SUCH), |it| !it)
            }
            (None, Some(tree)) => {
                let _ = tree.rescan();
                if self.killed && !tree.is_empty() {
                    // Who turned up only now, or could not be held before.
                    let _ = tree.kill_all();
                }
                tree.is_empty()
            }
            (None, None) => true,
        };
        self.populated = !empty;
        if let Some(leaf) = self.leaf.as_ref().filter(|_| empty)
            && let Some(peak) = leaf.peak().known()
        {
            self.charged_peak = peak;
            self.charged_cache = leaf.cache().unwrap_or_default();
        }
        empty
    }

    /// SIGTERM, or another signal, to every process of it.
    pub fn signal_all(&mut self, signal: Signal) -> Result<(), Error> {
        let Some(leaf) = &self.leaf else {
            self.tree.as_ref().map(|tree| tree.signal_all(signal));
            return Ok(());
        };
        leaf.signal(signal).map(|_| ())
    }

    /// SIGKILL to the whole tree, and its memory back as fast as the kernel can. The first step allocates nothing.
    pub fn kill(&mut self, reaper: &Reaper) -> Result<(), Error> {
        self.killed = true;
        let killed = match (&mut self.leaf, &mut self.tree) {
            (Some(leaf), _) => leaf.kill().map(|_| ()),
            (None, Some(tree)) => {
                // Afterwards nobody can tell who it was.
                self.largest = tree.largest().or_else(|| self.largest.take());
                tree.kill_all().map(|_| ())
            }
            (None, None) => Ok(()),
        };
        if let Some(main) = self.main.as_ref().filter(|_| !self.main_ended) {
            let _ = main.signal(Signal::KILL);
            let _ = reaper.release(main.fd());
        }
        killed
    }

    /// Stops every process of it where it is, or lets them go on.
    pub fn freeze(&mut self, freeze: bool) -> Result<(), Error> {
        match (&mut self.leaf, &mut self.tree, freeze) {
            (Some(leaf), _, true) => leaf.freeze(),
            (Some(leaf), _, false) => leaf.thaw(),
            (None, Some(tree), true) => tree.freeze_all().map(|_| ()),
            (None, Some(tree), false) => {
                tree.thaw_all();
                Ok(())
            }
            (None, None, _) => Ok(()),
        }
    }

    /// A second grip, for a helper thread.
    pub fn still(&self, parent: Option<&Parent>) -> Still {
        let leaf = self.leaf.as_ref().and(parent).and_then(|parent| parent.leaf(&self.name).ok());
        let main = self.main.as_ref().and_then(|main| Process::adopt(main.pid(), main.start_time()).ok());
        Still { main: main.filter(|_| leaf.is_none()), leaf }
    }

    /// Whether a process belongs to it.
    pub fn has(&mut self, pid: u32) -> bool {
        if self.main.as_ref().is_some_and(|main| main.pid() == pid) {
            return true;
        }
        match (&self.leaf, &self.tree) {
            (Some(leaf), _) => {
                self.pids.clear();
                leaf.pids(&mut self.pids).is_ok() && self.pids.contains(&pid)
            }
            (None, Some(tree)) => tree.processes().any(|process| process.pid() == pid),
            (None, None) => false,
        }
    }

    /// Who the kernel killed; afterwards only its log can tell.
    pub fn name_the_killed(&mut self, kmsg: Option<&mut Kmsg>) {
        let killed = kmsg.and_then(|log| log.largest_killed_in(&self.name));
        self.largest = killed.map(|it| (it.pid, it.comm, it.rss)).or_else(|| self.largest.take());
    }
}

/// The name of a process that was left behind; `None` for one that only waits for its parent's end to end itself.
fn left_behind(pid: u32) -> Option<String> {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let helper = |name: &[u8]| words.windows(name.len()).any(|part| part == name);
    if helper(b"multiprocessing.resource_tracker") || helper(b"multiprocessing.forkserver") {
        return None;
    }
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

/// `ENODEV`: the file's cgroup is gone.
const NO_SUCH: i32 = rustix::io::Errno::NODEV.raw_os_error();

/// Holds a job still for a moment, from another thread: while its log is moved aside.
pub struct Still {
    leaf: Option<Leaf>,
    main: Option<Process>,
}

impl Still {
    /// Stops it; whether it stands still. Without any process it does.
    pub fn hold(&self) -> bool {
        match (&self.leaf, &self.main) {
            (Some(leaf), _) => {
                leaf.freeze().is_ok() && leaf.wait_frozen(Duration::from_secs(1)).unwrap_or(false)
            }
            (None, Some(main)) => main.signal(Signal::STOP).is_ok() || !main.is_alive(),
            (None, None) => true,
        }
    }

    /// Lets it go on.
    pub fn release(&self) {
        let _ = self.leaf.as_ref().map(Leaf::thaw);
        let _ = self.main.as_ref().map(|main| main.signal(Signal::CONT));
    }
}
