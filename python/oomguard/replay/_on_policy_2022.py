"""ElegantRL 2022, on-policy: a list of the five tensors of the present round."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from oomguard.replay import _room
from oomguard.replay._buffer import Buffer
from oomguard.replay._columns import Column, numpy_dtype
from oomguard.replay._writer import Writer

NAMES = ("state", "reward", "mask", "action", "noise")
HEADROOM = 4
"""Times the rows of the first round: the cap where none was given. A round ends with its episode, so rounds differ."""


class ReplayBufferList(list[Any]):
    """After each round: state ``(n, S)``, reward ``(n, 1)``, mask ``(n, 1)``, action ``(n, A)`` and noise ``(n, A)``.

    They are views of one mapping, which is never made anew: a tensor of an earlier round shows the rows of the next.
    (``clone()`` what must stay.)

    :meth:`update_buffer` is the compatible, slow door: the peak is three times the payload (the old trajectory, the
    new one, the buffer), whoever holds the buffer; with the heap's fragments 3.8 times were measured, and 6.9 where a
    round is stacked from single steps (``python/bench/replay_cost.py``). Writing rows in place (:meth:`push` or
    :meth:`writer`, then :meth:`finish`) peaks at 1.01 times; for that give ``capacity``, ``state_dim`` and
    ``action_dim``.

    Args:
        capacity: Rows at most, a hard cap. ``None``: four times the rows of the first round; then memory is taken as
            rows are written, and only the first round is compared with what is available.
        state_dim: Width, or shape, of a state. With ``capacity`` and ``action_dim`` the memory is taken at once;
            else at the first :meth:`update_buffer`, with the shapes and dtypes of its tensors.
        action_dim: Width of an action.
        noise_dim: Width of a noise; ``None`` is ``action_dim``.
        device: ``None`` is host memory. A torch device: the tensors live there; ``capacity`` must be given.
        path, touch, huge_pages, pin: As :class:`oomguard.replay.Buffer`.
    """

    def __init__(
        self,
        capacity: int | None = None,
        state_dim: int | tuple[int, ...] | None = None,
        action_dim: int | None = None,
        *,
        noise_dim: int | None = None,
        device: Any = None,
        path: str | os.PathLike[str] | None = None,
        touch: bool = True,
        huge_pages: bool = False,
        pin: bool = False,
    ) -> None:
        super().__init__()
        if capacity is None and (device is not None or state_dim is not None or action_dim is not None):
            raise ValueError(
                "give `capacity` too: with `device`, `state_dim` or `action_dim` the memory is taken at once"
            )
        if (state_dim is None) != (action_dim is None):
            raise ValueError("`state_dim` and `action_dim` go together")
        self.rows: Buffer | None = None
        self._capacity = capacity
        self._options: dict[str, Any] = {"path": path, "touch": touch, "huge_pages": huge_pages, "pin": pin}
        self._options["device"] = device
        if capacity is not None and state_dim is not None and action_dim is not None:
            noise = action_dim if noise_dim is None else noise_dim
            columns = dict(zip(NAMES, (state_dim, 1, 1, action_dim, noise), strict=True))
            self.rows = Buffer(capacity, columns, **self._options)

    def update_buffer(self, traj_list: Sequence[Sequence[Any]]) -> tuple[int, float]:
        """Replaces the round by ``traj_list``: for each worker a list of tensors ``(n, ...)``, of its own length.

        Costs three times the payload at the peak; see the class.

        Returns:
            The number of steps, and the mean reward (of index 1).

        Raises:
            MemoryError: More rows than the cap (cap, rows, remedy), or no room for the first round.
            TypeError, ValueError: Something does not fit (column, expected, given). The round is unchanged then.
        """
        counts = _row_counts(traj_list)
        total = sum(counts)
        rows = self._rows_for(traj_list[0], total)
        if total > rows.capacity:
            raise MemoryError(
                f"a round of {total} rows is above the cap of {rows.capacity}: "
                "collect less in a round, or make the list with `ReplayBufferList(capacity=...)`"
            )
        names = tuple(rows.columns)
        if any(len(trajectory) != len(names) for trajectory in traj_list):
            raise TypeError(f"a trajectory is ({', '.join(names)}), given {[len(each) for each in traj_list]} items")
        for trajectory, count in zip(traj_list, counts, strict=True):
            rows.require(trajectory, count)
        rows.clear()
        for trajectory in traj_list:
            rows.extend(*trajectory)
        return self.finish()

    def push(self, state: Any, reward: Any, mask: Any, action: Any, noise: Any) -> None:
        """Writes one step of the next round in place. Rewards and masks may be plain numbers.

        Raises:
            MemoryError: The cap is reached; :meth:`finish` the round.
            TypeError, ValueError: Something does not fit (column, expected, given). Nothing is written then.
            RuntimeError: The shapes were not given when the list was made.
        """
        rows = self._open()
        if len(rows) == rows.capacity:
            raise MemoryError(f"the cap of {rows.capacity} rows is reached: `finish()` the round, or raise `capacity`")
        rows.push(state, _one(reward), _one(mask), action, noise)

    def writer(self, rows: int | None = None) -> Writer:
        """Opens a window onto the next ``rows`` rows of the next round (``None``: all that the cap leaves).

        Raises:
            MemoryError: The cap does not leave so many.
            RuntimeError: The shapes were not given when the list was made.
        """
        buffer = self._open()
        left = buffer.capacity - len(buffer)
        if left == 0 or (rows is not None and rows > left):
            raise MemoryError(f"{left} of {buffer.capacity} rows are left: `finish()` the round, or raise `capacity`")
        return buffer.writer(left if rows is None else rows)

    def finish(self) -> tuple[int, float]:
        """Ends the round that was written in place: from now on the list holds it, and the next one begins.

        The tensors are valid until rows of the next round are written.

        Returns:
            The number of steps, and the mean reward.

        Raises:
            ValueError: No row was written.
        """
        rows = self._open()
        count = len(rows)
        if count == 0:
            raise ValueError("the round is empty: write rows first")
        self[:] = [rows.tensor(name)[:count] for name in rows.columns]
        rows.clear()
        return count, self[1].mean(dtype=torch.float64).item()

    def _open(self) -> Buffer:
        if self.rows is None:
            raise RuntimeError(
                "there is no memory yet: make the list with `ReplayBufferList(capacity, state_dim, action_dim)`"
            )
        return self.rows

    def _rows_for(self, trajectory: Sequence[Any], total: int) -> Buffer:
        if self.rows is None:
            names = NAMES if len(trajectory) == len(NAMES) else [f"item{i}" for i in range(len(trajectory))]
            columns = {
                name: Column(tuple(item.shape[1:]), numpy_dtype(item.dtype))
                for name, item in zip(names, trajectory, strict=True)
            }
            options = dict(self._options)
            capacity = self._capacity
            if capacity is None:
                _room.require(
                    total * sum(column.row_bytes for column in columns.values()), f"a round of {total:,} rows"
                )
                capacity, options["touch"] = HEADROOM * total, False
            self.rows = Buffer(capacity, columns, **options)
        return self.rows


def _one(number: Any) -> Any:
    return np.full(1, number, dtype=np.float32) if isinstance(number, (int, float)) else number.reshape(1)


def _row_counts(traj_list: Sequence[Sequence[Any]]) -> list[int]:
    counts = []
    for worker, trajectory in enumerate(traj_list):
        lengths = [len(item) for item in trajectory]
        if not lengths or len(set(lengths)) != 1:
            raise ValueError(f"the tensors of worker {worker} differ in their number of rows: {lengths}")
        counts.append(lengths[0])
    if not sum(counts):
        raise ValueError("`traj_list` is empty: expected one trajectory for each worker, with rows")
    return counts
