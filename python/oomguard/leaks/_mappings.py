"""Own mappings that are reserved and not yet in RAM: they will grow the process without any leak.

Reads ``/proc/self/smaps``, for which the kernel walks the page tables: some milliseconds, 15 to 27 ms for each GiB in
RAM. On demand only, never in a loop.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from oomguard.leaks._payload import Carriers, attributes, held, name, payload

SMALLEST = 64 << 20
"""Bytes: thread stacks (8 MiB), the allocator's arenas and the work space of OpenBLAS (32 MiB) are smaller."""


class Mapping(NamedTuple):
    """One stretch of anonymous, writable memory. Bytes."""

    start: int
    size: int
    resident: int
    """In RAM or in swap."""
    holder: str | None = None
    """``Buffer.states``: an array or tensor that lies in it."""

    @property
    def untouched(self) -> int:
        """What it will still grow by."""
        return self.size - self.resident


def untouched(smaps: str = "/proc/self/smaps") -> list[Mapping]:
    """The large mappings of which at least an eighth is untouched, the largest rest first.

    Raises:
        OSError: The file cannot be read.
    """
    with open(smaps, encoding="ascii", errors="replace") as file:
        found = [one for one in _parse(file) if one.untouched >= one.size // 8]
    found.sort(key=lambda one: -one.untouched)
    return _with_holders(found)


def _parse(lines: Iterable[str]) -> list[Mapping]:
    found: list[Mapping] = []
    start = size = resident = 0
    wanted = False
    for line in lines:
        field, _, rest = line.partition(" ")
        if not field.endswith(":"):
            _keep(found, wanted, Mapping(start, size, resident))
            ends, _, end = field.partition("-")
            start, resident = int(ends, 16), 0
            size = int(end, 16) - start
            words = rest.split(None, 4)
            anonymous = len(words) < 5 or words[4].startswith("[anon")
            wanted = words[0].startswith("rw") and anonymous and size >= SMALLEST
        elif field in ("Rss:", "Swap:"):
            resident += int(rest.split()[0]) << 10
    _keep(found, wanted, Mapping(start, size, resident))
    return found


def _keep(found: list[Mapping], wanted: bool, mapping: Mapping) -> None:
    if wanted:
        found.append(mapping)


def _with_holders(mappings: Sequence[Mapping]) -> list[Mapping]:
    """Names the arrays in them: a walk over all living objects (0.3 s with torch), if there is anything to name."""
    holders: dict[int, tuple[int, str]] = {}
    carriers = Carriers()
    for thing in gc.get_objects() if mappings else ():
        for part in held(thing):
            memory = payload(part) if carriers[type(part)] else None
            if memory is None or memory[1] < SMALLEST // 4:
                continue
            for index, mapping in enumerate(mappings):
                # NumPy asks for huge pages from the second page on, which cuts the first one off: no exact match.
                shared = min(sum(memory), mapping.start + mapping.size) - max(memory[0], mapping.start)
                if shared > holders.get(index, (0, ""))[0]:
                    holders[index] = shared, _called(thing, part)
    return [one._replace(holder=holders[i][1] if i in holders else None) for i, one in enumerate(mappings)]


def _called(owner: object, part: object) -> str:
    names = [key for key, value in attributes(owner).items() if value is part]
    kind = name(type(owner)).rpartition(".")[2]
    if names:
        return f"{kind}.{names[0]}"
    if type(owner) is dict:
        keys = [key for key, value in owner.items() if value is part and isinstance(key, str)]
        return f"`{keys[0]}`" if keys else f"a {type(part).__name__} in a dict"
    return f"a {type(part).__name__} in a {kind}"
