"""Gathers every test's figures from the reports: one line a test, the summary, and the JSON report.

Lives where pytest talks to people: in the only process, or in pytest-xdist's controller.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import pytest

import oomguard
from oomguard.pytest import _ram, _table, _terminal, _vram
from oomguard.pytest._outcome import Outcome, worker
from oomguard.pytest._settings import Settings
from oomguard.pytest._size import change, shown

NAME = "oomguard-ledger"
SIZES = [f"rss_{name}" for name in ("before", "after", "peak", "growth", "retained")]
SIZES += [f"vram_{name}" for name in ("before", "after", "peak")]


class Entry(NamedTuple):
    """One test. Sizes in bytes by their property's name without ``oomguard_``; absent is unknown."""

    nodeid: str
    outcome: str
    seconds: float
    worker: str | None
    sizes: dict[str, int]
    unknown: dict[str, str]

    @property
    def rise(self) -> int | None:
        """Peak over the start."""
        return self._difference("rss_peak", "rss_before")

    @property
    def vram_rise(self) -> int | None:
        """Peak over the start, of what torch allocated."""
        return self._difference("vram_peak", "vram_before")

    @property
    def stayed(self) -> int | None:
        """What is left after garbage collection where that was tried, else the growth."""
        return self.sizes.get("rss_retained", self.sizes.get("rss_growth"))

    def _difference(self, high: str, low: str) -> int | None:
        return self.sizes[high] - self.sizes[low] if high in self.sizes and low in self.sizes else None


class Ledger:
    """Writes ``settings.report``, and with ``settings.shown`` to the terminal (no line a test with ``-q``)."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self._settings = settings
        self._lines = settings.shown and config.getoption("verbose", 0) >= 0
        self._config = config
        self._running: dict[tuple[str | None, str], Outcome] = {}
        self._entries: list[Entry] = []
        self._broken: str | None = None

    def pytest_report_header(self) -> list[str]:
        """How full the machine is; what is unknown is said here, once."""
        if not self._settings.shown:
            return []
        ram, gpu = _ram.read(), _vram.machine()
        first = f"RAM unknown ({ram.unknown})" if ram.percent is None else f"RAM {ram.percent:.1f}% used"
        second = f"VRAM unknown ({gpu.unknown})" if gpu.percent is None else f"VRAM {gpu.percent:.1f}% used"
        return [f"oomguard: {first}; {second}"]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Takes a report in; the teardown's completes a test."""
        self._pass_on(getattr(report, "oomguard_lines", ()))
        key = worker(report), report.nodeid
        self._running.setdefault(key, Outcome()).add(report)
        # A worker that died sends one report, of no phase.
        if report.when in ("setup", "call"):
            return
        entry = _entry(self._running.pop(key), *key)
        self._entries.append(entry)
        if self._lines and "rss_before" in entry.sizes:
            _terminal.say(self._config, _line(entry))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A pytest-xdist worker has ended: its last lines."""
        self._pass_on(getattr(node, "workeroutput", {}).get("oomguard_lines", ()))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Writes the report: beside its name first, then moved there, so that nobody reads half of it."""
        if not self._settings.report:
            return
        document = {
            "version": 1,
            "oomguard": oomguard.__version__,
            "pytest": pytest.__version__,
            "exitstatus": int(exitstatus),
            "tests": [_plain(entry) for entry in self._entries],
        }
        beside = f"{self._settings.report}.{os.getpid()}"
        try:
            # Its name can be guessed: what lies there, a link too, is not written to.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(beside)
            with open(beside, "x", encoding="utf-8") as file:
                json.dump(document, file, indent=1)
                file.write("\n")
            os.replace(beside, self._settings.report)
        except OSError as error:
            self._broken = f"--oomguard-report: `{self._settings.report}`: {error.strerror}"

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """The tables, and what went wrong with the report."""
        if self._settings.shown and self._entries:
            terminalreporter.section("memory (oomguard)")
            for text in _table.summary(self._entries):
                terminalreporter.write_line(text)
        if self._broken is not None:
            terminalreporter.write_line(f"error: {self._broken}", red=True)

    def _pass_on(self, lines: Iterable[str]) -> None:
        for text in lines if self._lines else ():
            _terminal.say(self._config, text)


def _entry(outcome: Outcome, worker: str | None, nodeid: str) -> Entry:
    sizes, unknown = {}, {}
    for name, value in outcome.properties.items():
        key = name.removeprefix("oomguard_")
        if key != name and isinstance(value, int):
            sizes[key] = value
        elif key != name:
            unknown[key.removesuffix("_unknown")] = str(value)
    return Entry(nodeid, outcome.word, outcome.seconds, worker, sizes, unknown)


def _plain(entry: Entry) -> dict[str, object]:
    """As in the JSON document: sizes in bytes, ``null`` with its reason under ``unknown``."""
    head = {"nodeid": entry.nodeid, "outcome": entry.outcome, "seconds": round(entry.seconds, 6)}
    sizes = {name: entry.sizes.get(name) for name in SIZES}
    return {**head, "worker": entry.worker, **sizes, "rss_rise": entry.rise, "unknown": entry.unknown}


def _line(entry: Entry) -> str:
    peak, rise = entry.sizes.get("rss_peak"), entry.rise
    high = "peak unknown" if peak is None or rise is None else f"peak {shown(peak)} ({change(rise)})"
    vram = "" if entry.vram_rise is None else f", VRAM peak {change(entry.vram_rise)}"
    stayed = "unknown" if entry.stayed is None else change(entry.stayed)
    where = "" if entry.worker is None else f"[{entry.worker}] "
    return f"oomguard: {where}{entry.nodeid}: before {shown(entry.sizes['rss_before'])}, {high}, stayed {stayed}{vram}"
