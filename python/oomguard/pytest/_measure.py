"""Measures each test, setup and teardown included, and hands the figures to everybody through ``user_properties``.

So JUnit XML carries them and pytest-xdist transports them. Every report of a test has the figures from the start of
its setup up to the end of the report's phase; the teardown's, which JUnit XML takes, has them all, and is the only one
to have any where nothing but :mod:`oomguard.pytest._heartbeat` has asked. In bytes:

- ``oomguard_rss_before``, ``oomguard_rss_after``, ``oomguard_rss_growth`` (after - before, may be negative)
- ``oomguard_rss_peak``: the highest in between; where the kernel refuses there is ``oomguard_rss_unknown``, which says
  why
- ``oomguard_rss_retained``: growth that is left after a garbage collection and giving the heap's free pages back.
  Only where that was tried (``--oomguard-gc``) and the test did not fail: a failed test's traceback keeps its
  variables
- ``oomguard_vram_before``, ``..._after``, ``..._peak``: what torch has allocated, once it uses CUDA in this process

Costs some 100 microseconds a test, and a garbage collection where one is tried.
"""

from __future__ import annotations

import gc
from collections.abc import Generator

import pytest

from oomguard import _core
from oomguard.pytest._footprint import Footprint, Reading
from oomguard.pytest._vram import Allocated

NAME = "oomguard-measure"
WORTH_COLLECTING = 1 << 20
"""Growth in bytes from which ``auto`` collects: below it are the allocator's and the kernel's own roundings."""


class Measure:
    """One session's measuring. ``rss`` and ``vram`` belong to the test that runs now.

    Args:
        gc: ``auto``, ``always`` or ``never``: after which tests garbage is collected.
        every_phase: Whether all reports of a test have figures, not only its teardown's.
    """

    def __init__(self, gc: str, every_phase: bool) -> None:
        self.gc = gc
        self._every_phase = every_phase
        self.rss: Footprint | None = None
        self.vram: Allocated | None = None
        self._failed = False

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self) -> Generator[None, object, object]:
        """Begins before all else that wraps a test."""
        self.rss, self.vram, self._failed = Footprint(), Allocated(), False
        try:
            return (yield)
        finally:
            self.rss = self.vram = None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Puts the figures into a report when all others are done with it."""
        report = yield
        if self.rss is None or self.vram is None:
            return report
        self._failed = self._failed or report.failed
        if report.when != "teardown" and not self._every_phase:
            return report
        if report.when == "teardown":
            # pytest lets go of the fixtures' values right after this report; what they hold has not stayed.
            funcargs = getattr(item, "funcargs", None)
            if isinstance(funcargs, dict):
                funcargs.clear()
        reading = self.rss.read()
        found = _rss(reading) + _vram(self.vram.read())
        if report.when == "teardown" and not self._failed:
            found += self._retained(reading)
        names = {name for name, _ in found}
        for properties in (item.user_properties, report.user_properties):
            properties[:] = [pair for pair in properties if pair[0] not in names] + found
        return report

    def _retained(self, reading: Reading) -> list[tuple[str, object]]:
        if self.gc == "never":
            return []
        grown = reading.growth
        if grown is None or (self.gc == "auto" and grown < WORTH_COLLECTING):
            return []
        gc.collect()
        _core.trim()
        left = _core.resident()
        assert reading.before is not None
        return [] if left is None else [("oomguard_rss_retained", left - reading.before)]


def _rss(reading: Reading) -> list[tuple[str, object]]:
    figures = {"before": reading.before, "after": reading.after, "peak": reading.peak, "growth": reading.growth}
    found: list[tuple[str, object]] = [(f"oomguard_rss_{k}", v) for k, v in figures.items() if v is not None]
    return found if reading.unknown is None else [*found, ("oomguard_rss_unknown", reading.unknown)]


def _vram(reading: Reading | None) -> list[tuple[str, object]]:
    if reading is None:
        return []
    figures = {"before": reading.before, "after": reading.after, "peak": reading.peak}
    return [(f"oomguard_vram_{name}", value) for name, value in figures.items()]
