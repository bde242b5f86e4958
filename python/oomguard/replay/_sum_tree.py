"""Drawing in proportion to priority, in O(log n): a binary tree of sums, with one of minima beside it. NumPy only.

Sums are made anew from their children and never corrected by differences, so no rounding error gathers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oomguard.replay._mapping import reserve

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


class SumTree:
    """Priorities of ``size`` places, all 0 at first. Such a place is never drawn.

    Takes 32 to 64 bytes a place in a mapping of its own. Raises MemoryError where they do not fit.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._depth = max(0, size - 1).bit_length()
        self._leaves = 1 << self._depth
        memory = reserve(32 * self._leaves, f"priorities of {size:,} rows").view(np.float64)
        self._sums: Floats = memory[: 2 * self._leaves]
        self._minima: Floats = memory[2 * self._leaves :]
        self._minima.fill(np.inf)

    @property
    def total(self) -> float:
        """The sum of all priorities."""
        return float(self._sums[1])

    @property
    def least(self) -> float:
        """The least priority above 0; infinite if there is none."""
        return float(self._minima[1])

    def priorities(self, places: Any) -> Floats:
        """The priorities of ``places``."""
        found: Floats = self._sums[self._leaves + self._inside(places)]
        return found

    def update(self, places: Any, priorities: Any) -> None:
        """Sets priorities (0 or more, finite); of a place that is named twice, the last counts.

        Raises:
            IndexError: There is no such place.
            ValueError: A priority is negative, infinite or NaN. Nothing is changed then.
        """
        nodes = self._leaves + self._inside(places)
        values = np.broadcast_to(np.asarray(priorities, dtype=np.float64), nodes.shape)
        if not nodes.size:
            return
        wrong = ~(np.isfinite(values) & (values >= 0))
        if wrong.any():
            raise ValueError(
                f"priorities must be finite and 0 or more; {wrong.sum()} are not, first {values[wrong][0]}"
            )
        self._sums[nodes] = values
        self._minima[nodes] = np.where(self._sums[nodes] > 0, self._sums[nodes], np.inf)
        nodes = np.unique(nodes)
        for _ in range(self._depth):
            nodes = nodes >> 1
            nodes = nodes[np.concatenate(([True], nodes[1:] != nodes[:-1]))]  # sorted, so each parent once
            self._sums[nodes] = self._sums[2 * nodes] + self._sums[2 * nodes + 1]
            self._minima[nodes] = np.minimum(self._minima[2 * nodes], self._minima[2 * nodes + 1])

    def find(self, values: Any) -> Places:
        """The places in whose share of ``[0, total)`` the values lie.

        Raises:
            ValueError: All priorities are 0.
        """
        if not self.total > 0:
            raise ValueError("nothing can be drawn: all priorities are 0")
        rest: Floats = np.array(values, dtype=np.float64)
        nodes = np.ones(rest.shape, dtype=np.int64)
        for _ in range(self._depth):
            left = self._sums[2 * nodes]
            # A value on the upper edge, by rounding, must not end in a branch that is empty.
            right = (rest >= left) & (self._sums[2 * nodes + 1] > 0)
            rest = np.where(right, rest - left, rest)
            nodes = 2 * nodes + right
        return nodes - self._leaves

    def draw(self, uniform: Any) -> Places:
        """One place for each of the ``n`` numbers in ``[0, 1)``, one out of each ``n``-th of the total (stratified)."""
        uniform = np.asarray(uniform, dtype=np.float64)
        return self.find((np.arange(len(uniform)) + uniform) * (self.total / len(uniform)))

    def _inside(self, places: Any) -> Places:
        found = np.atleast_1d(np.asarray(places, dtype=np.int64))
        if found.size and (found.min() < 0 or found.max() >= self.size):
            raise IndexError(f"places must be 0 to {self.size - 1}, given {found.min()} to {found.max()}")
        return found
