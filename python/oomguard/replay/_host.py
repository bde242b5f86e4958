"""Columns in one mapping of host memory: NumPy arrays, and torch tensors over the same bytes if asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from oomguard.replay import _mapping
from oomguard.replay._columns import Array, Column, conform, offsets

CHUNK = 16 << 20
"""Bytes that go to or come from a file at a time."""


class HostStorage:
    """``capacity`` rows of ``columns`` in one mapping. Options as :func:`oomguard.replay._mapping.reserve`."""

    def __init__(
        self,
        columns: Mapping[str, Column],
        capacity: int,
        what: str,
        *,
        path: str | os.PathLike[str] | None = None,
        touch: bool = True,
        huge_pages: bool = False,
        pin: bool = False,
        seed: int | None = None,
    ) -> None:
        self.columns = columns
        begins, self.nbytes = offsets(columns, capacity)
        view = _mapping.reserve(self.nbytes, what, path=path, touch=touch, huge_pages=huge_pages)
        if pin:
            from oomguard.replay._pin import pin as pin_pages

            pin_pages(view)
        self._arrays: dict[str, Array] = {
            name: view[at : at + capacity * column.row_bytes].view(column.dtype).reshape(capacity, *column.shape)
            for (name, column), at in zip(columns.items(), begins.values(), strict=True)
        }
        self._rows = [
            (name, columns[name], columns[name].shape, columns[name].dtype, array)
            for name, array in self._arrays.items()
        ]
        self._tensors: dict[str, Any] = {}
        self._random = np.random.default_rng(seed)

    def column(self, name: str) -> Array:
        """All rows of a column, as stored; no copy."""
        return self._arrays[name]

    def tensor(self, name: str) -> Any:
        """The same bytes as a torch tensor; no copy. Made once."""
        tensor = self._tensors.get(name)
        if tensor is None:
            import torch

            self._tensors[name] = tensor = torch.from_numpy(self._arrays[name])
        return tensor

    def put_row(self, place: int, values: Sequence[object]) -> None:
        """Stores one row, all of it or, if a value does not fit, none of it."""
        # What needs no conversion is let through at once: three comparisons instead of a microsecond.
        fitting = [
            value
            if type(value) is np.ndarray and value.dtype is dtype and value.shape == shape
            else conform(name, column, value, shape)
            for (name, column, shape, dtype, _), value in zip(self._rows, values, strict=True)
        ]
        for (_, _, _, _, array), value in zip(self._rows, fitting, strict=True):
            array[place] = value

    def fit(self, name: str, rows: object, count: int) -> Array:
        """``rows`` as :meth:`put` takes them. Raises TypeError or ValueError."""
        column = self.columns[name]
        return conform(name, column, rows, (count, *column.shape))

    def put(self, name: str, place: int, rows: Array) -> None:
        """Stores rows of one column from ``place`` on."""
        self._arrays[name][place : place + len(rows)] = rows

    def draw(self, high: int, count: int, random: Any) -> Array:
        """``count`` integers in ``[0, high)``."""
        drawn: Array = (self._random if random is None else random).integers(high, size=count)
        return drawn

    def take(self, name: str, places: Array, out: Any, tensors: bool) -> Any:
        """Copies rows of one column; into ``out`` if that is not ``None``."""
        column = self.columns[name]
        target = None if out is None else _target(name, column, len(places), out)
        # Any mode but "raise": that one copies through a buffer of its own. Every place is inside.
        rows = np.take(self._arrays[name], places, axis=0, out=target, mode="clip")
        if out is not None:
            return out
        if tensors:
            import torch

            return torch.from_numpy(rows)
        return rows

    def read(self, name: str, start: int, stop: int) -> Iterator[memoryview]:
        """The bytes of rows ``start`` to ``stop``, by ``CHUNK``; no copy."""
        yield from _chunks(self._arrays[name][start:stop])

    def fill(self, name: str, rows: int) -> Iterator[memoryview]:
        """The bytes of the first ``rows`` rows, to be read into."""
        yield from _chunks(self._arrays[name][:rows])


def _chunks(rows: Array) -> Iterator[memoryview]:
    raw = rows.reshape(-1).view(np.uint8).data
    for start in range(0, len(raw), CHUNK):
        yield raw[start : start + CHUNK]


def _target(name: str, column: Column, count: int, out: Any) -> Array:
    array = out if isinstance(out, np.ndarray) else _numpy_of(name, out)
    wanted = (count, *column.shape)
    if array.shape != wanted or array.dtype != column.dtype:
        raise ValueError(
            f"`out` of column `{name}`: expected shape {wanted} of {column.dtype}, given {array.shape} of {array.dtype}"
        )
    return array


def _numpy_of(name: str, out: Any) -> Array:
    device = getattr(out, "device", None)
    if device is None or device.type != "cpu":
        raise TypeError(
            f"`out` of column `{name}`: expected a NumPy array or a torch tensor on the CPU, given {type(out)}"
        )
    array: Array = out.numpy()
    return array
