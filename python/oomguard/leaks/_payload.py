"""The memory that an object holds outside of itself: arrays, tensors, buffers. Runs none of the object's own code."""

from __future__ import annotations

import array
import gc
import mmap
import sys
from collections.abc import Iterator
from typing import Any

SMALLEST = 4096
"""Bytes below which a buffer is not worth a look."""

HEAP_TYPE = 1 << 9
"""``Py_TPFLAGS_HEAPTYPE``: a class that somebody wrote in Python, or a C extension at run time."""


BUFFERS = frozenset((bytes, bytearray, array.array, mmap.mmap))


class Carriers(dict[type, bool]):
    """Which types can have a payload at all, remembered for one walk over many objects: ten times as fast."""

    def __missing__(self, kind: type) -> bool:
        arrays = (
            getattr(sys.modules.get("numpy"), "ndarray", None),
            getattr(sys.modules.get("torch"), "Tensor", None),
        )
        carries = kind in BUFFERS or any(one is not None and issubclass(kind, one) for one in arrays)
        self[kind] = carries
        return carries


def payload(thing: object) -> tuple[int, int] | None:
    """Address and bytes of the main memory behind an array, a CPU tensor or a buffer; ``None`` if it has none.

    A view counts as what it looks into, so that two views of one array are one payload. A NumPy ``memmap`` is a file's
    memory and does not count.
    """
    kind = type(thing)
    if kind in BUFFERS:
        buffer: Any = thing
        size = len(buffer) * (buffer.itemsize if kind is array.array else 1)
        return (id(thing), size) if size >= SMALLEST else None
    found = _of_array(thing, kind) or _of_tensor(thing, kind)
    return found if found is not None and found[1] >= SMALLEST else None


def _of_array(thing: Any, kind: type) -> tuple[int, int] | None:
    ndarray = getattr(sys.modules.get("numpy"), "ndarray", None)
    if ndarray is None or not issubclass(kind, ndarray):
        return None
    memmap = getattr(sys.modules["numpy"], "memmap", ndarray)
    while isinstance(thing.base, ndarray):
        thing = thing.base
    if type(thing) is memmap:
        return None
    return int(thing.__array_interface__["data"][0]), int(thing.nbytes)


def _of_tensor(thing: Any, kind: type) -> tuple[int, int] | None:
    tensor = getattr(sys.modules.get("torch"), "Tensor", None)
    if tensor is None or not issubclass(kind, tensor):
        return None
    try:
        if thing.device.type != "cpu":
            return None
        storage = tensor.untyped_storage(thing)
        return int(storage.data_ptr()), int(storage.nbytes())
    except (RuntimeError, NotImplementedError):  # a sparse, fake or meta tensor has no memory of its own
        return None


def gradient(thing: Any) -> tuple[int, int] | None:
    """The payload of a tensor's gradient, which the collector does not know of."""
    tensor = getattr(sys.modules.get("torch"), "Tensor", None)
    if tensor is None or not issubclass(type(thing), tensor) or not thing.is_leaf:
        return None
    return payload(thing.grad)


def own_size(thing: object) -> int:
    """Bytes of the object itself, without what it refers to. A class's own ``__sizeof__`` is not asked."""
    return object.__sizeof__(thing) if type(thing).__flags__ & HEAP_TYPE else sys.getsizeof(thing)


def attributes(thing: object) -> dict[str, object]:
    """What is stored on an instance under which name; nothing for other objects."""
    if not type(thing).__flags__ & HEAP_TYPE:
        return {}
    try:
        found = object.__getattribute__(thing, "__dict__")
    except AttributeError:
        return {}
    return dict(found) if type(found) is dict else {}


def parts(thing: object) -> list[object]:
    """What ``thing`` refers to, and what is in untracked dictionaries and tuples among that.

    The collector does not list a tuple, or (before 3.14) a dictionary, that holds arrays alone.
    """
    found = gc.get_referents(thing)
    for part in found:
        if type(part) in (dict, tuple) and not gc.is_tracked(part):
            found.extend(gc.get_referents(part))
    return found


def held(thing: object) -> Iterator[object]:
    """What ``thing`` refers to itself or through the dictionary of its attributes."""
    instance = type(thing).__flags__ & HEAP_TYPE
    for part in parts(thing):
        yield part
        if instance and type(part) is dict and gc.is_tracked(part):
            yield from parts(part)


def name(kind: type) -> str:
    """``Agent``, ``torch.nn.modules.linear.Linear``: the class with its module, where that says something."""
    qualified = kind.__qualname__.rpartition("<locals>.")[2]
    module = kind.__module__
    return qualified if module in ("builtins", "__main__") else f"{module}.{qualified}"
