"""A plugin for plain pytest: the outcome of each test as JSON lines in the file ``PLAIN_OUTCOMES``.

Shares nothing with oomguard, whose own record it is compared with.
"""

from __future__ import annotations

import json
import os

import pytest

_words: dict[str, str] = {}
_messages: dict[str, str] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """One phase. The worst of a run counts, of several runs the last."""
    if report.when == "setup":
        _words[report.nodeid] = "passed"
        _messages.pop(report.nodeid, None)
    before = _words.get(report.nodeid)
    if report.failed:
        word = "failed" if report.when == "call" or before == "failed" else "error"
        _messages.setdefault(report.nodeid, _message(report))
    elif report.skipped:
        word = "xfailed" if hasattr(report, "wasxfail") else "skipped"
        _messages.setdefault(report.nodeid, _message(report))
    elif report.when == "call" and hasattr(report, "wasxfail"):
        word = "xpassed"
    else:
        return
    _words[report.nodeid] = word


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A module that could not be imported, or skips itself."""
    if not report.passed:
        _words[report.nodeid] = "error" if report.failed else "skipped"
        _messages[report.nodeid] = _message(report)


def pytest_sessionfinish() -> None:
    """Writes them."""
    path = os.environ.get("PLAIN_OUTCOMES")
    if path is not None:
        with open(path, "a", encoding="utf-8") as file:
            for nodeid, word in _words.items():
                file.write(json.dumps([nodeid, word, _messages.get(nodeid)]) + "\n")


def _message(report: pytest.TestReport | pytest.CollectReport) -> str:
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    lines = [line for line in report.longreprtext.splitlines() if line.startswith("E ")]
    return lines[0][1:].strip() if lines else report.longreprtext.strip().rpartition("\n")[2]
