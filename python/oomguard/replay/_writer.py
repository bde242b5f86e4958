"""Writing rows where they will stay: no trajectory beside the buffer, so the peak is the payload."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oomguard.replay._buffer import Buffer


class Writer:
    """A window onto the next rows of a buffer. Write into ``writer[name]``, then :meth:`commit`.

    The rows that lay under the window are given up when it is opened, so that nothing half written is ever sampled:
    ``len(buffer)`` shrinks by them until they are committed. ``len(writer)`` is how many rows are left in the window;
    it is less than asked for where the ring ends (the next window begins at its start).

    Any other write to the buffer closes the window.
    """

    def __init__(self, buffer: Buffer, rows: int) -> None:
        self._buffer = buffer
        self._left = buffer.ring.open(rows)
        self._head = buffer.ring.head

    def __len__(self) -> int:
        return self._left

    def __getitem__(self, name: str) -> Any:
        """The window's rows of a column: a NumPy view ``(len(writer), *shape)``, on a device a tensor. No copy."""
        start, stop = self._window()
        return self._buffer[name][start:stop]

    def tensor(self, name: str) -> Any:
        """The same rows as a torch tensor over the same bytes."""
        start, stop = self._window()
        return self._buffer.tensor(name)[start:stop]

    def commit(self, rows: int | None = None) -> None:
        """The first ``rows`` rows of the window (all, if ``None``) are written; the window moves on behind them.

        Raises:
            ValueError: The window has not so many rows.
            RuntimeError: The buffer was written to by another way meanwhile.
        """
        self._window()
        if rows is None:
            rows = self._left
        if not 0 <= rows <= self._left:
            raise ValueError(f"cannot commit {rows} rows: the window has {self._left} left")
        self._buffer.ring.advance(rows)
        self._left -= rows
        self._head += rows

    def _window(self) -> tuple[int, int]:
        ring = self._buffer.ring
        if ring.head != self._head:
            raise RuntimeError("this writer is closed: the buffer was written to or cleared since; open another")
        start = ring.head % ring.capacity if self._left else 0
        return start, start + self._left
