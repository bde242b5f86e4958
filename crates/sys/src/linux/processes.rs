//! Every process of the machine, for the host guard: who it is, whose it is, and what it holds.
//!
//! Touches `/proc/PID/{stat,status,cgroup,oom_score_adj,fd}` of the procfs it was opened on. What does not change
//! (user, cgroup, what people said of it) is read once a process and name; in a shortage again of the large, and the
//! threads of the kernel are passed by. Never opens `smaps`, and allocates only while there are more processes or cgroups
//! than ever before.

mod parse;

use std::path::Path;

use oomguard_core::Bytes;
use oomguard_core::watch::{Row, Standing, Who, expose};

use super::error::Result;
use super::kept::buffer;
use super::open_shm::OpenShm;
use super::procfs::Procfs;
use super::text;
use parse::{own_cgroup, parse, signed};

/// Below this nobody asks what the memory consists of, unless there is swap: one read less.
const SMALL: Bytes = Bytes::mib(16);
/// What lies in `/dev/shm` is asked about when it has changed by so much.
const SHM_STEP: Bytes = Bytes::mib(16);
/// The name of our own program, whose jobs are looked after.
const GUARD: &[u8] = b"oomguard";
/// Cgroup names that are kept; beyond, they are all forgotten and read again.
const MOST_CGROUPS: usize = 4096;

/// What a process is judged by.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// Which.
    pub who: Who,
    /// Its short name, at most 15 bytes.
    pub name: &'a [u8],
    /// Its real user.
    pub uid: u32,
    /// Its cgroup, from the hierarchy with the memory controller, else v2; `/` if it is in none.
    pub cgroup: &'a [u8],
}

/// What is kept of a process between scans.
#[derive(Clone, Copy, Debug)]
struct Known {
    who: Who,
    name: [u8; 16],
    uid: u32,
    cgroup: u32,
    oom_score_adj: i16,
    standing: Standing,
    /// What it holds open in `/dev/shm`, when that was last asked.
    open_shm: Bytes,
}

/// The scanner and its last scan.
#[derive(Debug)]
pub struct Processes {
    proc: Procfs,
    page_size: u64,
    own: u32,
    /// Ourselves and what is above us.
    lineage: Vec<u32>,
    rows: Vec<Row>,
    known: Vec<Known>,
    before: Vec<Known>,
    cgroups: Vec<Box<[u8]>>,
    pids: Vec<u32>,
    /// What users hold under names that protect.
    named: Vec<(u32, Bytes)>,
    /// Threads of the kernel.
    kernel: Vec<u32>,
    shm: Option<OpenShm>,
    /// What lay in it when everybody was asked.
    shm_used: Bytes,
}

impl Processes {
    /// For the procfs at `proc_root` (`/proc`).
    pub fn open(proc_root: &Path) -> Result<Processes> {
        Ok(Processes {
            proc: Procfs::open(proc_root)?,
            page_size: rustix::param::page_size() as u64,
            own: std::process::id(),
            lineage: Vec::with_capacity(64),
            rows: Vec::with_capacity(1024),
            known: Vec::with_capacity(1024),
            before: Vec::with_capacity(1024),
            cgroups: Vec::with_capacity(64),
            pids: Vec::with_capacity(1024),
            named: Vec::with_capacity(1024),
            kernel: Vec::with_capacity(1024),
            shm: OpenShm::open(Path::new("/dev/shm")).ok(),
            shm_used: Bytes::ZERO,
        })
    }

    /// Looks at every process: 8 us each, 25 us more for a large one and once for a new one. `judge` is asked about
    /// new ones, in a shortage (`urgent`) about all large ones; `swap` says that memory may be swapped out. The guard
    /// itself and what is above it get [`Standing::Never`], whatever `judge` says.
    pub fn scan(
        &mut self,
        urgent: bool,
        swap: bool,
        mut judge: impl FnMut(&About<'_>) -> Standing,
    ) -> Result<&[Row]> {
        std::mem::swap(&mut self.known, &mut self.before);
        self.known.clear();
        self.rows.clear();
        self.pids.clear();
        if self.cgroups.len() > MOST_CGROUPS {
            self.before.clear();
            self.cgroups.clear();
        }
        let Processes { proc, pids, kernel, .. } = self;
        if !urgent {
            kernel.clear();
        }
        proc.each_pid(|pid| {
            if kernel.binary_search(&pid).is_err() {
                pids.push(pid);
            }
        })?;
        self.pids.sort_unstable();
        let ask_all = self.shm_has_changed();
        for at in 0..self.pids.len() {
            self.look_at(self.pids[at], urgent, swap, ask_all, &mut judge);
        }
        self.spare_ourselves();
        expose(&mut self.rows, &mut self.named);
        self.mark_guarded();
        Ok(&self.rows)
    }

    /// The last scan, in order of process ids: the living, without zombies; in a shortage without the kernel's threads.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The cgroup of a row of the last scan.
    pub fn cgroup(&self, row: &Row) -> &[u8] {
        self.cgroups.get(row.cgroup as usize).map_or(b"/", |path| path)
    }

    /// Our own, as [`About::cgroup`] has it.
    pub fn own_cgroup(&self) -> Vec<u8> {
        let mut space = buffer::<4096>();
        own_cgroup(self.proc.read(self.own, "cgroup", &mut space).unwrap_or_default()).to_vec()
    }

    /// So that everybody has to be asked anew what they hold open in it.
    fn shm_has_changed(&mut self) -> bool {
        let used = self.shm.as_ref().map_or(Bytes::ZERO, OpenShm::used);
        let changed = used.minus(self.shm_used).max(self.shm_used.minus(used)) >= SHM_STEP;
        if changed {
            self.shm_used = used;
        }
        changed
    }

    fn look_at(
        &mut self,
        pid: u32,
        urgent: bool,
        swap: bool,
        ask_all: bool,
        judge: &mut impl FnMut(&About<'_>) -> Standing,
    ) {
        let mut space = buffer::<1024>();
        let Ok(line) = self.proc.read(pid, "stat", &mut space) else { return };
        let Some(mut row) = parse(line, pid, self.page_size) else { return };
        if row.is_kernel {
            self.kernel.push(pid);
            self.rows.push(row);
            return;
        }
        let at = self.before.binary_search_by_key(&row.who, |known| known.who);
        let known = at.ok().map(|at| self.before[at]).filter(|known| known.name == row.name);
        if known.is_none() || swap || row.private >= SMALL {
            self.read_status(&mut row);
        }
        let is_large = row.private.plus(row.shared) >= SMALL;
        let open_shm = match known {
            Some(known) if !ask_all => known.open_shm,
            _ => self.open_shm(pid),
        };
        let known = match known {
            Some(known) if !(urgent && is_large) => known,
            _ => self.identify(&row, judge),
        };
        let known = Known { open_shm, ..known };
        row = Row {
            shared: row.shared.max(open_shm),
            uid: known.uid,
            cgroup: known.cgroup,
            oom_score_adj: known.oom_score_adj,
            standing: known.standing,
            ..row
        };
        self.known.push(known);
        self.rows.push(row);
    }

    fn open_shm(&self, pid: u32) -> Bytes {
        let shm = self.shm.as_ref().filter(|_| self.shm_used >= SHM_STEP);
        shm.map_or(Bytes::ZERO, |shm| shm.held_open(&self.proc, pid))
    }

    /// Splits what is resident; without the lines (a process that is just ending) it stays as it was.
    fn read_status(&self, row: &mut Row) {
        let mut space = buffer::<4096>();
        let Ok(status) = self.proc.read(row.who.pid, "status", &mut space) else { return };
        let [uid, anon, shared, swapped] = text::fields(status, ["Uid", "RssAnon", "RssShmem", "VmSwap"]);
        row.uid = uid.and_then(|uid| u32::try_from(uid).ok()).unwrap_or(row.uid);
        if let (Some(anon), Some(shared)) = (anon, shared) {
            row.private = Bytes::kib(anon).plus(Bytes::kib(swapped.unwrap_or(0)));
            row.shared = Bytes::kib(shared);
        }
    }

    fn identify(&mut self, row: &Row, judge: &mut impl FnMut(&About<'_>) -> Standing) -> Known {
        let mut space = buffer::<4096>();
        let listed = self.proc.read(row.who.pid, "cgroup", &mut space).unwrap_or_default();
        let path = own_cgroup(listed);
        let cgroup = self.cgroups.iter().position(|known| **known == *path).unwrap_or_else(|| {
            self.cgroups.push(Box::from(path));
            self.cgroups.len() - 1
        });
        let mut space = buffer::<32>();
        let score = self.proc.read(row.who.pid, "oom_score_adj", &mut space).ok();
        let about = About { who: row.who, name: row.name(), uid: row.uid, cgroup: path };
        Known {
            who: row.who,
            name: row.name,
            uid: row.uid,
            cgroup: cgroup as u32,
            oom_score_adj: score.and_then(signed).unwrap_or(0),
            standing: judge(&about),
            open_shm: Bytes::ZERO,
        }
    }

    /// What another oomguard has started is its business first, unless it has started us, too. A name is all that is asked for: who lies about it gains
    /// little, see [`Row::guarded`].
    fn mark_guarded(&mut self) {
        let is_guard = |row: &Row| row.name() == GUARD && !self.lineage.contains(&row.who.pid);
        if !self.rows.iter().any(is_guard) {
            return;
        }
        for at in 0..self.rows.len() {
            let mut above = self.rows[at];
            // A lineage is no longer than there are processes.
            for _ in 0..self.rows.len() {
                let Ok(parent) = self.rows.binary_search_by_key(&above.parent, |row| row.who.pid) else {
                    break;
                };
                above = self.rows[parent];
                if is_guard(&above) {
                    self.rows[at].guarded = true;
                    break;
                }
            }
        }
    }

    fn spare_ourselves(&mut self) {
        let mut pid = self.own;
        self.lineage.clear();
        // A lineage is no longer than there are processes.
        for _ in 0..self.rows.len() {
            let Ok(at) = self.rows.binary_search_by_key(&pid, |row| row.who.pid) else { return };
            self.rows[at].standing = Standing::Never;
            self.lineage.push(pid);
            pid = self.rows[at].parent;
        }
    }
}
