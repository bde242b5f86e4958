"""The lock of a journal file, freed when its holder was killed.

Optuna locks a journal with a link or file that stays behind when its holder is killed: with Optuna 3.4 every other
worker then waits for ever, later versions wait 30 s. Attached workers hold a kernel lock (``flock`` on
``JOURNAL.oomguard``) around Optuna's own. The kernel frees it with the process, and the mark in it tells the next one
that Optuna's lock was left behind. Unattached workers are kept out as before, by Optuna's lock.
"""

from __future__ import annotations

import os
import time
from typing import Any

SIDECAR = ".oomguard"
UNCHANGED = 1.0
"""Seconds for which a lock that seems left behind must stay the same. A write holds it for some milliseconds."""

_holding: set[_KernelLock] = set()


def break_dead_locks(backend: Any) -> None:
    """Puts the kernel's lock around the lock of a journal file's backend. Twice is once; others are left alone."""
    try:
        import fcntl  # noqa: F401
    except ImportError:
        return
    lock = getattr(backend, "_lock", None)
    if lock is not None and hasattr(lock, "_lock_file") and not isinstance(lock, _KernelLock):
        backend._lock = _KernelLock(lock, backend._file_path + SIDECAR)


class _KernelLock:
    """Optuna's lock interface (``acquire``, ``release``) around another one."""

    def __init__(self, inner: Any, sidecar: str) -> None:
        self.inner = inner
        self._sidecar = sidecar
        self._file: int | None = None

    def acquire(self) -> bool:
        import fcntl

        try:
            file = os.open(self._sidecar, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except OSError:  # a directory we may not write to, somebody's link: Optuna's lock alone, as without us
            return bool(self.inner.acquire())
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.pread(file, 1, 0) == b"1":
                _remove_leftover(self.inner._lock_file)
            os.pwrite(file, b"1", 0)
            taken = bool(self.inner.acquire())
        except BaseException:
            os.close(file)
            raise
        self._file = file
        _holding.add(self)
        return taken

    def release(self) -> None:
        import fcntl

        file, self._file = self._file, None
        try:
            self.inner.release()
        finally:
            if file is not None:
                _holding.discard(self)
                os.pwrite(file, b"0", 0)
                fcntl.flock(file, fcntl.LOCK_UN)  # closing alone would leave it to a child forked meanwhile
                os.close(file)


def _remove_leftover(lock_file: str) -> None:
    """Its last holder among the attached workers is dead. Only an unattached one could hold it now: watch."""
    before = _identity(lock_file)
    deadline = time.monotonic() + UNCHANGED
    while before is not None and time.monotonic() < deadline:
        time.sleep(0.02)
        if _identity(lock_file) != before:
            return
    if before is not None:
        try:
            os.unlink(lock_file)
        except FileNotFoundError:
            pass


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns


def _forget_in_child() -> None:
    """The lock is the parent's, but lives as long as any copy of its file: the child must not keep one."""
    for lock in _holding:
        file, lock._file = lock._file, None
        if file is not None:
            os.close(file)
    _holding.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
