//! What the text of a test file says: imports, use of a GPU, marks.
//!
//! Parses and imports nothing. A file that cannot be parsed says nothing: pytest runs it and says what is wrong with it.

mod gpu;
mod marks;
mod reader;

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use ruff_python_ast::visitor::Visitor;
use ruff_python_parser::{Mode, ParseOptions, parse_unchecked};

use self::reader::Reader;
use super::{Imports, Marks, TestFile};
use crate::error::Error;

/// Below so many files a thread is not worth starting: some 2 ms of parsing.
const FILES_PER_THREAD: usize = 16;
/// Larger files are data: they are run, but not parsed.
const LARGEST: u64 = 8 << 20;

/// What one text says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Said {
    pub(super) imports: Imports,
    pub(super) gpu: Option<String>,
    pub(super) marks: Marks,
}

/// Reads and parses all of `paths`, in several threads where that pays (a core parses some 50 MB/s).
pub(super) fn files(paths: &[PathBuf], rootdir: &Path) -> Result<Vec<TestFile>, Error> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = (paths.len() / FILES_PER_THREAD).clamp(1, cores);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some((index, path)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            paths.get(index).map(|path| (index, path))
        } {
            done.push((index, file(path, rootdir)));
        }
        done
    };
    let mut done = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut done = work();
        for other in others {
            match other.join() {
                Ok(more) => done.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, file)| file).collect()
}

fn file(path: &Path, rootdir: &Path) -> Result<TestFile, Error> {
    let unreadable = |error| Error::io("read", path, &error).code(4);
    let size = path.metadata().map_err(unreadable)?.len();
    let short = path.strip_prefix(rootdir).unwrap_or(path).to_owned();
    let python = path.extension().is_some_and(|extension| extension == "py");
    let said = if python && size <= LARGEST {
        let text = std::fs::read(path).map_err(unreadable)?;
        scan(&String::from_utf8_lossy(&text))
            .map_err(|(line, why)| Error::new(format!("{}:{line}: {why}", short.display())).code(4))?
    } else {
        Said::default()
    };
    let Said { imports, gpu, marks } = said;
    Ok(TestFile { path: short, select: Vec::new(), size, imports, gpu, marks })
}

/// Stack that dropping one level takes, at most.
const LEVEL: usize = 1024;
const LEAST_STACK: usize = 1 << 20;
const MOST_STACK: usize = 256 << 20;

/// What `text` says, or the line (from 1) of a mark that cannot be read and what is wrong with it.
pub(super) fn scan(text: &str) -> Result<Said, (usize, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let parsed = parse_unchecked(text, ParseOptions::from(Mode::Module));
    let mut reader = Reader::default();
    let valid = parsed.has_valid_syntax();
    if let (true, Some(module)) = (valid, parsed.syntax().as_module()) {
        reader.visit_body(&module.body);
    }
    if !valid || reader.too_deep() {
        // Dropping a tree that is nested by the ten thousand takes more stack than a thread has; of one that was not
        // walked through nobody knows how deep it is, only that each level has a byte of its own.
        let stack = text.len().saturating_mul(LEVEL).clamp(LEAST_STACK, MOST_STACK);
        stacker::grow(stack, || drop(parsed));
    }
    reader.finish(&|offset| {
        1 + text.as_bytes().iter().take(offset as usize).filter(|byte| **byte == b'\n').count()
    })
}

#[cfg(test)]
mod tests;
