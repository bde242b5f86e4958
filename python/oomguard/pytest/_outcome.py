"""What the reports of one test's setup, call and teardown add up to."""

from __future__ import annotations

import pytest


class Outcome:
    """One test. ``word`` is passed, failed, skipped, error, xfailed or xpassed; ``seconds`` is the phases' sum."""

    def __init__(self) -> None:
        self.word = "passed"
        self.seconds = 0.0
        self.properties: dict[str, object] = {}

    def add(self, report: pytest.TestReport) -> None:
        """Takes one phase in. Of a test that runs again, the last run counts."""
        if report.when == "setup":
            self.word = "passed"
        if not hasattr(report, "context"):  # a subtest is a part of its test's call
            self.seconds += report.duration
        self.properties = dict(report.user_properties)
        expected = hasattr(report, "wasxfail")
        if report.failed:
            # A call that failed stays `failed`, whatever its teardown does.
            self.word = "failed" if "failed" in (self.word, _phase(report)) else "error"
        elif report.skipped:
            self.word = "xfailed" if expected else "skipped"
        elif expected and report.when == "call":
            self.word = "xpassed"


def _phase(report: pytest.TestReport) -> str:
    return "failed" if report.when == "call" else "error"


def worker(report: pytest.TestReport) -> str | None:
    """The pytest-xdist worker that the report comes from: ``gw0``; ``None`` without pytest-xdist."""
    gateway = getattr(getattr(report, "node", None), "gateway", None)
    name: str | None = getattr(gateway, "id", None)
    return name
