"""The examination: cheap steps first, each measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from oomguard import _core
from oomguard.leaks._attributes import Study, large_attributes
from oomguard.leaks._cycles import Cycles, free_and_name
from oomguard.leaks._mappings import untouched
from oomguard.leaks._report import MIB, Cause, Report, Step, mb

WORTH = MIB
"""Bytes below which nothing is a cause: the kernel's count of resident pages is as coarse as that."""

T = TypeVar("T")


class Examination:
    """Collects steps and causes; each step writes down what it took."""

    def __init__(self) -> None:
        self.causes: list[Cause] = []
        self.steps: list[Step] = []
        self.unknown: dict[str, str] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measures what is done within."""
        before, start = _core.resident(), time.perf_counter()
        try:
            yield
        finally:
            self.steps.append(Step(name, time.perf_counter() - start, before, _core.resident()))

    def fell(self) -> int:
        """Bytes by which the last step made the process smaller; 0 where it grew, or where nobody knows."""
        step = self.steps[-1]
        return 0 if step.before is None or step.after is None else max(0, step.before - step.after)

    def trim(self, name: str = "trim") -> int:
        """Gives freed heap back; the bytes."""
        with self.step(name):
            given = _core.trim()
        if given is None:
            self.unknown[name] = "this C library's heap cannot be trimmed (only glibc's can)"
        return self.fell()

    def retention(self) -> None:
        """Freed heap that the allocator kept."""
        freed = self.trim()
        if freed >= WORTH:
            self.causes.append(Cause(
                "retention", freed,
                f"{mb(freed)} had been freed already; the allocator kept them, and has given them back now",
                "call oomguard.end_of_trial() after each trial, or set MALLOC_TRIM_THRESHOLD_=65536 in the environment",
                {},
            ))  # fmt: skip

    def cycles(self) -> None:
        """What only a collection can free. It is freed."""
        with self.step("collect and name"):
            found = free_and_name()
        freed = self.fell() + self.trim("trim again")
        if found.objects and max(freed, found.holds) >= WORTH:
            self.causes.append(_cycles(found, freed))

    def attributes(self, study: Study) -> None:
        """Data in the attributes of a study's trials."""
        with self.step("attributes of trials"):
            found = large_attributes(study)
        size = sum(one.bytes for one in found)
        if size < WORTH:
            return
        trials = len({one.trial for one in found})
        largest = ", ".join(f"`{one.key}` of trial {one.trial} holds {mb(one.bytes)}" for one in found[:3])
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        self.causes.append(Cause(
            "attributes", size,
            f"the attributes of {trials} trials hold {mb(size)}: {largest}{more}",
            "save data to a file and store its path with set_user_attr",
            {"attributes": [one._asdict() for one in found]},
        ))  # fmt: skip

    def untouched(self) -> None:
        """Memory that is reserved and will be used."""
        with self.step("mappings (smaps)"):
            found = self.known("mappings", untouched) or []
        for one in found:
            holder, will = (f", which holds {one.holder},", "will") if one.holder else ("", "may")
            self.causes.append(Cause(
                "untouched", one.untouched,
                f"{mb(one.untouched)} of a {mb(one.size)} mapping{holder} not yet touched: it {will} grow by that "
                "without leaking",
                "fill buffers once before training, so that a machine that is too small shows in the first second",
                one._asdict(),
            ))  # fmt: skip

    def known(self, what: str, read: Callable[[], T]) -> T | None:
        """``read()``, or ``None`` with the reason noted."""
        try:
            return read()
        except OSError as error:
            self.unknown[what] = str(error)
            return None

    def report(self) -> Report:
        """What was found."""
        return Report(tuple(self.causes), tuple(self.steps), _core.resident(), self.unknown)


def _cycles(found: Cycles, freed: int) -> Cause:
    kinds = [kind for kind in found.kinds if kind.holds >= WORTH // 16][:3] or list(found.kinds[:3])
    named = ", ".join(f"{kind.instances} {kind.name} (reach {mb(kind.holds)})" for kind in kinds)
    reasons = "; ".join(f"{reason} ({count} times)" for reason, count in found.reasons[:4])
    text = f"{mb(freed)} came back by collecting {found.objects} unreachable objects that held {mb(found.holds)}"
    return Cause(
        "cycles", max(freed, found.holds),
        text + (f": {named}" if named else "") + (f"; {reasons}" if reasons else ""),
        "do not store an object's own methods or parent on it (a plain method or a weakref does), or call "
        "oomguard.end_of_trial() after each trial",
        {"freed": freed, "objects": found.objects, "holds": found.holds,
         "kinds": [kind._asdict() for kind in found.kinds],
         "reasons": [{"reason": reason, "count": count} for reason, count in found.reasons]},
    )  # fmt: skip


def examine(study: Study | None = None) -> Report:
    """Finds out why this process is as large as it is, and gives back what can be given back.

    In this order: heap that was freed and kept (trim), objects in cycles (collected, named, freed), data in the
    attributes of ``study``'s trials, reserved memory that is not yet in RAM, and growth over the calls of
    ``end_of_trial()``. Costs some 0.4 s with torch loaded, and 20 ms for each GiB in RAM; call it when you look for a
    leak, and ``end_of_trial()`` always.

    Args:
        study: An ``optuna.Study`` whose trials' attributes are measured.

    Raises:
        Exception: What the study's storage raises.
    """
    from oomguard import _trial_end

    run = Examination()
    run.retention()
    run.cycles()
    if study is not None:
        run.attributes(study)
    run.untouched()
    grown = _trial_end.growth()
    if grown is not None:
        run.causes.append(grown)
    return run.report()
