"""A descriptor that tests can close: its number may then mean a file of theirs, which must not be written to."""

from __future__ import annotations

import errno
import os
import stat


class Descriptor:
    """One that is open now. Compares before each use, at about a microsecond.

    Raises:
        OSError: It is not open.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._identity = _identity(os.fstat(fd))

    def write(self, data: bytes | memoryview) -> int:
        """
        Raises:
            OSError: What ``os.write`` raises; ``EBADF`` if the number has come to mean something else.
        """
        if _identity(os.fstat(self._fd)) != self._identity:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return os.write(self._fd, data)

    def close(self) -> None:
        """Unless somebody else has done it."""
        try:
            if _identity(os.fstat(self._fd)) == self._identity:
                os.close(self._fd)
        except OSError:
            pass


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return stat.S_IFMT(status.st_mode), status.st_dev, status.st_ino
