"""``ReplayBuffer`` of today's ElegantRL (``elegantrl.train.replay_buffer``), with one mapping under it. Needs torch.

    from oomguard.replay.elegantrl import ReplayBuffer

Constructor, fields and return values are theirs. Where theirs go wrong, this one does not: a sample never pairs the
newest row with the oldest (theirs does at the seam of a full ring), prioritized replay survives the ring's first
wrap and draws ``batch_size`` rows with several sequences too, an update longer than the ring keeps its end, and
the history holds ``unmasks`` as well. With one torch seed and an unfilled ring ``sample`` draws the same rows.

On-policy agents of today keep a plain list (``buffer[:] = items``): for them see
:class:`oomguard.replay.elegantrl2022.ReplayBufferList`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from oomguard.replay._buffer import Buffer
from oomguard.replay._columns import Column
from oomguard.replay._device_rule import device_of, placement
from oomguard.replay._history import load_pth
from oomguard.replay._priority import Priorities

NAMES = ("states", "actions", "rewards", "undones", "unmasks")


class ReplayBuffer:
    """Off-policy, for vectorized environments. Its memory is taken once, when it is made.

    ``update`` is handed a finished horizon, which lies in memory a second time until the caller drops it. To write in
    place use ``buffer.rows`` (a :class:`oomguard.replay.Buffer`): ``push``, or ``writer``; then set ``add_size`` if
    you use ``update_cum_rewards``.

    Args:
        max_size: Rows at most; each holds one step of all sequences.
        state_dim: Width, or shape, of a state.
        action_dim: Width of an action; with ``if_discrete`` the number of actions, at most 256.
        gpu_id: The tensors live on ``cuda:{gpu_id}`` if CUDA is there and it is 0 or more, else in host memory.
        num_seqs: Sequences (workers times environments).
        if_use_per: Prioritized replay; costs 32 to 64 bytes more a row and sequence, in host memory.
        if_discrete: Actions are uint8 ``(max_size, num_seqs)``.
        args: ``per_alpha`` (0.6) and ``per_beta`` (0.4) are taken from it where it has them.
        path, touch, huge_pages, pin: As :class:`oomguard.replay.Buffer`; in host memory only.

    Attributes:
        p: Where the next row goes; ``max_size`` right after the last place was filled, as theirs.
        if_full, cur_size, max_size, num_seqs, device: As theirs.
        add_size: Rows of the last ``update``.
        ids0, ids1: Places and sequences of the last sample, int64.
        states: float32 ``(max_size, num_seqs, state_dim)``.
        actions: float32 ``(max_size, num_seqs, action_dim)``, or see ``if_discrete``.
        rewards, undones, unmasks, cum_rewards: float32 ``(max_size, num_seqs)``.

    Raises:
        MemoryError: It does not fit (need, have, remedy); raised before anything is touched.
    """

    def __init__(
        self,
        max_size: int,
        state_dim: int | tuple[int, ...],
        action_dim: int,
        gpu_id: int = 0,
        num_seqs: int = 1,
        if_use_per: bool = False,
        if_discrete: bool = False,
        args: Any = None,
        *,
        path: str | os.PathLike[str] | None = None,
        touch: bool = True,
        huge_pages: bool = False,
        pin: bool = False,
    ) -> None:
        if if_discrete and not 0 < action_dim <= 256:
            raise ValueError(f"`action_dim` must be 1 to 256 with `if_discrete` (actions are uint8), not {action_dim}")
        self.max_size = max_size
        self.num_seqs = num_seqs
        self.if_use_per = if_use_per
        self.if_discrete = if_discrete
        self.device = device_of(gpu_id)
        where = placement(self.device, path=path, touch=touch, huge_pages=huge_pages, pin=pin)
        state = (state_dim,) if isinstance(state_dim, int) else tuple(state_dim)
        self.rows = Buffer(
            max_size,
            {
                "states": (num_seqs, *state),
                "actions": Column((num_seqs,), "uint8") if if_discrete else (num_seqs, action_dim),
                **dict.fromkeys(NAMES[2:], (num_seqs,)),
            },
            **where,
        )
        self._cum = Buffer(max_size, {"cum_rewards": (num_seqs,)}, **where)
        self.states, self.actions, self.rewards, self.undones, self.unmasks = map(self.rows.tensor, NAMES)
        self.cum_rewards = self._cum.tensor("cum_rewards")
        self.add_size = 0
        self.ids0 = self.ids1 = torch.tensor((), dtype=torch.long, device=self.device)
        self.per_alpha = getattr(args, "per_alpha", 0.6) if if_use_per else None
        self.per_beta = getattr(args, "per_beta", 0.4) if if_use_per else None
        self._priorities = (
            Priorities(self.rows.ring, num_seqs, self.per_alpha, self.per_beta)
            if self.per_alpha is not None and self.per_beta is not None
            else None
        )

    @property
    def p(self) -> int:
        """Where the next row goes, 1 to ``max_size``; 0 only if nothing was ever written."""
        ring = self.rows.ring
        return ring.position or (self.max_size if ring.size else 0)

    @property
    def cur_size(self) -> int:
        """Rows held."""
        return len(self.rows)

    @property
    def if_full(self) -> bool:
        """Whether every place holds a row."""
        return len(self.rows) == self.max_size

    def __len__(self) -> int:
        return len(self.rows)

    def __bool__(self) -> bool:
        return True

    def update(self, items: tuple[Any, ...]) -> None:
        """Appends ``(states, actions, rewards, undones, unmasks)``, each ``(steps, num_seqs, ...)``.

        Raises:
            TypeError, ValueError: Something does not fit (column, expected, given). Nothing is appended then.
        """
        if len(items) != len(NAMES):
            raise TypeError(f"`items` must be ({', '.join(NAMES)}), given {len(items)} items")
        self.rows.extend(*items)
        self.add_size = min(len(items[2]), self.max_size)

    def sample(self, batch_size: int) -> tuple[Any, ...]:
        """Returns ``states, actions, rewards, undones, unmasks, next_states`` of ``batch_size`` steps, uniform.

        Raises:
            ValueError: Fewer than two rows are held.
        """
        count = self._steps()
        ids = torch.randint(count * self.num_seqs, size=(batch_size,), device=self.device)
        self.ids0 = (torch.fmod(ids, count) + self.rows.ring.tail % self.max_size) % self.max_size
        self.ids1 = torch.div(ids, count, rounding_mode="floor")
        return self._gather()

    def sample_for_per(self, batch_size: int) -> tuple[Any, ...]:
        """As :meth:`sample`, in proportion to priority, with ``is_weights`` (float32) and ``is_indices`` (int64)
        behind: what :meth:`td_error_update_for_per` wants back. The draw follows torch's seed.

        Raises:
            ValueError: ``batch_size`` is no multiple of ``num_seqs``, or fewer than two rows are held.
            RuntimeError: Made without ``if_use_per``.
        """
        priorities = self._require_per()
        if batch_size < 1 or batch_size % self.num_seqs:
            raise ValueError(f"`batch_size` must be a multiple of `num_seqs` ({self.num_seqs}), not {batch_size}")
        self._steps()
        uniform = torch.rand((self.num_seqs, batch_size // self.num_seqs), dtype=torch.float64).numpy()
        places, sequences, weights = priorities.draw(uniform)
        self.ids0 = torch.from_numpy(places).to(self.device)
        self.ids1 = torch.from_numpy(sequences).to(self.device)
        is_weights = torch.from_numpy(weights).to(self.device, torch.float32)
        return (*self._gather(), is_weights, self.ids1 * self.max_size + self.ids0)

    def td_error_update_for_per(self, is_indices: Any, td_error: Any) -> None:
        """Sets priorities to ``clamp(td_error, 1e-8, 10) ** per_alpha``. Rows that are gone meanwhile are left out.

        Args:
            is_indices: From :meth:`sample_for_per`, ``(batch,)``.
            td_error: Absolute, ``(batch,)`` or ``(batch, 1)``.

        Raises:
            ValueError: Other shapes, or a NaN.
        """
        priorities = self._require_per()
        indices = is_indices.detach().cpu().numpy()
        errors = td_error.detach().cpu().double().numpy()
        if indices.ndim != 1 or errors.shape not in ((len(indices),), (len(indices), 1)):
            raise ValueError(f"`td_error`: expected shape ({len(indices)},), given {errors.shape}")
        priorities.update(indices % self.max_size, indices // self.max_size, errors.reshape(-1))

    def update_cum_rewards(self, get_cumulative_rewards: Callable[..., Any]) -> None:
        """Fills ``cum_rewards`` for the ``add_size`` newest rows from ``get_cumulative_rewards(rewards=, undones=)``,
        which is given them in the order of time, ``(add_size, num_seqs)``, and returns as much."""
        head = self.rows.ring.head
        pieces = self.rows.ring.pieces(head - min(self.add_size, self.cur_size), head)
        if not pieces:
            return
        rewards, undones = (
            source[slice(*pieces[0])] if len(pieces) == 1 else torch.cat([source[slice(*piece)] for piece in pieces])
            for source in (self.rewards, self.undones)
        )
        cumulated = get_cumulative_rewards(rewards=rewards, undones=undones)
        done = 0
        for start, stop in pieces:
            self.cum_rewards[start:stop] = cumulated[done : done + stop - start]
            done += stop - start

    def save_or_load_history(self, cwd: str, if_save: bool) -> bool:
        """Saves to ``cwd/replay_buffer.npz`` in one atomic step, or loads that; if there is none, the four
        ``replay_buffer_*.pth`` that ElegantRL saves (they lack ``unmasks``: these become 1, with a warning).

        Returns:
            Whether something was saved or loaded: ``False`` if there is nothing to load.

        Raises:
            ValueError: What is there is damaged or does not fit. The buffer is unchanged then.
        """
        path = os.path.join(cwd, "replay_buffer.npz")
        if if_save:
            self.rows.save(path)
            return True
        if os.path.isfile(path):
            self.rows.load(path)
            return True
        return load_pth(cwd, self.rows)

    def _gather(self) -> tuple[Any, ...]:
        ids0, ids1 = self.ids0, self.ids1
        fields = (self.states, self.actions, self.rewards, self.undones, self.unmasks)
        return (*(field[ids0, ids1] for field in fields), self.states[(ids0 + 1) % self.max_size, ids1])

    def _steps(self) -> int:
        """Rows that have a successor."""
        if self.cur_size < 2:
            raise ValueError(
                f"cannot sample: a step and its successor are 2 rows, and the buffer holds {self.cur_size}"
            )
        return self.cur_size - 1

    def _require_per(self) -> Priorities:
        if self._priorities is None:
            raise RuntimeError("prioritized replay is off: make the buffer with `if_use_per=True`")
        return self._priorities
