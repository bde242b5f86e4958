"""Holds a test to its limits: watched while it runs, judged by its peak when its call is over.

The limit is on the growth of the resident set over the start of the test, setup included. Which fixture loaded what
is not told apart: a module's model counts for the first test that uses it.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest

import oomguard
from oomguard.pytest import _mark
from oomguard.pytest._footprint import Reading
from oomguard.pytest._measure import Measure
from oomguard.pytest._size import shown

NAME = "oomguard-limit"
UNCHECKED = "torch does not use CUDA in this process"


class Limit:
    """Turns a passed or skipped call that went over a limit into a failure.

    Args:
        measure: Measures the same tests.
        default: Bytes that tests without ``memory`` in their mark may grow by; ``None`` for no limit.
    """

    def __init__(self, measure: Measure, default: int | None) -> None:
        self._measure = measure
        self.default = default
        self._shield = oomguard.shield()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Around the measuring: what a watcher itself loads does not count.

        The shield is up but for the test itself: an interrupt that comes late must not end pytest.
        """
        if self._memory(item) is None:
            return (yield)
        with oomguard.guard(warn=0, critical=0):
            pass
        with oomguard.shield() as self._shield:
            return (yield)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """The innermost wrapper: nothing but the test runs under the watcher."""
        memory, rss = self._memory(item), self._measure.rss
        if memory is None or rss is None or rss.before is None:
            result = yield
            return self._judge(item, result, "")
        result, stopped = None, ""
        try:
            with oomguard.guard(warn=0, critical=0, limit=rss.before + memory, interrupt=True, context=item.nodeid):
                self._shield.__exit__(None, None, None)
                try:
                    result = yield
                finally:
                    self._shield.__enter__()
        except pytest.skip.Exception:
            if self._over(item) is None:
                raise
        except MemoryError as error:
            stop = error.__cause__
            if not isinstance(stop, oomguard.MemoryCritical) or (stop.cause != "limit" and self._over(item) is None):
                raise
            stopped = f"\n  {error}"
        return self._judge(item, result, stopped)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """A test that failed by itself says beside its traceback that it went over its limit, too."""
        report = yield
        if report.when == "call" and call.excinfo is not None and not call.excinfo.errisinstance(pytest.fail.Exception):
            over = self._over(item)
            if over is not None:
                report.sections.append(("oomguard", over))
        needs = _mark.of(item)
        if report.when == "teardown" and needs.vram is not None and self._vram() is None:
            report.user_properties.append(("oomguard_vram_unknown", UNCHECKED))
        return report

    def _judge(self, item: pytest.Item, result: object, stopped: str) -> object:
        over = self._over(item)
        if over is not None or stopped:
            pytest.fail(f"{over or 'memory limit exceeded'}{stopped}", pytrace=False)
        return result

    def _memory(self, item: pytest.Item) -> int | None:
        marked = _mark.of(item).memory
        return self.default if marked is None else marked

    def _vram(self) -> Reading | None:
        return None if self._measure.vram is None else self._measure.vram.read()

    def _over(self, item: pytest.Item) -> str | None:
        """What went over which limit, for people."""
        needs, memory, rss = _mark.of(item), self._memory(item), self._measure.rss
        if memory is not None and rss is not None:
            where = "--oomguard-limit" if needs.memory is None else "memory in @pytest.mark.oomguard"
            text = _compare(rss.read(), memory, "memory", "resident set of this process", where)
            if text is not None:
                return text
        vram = None if needs.vram is None else self._vram()
        if vram is None or needs.vram is None:
            return None
        where = "vram in @pytest.mark.oomguard"
        return _compare(vram, needs.vram, "VRAM", "allocated by torch.cuda in this process", where)


def _compare(reading: Reading, limit: int, what: str, of: str, where: str) -> str | None:
    rise = reading.rise
    if rise is None or reading.before is None or rise <= limit:
        return None
    peak = f"{shown(reading.before + rise)}" + ("" if reading.peak is not None else f" or more ({reading.unknown})")
    return (
        f"{what} limit exceeded: the test grew by {shown(rise)} at its peak, its limit is {shown(limit)}\n"
        f"  before: {shown(reading.before)} ({of})\n"
        f"  peak:   {peak}\n"
        f"  remedy: hold less at a time, or raise the limit ({where})"
    )
