"""Tests marked ``serial=True`` run while no other test of the run does, on whichever pytest-xdist worker.

Two locked files in a folder that the controller makes. Every test holds ``room``: shared, or alone if it is serial.
To get it, it first passes ``gate``, so that a serial test that waits for the room lets nobody else in before itself.
The kernel lets go of the locks of a worker that dies. Costs 5 microseconds a test.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Generator
from typing import Any

import pytest

from oomguard.pytest import _mark

NAME = "oomguard-serial"
_FOLDER = pytest.StashKey[str]()
_INPUT = "oomguard_serial"


class Serial:
    """A worker's part: each of its tests queues in ``folder``."""

    def __init__(self, folder: str) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._gate, self._room = (os.open(os.path.join(folder, name), flags, 0o600) for name in ("gate", "room"))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Waits for its turn before setup; lets the next in after teardown."""
        fcntl.flock(self._gate, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._room, fcntl.LOCK_EX if _mark.of(item).serial else fcntl.LOCK_SH)
        finally:
            fcntl.flock(self._gate, fcntl.LOCK_UN)
        try:
            return (yield)
        finally:
            fcntl.flock(self._room, fcntl.LOCK_UN)

    def pytest_unconfigure(self) -> None:
        """Closes the files."""
        os.close(self._gate)
        os.close(self._room)


def hand_over(node: Any) -> None:
    """In the controller: tells a worker where the run's folder is; made for the first, removed at the end."""
    config: pytest.Config = node.config
    folder = config.stash.get(_FOLDER, None)
    if folder is None:
        folder = config.stash[_FOLDER] = tempfile.mkdtemp(prefix="oomguard-serial-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    node.workerinput[_INPUT] = folder


def folder(config: pytest.Config) -> str | None:
    """In a worker: what :func:`hand_over` told it; ``None`` without pytest-xdist."""
    found: str | None = getattr(config, "workerinput", {}).get(_INPUT)
    return found
