"""Writes the details of what did not simply pass, one JSON object a line, to the file ``OOMGUARD_TEST_REPORT``.

The variable holds the number of an inherited descriptor: a regular file, which the reader reads after this process has
ended. Taken by :mod:`oomguard.pytest._heartbeat`, beside whose short events these lines have no bound in size::

    {"v":1,"nodeid":"t.py::b","when":"call","outcome":"failed","seconds":0.1,"message":"assert 0","text":"...",
     "sections":[["Captured stdout call","..."]],"file":"t.py","line":2}

``when`` is setup, call, teardown, collect, internal (an error of pytest's or a plugin's own), or interrupt
(``pytest.exit`` or a KeyboardInterrupt in the test at work). ``outcome`` is failed
(a call), error (anything else that failed), skipped, xfailed or xpassed. ``message`` is one line: what was raised, or
the reason for a skip. ``file`` is relative to pytest's root folder and null if unknown, as is ``line``, the first of
which is 1. A line is written when its report is made: what is there when the process dies is whole, but for the last.
"""

from __future__ import annotations

import json
import os
import stat
from typing import Any

import pytest

from oomguard.pytest._descriptor import Descriptor

NAME = "oomguard-report-file"
VARIABLE = "OOMGUARD_TEST_REPORT"


class File:
    """The descriptor; writes nothing before it is opened, and nothing in processes that a test forks."""

    def __init__(self) -> None:
        self._fd: Descriptor | None = None
        self._pid = 0

    def open(self, fd: int) -> None:
        """
        Raises:
            OSError: The descriptor is not open.
            ValueError: It is not a regular file: the number has come to mean something else.
        """
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError("it is not a regular file")
        os.set_inheritable(fd, False)
        self._fd, self._pid = Descriptor(fd), os.getpid()

    def write(self, line: dict[str, object]) -> None:
        """One line. A full disk loses it: the test goes on."""
        if self._fd is None or self._pid != os.getpid():
            return
        raw = memoryview(json.dumps({"v": 1, **line}, separators=(",", ":")).encode() + b"\n")
        try:
            while raw:
                raw = raw[self._fd.write(raw) :]
        except OSError:
            self._fd = None


class Details:
    """Translates pytest's reports into lines."""

    def __init__(self, config: pytest.Config, file: File) -> None:
        self._root = str(config.rootpath)
        self._file = file
        self._running = ""

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Its setup is about to begin."""
        self._running = nodeid

    def pytest_runtest_logfinish(self) -> None:
        """Its teardown is over."""
        self._running = ""

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Why pytest stops in the middle of a test. It says so, too, when a file cannot be imported: that is told."""
        if self._running:
            self._other("interrupt", self._running, excinfo.exconly(), str(excinfo.getrepr(style="short")))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A phase of a test."""
        word = outcome(report)
        if word is not None:
            path, index, _ = report.location
            self._tell(report, word, report.duration, path, index)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A module, class or folder."""
        if not report.passed:
            path = report.nodeid.partition("::")[0] or None
            self._tell(report, "error" if report.failed else "skipped", 0.0, path, None)

    def pytest_internalerror(self, excrepr: Any) -> None:
        """Neither a test nor its module."""
        text = str(excrepr)
        self._other("internal", "", _last_line(text), text)

    def _other(self, when: str, nodeid: str, message: str, text: str) -> None:
        self._file.write(
            {
                "nodeid": nodeid, "when": when, "outcome": "error", "seconds": 0.0, "message": message,
                "text": text, "sections": [], "file": None, "line": None,
            }
        )  # fmt: skip

    def _tell(
        self,
        report: pytest.TestReport | pytest.CollectReport,
        word: str,
        seconds: float,
        path: str | None,
        index: int | None,
    ) -> None:
        line = None if index is None else index + 1
        crash = _crash(report)
        if crash is not None and path is not None and _same(self._root, path, crash.path):
            line = crash.lineno
        self._file.write(
            {
                "nodeid": report.nodeid, "when": report.when, "outcome": word, "seconds": round(seconds, 6),
                "message": message(report), "text": report.longreprtext,
                "sections": [list(section) for section in report.sections], "file": path, "line": line,
            }
        )  # fmt: skip


def register(config: pytest.Config, file: File) -> None:
    """Has ``file`` written, once it is open."""
    config.pluginmanager.register(Details(config, file), NAME)


def outcome(report: pytest.TestReport) -> str | None:
    """The word for a phase; ``None`` if it simply passed."""
    expected = hasattr(report, "wasxfail")
    if report.failed:
        return "failed" if report.when == "call" else "error"
    if report.skipped:
        return "xfailed" if expected else "skipped"
    return "xpassed" if expected and report.when == "call" else None


def message(report: pytest.TestReport | pytest.CollectReport) -> str:
    """One line that says why."""
    found = report.longrepr
    if hasattr(report, "wasxfail") and not report.failed:
        return str(report.wasxfail).removeprefix("reason: ")
    if report.skipped and isinstance(found, tuple):
        return _first_line(str(found[2]).removeprefix("Skipped: "))
    crash = _crash(report)
    return _first_line(crash.message) if crash is not None else _last_line(report.longreprtext)


def _crash(report: pytest.TestReport | pytest.CollectReport) -> Any:
    """Where it was raised: ``path``, ``lineno`` and ``message``; ``None`` if there is no such place."""
    return getattr(report.longrepr, "reprcrash", None)


def _same(root: str, relative: str, path: str) -> bool:
    return os.path.normpath(os.path.join(root, relative)) == os.path.normpath(os.path.join(root, path))


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0].rstrip()


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
