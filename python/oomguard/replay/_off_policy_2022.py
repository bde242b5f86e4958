"""ElegantRL 2022, off-policy: state in one tensor, reward, mask and action side by side in the other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from oomguard.replay import _archive
from oomguard.replay._buffer import Buffer
from oomguard.replay._device_rule import device_of, placement
from oomguard.replay._history import load_npz


class ReplayBuffer:
    """Its memory is taken once, when it is made. Constructor, fields and return values are theirs.

    Where theirs go wrong, this one does not: a sample never pairs the newest row with the oldest, the history is
    float32 and not float16, and a trajectory longer than the ring keeps its end. ``now_len`` is always up to date.
    To write rows in place use ``buffer.rows`` (a :class:`oomguard.replay.Buffer` with the columns ``buf_state``
    and ``buf_other``): ``push``, or ``writer``.

    Args:
        max_len: Rows at most.
        state_dim: Width, or shape, of a state.
        action_dim: Width of an action.
        gpu_id: The tensors live on ``cuda:{gpu_id}`` if CUDA is there and it is 0 or more, else in host memory.
        path, touch, huge_pages, pin: As :class:`oomguard.replay.Buffer`; in host memory only.

    Attributes:
        now_len, if_full, max_len, action_dim, device: As theirs.
        next_idx: Where the next row goes; ``max_len`` right after the last place was filled, as theirs.
        prev_idx: Where :meth:`sample_batch_r_m_a_s` goes on.
        buf_state: float32 ``(max_len, *state_dim)``.
        buf_other: float32 ``(max_len, 2 + action_dim)``: reward, mask, action.

    Raises:
        MemoryError: It does not fit (need, have, remedy); raised before anything is touched.
    """

    def __init__(
        self,
        max_len: int,
        state_dim: int | tuple[int, ...],
        action_dim: int,
        gpu_id: int = 0,
        *,
        path: str | os.PathLike[str] | None = None,
        touch: bool = True,
        huge_pages: bool = False,
        pin: bool = False,
    ) -> None:
        self.max_len = max_len
        self.action_dim = action_dim
        self.device = device_of(gpu_id)
        where = placement(self.device, path=path, touch=touch, huge_pages=huge_pages, pin=pin)
        state = (state_dim,) if isinstance(state_dim, int) else tuple(state_dim)
        self.rows = Buffer(max_len, {"buf_state": state, "buf_other": 2 + action_dim}, **where)
        self.buf_state = self.rows.tensor("buf_state")
        self.buf_other = self.rows.tensor("buf_other")
        self._read = 0

    @property
    def next_idx(self) -> int:
        """Where the next row goes, 1 to ``max_len``; 0 only if nothing was ever written."""
        return self.rows.ring.position or (self.max_len if self.rows.ring.size else 0)

    @property
    def prev_idx(self) -> int:
        """Where the next :meth:`sample_batch_r_m_a_s` begins."""
        return self._read % self.max_len

    @property
    def now_len(self) -> int:
        """Rows held."""
        return len(self.rows)

    @property
    def if_full(self) -> bool:
        """Whether every place holds a row."""
        return len(self.rows) == self.max_len

    def update_now_len(self) -> None:
        """Nothing is left to do: ``now_len`` is always up to date."""

    def extend_buffer(self, state: Any, other: Any) -> None:
        """Appends ``state`` ``(n, *state_dim)`` and ``other`` ``(n, 2 + action_dim)``.

        Raises:
            TypeError, ValueError: Something does not fit (column, expected, given). Nothing is appended then.
        """
        self.rows.extend(state, other)

    def update_buffer(self, traj_lists: Sequence[Sequence[Any]]) -> tuple[int, float]:
        """Appends trajectories, one for each worker: ``[state, reward, mask, action]``, rewards and masks ``(n, 1)``.

        The compatible, slow door: the trajectories lie in memory beside the buffer, and one more copy of a worker's
        ``other`` while it is appended.

        Returns:
            The number of steps, and the mean over workers of their mean reward.
        """
        if not traj_lists:
            raise ValueError("`traj_lists` is empty: expected one trajectory for each worker")
        steps, rewards = 0, 0.0
        for trajectory in traj_lists:
            self.extend_buffer(trajectory[0], torch.hstack(list(trajectory[1:])))
            steps += len(trajectory[1])
            rewards += trajectory[1].mean().item()
        return steps, rewards / len(traj_lists)

    def sample_batch(self, batch_size: int) -> tuple[Any, ...]:
        """Returns ``reward, mask, action, state, next_state`` of ``batch_size`` steps, uniform, by NumPy's global seed
        (as theirs): with an unfilled ring it draws the rows that theirs does.

        Raises:
            ValueError: Fewer than two rows are held.
        """
        if self.now_len < 2:
            raise ValueError(f"cannot sample: a step and its successor are 2 rows, and the buffer holds {self.now_len}")
        ages = np.random.randint(self.now_len - 1, size=batch_size)
        places = torch.from_numpy((ages + self.rows.ring.tail) % self.max_len).to(self.device)
        other = self.buf_other[places]
        after = self.buf_state[(places + 1) % self.max_len]
        return other[:, 0:1], other[:, 1:2], other[:, 2:], self.buf_state[places], after

    def sample_batch_r_m_a_s(self) -> tuple[Any, ...]:
        """Returns ``reward, mask, action, state`` of the rows held that came since the last call, oldest first.

        Views of the buffer where they lie in one piece, else a copy.
        """
        ring = self.rows.ring
        pieces = [slice(*piece) for piece in ring.pieces(max(self._read, ring.tail), ring.head)] or [slice(0, 0)]
        self._read = ring.head
        other, state = (
            source[pieces[0]] if len(pieces) == 1 else torch.cat([source[piece] for piece in pieces])
            for source in (self.buf_other, self.buf_state)
        )
        return other[:, 0:1], other[:, 1:2], other[:, 2:], state

    def save_or_load_history(self, cwd: str, if_save: bool, buffer_id: int = 0) -> bool:
        """Saves the rows held to ``cwd/replay_{buffer_id}.npz`` in one atomic step, or loads that file, whether this
        class or ElegantRL wrote it. (ElegantRL's, in float16, holds ``max_len`` rows even of an unfilled buffer.)

        Returns:
            Whether something was saved or loaded: ``False`` if there is nothing to load.

        Raises:
            ValueError: What is there is damaged or does not fit. The buffer is unchanged then.
        """
        path = os.path.join(cwd, f"replay_{buffer_id}.npz")
        if if_save:
            self.rows.save(path)
            return True
        if not os.path.isfile(path):
            return False
        if _archive.matches(path, self.rows.columns):
            self.rows.load(path)
        else:
            load_npz(path, self.rows)
        return True
