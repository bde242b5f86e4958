"""Pinning a mapping for CUDA, so that copies to the device need no bounce buffer and run beside computation."""

from __future__ import annotations

import weakref
from typing import Any

from oomguard.replay import _room
from oomguard.replay._mapping import Bytes


def pin(view: Bytes) -> None:
    """Registers the whole mapping with CUDA, until the last view of it goes. Pinned pages cannot be swapped out.

    ``view`` must be the array that owns the mapping. Costs the CUDA context of the current device, some 0.3 GiB of this
    process, if there is none yet.

    Raises:
        RuntimeError: torch sees no CUDA device, or CUDA refuses.
    """
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError("`pin=True` needs a CUDA device, and torch sees none here: leave `pin` out")
    register(torch.cuda.cudart(), view)


def register(runtime: Any, view: Bytes) -> None:
    """:func:`pin` with the CUDA runtime ``runtime``."""
    address = view.ctypes.data
    code = int(runtime.cudaHostRegister(address, view.nbytes, 0))
    if code != 0:
        raise RuntimeError(
            f"CUDA refuses to pin {_room.size(view.nbytes)} (error {code}): "
            "lower the capacity, raise `ulimit -l`, or leave `pin` out"
        )
    # The owner dies before its mapping does. At exit the CUDA runtime may be gone already, and the process is the end.
    weakref.finalize(_owner(view), runtime.cudaHostUnregister, address).atexit = False


def _owner(view: Bytes) -> Any:
    """The array that every view, NumPy's and torch's, keeps alive: the last one before the mapping."""
    owner: Any = view
    while hasattr(owner.base, "base"):
        owner = owner.base
    return owner
