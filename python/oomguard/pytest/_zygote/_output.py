"""Which descriptors children would share, and what each child gets instead. Looks at ``/proc/self/fd``.

A fork shares open file descriptions: one file position, one truncation for all. pytest's capture keeps copies of stdout
and stderr, and unlinked temporary files. So the zygote writes to two files of its own, by which every copy can be
recognised, and each child puts its own stdout and stderr in their place, and fresh files in the place of unlinked ones.
"""

from __future__ import annotations

import fcntl
import os
import stat
import sys
import tempfile
from collections.abc import Callable
from typing import NamedTuple

_fflush: Callable[..., int] | None
try:
    import ctypes

    _fflush = ctypes.CDLL(None).fflush
except (ImportError, OSError, AttributeError):
    _fflush = None

TEMPORARY = tempfile.gettempdir()
COPY = 1 << 20
HARMLESS = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/pts/", "/dev/ptmx")


class Shared(NamedTuple):
    """What a child must do. Descriptors of one open file stand in one list."""

    stdout: list[int]
    stderr: list[int]
    unlinked: list[list[int]]
    readable: list[int]
    why_not: str | None
    """What no child can have its own of: ``a socket is open (descriptor 9)``."""


class Output:
    """The zygote's stdout and stderr from now on; stdin is empty."""

    def __init__(self) -> None:
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        flush()
        self._files = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115 - kept while this lives
        for file, fd in zip(self._files, (1, 2), strict=True):
            os.dup2(file.fileno(), fd)
        self._own = {file.fileno() for file in self._files}
        self._at_start = set(_open())

    def text(self) -> str:
        """All that was written: stdout, then stderr."""
        flush()
        written = []
        for file in self._files:
            size = os.fstat(file.fileno()).st_size
            written.append(os.pread(file.fileno(), size, 0).decode(errors="replace"))
        return "".join(written)

    def begun(self) -> bytes:
        """What stdout has so far: every child's output begins with it."""
        flush()
        return os.pread(self._files[0].fileno(), COPY, 0)

    def look(self) -> Shared:
        """What is open now, beside what was open when this began."""
        out, err = (_identity(os.fstat(file.fileno())) for file in self._files)
        shared = Shared([], [], [], [], None)
        unlinked: dict[tuple[int, int], list[int]] = {}
        for fd in _open():
            try:
                status = os.fstat(fd)
            except OSError:
                continue  # the listing's own
            if fd in self._own:
                continue
            identity = _identity(status)
            if identity in (out, err):
                (shared.stdout if identity == out else shared.stderr).append(fd)
            elif fd in self._at_start:
                continue
            elif stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
                unlinked.setdefault(identity, []).append(fd)
            elif stat.S_ISREG(status.st_mode):
                if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                    shared.readable.append(fd)
            elif not (stat.S_ISDIR(status.st_mode) or _target(fd).startswith(HARMLESS)):
                shared = shared._replace(why_not=f"{_kind(status)} is open (descriptor {fd}, `{_target(fd)}`)")
        return shared._replace(unlinked=list(unlinked.values()))

    def replace(self, shared: Shared, stdout: int, stderr: int) -> None:
        """In a child: puts its own in place of what is shared. Some 10 microseconds a descriptor."""
        for fds, own in ((shared.stdout, stdout), (shared.stderr, stderr)):
            for fd in fds:
                os.dup2(own, fd, inheritable=fd in (1, 2) or os.get_inheritable(fd))
        for fds in shared.unlinked:
            _replace(fds, _fresh(fds[0]))
        for fd in shared.readable:
            try:
                again = os.open(f"/proc/self/fd/{fd}", fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_CLOEXEC)
            except OSError:
                continue  # no longer allowed to: the position stays shared
            os.lseek(again, os.lseek(fd, 0, os.SEEK_CUR), os.SEEK_SET)
            _replace([fd], again)
        for file in self._files:
            file.close()


def flush() -> None:
    """Python's streams and the C library's: what was printed must neither be lost nor printed again by a child."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            continue
    if _fflush is not None:
        _fflush(None)


def _fresh(fd: int) -> int:
    """A new unlinked file that holds the same, at the same position, opened alike."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    try:
        new = os.open(TEMPORARY, os.O_RDWR | os.O_TMPFILE | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:  # not on every file system
        with tempfile.TemporaryFile(buffering=0) as file:
            new = os.dup(file.fileno())
    at, size = 0, os.fstat(fd).st_size
    while at < size and (block := os.pread(fd, COPY, at)):
        at += os.write(new, block)
    os.lseek(new, os.lseek(fd, 0, os.SEEK_CUR), os.SEEK_SET)
    fcntl.fcntl(new, fcntl.F_SETFL, flags)
    return new


def _replace(fds: list[int], new: int) -> None:
    for fd in fds:
        os.dup2(new, fd, inheritable=os.get_inheritable(fd))
    os.close(new)


def _open() -> list[int]:
    return [int(name) for name in os.listdir("/proc/self/fd")]


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _target(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def _kind(status: os.stat_result) -> str:
    if stat.S_ISSOCK(status.st_mode):
        return "a socket"
    if stat.S_ISFIFO(status.st_mode):
        return "a pipe"
    return "something that no child can have its own of"
