//! Every process of the machine, for the host guard: who it is, whose it is, and what it holds.
//!
//! Touches `/proc/PID/{stat,status,cgroup,oom_score_adj}` of the procfs it was opened on. What does not change
//! (user, cgroup, what people said of it) is read once a process and name, and again when asked. Never opens
//! `smaps`, and allocates only while there are more processes or cgroups than ever before.

use std::path::Path;

use oomguard_core::Bytes;
use oomguard_core::watch::{Row, Standing, Who, expose};

use super::error::Result;
use super::kept::buffer;
use super::procfs::Procfs;
use super::text;

/// Below this nobody asks what the memory consists of, unless there is swap: one read less.
const SMALL: Bytes = Bytes::mib(16);
/// `PF_KTHREAD`.
const KERNEL_THREAD: u64 = 0x0020_0000;
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
}

/// The scanner and its last scan.
#[derive(Debug)]
pub struct Processes {
    proc: Procfs,
    page_size: u64,
    own: u32,
    rows: Vec<Row>,
    known: Vec<Known>,
    before: Vec<Known>,
    cgroups: Vec<Box<[u8]>>,
    pids: Vec<u32>,
    /// What users hold under names that protect.
    named: Vec<(u32, Bytes)>,
}

impl Processes {
    /// For the procfs at `proc_root` (`/proc`).
    pub fn open(proc_root: &Path) -> Result<Processes> {
        Ok(Processes {
            proc: Procfs::open(proc_root)?,
            page_size: rustix::param::page_size() as u64,
            own: std::process::id(),
            rows: Vec::with_capacity(1024),
            known: Vec::with_capacity(1024),
            before: Vec::with_capacity(1024),
            cgroups: Vec::new(),
            pids: Vec::with_capacity(1024),
            named: Vec::with_capacity(1024),
        })
    }

    /// Looks at every process: 8 us each, 25 us more for a large one and once for a new one. `judge` is asked about
    /// new ones, about all if `afresh`; `swap` says that memory may be swapped out. The guard itself and what is
    /// above it get [`Standing::Never`], whatever `judge` says.
    pub fn scan(
        &mut self,
        afresh: bool,
        swap: bool,
        mut judge: impl FnMut(&About<'_>) -> Standing,
    ) -> Result<&[Row]> {
        std::mem::swap(&mut self.known, &mut self.before);
        self.known.clear();
        self.rows.clear();
        self.pids.clear();
        if afresh || self.cgroups.len() > MOST_CGROUPS {
            self.before.clear();
            self.cgroups.clear();
        }
        let Processes { proc, pids, .. } = self;
        proc.each_pid(|pid| pids.push(pid))?;
        self.pids.sort_unstable();
        for at in 0..self.pids.len() {
            self.look_at(self.pids[at], swap, &mut judge);
        }
        self.spare_ourselves();
        expose(&mut self.rows, &mut self.named);
        Ok(&self.rows)
    }

    /// The last scan, in order of process ids: the living, without zombies.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The cgroup of a row of the last scan.
    pub fn cgroup(&self, row: &Row) -> &[u8] {
        self.cgroups.get(row.cgroup as usize).map_or(b"/", |path| path)
    }

    fn look_at(&mut self, pid: u32, swap: bool, judge: &mut impl FnMut(&About<'_>) -> Standing) {
        let mut space = buffer::<1024>();
        let Ok(line) = self.proc.read(pid, "stat", &mut space) else { return };
        let Some(mut row) = parse(line, pid, self.page_size) else { return };
        if row.is_kernel {
            self.rows.push(row);
            return;
        }
        let at = self.before.binary_search_by_key(&row.who, |known| known.who);
        let known = at.ok().map(|at| self.before[at]).filter(|known| known.name == row.name);
        if known.is_none() || swap || row.private >= SMALL {
            self.read_status(&mut row);
        }
        let known = known.unwrap_or_else(|| self.identify(&row, judge));
        row = Row {
            uid: known.uid,
            cgroup: known.cgroup,
            oom_score_adj: known.oom_score_adj,
            standing: known.standing,
            ..row
        };
        self.known.push(known);
        self.rows.push(row);
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
        }
    }

    fn spare_ourselves(&mut self) {
        let mut pid = self.own;
        // A lineage is no longer than there are processes.
        for _ in 0..self.rows.len() {
            let Ok(at) = self.rows.binary_search_by_key(&pid, |row| row.who.pid) else { return };
            self.rows[at].standing = Standing::Never;
            pid = self.rows[at].parent;
        }
    }
}

/// A row from `/proc/PID/stat`, everything resident taken for its own. `None`: dead, or not understood.
fn parse(line: &[u8], pid: u32, page_size: u64) -> Option<Row> {
    let (open, close) = (line.iter().position(|b| *b == b'(')?, line.iter().rposition(|b| *b == b')')?);
    let mut name = [0; 16];
    let said = line.get(open + 1..close)?;
    let length = said.len().min(name.len());
    name[..length].copy_from_slice(&said[..length]);
    let mut words = line.get(close + 1..)?.trim_ascii_start().split(|b| *b == b' ');
    if matches!(words.next()?.first()?, b'Z' | b'X' | b'x') {
        return None;
    }
    // The numbers after the state, fields 4 to 24; what follows proves that the last one is whole.
    let mut fields = [0u64; 21];
    for field in &mut fields {
        let word = words.next()?;
        *field = match word.strip_prefix(b"-") {
            Some(_) => 0,
            None => text::leading(word)?.0,
        };
    }
    words.next()?;
    let [parent, group, session, terminal, _, flags, ..] = fields;
    let number = |value: u64| u32::try_from(value).ok();
    Some(Row {
        who: Who { pid, start: fields[18] },
        parent: number(parent)?,
        group: number(group)?,
        session: number(session)?,
        has_terminal: terminal != 0,
        is_kernel: flags & KERNEL_THREAD != 0,
        name,
        space: Bytes(fields[19]),
        private: Bytes(fields[20].saturating_mul(page_size)),
        ..Row::default()
    })
}

/// The path in the hierarchy with the memory controller, unless that is the root: then in v2.
fn own_cgroup(listed: &[u8]) -> &[u8] {
    let path = |wanted: fn(&[u8], &[u8]) -> bool| {
        text::lines(listed).find_map(|line| {
            let mut parts = line.splitn(3, |b| *b == b':');
            let (id, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            (wanted(id, controllers) && path != b"/").then_some(path)
        })
    };
    path(|_, controllers| controllers.split(|b| *b == b',').any(|name| name == b"memory"))
        .or_else(|| path(|id, controllers| id == b"0" && controllers.is_empty()))
        .unwrap_or(b"/")
}

fn signed(bytes: &[u8]) -> Option<i16> {
    let (negative, digits) = match bytes.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, bytes),
    };
    let value = i16::try_from(text::number(digits)?).ok()?;
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] =
        b"42 (a) Z 9 (b) S 7 40 41 34816 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 5150 1048576 256 184467\n";

    #[test]
    fn a_line_of_stat_is_a_row_whatever_the_name_says() {
        let row = parse(LINE, 42, 4096).unwrap();
        assert_eq!((row.who, row.name()), (Who { pid: 42, start: 5150 }, &b"a) Z 9 (b"[..]));
        assert_eq!((row.parent, row.group, row.session), (7, 40, 41));
        assert_eq!((row.private, row.space), (Bytes::mib(1), Bytes::mib(1)));
        assert!(row.has_terminal && !row.is_kernel);
        let kernel = b"2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 3 0 0 1\n";
        assert!(parse(kernel, 2, 4096).unwrap().is_kernel);
    }

    #[test]
    fn the_dead_and_what_is_cut_short_are_no_rows() {
        let zombie = b"42 (a) Z 7 40 41 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 5150 0 0 1\n";
        assert_eq!(parse(zombie, 42, 4096), None);
        for end in 0..LINE.len() - 8 {
            assert_eq!(parse(&LINE[..end], 42, 4096), None, "{end}");
        }
    }

    #[test]
    fn the_cgroup_is_where_memory_is_counted() {
        let hybrid = b"5:memory:/work\n2:cpu,cpuacct:/\n0::/user.slice\n";
        assert_eq!(own_cgroup(hybrid), b"/work");
        assert_eq!(own_cgroup(b"5:memory:/\n0::/user.slice\n"), b"/user.slice");
        assert_eq!(own_cgroup(b"0::/a:b/c\n"), b"/a:b/c");
        assert_eq!(own_cgroup(b"5:memory:/\n0::/\n"), b"/");
        assert_eq!(own_cgroup(b""), b"/");
    }

    #[test]
    fn scores_have_a_sign() {
        assert_eq!(signed(b"-1000\n"), Some(-1000));
        assert_eq!(signed(b"0\n"), Some(0));
        assert_eq!(signed(b"-\n"), None);
        assert_eq!(signed(b"99999\n"), None);
    }
}
