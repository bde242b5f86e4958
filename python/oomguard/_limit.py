"""``limit_self``: a process that puts itself under a limit, for workers that somebody else starts."""

from __future__ import annotations

import os
import warnings
from typing import NamedTuple

from oomguard import _core
from oomguard._errors import gb
from oomguard._sizes import size


class Limited(NamedTuple):
    """What holds this process now. Sizes in bytes."""

    enforcement: str
    """``cgroup2`` or ``cgroup1``: the kernel ends the process and its children at the limit. ``rlimit``: allocations
    of this process fail at it (``MemoryError``)."""
    limit: int
    """What was asked for."""
    left: int
    """What may be taken beyond what the process held at that moment."""
    where: str | None
    """The directory of the cgroup, ``None`` without one."""
    why: str
    """Why it is not a cgroup; empty where it is."""


def limit_self(limit: str | int, *, parent: str | None = None) -> Limited:
    """Holds this process and the children it starts from now on to ``limit``.

    By the kernel where a cgroup can be had: a leaf of its own, found as ``oomguard run`` finds one. What the process
    holds already stays charged where it was, so the leaf may be charged ``limit`` less that; memory that is freed and
    taken again counts as new. At the limit the kernel ends the process, and nobody else. The empty leaf is removed
    by the next process that limits itself in the same place.

    Else by ``RLIMIT_DATA``, with a ``RuntimeWarning`` that says what that cannot do.

    Call it first thing in a worker: in an initializer (:mod:`oomguard.workers`), in Ray's
    ``worker_process_setup_hook``, in a Dask ``WorkerPlugin``. A second call changes the limit.

    Args:
        limit: In bytes, or ``"8GiB"``.
        parent: The cgroup in which to make the leaf, from the root of the hierarchy (``/mine``). Default:
            ``$OOMGUARD_CGROUP_PARENT``, else it is looked for. Under ``oomguard run`` and ``up`` it does not count: a
            job never leaves its own cgroup.

    Raises:
        ValueError: It is no size, or the process holds as much already.
        TypeError: It is neither a string nor a whole number.
        OSError: Not even ``RLIMIT_DATA`` can be set.
    """
    if limit is None:
        raise TypeError('limit must be a size such as "8GiB", not None')
    whole = size("limit", limit)
    parent = parent or os.environ.get("OOMGUARD_CGROUP_PARENT") or None
    nested = "OOMGUARD_JOB" in os.environ or "OOMGUARD_RUN" in os.environ
    enforcement, left, where, why = _core.limit_self(whole, parent, nested)
    held = Limited(enforcement, whole, left, None if where is None else os.fspath(where), why or "")
    if enforcement == "rlimit":
        warnings.warn(
            f"limit_self({gb(whole)}) is held by RLIMIT_DATA only: allocations of this one process fail at it "
            "(MemoryError). Its children each get the same limit of their own; shared memory and mapped files do not "
            f"count, and memory counts once it is reserved. Because {held.why}",
            RuntimeWarning,
            stacklevel=2,
        )
    return held
