"""How many objects of each type live, and how much memory is behind them."""

from __future__ import annotations

import gc
from collections import Counter
from typing import NamedTuple

from oomguard.leaks._payload import HEAP_TYPE, Carriers, gradient, held, name, payload


class Census(NamedTuple):
    """One count of all objects that the collector knows."""

    counts: Counter[str]
    holds: Counter[str]
    """Bytes of arrays, tensors and buffers that objects of a type refer to themselves; each is counted once, for a
    written class rather than for a list or dict."""

    def more_than(self, before: Census, least: int) -> list[tuple[str, int, int]]:
        """Types that hold ``least`` bytes more than before: name, how many more, bytes more; the most first."""
        grown = [
            (kind, self.counts[kind] - before.counts[kind], self.holds[kind] - before.holds[kind])
            for kind in self.holds
        ]
        return sorted((one for one in grown if one[2] >= least), key=lambda one: -one[2])


def census() -> Census:
    """Looks at every object: 2 microseconds for each, 0.3 s with torch loaded. Frozen objects are not seen."""
    counts: Counter[str] = Counter()
    holds: Counter[str] = Counter()
    names: dict[type, str] = {}
    carriers = Carriers()
    seen: set[int] = set()
    objects = gc.get_objects()
    for written in (True, False):
        for thing in objects:
            kind = type(thing)
            if bool(kind.__flags__ & HEAP_TYPE) is not written or thing is objects:
                continue
            called = names.get(kind) or names.setdefault(kind, name(kind))
            counts[called] += 1
            for part in held(thing):
                for memory in (payload(part), gradient(part)) if carriers[type(part)] else ():
                    if memory is not None and memory[0] not in seen:
                        seen.add(memory[0])
                        holds[called] += memory[1]
    return Census(counts, holds)
