"""What a row consists of, how columns lie in one mapping, and whether a value fits. Pure."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[int, ...]
ALIGNMENT = 64
"""Bytes: a cache line, and what AVX-512 loads want."""


class Column(NamedTuple):
    """One named part of every row. ``Column((3, 84, 84), "uint8")`` is a picture, ``Column()`` a number."""

    shape: Shape = ()
    """Of one row."""
    dtype: Any = None
    """What NumPy or torch calls it; ``None`` is the buffer's."""

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of this column."""
        return math.prod(self.shape) * int(np.dtype(self.dtype).itemsize)


Spec = int | Shape | Column


def parse(columns: Mapping[str, Spec], dtype: Any) -> dict[str, Column]:
    """``columns`` as written, with shapes as tuples and dtypes as NumPy's.

    Raises:
        TypeError, ValueError: What was written is no column; the message names it.
    """
    if not columns:
        raise ValueError("a buffer needs at least one column, for example `{'state': 17, 'reward': ()}`")
    return {_name(name): _column(name, spec, dtype) for name, spec in columns.items()}


def count_of(name: str, count: object) -> int:
    """``count`` if it is a number of rows above 0. Raises ValueError."""
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        raise ValueError(f"`{name}` must be a number of rows above 0, not {count!r}")
    return int(count)


def offsets(columns: Mapping[str, Column], capacity: int) -> tuple[dict[str, int], int]:
    """Where each column begins, in bytes, and how many bytes all take together."""
    at = 0
    begins = {}
    for name, column in columns.items():
        at = -(-at // ALIGNMENT) * ALIGNMENT
        begins[name] = at
        at += capacity * column.row_bytes
    return begins, at


def conform(name: str, column: Column, value: object, shape: Shape) -> Array:
    """``value`` as an array that can be stored in ``column`` without loss of meaning.

    Shapes must be equal: nothing is broadcast. Floats may lose precision (float64 into float32); integers must fit;
    floats never go into integers.

    Raises:
        TypeError, ValueError: Column, expected, given.
    """
    detach = getattr(value, "detach", None)
    if detach is not None:  # a torch tensor; on the CPU this copies nothing
        value = detach().cpu().numpy()
    array = np.asarray(value)
    if array.shape != shape:
        raise ValueError(f"column `{name}`: expected shape {shape}, given {array.shape}")
    if array.dtype != column.dtype:
        _require_kind(name, np.dtype(column.dtype), array)
    return array


def in_order(names: tuple[str, ...], row: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
    """The values of a row in the order of the columns, the first given in order and the others by name.

    Raises:
        TypeError: What is missing or too many.
    """
    rest = names[len(row) :]
    missing = [f"`{name}` is missing" for name in rest if name not in named]
    wrong = missing + [f"`{name}` is not expected" for name in named if name not in rest]
    if len(row) > len(names):
        wrong.append(f"{len(row)} values given")
    if wrong:
        raise TypeError(f"a row is ({', '.join(names)}): {', '.join(wrong)}")
    return (*row, *(named[name] for name in rest))


def length_of(name: str, rows: Any) -> int:
    """How many rows ``rows`` holds. Raises TypeError if it is a single value."""
    try:
        return len(rows)
    except TypeError as error:
        raise TypeError(f"column `{name}`: expected rows, given a single {type(rows).__name__}") from error


def numpy_dtype(dtype: Any) -> np.dtype[Any]:
    """NumPy's name for a dtype, torch's included.

    Raises:
        TypeError: NumPy has none for it.
    """
    text = str(dtype)
    try:
        return np.dtype(text[len("torch.") :] if text.startswith("torch.") else dtype)
    except TypeError as error:
        raise TypeError(f"dtype `{text}` has no counterpart in NumPy: use `float32`") from error


def _require_kind(name: str, wanted: np.dtype[Any], array: Array) -> None:
    given = array.dtype
    if _castable(given, wanted, "safe"):
        return
    if given.kind in "iu" and wanted.kind in "iu":
        bounds = np.iinfo(wanted)
        if array.size == 0 or (int(array.min()) >= bounds.min and int(array.max()) <= bounds.max):
            return
        raise ValueError(
            f"column `{name}`: expected {wanted} ({bounds.min} to {bounds.max}), given {array.min()} to {array.max()}"
        )
    if not _castable(given, wanted, "same_kind"):
        raise TypeError(f"column `{name}`: expected {wanted}, given {given}")


@functools.lru_cache(maxsize=256)
def _castable(given: np.dtype[Any], wanted: np.dtype[Any], casting: Any) -> bool:
    return bool(np.can_cast(given, wanted, casting))


def _name(name: object) -> str:
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"a column's name must be an identifier, not {name!r}")
    return name


def _column(name: str, spec: Spec, default: Any) -> Column:
    shape: Any
    shape, dtype = spec if isinstance(spec, Column) else (spec, None)
    if isinstance(shape, (int, np.integer)) and not isinstance(shape, bool):
        shape = (shape,)
    if not isinstance(shape, tuple) or not all(isinstance(n, (int, np.integer)) and n > 0 for n in shape):
        raise TypeError(
            f"column `{name}`: expected a width, a tuple of sizes above 0, or a `Column(shape, dtype)`, given {spec!r}"
        )
    kind = numpy_dtype(default if dtype is None else dtype)
    if kind.kind not in "biufc":
        raise TypeError(f"column `{name}`: expected numbers or truth values, given dtype `{kind}`")
    return Column(tuple(int(n) for n in shape), kind)
