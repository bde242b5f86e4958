"""Between two trials: give back what the last one left, and see whether something stays each time."""

from __future__ import annotations

import atexit
import gc
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from oomguard import _core
from oomguard._brake import logger

if TYPE_CHECKING:
    from oomguard.leaks._report import Cause


class Returned(NamedTuple):
    """What came back after a trial. Sizes in bytes of the resident set; ``None`` is unknown."""

    by_gc: int | None
    """By collecting. Small blocks go to the allocator first, so most of it may come with the trim."""
    by_trim: int | None
    """By giving freed heap back to the kernel; ``None`` also where the C library has no such call."""
    objects: int
    """Unreachable objects that were collected."""
    gc_seconds: float
    trim_seconds: float
    resident: int | None
    """What is left."""


class Frozen(NamedTuple):
    """What ``freeze_imports()`` has done."""

    objects: int
    """Objects that no later collection looks at."""
    seconds: float


class Growth:
    """The size after each trial, by number and by time."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # on_pressure may call end_of_trial() in the middle of end_of_trial()
        self.trials = 0
        self.start = time.monotonic()
        self.by_trial = _core.Trend()
        self.by_time = _core.Trend()
        self.warned = False

    def add(self, resident: int) -> bool:
        """Takes the size after a trial. Whether it is certain now, for the first time, that it grows."""
        with self.lock:
            self.trials += 1
            self.by_trial.add(float(self.trials), resident)
            self.by_time.add(time.monotonic() - self.start, resident)
            first = self.by_trial.sure and not self.warned
            self.warned |= first
            return first


_growth = Growth()


def end_of_trial(trial: object = None) -> Returned:
    """Collects garbage and gives freed heap back. Once after each trial or split, not in the inner loop.

    Agents and networks that end in reference cycles wait for a full collection, which comes rarely and counts objects,
    not bytes; and the allocator keeps what they free. Both together gave back 515 of 687 MB in a loop that grew by
    22 MB a split; either alone did not (gc alone 0, trim alone 75 MB).

    Costs 100 ms with torch loaded, below 1 ms after ``freeze_imports()``, and a trim of some 10 ms for 100 MB given
    back. What remains each time is measured: once eight trials show that it grows for good, one warning says by how
    much, and when it reaches the limit.

    Args:
        trial: An Optuna trial or a number, for the warning.

    Raises:
        Nothing: where a size cannot be read it is ``None``.
    """
    before, start = _core.resident(), time.perf_counter()
    objects = gc.collect()
    collected, middle = _core.resident(), time.perf_counter()
    trimmed = _core.trim()
    after, end = _core.resident(), time.perf_counter()
    if after is not None and _growth.add(after):
        where = "" if trial is None else f" [trial {getattr(trial, 'number', trial)}]"
        logger().warning("Memory%s %s", where, describe(after))
    return Returned(
        by_gc=_fell(before, collected),
        by_trim=None if trimmed is None else _fell(collected, after),
        objects=objects,
        gc_seconds=middle - start,
        trim_seconds=end - middle,
        resident=after,
    )


def freeze_imports() -> Frozen:
    """Makes every later collection pass over what is alive now. After the imports, before the first trial.

    ``gc.collect()`` looks at all objects, and importing torch makes 185,000: 100 ms each time. They never become
    garbage, so nobody needs to look at them: afterwards a collection takes less than 1 ms. Costs one full collection.
    What is alive at the call is never freed by the collector again, if it ends in a cycle: call it once, before there
    are models. torch imports its compiler at the first step of an optimizer (140,000 more objects): where that is so,
    train something small before, and call end_of_trial() and then this. At exit all is unfrozen, so that libraries
    which look for leaks of their own then (nanobind) find none.
    """
    start = time.perf_counter()
    gc.collect()
    gc.freeze()
    atexit.unregister(gc.unfreeze)
    atexit.register(gc.unfreeze)
    return Frozen(gc.get_freeze_count(), time.perf_counter() - start)


def growth() -> Cause | None:
    """What stays after each trial, as a cause, if it is certain."""
    with _growth.lock:
        slope, resident = _growth.by_trial.slope, _core.resident()
        if not _growth.by_trial.sure or slope is None or resident is None:
            return None
    from oomguard.leaks._report import Cause

    facts = {
        "trials": _growth.trials,
        "bytes_per_trial": slope,
        "at_least": _growth.by_trial.at_least,
        "at_most": _growth.by_trial.at_most,
        "bytes_per_second": _growth.by_time.slope,
        "confidence": _growth.by_trial.confidence,
    }
    remedy = "run the loop under oomguard.leaks.watch(): it names the types of which there are more each time"
    return Cause("growth", slope, describe(resident), remedy, facts)


def describe(resident: int) -> str:
    """``grows 22 MB a trial (sure: 99 %), at 1.2 GB now: reaches the limit of 8.0 GB in about 300 trials / 5 h``."""
    from oomguard.leaks._report import mb

    trend = _growth.by_trial
    text = (
        f"grows {mb(trend.slope or 0)} a trial (sure: {int((trend.confidence or 0.0) * 100)} %), at {mb(resident)} now"
    )
    limit = _limit(resident)
    if limit is None:
        return text
    trials, seconds = trend.reaches(limit, resident), _growth.by_time.reaches(limit, resident)
    left = "" if trials is None else f" in about {trials:.0f} trials"
    return f"{text}: reaches {mb(limit)}{left}" + ("" if seconds is None else f" / {_span(seconds)}")


def _limit(resident: int) -> int | None:
    """The guard's limit for this job or the one of limit_self(); else where the machine would reach its reserve."""
    try:
        seen = _core.snapshot()
    except ValueError:  # a wrong threshold in the environment is check()'s to say
        return None
    limits = [limit for limit in (seen.limit, seen.own_limit) if limit is not None]
    if limits:
        return min(limits)
    return None if seen.available is None else resident + max(0, seen.available - seen.reserve)


def _fell(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else max(0, before - after)


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
