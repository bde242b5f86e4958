"""Replacing a file whole: it holds the old bytes or the new ones, whenever the process or the machine dies.

Touches the file and, beside it, one called ``NAME.part``, which a later save uses again if a dead one left it behind.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import IO


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file to write to, which becomes ``path`` when the block ends well. Two of them at once take turns.

    Raises:
        OSError: It cannot be written. ``path`` is unchanged then.
    """
    path = os.path.abspath(os.fspath(path))
    part = f"{path}.part"
    with _alone(part) as file:
        file.truncate()
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise
        os.replace(part, path)
        _sync_folder(os.path.dirname(path))


def _alone(part: str) -> IO[bytes]:
    """Opens ``part``, waiting for whoever else is writing to it; the kernel ends the lock with its process."""
    while True:
        # Who else may write to the folder could have put a link there, and we empty the file.
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
        file = os.fdopen(os.open(part, flags, 0o666), "r+b")
        try:
            import fcntl

            fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        except (ImportError, OSError):  # Windows, or a file system without locks: no turns there
            return file
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(part)):
                return file
        file.close()  # while we waited it became the file itself


def _sync_folder(folder: str) -> None:
    """So that the new name outlives a loss of power. Where folders cannot be synced the rename stands all the same."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
