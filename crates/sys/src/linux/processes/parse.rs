//! What a process says about itself, out of the kernel's text.
//!
//! Only bytes in and values out; what is cut short is not believed.

use oomguard_core::Bytes;
use oomguard_core::watch::{Row, Who};

use crate::os::text;

/// `PF_KTHREAD`.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// A row from `/proc/PID/stat`, everything resident taken for its own. `None`: dead, or not understood.
pub(super) fn parse(line: &[u8], pid: u32, page_size: u64) -> Option<Row> {
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
pub(super) fn own_cgroup(listed: &[u8]) -> &[u8] {
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

pub(super) fn signed(bytes: &[u8]) -> Option<i16> {
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
