//! One process as the host guard sees it, and who is never anybody's victim.
//!
//! Only data and rules about it. A name is what a process says of itself: it protects what is small, never what
//! holds a gigabyte.

use serde::{Deserialize, Serialize};

use crate::units::Bytes;

/// A process: its number means nothing without the time of its start (clock ticks since boot).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Who {
    /// Process id.
    pub pid: u32,
    /// Clock ticks since boot.
    pub start: u64,
}

/// What people said about a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Standing {
    /// `--prefer`: goes before all others.
    Prefer,
    /// Nothing was said.
    #[default]
    Ordinary,
    /// `--avoid`: goes when no other can help.
    Avoid,
    /// Outside of `--only`, not ours to signal, or what the guard itself lives by.
    Never,
}

/// One living process of a scan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Packed", into = "Packed")]
pub struct Row {
    /// Which.
    pub who: Who,
    /// Its parent's number.
    pub parent: u32,
    /// Its process group.
    pub group: u32,
    /// Its session.
    pub session: u32,
    /// It has a controlling terminal.
    pub has_terminal: bool,
    /// A thread of the kernel.
    pub is_kernel: bool,
    /// Its short name, filled up with zeros.
    pub name: [u8; 16],
    /// Its real user.
    pub uid: u32,
    /// The number of its cgroup in the scanner's list.
    pub cgroup: u32,
    /// Its address space.
    pub space: Bytes,
    /// Anonymous memory, swapped out or not. Pages that a fork shares with its parent count in both.
    pub private: Bytes,
    /// Shared memory that it has mapped and touched, or holds open in `/dev/shm`.
    pub shared: Bytes,
    /// `oom_score_adj`; -1000 says never.
    pub oom_score_adj: i16,
    /// What people said.
    pub standing: Standing,
    /// Its name protects it no more: see [`expose`].
    pub exposed: bool,
    /// A job of another oomguard, which looks after it: it is left to that one while half of the reserve is left.
    pub guarded: bool,
}

/// How a recording writes a row: an array, since a scan has thousands of them. The name is two numbers.
type Packed = (Who, [u32; 3], [bool; 4], [u64; 2], [u32; 2], [Bytes; 3], i16, Standing);

impl From<Row> for Packed {
    fn from(row: Row) -> Packed {
        let half = |from: usize| u64::from_le_bytes(std::array::from_fn(|at| row.name[from + at]));
        (
            row.who,
            [row.parent, row.group, row.session],
            [row.has_terminal, row.is_kernel, row.exposed, row.guarded],
            [half(0), half(8)],
            [row.uid, row.cgroup],
            [row.space, row.private, row.shared],
            row.oom_score_adj,
            row.standing,
        )
    }
}

impl From<Packed> for Row {
    fn from(packed: Packed) -> Row {
        let (who, [parent, group, session], flags, name, ids, sizes, oom_score_adj, standing) = packed;
        let [has_terminal, is_kernel, exposed, guarded] = flags;
        let name = name.map(u64::to_le_bytes);
        let ([uid, cgroup], [space, private, shared]) = (ids, sizes);
        Row {
            who,
            parent,
            group,
            session,
            has_terminal,
            is_kernel,
            name: std::array::from_fn(|at| name[at / 8][at % 8]),
            uid,
            cgroup,
            space,
            private,
            shared,
            oom_score_adj,
            standing,
            exposed,
            guarded,
        }
    }
}

/// What keeps others: ended, it would take unrelated work along, or the way in to repair the machine.
const KEEPERS: [&str; 40] = [
    "agetty",
    "anacron",
    "atd",
    "conmon",
    "containerd",
    "cron",
    "crond",
    "dbus-broker",
    "dbus-daemon",
    "dockerd",
    "dropbear",
    "gdm",
    "getty",
    "gnome-session-b",
    "gnome-shell",
    "init",
    "kwin_wayland",
    "kwin_x11",
    "lightdm",
    "login",
    "oomguard",
    "plasmashell",
    "podman",
    "runc",
    "runsv",
    "runsvdir",
    "s6-supervise",
    "s6-svscan",
    "screen",
    "sddm",
    "sshd",
    "sshd-session",
    "su",
    "sudo",
    "supervisord",
    "systemd",
    "tini",
    "tmux: server",
    "Xorg",
    "Xwayland",
];
/// The same by how the name begins: the kernel cuts it after 15 bytes.
const KEEPER_FAMILIES: [&str; 3] = ["containerd-shim", "systemd-", "(sd-"];
/// With a terminal and at the head of their session, these are somebody's way in.
const SHELLS: [&str; 12] =
    ["ash", "bash", "csh", "dash", "elvish", "fish", "ksh", "mksh", "nu", "sh", "tcsh", "zsh"];
/// A name protects no more than this.
const KEEPER_MOST: Bytes = Bytes::gib(1);
/// All names of one user together protect no more than this; root's need no name to do harm.
const USER_MOST: Bytes = Bytes::gib(2);
/// The score that the kernel's own killer takes as "never".
const NEVER: i16 = -1000;

impl Row {
    /// The short name.
    pub fn name(&self) -> &[u8] {
        let end = self.name.iter().position(|b| *b == 0).unwrap_or(self.name.len());
        &self.name[..end]
    }

    /// Never a victim, and never what makes a family of its children.
    pub fn is_out_of_reach(&self) -> bool {
        self.who.pid == 1
            || self.is_kernel
            || self.standing == Standing::Never
            || self.oom_score_adj <= NEVER
            || (!self.exposed && self.keeps_others() && self.private < KEEPER_MOST)
    }

    fn keeps_others(&self) -> bool {
        let name = self.name();
        let is = |known: &str| known.as_bytes() == name;
        let begins = |known: &str| name.starts_with(known.as_bytes());
        // A login shell has a minus in front of its name.
        let plain = name.strip_prefix(b"-").unwrap_or(name);
        let is_shell = SHELLS.iter().any(|shell| shell.as_bytes() == plain);
        KEEPERS.iter().any(|keeper| is(keeper))
            || KEEPER_FAMILIES.iter().any(|family| begins(family))
            || (is_shell && self.has_terminal && self.session == self.who.pid)
    }
}

/// Takes the protection of their names from all processes of a user who holds too much under such names: thirty
/// "sshd" of 900 MiB each are no way in, and memory that they share with each other is memory. For the scanner, after
/// a scan; `held` is its scratch space.
pub fn expose(rows: &mut [Row], held: &mut Vec<(u32, Bytes)>) {
    held.clear();
    let hides = |row: &&Row| row.uid != 0 && !row.is_kernel && row.keeps_others();
    held.extend(rows.iter().filter(hides).map(|row| (row.uid, row.private.plus(row.shared))));
    held.sort_unstable_by_key(|(uid, _)| *uid);
    held.dedup_by(|next, sum| {
        let same = next.0 == sum.0;
        if same {
            sum.1 = sum.1.plus(next.1);
        }
        same
    });
    held.retain(|(_, sum)| *sum > USER_MOST);
    for row in rows {
        row.exposed = held.binary_search_by_key(&row.uid, |(uid, _)| *uid).is_ok();
    }
}
