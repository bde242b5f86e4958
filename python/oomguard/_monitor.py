"""``MemoryMonitor``: the origin system's class, on top of the process-wide native monitor."""

from __future__ import annotations

import math
import time
from typing import NamedTuple

from oomguard import _core
from oomguard._brake import logger, raise_stop
from oomguard._errors import gb

GIB = 1 << 30
WARN_EVERY = 60.0
"""Seconds between two warnings of one monitor: a check may run a thousand times a second."""


class MemoryStatus(NamedTuple):
    """What is known now. Sizes in bytes; ``None`` is unknown, and ``unknown`` says why."""

    level: str
    """``normal``, ``warning`` or ``critical``, against the monitor's thresholds; ``unknown`` without a reading."""
    available: int | None
    """Memory that can still be given without swapping: the smallest of the host's and each cgroup limit's above."""
    total: int | None
    """What ``available`` is out of: RAM, or the smallest cgroup limit above this process."""
    used_percent: float | None
    """``(total - available) / total``, 0 to 100, as ``psutil.virtual_memory().percent``."""
    process_rss: int | None
    """Resident set of this process alone, shared pages included."""
    guarded: bool
    """A living ``oomguard up`` or ``oomguard run`` watches this process and decides for it."""
    unknown: dict[str, str]
    """For every field that is ``None``: why."""

    @property
    def available_gb(self) -> float | None:
        """``available`` in GiB."""
        return None if self.available is None else self.available / GIB

    @property
    def total_gb(self) -> float | None:
        """``total`` in GiB."""
        return None if self.total is None else self.total / GIB

    @property
    def process_rss_gb(self) -> float | None:
        """``process_rss`` in GiB."""
        return None if self.process_rss is None else self.process_rss / GIB


class MemoryMonitor:
    """Watches the machine's available memory against two thresholds in GB (binary: 1 GB is 1024 MiB).

    Monitors are cheap: all of them read the same native monitor, and ``check`` makes no system call.

    Args:
        safe_threshold_gb: Below it ``check`` raises.
        warning_threshold_gb: Below it ``check`` logs a warning, at most one a minute.

    Raises:
        TypeError: A threshold is not a number.
        ValueError: A threshold is negative or not finite, or ``safe_threshold_gb`` is above
            ``warning_threshold_gb``.
    """

    def __init__(self, safe_threshold_gb: float = 2.0, warning_threshold_gb: float = 4.0) -> None:
        self._safe = to_bytes("safe_threshold_gb", safe_threshold_gb)
        self._warning = to_bytes("warning_threshold_gb", warning_threshold_gb)
        if self._safe > self._warning:
            raise ValueError(
                f"safe_threshold_gb ({safe_threshold_gb}) must not be above "
                f"warning_threshold_gb ({warning_threshold_gb})"
            )
        self._next_warning = 0.0

    def __repr__(self) -> str:
        return f"MemoryMonitor(safe_threshold_gb={self._safe / GIB:g}, warning_threshold_gb={self._warning / GIB:g})"

    @property
    def safe_threshold_gb(self) -> float:
        """Below it ``check`` raises, in GiB."""
        return self._safe / GIB

    @property
    def warning_threshold_gb(self) -> float:
        """Below it ``check`` warns, in GiB."""
        return self._warning / GIB

    def status(self) -> MemoryStatus:
        """What is known now, read afresh. Costs about 20 microseconds; for loops use :meth:`check`."""
        seen = _core.snapshot()
        unknown = {}
        if seen.available is None or seen.total is None:
            unknown["available"] = unknown["total"] = unknown["used_percent"] = seen.unknown or "not read yet"
        rss = _core.resident()
        if rss is None:
            unknown["process_rss"] = "/proc/self/statm cannot be read here"
        percent = None
        if seen.available is not None and seen.total:
            percent = round(100.0 * (seen.total - min(seen.available, seen.total)) / seen.total, 1)
        return MemoryStatus(
            self._level(seen.available), seen.available, seen.total, percent, rss, seen.guarded, unknown
        )

    def check(self, context: str = "") -> str:
        """Raises if memory is too short to go on.

        Under a living guard it follows the guard alone: in one shortage the guard picks one job, and the others must
        not drop their work as well. Without one it compares available memory with the safe threshold.

        Args:
            context: Where this is, for the message: ``"split 3/5"``.

        Returns:
            The level: ``normal``, ``warning``, ``critical`` (only under a guard that picked another job) or
            ``unknown``.

        Raises:
            MemoryCritical: Stop now and give memory back.
            StopRequested: The process was asked to end.
        """
        if _core.at_ease(self._warning):
            return "normal"
        if _core.should_stop(self._safe):
            raise_stop(context, self._safe)
        available = _core.available()
        level = self._level(available)
        if level == "normal":
            _core.should_stop(self._warning)  # from now on sampled often enough for this threshold too
            return level
        if level != "unknown" and time.monotonic() >= self._next_warning:
            self._next_warning = time.monotonic() + WARN_EVERY
            logger().warning(
                "Memory %s%s: %s available (warning threshold %s, safety threshold %s)",
                level,
                f" [{context}]" if context else "",
                gb(available or 0),
                gb(self._warning),
                gb(self._safe),
            )
        return level

    def _level(self, available: int | None) -> str:
        if available is None:
            return "unknown"
        if available < self._safe:
            return "critical"
        return "warning" if available < self._warning else "normal"


def to_bytes(name: str, size_gb: float) -> int:
    """A size given in GB (binary) as bytes; the error names the argument ``name``."""
    if isinstance(size_gb, bool) or not isinstance(size_gb, (int, float)):
        raise TypeError(f"{name} must be a number of gigabytes, not {size_gb!r}")
    if not math.isfinite(size_gb) or size_gb < 0:
        raise ValueError(f"{name} must be a finite number of gigabytes, 0 or more, not {size_gb!r}")
    if size_gb >= 1 << 30:
        raise ValueError(f"{name} is larger than any machine: {size_gb!r} gigabytes")
    return int(size_gb * GIB)
