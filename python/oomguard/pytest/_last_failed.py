"""Lets many processes, each with one test file, remember failures for ``--last-failed`` together.

pytest's own memory is the whole list, written at a session's end as that session knows it: of two sessions at the same
time, or after a long one that began before, the last one wins and the others' failures are forgotten. Here each process
takes its own tests' changes to the list that is there, under a lock. The list of all node ids, for ``--new-first``, is
left as it is: every process would write all of it.

Public interfaces only: ``config.cache``, and pytest's names for its plugins and keys.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from typing import Any

import pytest

NAME = "oomguard-last-failed"
KEY = "cache/lastfailed"
WRITERS = ("lfplugin", "nfplugin")
"""They have done their work when tests are collected, but for writing at the end."""


class LastFailed:
    """This process's part."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._failed: dict[str, bool] = {}
        """False has passed."""
        self._known: dict[str, bool] | None = None

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self) -> None:
        """Takes pytest's writers out."""
        for name in WRITERS:
            if self._config.pluginmanager.has_plugin(name):
                self._config.pluginmanager.unregister(name=name)

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

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Writes, if the list would be another."""
        if self._config.getoption("cacheshow", None) or not self._changes(self._read()):
            return
        with self._locked(fcntl.LOCK_EX):
            known = self._cache().get(KEY, {})
            if self._changes(known):
                kept = {nodeid: True for nodeid in known if self._failed.get(nodeid, True)}
                self._cache().set(KEY, {**kept, **{nodeid: True for nodeid, bad in self._failed.items() if bad}})

    def _changes(self, known: dict[str, bool]) -> bool:
        return any((nodeid in known) != bad for nodeid, bad in self._failed.items())

    def _at_start(self) -> dict[str, bool]:
        if self._known is None:
            self._known = self._read()
        return self._known

    def _read(self) -> dict[str, bool]:
        """Not while another writes: pytest's cache writes in place, and half a list reads as none."""
        with contextlib.ExitStack() as held:
            # Where no lock can be made, nobody writes either.
            with contextlib.suppress(OSError):
                held.enter_context(self._locked(fcntl.LOCK_SH))
            known: dict[str, bool] = self._cache().get(KEY, {})
            return known

    @contextlib.contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        with open(self._cache().mkdir("oomguard") / "lock", "w") as lock:
            fcntl.flock(lock, how)
            yield

    def _cache(self) -> Any:
        return self._config.cache


def register(config: pytest.Config) -> None:
    """Takes over, where pytest remembers at all (not with ``-p no:cacheprovider``)."""
    if getattr(config, "cache", None) is not None:
        config.pluginmanager.register(LastFailed(config), NAME)
