//! Places where CPython would lose an exception that comes from outside.
//!
//! A loop takes note of signals and asynchronous exceptions at its jump back. CPython 3.11 and 3.12 have jumped by then, and
//! look for handlers of the instruction *before* the loop; 3.13 looks for handlers of the jump, which the compiler may
//! have put beside the ranges that its table covers. Either way what is raised there can pass by the `try` and the
//! `with` around the loop. 3.10 has no table and no such places.

use std::sync::OnceLock;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

/// What this interpreter's bytecode looks like.
#[derive(Debug)]
struct Bytecode {
    jumps_back: [bool; 256],
    extended_arg: u8,
    /// Bytes from a jump back to where its distance is counted from.
    jump: usize,
    /// The place that handlers are looked for is the jump itself, not what is before the loop.
    at_the_jump: bool,
}

static BYTECODE: OnceLock<Option<Bytecode>> = OnceLock::new();

/// Learns this interpreter's bytecode. Not when memory is short: it imports.
pub(crate) fn learn(py: Python<'_>) -> PyResult<()> {
    if BYTECODE.get().is_some() {
        return Ok(());
    }
    let version = py.version_info();
    let known = if (version.major, version.minor) >= (3, 11) {
        let opcode = py.import("opcode")?;
        let mut jumps_back = [false; 256];
        for (name, number) in opcode.getattr("opmap")?.cast_into::<PyDict>()? {
            let (name, number): (String, usize) = (name.extract()?, number.extract()?);
            if name.contains("JUMP_BACKWARD") && !name.contains("NO_INTERRUPT") && number < 256 {
                jumps_back[number] = true;
            }
        }
        let at_the_jump = (version.major, version.minor) >= (3, 13);
        let extended_arg = opcode.getattr("EXTENDED_ARG")?.extract()?;
        Some(Bytecode { jumps_back, extended_arg, jump: if at_the_jump { 4 } else { 2 }, at_the_jump })
    } else {
        None
    };
    let _ = BYTECODE.set(known);
    Ok(())
}

/// Whether an exception raised where `frame` stands would pass by the handlers around it. Runs no Python code, so that
/// the thread that stands there cannot move meanwhile.
pub(crate) fn would_be_lost(frame: &Bound<'_, PyAny>) -> bool {
    let Some(Some(bytecode)) = BYTECODE.get() else { return false };
    let look = || -> PyResult<bool> {
        let at: i64 = frame.getattr("f_lasti")?.extract()?;
        let code = frame.getattr("f_code")?;
        let table = code.getattr("co_exceptiontable")?.cast_into::<PyBytes>()?;
        let Ok(at) = usize::try_from(at) else { return Ok(false) };
        if table.as_bytes().is_empty() {
            return Ok(false);
        }
        let instructions = code.getattr("co_code")?.cast_into::<PyBytes>()?;
        Ok(bytecode.is_hole(instructions.as_bytes(), table.as_bytes(), at))
    };
    look().unwrap_or(false)
}

/// The same for where another thread stands now.
pub(crate) fn lost_in_thread(py: Python<'_>, ident: u64) -> bool {
    let frame = || -> PyResult<Option<Bound<'_, PyAny>>> {
        let frames = py.import("sys")?.getattr("_current_frames")?.call0()?.cast_into::<PyDict>()?;
        frames.get_item(ident)
    };
    matches!(BYTECODE.get(), Some(Some(_)))
        && frame().ok().flatten().is_some_and(|frame| would_be_lost(&frame))
}

impl Bytecode {
    /// Whether the instruction at byte `at` jumps back into a range that is covered, from a place that is not.
    fn is_hole(&self, instructions: &[u8], table: &[u8], at: usize) -> bool {
        if !instructions.get(at).is_some_and(|op| self.jumps_back[usize::from(*op)]) {
            return false;
        }
        let Some(target) = self.target(instructions, at) else { return false };
        let place = if self.at_the_jump { Some(at) } else { target.checked_sub(2) };
        is_covered(table, target) && place.is_none_or(|place| !is_covered(table, place))
    }

    /// Where the jump at byte `at` goes.
    fn target(&self, instructions: &[u8], at: usize) -> Option<usize> {
        let mut distance = usize::from(*instructions.get(at + 1)?);
        let mut before = at;
        let mut shift = 8;
        while before >= 2 && instructions[before - 2] == self.extended_arg && shift < 32 {
            before -= 2;
            distance |= usize::from(instructions[before + 1]) << shift;
            shift += 8;
        }
        (at + self.jump).checked_sub(2 * distance)
    }
}

/// Whether a range of an exception table has the byte `at` in it. An entry is four numbers: start, length, target, depth,
/// in units of two bytes.
fn is_covered(table: &[u8], at: usize) -> bool {
    let mut numbers = numbers(table);
    while let (Some(start), Some(length)) = (numbers.next(), numbers.next()) {
        if (2 * start..2 * (start + length)).contains(&at) {
            return true;
        }
        numbers.nth(1);
    }
    false
}

/// Numbers in base 64, the highest digit first; every digit but a number's last has bit 6 set.
fn numbers(table: &[u8]) -> impl Iterator<Item = usize> {
    let mut digits = table.iter();
    std::iter::from_fn(move || {
        let mut number = 0;
        loop {
            let digit = *digits.next()?;
            number = number << 6 | usize::from(digit & 0x3f);
            if digit & 0x40 == 0 {
                return Some(number);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opcode 1 jumps back, 2 is EXTENDED_ARG, 0 is anything else.
    fn bytecode(at_the_jump: bool) -> Bytecode {
        let mut jumps_back = [false; 256];
        jumps_back[1] = true;
        Bytecode { jumps_back, extended_arg: 2, jump: if at_the_jump { 4 } else { 2 }, at_the_jump }
    }

    #[test]
    fn a_table_is_read_in_base_64() {
        // 130 is 2 * 64 + 2: two digits.
        let table = [0x80 | 0x42, 2, 3, 9, 0, 0x85, 1, 5, 0];
        assert_eq!(numbers(&table).collect::<Vec<_>>(), [130, 3, 9, 0, 5, 1, 5, 0]);
        assert!(is_covered(&table, 260) && is_covered(&table, 265) && !is_covered(&table, 266));
        assert!(is_covered(&table, 10) && !is_covered(&table, 8));
        assert!(!is_covered(&[0x41], 0), "cut short");
    }

    #[test]
    fn before_3_13_the_place_is_the_instruction_before_the_loop() {
        // 0: anything, 2: the loop, 4: the jump to it. Only 2 and 4 are covered.
        let (code, table) = ([0, 0, 0, 0, 1, 2], [1, 2, 9, 0]);
        assert!(bytecode(false).is_hole(&code, &table, 4));
        assert!(!bytecode(false).is_hole(&code, &table, 2), "not a jump back");
        assert!(!bytecode(false).is_hole(&code, &[0, 3, 9, 0], 4), "covered as well");
        assert!(!bytecode(false).is_hole(&code, &[7, 3, 9, 0], 4), "nothing to lose");
    }

    #[test]
    fn from_3_13_on_it_is_the_jump_itself() {
        // 0: the loop, 2: the jump and its cache.
        let code = [0, 0, 1, 3, 0, 0];
        assert!(bytecode(true).is_hole(&code, &[0, 1, 9, 0], 2));
        assert!(!bytecode(true).is_hole(&code, &[0, 2, 9, 0], 2));
    }

    #[test]
    fn a_long_jump_has_its_high_digits_in_front() {
        let mut code = vec![0; 2 * 300];
        code.extend([2, 1, 1, 46]);
        assert_eq!(bytecode(false).target(&code, 602), Some(0));
        assert_eq!(bytecode(false).target(&[1, 200], 0), None, "nonsense");
    }
}
