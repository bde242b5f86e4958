"""Random numbers: every child draws its own, unless a ``conftest.py`` has set a seed: then that is what all begin with,
as they would in fresh processes. Knows ``random`` and ``numpy.random``; torch begins with a constant anyway.

Python seeds ``random`` anew after every fork. Whether somebody has seeded it is told by its state: drawing moves the
position in it, seeding replaces the words (and so does drawing 624 times, which is taken for a seed).
"""

from __future__ import annotations

import random
import sys
from typing import Any

BEFORE = random.getstate()
"""Of a process in which nobody has seeded yet: this module is imported first."""


class Seeds:
    """What the zygote's generators hold at this moment, and what a child makes of it."""

    def __init__(self) -> None:
        now = random.getstate()
        self._random = None if now[1][:-1] == BEFORE[1][:-1] else now
        self._numpy = _numpy_is_seeded()

    def child(self) -> None:
        """After a fork. 15 microseconds with NumPy."""
        if self._random is not None:
            random.setstate(self._random)
        legacy = _legacy()
        if legacy is not None and not self._numpy:
            legacy.seed()


def _legacy() -> Any:
    """``numpy.random``, if it is loaded: nobody imports it here."""
    return sys.modules.get("numpy.random") if "numpy" in sys.modules else None


def _numpy_is_seeded() -> bool:
    """Whether ``numpy.random.seed`` was called with a seed: the global generator has then forgotten its seed sequence.

    NumPy before 1.25 does not tell: taken for not seeded.
    """
    generator = getattr(_legacy(), "get_bit_generator", None)
    return generator is not None and getattr(generator(), "seed_seq", generator) is None
