"""Which rows a ring of fixed capacity holds, and where. Pure arithmetic on row numbers; knows no memory.

Rows are numbered from 0 for ever. Row ``k`` lies at ``k % capacity``; the ring holds ``[tail, head)``.
"""

from __future__ import annotations


class Ring:
    """A ring that holds nothing yet.

    Attributes:
        capacity: Rows at most.
        head: The number of the next row.
        size: Rows held: the last ``size`` before ``head``.
    """

    __slots__ = ("capacity", "head", "size")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.head = 0
        self.size = 0

    @property
    def tail(self) -> int:
        """The number of the oldest row held; ``head`` if there is none."""
        return self.head - self.size

    @property
    def position(self) -> int:
        """Where the next row goes."""
        return self.head % self.capacity

    def open(self, rows: int) -> int:
        """Gives up what lies where the next ``rows`` rows go, and says how many of them lie in one piece."""
        rows = min(rows, self.capacity - self.position)
        self.size = min(self.size, self.capacity - rows)
        return rows

    def advance(self, rows: int) -> None:
        """``rows`` more have been written at ``position``; the oldest give way."""
        self.head += rows
        self.size = min(self.size + rows, self.capacity)

    def clear(self) -> None:
        """Holds nothing, and goes on at place 0."""
        self.head += -self.head % self.capacity
        self.size = 0

    def pieces(self, first: int, last: int) -> list[tuple[int, int]]:
        """Where rows ``first`` to ``last`` lie: at most two ``(start, stop)``, oldest first."""
        if first == last:
            return []
        start = first % self.capacity
        stop = start + (last - first)
        if stop <= self.capacity:
            return [(start, stop)]
        return [(start, self.capacity), (0, stop - self.capacity)]
