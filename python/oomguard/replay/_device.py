"""Columns on a torch device: one preallocated tensor each. What the origin system called ``pin_to_gpu``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from oomguard.replay import _room
from oomguard.replay._columns import Column, conform
from oomguard.replay._host import CHUNK


class DeviceStorage:
    """``capacity`` rows of ``columns`` on ``device``.

    Raises:
        RuntimeError: The device is not there.
        MemoryError: It does not fit into what is free on the device (need, have, remedy); nothing was taken then.
    """

    def __init__(
        self, columns: Mapping[str, Column], capacity: int, what: str, *, device: Any, seed: int | None = None
    ) -> None:
        self.columns = columns
        self.device = torch.device(device)
        self.nbytes = sum(capacity * column.row_bytes for column in columns.values())
        _require_room(self.device, self.nbytes, what)
        self._tensors = {
            name: torch.empty((capacity, *column.shape), dtype=_torch_dtype(column), device=self.device).zero_()
            for name, column in columns.items()
        }
        self._random = torch.Generator(self.device)
        if seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(seed)

    def column(self, name: str) -> Any:
        """All rows of a column, as stored; no copy."""
        return self._tensors[name]

    def tensor(self, name: str) -> Any:
        """The same."""
        return self._tensors[name]

    def put_row(self, place: int, values: Sequence[object]) -> None:
        """Stores one row, all of it or, if a value does not fit, none of it."""
        fitting = [
            self._fit(name, value, self.columns[name].shape) for name, value in zip(self.columns, values, strict=True)
        ]
        for tensor, value in zip(self._tensors.values(), fitting, strict=True):
            tensor[place] = value

    def fit(self, name: str, rows: object, count: int) -> Any:
        """``rows`` as :meth:`put` takes them. Raises TypeError or ValueError."""
        return self._fit(name, rows, (count, *self.columns[name].shape))

    def put(self, name: str, place: int, rows: Any) -> None:
        """Stores rows of one column from ``place`` on."""
        self._tensors[name][place : place + len(rows)] = rows

    def draw(self, high: int, count: int, random: Any) -> Any:
        """``count`` integers in ``[0, high)``, on the device."""
        generator = self._random if random is None else random
        return torch.randint(high, (count,), generator=generator, device=self.device)

    def take(self, name: str, places: Any, out: Any, tensors: bool) -> Any:
        """Copies rows of one column; into ``out`` if that is not ``None``. Always a tensor."""
        tensor = self._tensors[name]
        places = torch.as_tensor(places, device=self.device)
        if out is None:
            return tensor.index_select(0, places)
        wanted = (len(places), *tensor.shape[1:])
        if not isinstance(out, torch.Tensor) or (out.shape, out.dtype, out.device) != (
            wanted,
            tensor.dtype,
            tensor.device,
        ):
            given = f"{tuple(out.shape)} of {out.dtype} on {out.device}" if hasattr(out, "device") else type(out)
            raise ValueError(
                f"`out` of column `{name}`: expected {wanted} of {tensor.dtype} on {tensor.device}, given {given}"
            )
        return torch.index_select(tensor, 0, places, out=out)

    def read(self, name: str, start: int, stop: int) -> Iterator[memoryview]:
        """The bytes of rows ``start`` to ``stop``, by ``CHUNK``: no more than that is on the host at a time."""
        for first, last in self._steps(name, start, stop):
            rows = self._tensors[name][first:last].cpu().numpy()
            yield rows.reshape(-1).view(np.uint8).data

    def fill(self, name: str, rows: int) -> Iterator[memoryview]:
        """Bytes of the first ``rows`` rows, to be read into; each piece goes to the device when the next is asked."""
        column = self.columns[name]
        for first, last in self._steps(name, 0, rows):
            piece = np.empty((last - first, *column.shape), dtype=column.dtype)
            yield piece.reshape(-1).view(np.uint8).data
            self._tensors[name][first:last] = torch.from_numpy(piece).to(self.device)

    def _steps(self, name: str, start: int, stop: int) -> Iterator[tuple[int, int]]:
        step = max(1, CHUNK // self.columns[name].row_bytes)
        for first in range(start, stop, step):
            yield first, min(first + step, stop)

    def _fit(self, name: str, value: object, shape: tuple[int, ...]) -> Any:
        column, tensor = self.columns[name], self._tensors[name]
        if isinstance(value, torch.Tensor) and value.device == tensor.device and value.dtype == tensor.dtype:
            if tuple(value.shape) != shape:
                raise ValueError(f"column `{name}`: expected shape {shape}, given {tuple(value.shape)}")
            return value.detach()
        array = conform(name, column, value, shape).astype(column.dtype, copy=False)
        return torch.as_tensor(array).to(self.device)


def _torch_dtype(column: Column) -> Any:
    return torch.from_numpy(np.empty(0, dtype=column.dtype)).dtype


def _require_room(device: Any, need: int, what: str) -> None:
    if device.type == "cpu":
        _room.require(need, what)
    elif device.type == "cuda":
        if not torch.cuda.is_available():
            raise RuntimeError(
                f"{what}: `device={str(device)!r}`, but torch sees no CUDA device here: leave `device` out"
            )
        free, _ = torch.cuda.mem_get_info(device)
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        if need > free + kept:
            raise MemoryError(
                f"{what}: needs {_room.size(need)} on {device}, but only {_room.size(free + kept)} are free there: "
                f"lower the capacity (by {math.ceil(100 * (1 - (free + kept) / need))} %), or leave `device` out"
            )
