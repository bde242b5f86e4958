"""Lets many processes, each with one test file, remember failures for ``--last-failed`` together.

pytest's own memory is the whole list, written at a session's end as that session knows it: of two sessions at the same
time, or after a long one that began before, the last one wins and the others' failures are forgotten. Here each process
takes its own tests' changes to the list that is there, under a lock. The list of all node ids, for ``--new-first``, is
left as it is: every process would write all of it.

Public interfaces only: ``config.cache``, pytest's names for its options and keys, and where its cache has what is asked
for by these names.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

NAME = "oomguard-last-failed"
KEY = "cache/lastfailed"
FOLDER = "oomguard"


class LastFailed:
    """This process's part; ``folder`` is one in pytest's cache."""

    def __init__(self, config: pytest.Config, folder: Path) -> None:
        self._config = config
        self._lock = str(folder / "lock")
        self._list = str(folder.parents[1] / "v" / KEY)
        self._failed: dict[str, bool] = {}
        """False has passed."""
        self._known: dict[str, bool] | None = None

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A module that could not be collected has failed; one that can be again has all its tests to prove it."""
        if report.failed:
            self._failed[report.nodeid] = True
        elif report.nodeid and report.nodeid in self._at_start():
            self._failed[report.nodeid] = False
            self._failed.update({item.nodeid: True for item in report.result})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test has failed if a phase has."""
        if report.failed:
            self._failed[report.nodeid] = True
        elif (report.when == "call" and report.passed) or report.skipped:
            self._failed[report.nodeid] = False

    @pytest.hookimpl(hookwrapper=True, trylast=True)
    def pytest_sessionfinish(self) -> Generator[None, None, None]:
        """Writes, if the list would be another; pytest's own writers do not, as with ``--cache-show``. To take them out
        would be to look through every hook: 0.5 ms."""
        option = self._config.option
        shown, option.cacheshow = option.cacheshow, True
        yield
        option.cacheshow = shown
        if shown or not self._changes(self._at_start()):
            return
        with self._locked(fcntl.LOCK_EX):
            known = self._cache().get(KEY, {})
            if self._changes(known):
                kept = {nodeid: True for nodeid in known if self._failed.get(nodeid, True)}
                self._cache().set(KEY, {**kept, **{nodeid: True for nodeid, bad in self._failed.items() if bad}})

    def _changes(self, known: dict[str, bool]) -> bool:
        return any((nodeid in known) != bad for nodeid, bad in self._failed.items())

    def _at_start(self) -> dict[str, bool]:
        """Of this process's tests it says at the end, too, what is in the list: nobody else writes of them."""
        if self._known is None:
            self._known = self._read()
        return self._known

    def _read(self) -> dict[str, bool]:
        """Not while another writes: pytest's cache writes in place, and half a list reads as none."""
        if not os.path.exists(self._list):
            return {}
        with self._locked(fcntl.LOCK_SH):
            return dict(self._cache().get(KEY, {}))

    @contextlib.contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        try:
            lock = _opened(self._lock)
        except FileNotFoundError:  # somebody has cleared the cache
            self._cache().mkdir(FOLDER)
            lock = _opened(self._lock)
        try:
            fcntl.flock(lock, how)
            yield
        finally:
            os.close(lock)

    def _cache(self) -> Any:
        return self._config.cache


def register(config: pytest.Config) -> None:
    """Takes over, where pytest remembers at all (not with ``-p no:cacheprovider``, nor where it cannot write)."""
    cache: Any = getattr(config, "cache", None)
    if cache is None:
        return
    try:
        folder = cache.mkdir(FOLDER)
        os.close(_opened(folder / "lock"))
    except OSError:
        return
    config.pluginmanager.register(LastFailed(config, Path(folder)), NAME)


def _opened(lock: str | Path) -> int:
    return os.open(lock, os.O_WRONLY | os.O_CREAT, 0o666)
