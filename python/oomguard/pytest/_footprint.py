"""The resident set of this process over a stretch of time: before, after, and the peak in between.

Reads ``/proc/self``. The peak is the kernel's own (``VmHWM``), so no spike is too short for it; to begin a new one the
kernel's mark is reset, which ``ru_maxrss`` of this process follows. Child processes are not counted.
"""

from __future__ import annotations

from typing import NamedTuple

from oomguard import _core


class Reading(NamedTuple):
    """Bytes; ``None`` is unknown, and ``unknown`` says why."""

    before: int | None
    after: int | None
    peak: int | None
    unknown: str | None = None

    @property
    def growth(self) -> int | None:
        """What is held more than before."""
        return None if self.before is None or self.after is None else self.after - self.before

    @property
    def rise(self) -> int | None:
        """What the peak was above the start. Where the peak is unknown, at least ``growth``."""
        highest = self.after if self.peak is None else self.peak
        return None if self.before is None or highest is None else highest - self.before


class Footprint:
    """Begins now. Costs 10 microseconds, and as much again for each :meth:`read`."""

    def __init__(self) -> None:
        self._refused: str | None = None
        self._old_peak: int | None = None
        try:
            _core.forget_peak()
        except OSError as error:
            self._refused = str(error)
            self._old_peak = _core.peak_resident()
        self.before = _core.resident()

    def read(self) -> Reading:
        """From the start until now."""
        after, peak = _core.resident(), _core.peak_resident()
        if self.before is None or after is None:
            return Reading(self.before, after, None, "/proc/self/statm cannot be read here")
        if peak is None:
            return Reading(self.before, after, None, "/proc/self/status has no `VmHWM` here")
        if self._refused is not None and (self._old_peak is None or peak <= self._old_peak):
            # The old mark still stands: the peak of this stretch is somewhere below it.
            return Reading(self.before, after, None, f"the kernel keeps the old peak: {self._refused}")
        # The kernel adds the resident pages up per CPU: a mark may stand some pages below what is resident.
        return Reading(self.before, after, max(peak, self.before, after))
