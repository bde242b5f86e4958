"""What ``memory_constraint`` means: the size that ``peak_rss`` is held against, and the value for the sampler."""

from __future__ import annotations

import optuna

from oomguard._sizes import size as bytes_of
from oomguard.optuna._names import CONSTRAINTS, PEAK

CONSTRAINT_KEY = f"{CONSTRAINTS}:{PEAK}"
"""The system attribute that ``trial.set_constraint("peak_rss", ...)`` writes (Optuna 5.0)."""

LEAST_EXCESS = 1 << 20
"""Bytes over the constraint of a trial that its own memory ended: where it would have stopped, nobody knows."""


def excess(peak: float, limit: float, ran_out: bool) -> float:
    """The constraint's value: GiB (so that it does not drown other constraints) by which ``peak`` is over ``limit``.

    Both in bytes. 0 or less is feasible. A trial that ``ran_out`` of its own memory never is.
    """
    over = max(peak - limit, LEAST_EXCESS) if ran_out else peak - limit
    return over / (1 << 30)


def constraint_bytes(size: int | str | None) -> int | None:
    """Argument ``memory_constraint`` in bytes.

    Raises:
        ValueError: It is no size; or this Optuna has no ``set_constraint``.
        TypeError: It is neither a whole number of bytes nor text such as ``"6GiB"``.
    """
    if size is None:
        return None
    if not hasattr(optuna.trial.Trial, "set_constraint"):
        raise ValueError(
            f"memory_constraint needs Optuna 5.0 or later (this is {optuna.__version__}): without it, give the sampler "
            "a `constraints_func` that reads the user attribute `peak_rss`"
        )
    limit = bytes_of("memory_constraint", size)
    if limit == 0:
        raise ValueError("memory_constraint must be more than nothing, not `0`")
    return limit
