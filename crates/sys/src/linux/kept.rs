//! A file that is opened once and read or written many times, at offset 0, into the caller's buffer.
//!
//! Touches only the file it was given. Never allocates after `open`.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use oomguard_core::Bytes;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::error::{Error, Result};
use super::text;

/// A buffer on the stack that need not be cleared first.
pub(crate) type Buffer<const N: usize> = [MaybeUninit<u8>; N];

/// An empty buffer.
pub(crate) const fn buffer<const N: usize>() -> Buffer<N> {
    [MaybeUninit::uninit(); N]
}

/// An open file and its name.
#[derive(Debug)]
pub(crate) struct Kept {
    fd: OwnedFd,
    path: Arc<Path>,
}

impl Kept {
    /// Opens for reading.
    pub(crate) fn read_only(path: &Path) -> Result<Kept> {
        Kept::open(path, OFlags::RDONLY)
    }
    /// Opens for writing.
    pub(crate) fn write_only(path: &Path) -> Result<Kept> {
        Kept::open(path, OFlags::WRONLY)
    }
    /// Opens for both. Without blocking: on new kernels a cgroup limit set through such a file does not make the
    /// writer reclaim memory itself.
    pub(crate) fn read_write(path: &Path) -> Result<Kept> {
        Kept::open(path, OFlags::RDWR | OFlags::NONBLOCK)
    }
    /// Opens with these flags, close-on-exec added.
    pub(crate) fn open(path: &Path, flags: OFlags) -> Result<Kept> {
        let fd = rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| Error::file("open", path, errno))?;
        Ok(Kept { fd, path: Arc::from(path) })
    }
    /// Wraps a file that was opened by other means.
    pub(crate) fn from_fd(fd: OwnedFd, path: Arc<Path>) -> Kept {
        Kept { fd, path }
    }
    /// The file's name.
    pub(crate) fn path(&self) -> &Arc<Path> {
        &self.path
    }
    /// An error about this file. No allocation.
    pub(crate) fn error(&self, doing: &'static str, errno: Errno) -> Error {
        Error::File { doing, path: Arc::clone(&self.path), errno }
    }
    /// An error about this file's contents. No allocation.
    pub(crate) fn malformed(&self, what: &'static str) -> Error {
        Error::malformed(&self.path, what)
    }
    /// One `pread` at offset 0: enough for files that the kernel prints in one piece.
    pub(crate) fn read<'b, const N: usize>(&self, buffer: &'b mut Buffer<N>) -> Result<&'b [u8]> {
        self.read_at(buffer, 0)
    }
    /// One `pread`.
    pub(crate) fn read_at<'b, const N: usize>(
        &self,
        buffer: &'b mut Buffer<N>,
        offset: u64,
    ) -> Result<&'b [u8]> {
        loop {
            // Borrowed anew each time round, because the result borrows what it was read into.
            match rustix::io::pread(&self.fd, &mut buffer[..], offset) {
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(self.error("read", errno)),
                Ok((bytes, _)) => {
                    let len = bytes.len();
                    // SAFETY: the kernel has just initialised the first `len` bytes of `buffer`.
                    return Ok(unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast(), len) });
                }
            }
        }
    }
    /// The file's one number. One `pread`.
    pub(crate) fn number(&self) -> Result<u64> {
        text::number(self.read(&mut buffer::<32>())?).ok_or_else(|| self.malformed("one number expected"))
    }
    /// The file's one limit; `Bytes::MAX` is none. One `pread`.
    pub(crate) fn limit(&self) -> Result<Bytes> {
        text::limit(self.read(&mut buffer::<32>())?).ok_or_else(|| self.malformed("a limit expected"))
    }
    /// One `pwrite`.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<()> {
        loop {
            match rustix::io::pwrite(&self.fd, bytes, 0) {
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(self.error("write", errno)),
                Ok(_) => return Ok(()),
            }
        }
    }
    /// Writes one number. One `pwrite`.
    pub(crate) fn write_number(&self, value: u64) -> Result<()> {
        self.write(text::Line::<20>::new().number(value).bytes().unwrap_or_default())
    }
}

impl AsFd for Kept {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
