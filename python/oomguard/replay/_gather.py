"""Putting a batch together from the rows of a storage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oomguard.replay._storage import Storage

Batch = dict[str, Any]
"""Column name (or ``next_NAME``) to rows: NumPy arrays, or torch tensors."""


def gather(
    storage: Storage,
    names: tuple[str, ...],
    capacity: int,
    places: Any,
    following: tuple[str, ...],
    out: Mapping[str, Any] | None,
    tensors: bool,
) -> Batch:
    """Copies the rows at ``places``, and of the columns in ``following`` the rows after them too.

    Raises:
        KeyError: ``out`` names what the batch does not have.
        TypeError, ValueError: What ``out`` holds does not fit.
    """
    given = {} if out is None else out
    wanted = {name: (name, places) for name in names}
    if following:
        after = (places + 1) % capacity
        wanted.update({f"next_{name}": (name, after) for name in following})
    unknown = sorted(set(given) - set(wanted))
    if unknown:
        raise KeyError(f"`out` names `{unknown[0]}`; the batch has {', '.join(wanted)}")
    return {key: storage.take(name, where, given.get(key), tensors) for key, (name, where) in wanted.items()}
