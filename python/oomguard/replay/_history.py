"""Histories that ElegantRL itself has saved. Reads only; needs torch."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch

from oomguard._brake import logger
from oomguard.replay._buffer import Buffer

PTH = ("states", "actions", "rewards", "undones")
"""What today's ElegantRL saves, one file each. (Not ``unmasks``: it loses them.)"""


def load_pth(cwd: str, rows: Buffer) -> bool:
    """Replaces what ``rows`` holds by ``cwd/replay_buffer_{name}.pth``; ``False`` if one of the files is not there.

    Needs the payload a second time in host memory while it loads.

    Raises:
        ValueError: A file is damaged or does not fit. ``rows`` is unchanged then.
    """
    paths = {name: os.path.join(cwd, f"replay_buffer_{name}.pth") for name in PTH}
    if not all(map(os.path.isfile, paths.values())):
        return False
    found = {name: _load(path) for name, path in paths.items()}
    counts = {name: len(item) for name, item in found.items()}
    if len(set(counts.values())) != 1 or counts["rewards"] > rows.capacity:
        raise ValueError(f"the history in `{cwd}` has {counts} rows; the buffer takes {rows.capacity} of each")
    logger().warning("the history in `%s` has no `unmasks`: they are taken to be 1 (nothing was truncated)", cwd)
    _replace(rows, {**found, "unmasks": torch.ones_like(found["rewards"])}, cwd)
    return True


def load_npz(path: str, rows: Buffer) -> None:
    """Replaces what ``rows`` holds by the arrays of an ``.npz``, cast (ElegantRL of 2022 saves float16).

    Needs the payload a second time in host memory while it loads.

    Raises:
        ValueError: Damaged, or it does not fit. ``rows`` is unchanged then.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = {name: archive[name].astype(column.dtype) for name, column in rows.columns.items()}
    except Exception as error:
        raise ValueError(f"`{path}` cannot be loaded, and nothing was changed: {error}") from error
    _replace(rows, found, path)


def _load(path: str) -> Any:
    try:
        item = torch.load(path, map_location="cpu", weights_only=True)
        len(item)
    except Exception as error:
        raise ValueError(f"`{path}` cannot be loaded, and nothing was changed: {error}") from error
    return item


def _replace(rows: Buffer, found: dict[str, Any], where: str) -> None:
    count = len(next(iter(found.values())))
    if count > rows.capacity:
        raise ValueError(f"the history in `{where}` has {count} rows, and the buffer takes {rows.capacity}")
    held, head = rows.ring.size, rows.ring.head
    rows.clear()
    try:
        rows.extend(**found)
    except (TypeError, ValueError) as error:
        rows.ring.size, rows.ring.head = held, head
        raise ValueError(f"the history in `{where}` does not fit, and nothing was changed: {error}") from error
