"""Whether there is room for a buffer, asked before anything of it is touched.

In a cgroup the answer to a touch too many is a kill, not an error: the error has to come first. Never allocates.
"""

from __future__ import annotations

from collections.abc import Callable

from oomguard import _core
from oomguard._brake import logger

REMEDY = "lower the capacity, keep the rows on a disk (`path=`), or allocate late at your own risk (`touch=False`)"


def usable() -> tuple[int | None, str]:
    """Bytes that this process may still take, and how that is reckoned, for people.

    It is what is available (under every cgroup limit above this process) less the reserve, or what the limit of this
    job, or of a ``guard(limit=...)`` around, leaves: whichever is smallest. ``None``: memory cannot be read here, and
    the text says why. Costs 20 µs.
    """
    seen = _core.snapshot()
    if seen.available is None:
        return None, seen.unknown or "available memory is not known"
    room = max(0, seen.available - seen.reserve)
    why = f"{size(seen.available)} available less the reserve of {size(seen.reserve)}"
    limits = (("the job", seen.limit, seen.usage), ("this process's guard", seen.own_limit, seen.own_usage))
    for who, limit, usage in limits:
        if limit is not None and usage is not None and limit - usage < room:
            room = max(0, limit - usage)
            why = f"the limit of {who}, {size(limit)}, less the {size(usage)} in use"
    return room, why


def require(need: int, what: str, remedy: Callable[[int], str] | None = None) -> None:
    """Returns if ``need`` bytes can be had; where memory cannot be read it says so in the log and returns too.

    Args:
        need: Bytes that are about to be touched.
        what: Who needs them, to begin the message with.
        remedy: Is given the usable bytes, and says what fits. Without it :data:`REMEDY`.

    Raises:
        MemoryError: Need, have, and remedy.
    """
    room, why = usable()
    if room is None:
        logger().warning("%s: cannot tell whether %s fit: %s", what, size(need), why)
        return
    if need > room:
        cure = REMEDY if remedy is None else remedy(room)
        raise MemoryError(f"{what}: needs {size(need)}, but only {size(room)} can be used ({why}): {cure}")


def size(count: int) -> str:
    """``count`` bytes as people read it: binary, one decimal."""
    if count < 1024:
        return f"{count} B"
    amount = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1024
        if amount < 1024:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1024:.1f} TiB"
