"""Prioritized replay (Schaul et al. 2016, the proportional variant) on top of a ring: what can be drawn, how likely.

A row can be drawn once it has a successor. New rows get the largest priority, so that each is seen soon.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oomguard.replay._ring import Ring
from oomguard.replay._sum_tree import Floats, Places, SumTree

NEW = 10.0
"""Of a row whose error is not known yet. As ElegantRL."""
LEAST, MOST = 1e-8, 10.0
"""Errors are clamped to these. As ElegantRL."""


class Priorities:
    """Priorities of the rows of ``ring``, in ``sequences`` trees: one for each environment that a row is made of.

    Rows may come into the ring by any way: the trees follow its row numbers when they are asked.
    """

    def __init__(self, ring: Ring, sequences: int, alpha: float, beta: float) -> None:
        self.alpha = alpha
        self.beta = beta
        self._ring = ring
        self._trees = [SumTree(ring.capacity) for _ in range(sequences)]
        self._first = self._last = ring.head  # the rows that the trees know as drawable

    def draw(self, uniform: Floats) -> tuple[Places, Places, Floats]:
        """``uniform`` in ``[0, 1)``, ``(sequences, n)``, becomes places, sequences, weights, each ``(sequences * n,)``.

        Weights correct for the uneven draw: ``(priority / least priority) ** -beta``, at most 1.

        Raises:
            ValueError: No row has a successor.
        """
        self._follow()
        count = uniform.shape[1]
        places = [tree.draw(row) for tree, row in zip(self._trees, uniform, strict=True)]
        weights = [
            (tree.priorities(found) / tree.least) ** -self.beta for tree, found in zip(self._trees, places, strict=True)
        ]
        sequences = np.repeat(np.arange(len(self._trees)), count)
        return np.concatenate(places), sequences, np.concatenate(weights)

    def update(self, places: Places, sequences: Places, errors: Floats) -> None:
        """Sets the priorities of rows by their TD errors.

        Raises:
            ValueError: An error is NaN. Nothing is changed then.
        """
        if np.isnan(errors).any():
            raise ValueError(f"`td_error` holds {np.isnan(errors).sum()} NaN: the critic has diverged")
        self._follow()
        values = np.clip(errors, LEAST, MOST) ** self.alpha
        known = (places - self._first) % self._ring.capacity < self._last - self._first
        for sequence, tree in enumerate(self._trees):
            mine = known & (sequences == sequence)
            tree.update(places[mine], values[mine])

    def _follow(self) -> None:
        """Brings the trees up to the ring: what it gave up gets 0, what it got gets ``NEW``."""
        ring = self._ring
        first, last = ring.tail, max(ring.tail, ring.head - 1)
        if (first, last) == (self._first, self._last):
            return
        self._set(self._first, min(first, self._last), 0.0)
        self._set(max(self._last, first), last, NEW)
        self._first, self._last = first, last

    def _set(self, first: int, last: int, priority: Any) -> None:
        if first >= last:
            return
        places = np.arange(first, last) % self._ring.capacity
        for tree in self._trees:
            tree.update(places, priority)
