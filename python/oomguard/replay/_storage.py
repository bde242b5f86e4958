"""Where the rows of a buffer live: in a mapping of host memory, or on a torch device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from oomguard.replay._columns import Column


class Storage(Protocol):
    """``capacity`` rows of named columns. Arrays are NumPy's in host memory, torch's on a device."""

    nbytes: int

    def column(self, name: str) -> Any:
        """All rows of a column, as stored; no copy."""

    def tensor(self, name: str) -> Any:
        """The same bytes as a torch tensor; no copy."""

    def put_row(self, place: int, values: Sequence[object]) -> None:
        """Stores one row, all of it or, if a value does not fit, none of it. Raises TypeError or ValueError."""

    def fit(self, name: str, rows: object, count: int) -> Any:
        """``rows`` as :meth:`put` takes them. Raises TypeError or ValueError."""

    def put(self, name: str, place: int, rows: Any) -> None:
        """Stores rows of one column from ``place`` on."""

    def draw(self, high: int, count: int, random: Any) -> Any:
        """``count`` integers in ``[0, high)``."""

    def take(self, name: str, places: Any, out: Any, tensors: bool) -> Any:
        """Copies rows of one column; into ``out`` if that is not ``None``."""

    def read(self, name: str, start: int, stop: int) -> Iterator[memoryview]:
        """The bytes of rows ``start`` to ``stop``, piece by piece."""

    def fill(self, name: str, rows: int) -> Iterator[memoryview]:
        """Bytes of the first ``rows`` rows, to be read into, piece by piece."""


def make(columns: Mapping[str, Column], capacity: int, device: Any, seed: int | None, **host: Any) -> Storage:
    """Takes the memory, on ``device`` if that is not ``None``. ``host`` is for a mapping alone.

    Raises:
        ValueError: Options of a mapping together with a device.
        MemoryError, OSError, RuntimeError: As the two storages.
    """
    what = f"replay buffer of {capacity:,} rows"
    if device is None:
        from oomguard.replay._host import HostStorage

        return HostStorage(columns, capacity, what, seed=seed, **host)
    if host != {"path": None, "touch": True, "huge_pages": False, "pin": False}:
        raise ValueError("`path`, `touch`, `huge_pages` and `pin` are for host memory: leave them out with `device`")
    from oomguard.replay._device import DeviceStorage

    return DeviceStorage(columns, capacity, what, device=device, seed=seed)
