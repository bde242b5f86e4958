//! Numbers in the kernel's text: parsed from bytes in place, printed into a fixed buffer.
//!
//! A line counts only with its newline, so that a file cut short can never yield a shorter number. Nothing here
//! allocates or guesses.

use oomguard_core::Bytes;

/// cgroup v1 says "no limit" with a number near 2^63, rounded down to its page size.
const V1_UNLIMITED: u64 = 1 << 62;

/// The number at the start of `bytes` (after blanks) and what follows it. `None`: no digit, or over 64 bits.
pub(crate) fn leading(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let bytes = bytes.trim_ascii_start();
    let end = bytes.iter().position(|b| !b.is_ascii_digit()).unwrap_or(bytes.len());
    let (digits, rest) = bytes.split_at(end);
    if digits.is_empty() {
        return None;
    }
    let mut value = 0u64;
    for digit in digits {
        value = value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
    }
    Some((value, rest))
}

/// A file that holds one number and a newline.
pub(crate) fn number(bytes: &[u8]) -> Option<u64> {
    let (value, rest) = leading(bytes)?;
    rest.starts_with(b"\n").then_some(value)
}

/// A file that holds one limit: `max`, or a number. cgroup v1's huge numbers mean "none" too.
pub(crate) fn limit(bytes: &[u8]) -> Option<Bytes> {
    if bytes == b"max\n" {
        return Some(Bytes::MAX);
    }
    number(bytes).map(|n| if n >= V1_UNLIMITED { Bytes::MAX } else { Bytes(n) })
}

/// The complete lines of `bytes`: a last line without newline is cut off and not believed.
pub(crate) fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let end = bytes.iter().rposition(|b| *b == b'\n').unwrap_or(0);
    bytes[..end].split(|b| *b == b'\n')
}

/// The numbers of the lines `KEY NUMBER` or `KEY: NUMBER`, in one pass.
pub(crate) fn fields<const N: usize>(bytes: &[u8], keys: [&str; N]) -> [Option<u64>; N] {
    let mut found = [None; N];
    for line in lines(bytes) {
        let Some(end) = line.iter().position(|b| matches!(b, b' ' | b':')) else { continue };
        let (key, rest) = line.split_at(end);
        for (slot, wanted) in found.iter_mut().zip(keys) {
            if slot.is_none() && key == wanted.as_bytes() {
                *slot = leading(rest.strip_prefix(b":").unwrap_or(rest)).map(|(n, _)| n);
            }
        }
    }
    found
}

/// Text put together in a fixed buffer; what does not fit is cut, which `is_whole` tells.
pub(crate) struct Line<const N: usize> {
    bytes: [u8; N],
    len: usize,
    whole: bool,
}

impl<const N: usize> Line<N> {
    /// Nothing yet.
    pub(crate) fn new() -> Line<N> {
        Line { bytes: [0; N], len: 0, whole: true }
    }
    /// Adds text.
    pub(crate) fn text(mut self, text: &[u8]) -> Line<N> {
        let fits = text.len().min(N - self.len);
        self.bytes[self.len..self.len + fits].copy_from_slice(&text[..fits]);
        self.len += fits;
        self.whole &= fits == text.len();
        self
    }
    /// Adds a number.
    pub(crate) fn number(self, mut value: u64) -> Line<N> {
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (value % 10) as u8;
            value /= 10;
            if value == 0 {
                break;
            }
        }
        self.text(&digits[at..])
    }
    /// All of it; `None` if it did not fit.
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        self.whole.then_some(&self.bytes[..self.len])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_cut_short_is_not_a_number() {
        assert_eq!(number(b"4096\n"), Some(4096));
        assert_eq!(number(b"4096"), None);
        assert_eq!(number(b"\n"), None);
        assert_eq!(number(b"-1\n"), None);
        assert_eq!(number(b"18446744073709551615\n"), Some(u64::MAX));
        assert_eq!(number(b"18446744073709551616\n"), None);
        assert_eq!(fields(b"anon 4096\nfile 81", ["anon", "file"]), [Some(4096), None]);
    }

    #[test]
    fn no_limit_has_two_spellings() {
        assert_eq!(limit(b"max\n"), Some(Bytes::MAX));
        assert_eq!(limit(b"9223372036854771712\n"), Some(Bytes::MAX));
        assert_eq!(limit(b"4096\n"), Some(Bytes(4096)));
        assert_eq!(limit(b"maximum\n"), None);
    }

    #[test]
    fn a_key_is_the_whole_word() {
        let text = b"anon_thp 1\nanon 2\nfile:   3 kB\n";
        assert_eq!(fields(text, ["anon", "file", "fil"]), [Some(2), Some(3), None]);
    }

    #[test]
    fn lines_are_put_together_without_allocating() {
        let line = Line::<8>::new().number(0).text(b" ").number(120);
        assert_eq!(line.bytes(), Some(&b"0 120"[..]));
        assert_eq!(line.number(u64::MAX).bytes(), None);
    }
}
