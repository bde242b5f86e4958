"""The buffer: named columns, a ring, and three doors (a row, rows, a window)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from oomguard.replay import _archive
from oomguard.replay._columns import Column, Spec, count_of, in_order, length_of, parse
from oomguard.replay._gather import Batch, gather
from oomguard.replay._ring import Ring
from oomguard.replay._storage import Storage, make
from oomguard.replay._writer import Writer


class Buffer:
    """A ring of ``capacity`` rows. Its memory is taken once, here; when it is full the oldest rows give way.

    Not for use by several threads at once. It cannot be pickled: hand workers a file (:meth:`save`), or let each have
    its own. A forked child has the rows of that moment; what either side writes from then on costs a copy of its page,
    so forking workers that live on can cost the payload again. (With ``path`` both write into the same rows.)

    Args:
        capacity: Rows at most.
        columns: Name to the shape of one row: a width, a tuple (``()`` is a number), or ``Column(shape, dtype)``.
        dtype: Of columns that name none.
        device: ``None`` keeps the rows in one mapping of host memory. Else a torch device (``"cuda:0"``): one
            preallocated tensor per column there; then ``path``, ``touch``, ``huge_pages`` and ``pin`` mean nothing and
            must be left out.
        path: A folder on a disk: the rows live in an unnamed file there instead of in memory.
        touch: Take the memory now and not row by row.
        huge_pages: Ask for pages of 2 MiB.
        pin: Pin the memory for copies to a CUDA device.
        seed: Of :meth:`sample`.

    Raises:
        TypeError, ValueError: An argument makes no sense.
        MemoryError: It does not fit: need, have, remedy. Raised before anything is touched.
        OSError: ``path`` cannot hold it.
        RuntimeError: ``pin`` or ``device`` without such a device.
    """

    def __init__(
        self,
        capacity: int,
        columns: Mapping[str, Spec],
        *,
        dtype: Any = "float32",
        device: Any = None,
        path: str | os.PathLike[str] | None = None,
        touch: bool = True,
        huge_pages: bool = False,
        pin: bool = False,
        seed: int | None = None,
    ) -> None:
        self._columns = parse(columns, dtype)
        self._names = tuple(self._columns)
        capacity = count_of("capacity", capacity)
        self.ring = Ring(capacity)
        self.device = device
        self._storage: Storage = make(
            self._columns, capacity, device, seed, path=path, touch=touch, huge_pages=huge_pages, pin=pin
        )

    @property
    def capacity(self) -> int:
        """Rows at most."""
        return self.ring.capacity

    @property
    def columns(self) -> dict[str, Column]:
        """What a row consists of, with NumPy dtypes."""
        return dict(self._columns)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows, held or not: what the buffer costs for as long as it lives."""
        return self._storage.nbytes

    def __len__(self) -> int:
        return self.ring.size

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        names = ", ".join(f"{name}: {column.dtype}{list(column.shape)}" for name, column in self._columns.items())
        return f"<Buffer {len(self)}/{self.capacity} rows ({names})>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a replay buffer cannot be pickled (a copy would cost its memory again): "
            "save it to a file, or make one in each process"
        )

    def __getitem__(self, name: str) -> Any:
        """All ``capacity`` rows of a column as they lie in memory, held or not; no copy. See :meth:`pieces`."""
        self._require_column(name)
        return self._storage.column(name)

    def tensor(self, name: str) -> Any:
        """The same as a torch tensor over the same bytes."""
        self._require_column(name)
        return self._storage.tensor(name)

    def pieces(self) -> list[slice]:
        """Where the rows held lie, oldest first: at most two slices for ``buffer[name]``."""
        return [slice(*piece) for piece in self.ring.pieces(self.ring.tail, self.ring.head)]

    def push(self, *row: object, **named: object) -> None:
        """Appends one row: values in the order of the columns, or by name. About 0.6 µs a column.

        Raises:
            TypeError, ValueError: A column is missing or too many, or a value does not fit (column, expected, given).
                Nothing is appended then.
        """
        values = row if not named and len(row) == len(self._names) else in_order(self._names, row, named)
        self._storage.put_row(self.ring.position, values)
        self.ring.advance(1)

    def extend(self, *columns: Any, **named: Any) -> None:
        """Appends rows: per column ``(n, *shape)``, NumPy or torch. Of more than ``capacity`` the last are kept.

        Raises:
            TypeError, ValueError: As :meth:`push`. Nothing is appended then.
        """
        values = in_order(self._names, columns, named)
        counts = {name: length_of(name, value) for name, value in zip(self._names, values, strict=True)}
        count = counts[self._names[0]]
        if set(counts.values()) != {count}:
            raise ValueError(f"columns differ in their number of rows: {counts}")
        fitting = [self._storage.fit(name, value, count) for name, value in zip(self._names, values, strict=True)]
        skipped = max(0, count - self.capacity)
        head = self.ring.head
        done = skipped
        for start, stop in self.ring.pieces(head + skipped, head + count):
            for name, rows in zip(self._names, fitting, strict=True):
                self._storage.put(name, start, rows[done : done + stop - start])
            done += stop - start
        self.ring.advance(count)

    def writer(self, rows: int | None = None) -> Writer:
        """Opens a window onto the next ``rows`` rows (``None``: up to the end of the ring), to be written in place.

        Raises:
            ValueError: ``rows`` is not in 1 to ``capacity``.
        """
        if rows is None:
            rows = self.capacity - self.ring.position
        if not 1 <= rows <= self.capacity:
            raise ValueError(f"`rows` must be 1 to {self.capacity}, the capacity, not {rows!r}")
        return Writer(self, rows)

    def clear(self) -> None:
        """Forgets all rows; the next goes to the start of the memory. Gives no memory back."""
        self.ring.clear()

    def draw(self, batch_size: int, *, ahead: int = 0, random: Any = None) -> Any:
        """Places (for ``buffer[name]``) of ``batch_size`` rows held, uniform, with replacement.

        Args:
            batch_size: How many.
            ahead: Only rows that have this many later ones.
            random: A ``numpy.random.Generator``, on a device a ``torch.Generator``; else the buffer's own.

        Returns:
            int64, ``(batch_size,)``: a NumPy array, on a device a tensor.

        Raises:
            ValueError: There is no such row.
        """
        high = self.ring.size - ahead
        if high < 1 or batch_size < 1:
            raise ValueError(
                f"cannot draw {batch_size} rows with {ahead} later ones each: {self.ring.size} rows are held"
            )
        ages = self._storage.draw(high, batch_size, random)
        return (ages + self.ring.tail % self.capacity) % self.capacity

    def take(self, places: Any, *, out: Mapping[str, Any] | None = None, tensors: bool = False) -> Batch:
        """Copies the rows at ``places`` (0 to ``capacity - 1``). See :meth:`sample` for the rest.

        Raises:
            IndexError: There is no such place.
        """
        if len(places) and not (int(places.min()) >= 0 and int(places.max()) < self.capacity):
            raise IndexError(f"places are 0 to {self.capacity - 1}, given {places.min()} to {places.max()}")
        return gather(self._storage, self._names, self.capacity, places, (), out, tensors)

    def sample(
        self,
        batch_size: int,
        *,
        following: Iterable[str] = (),
        out: Mapping[str, Any] | None = None,
        tensors: bool = False,
        random: Any = None,
    ) -> Batch:
        """Copies ``batch_size`` rows, drawn uniformly and with replacement.

        Args:
            batch_size: How many.
            following: Columns of which the next row is wanted too, as ``next_NAME``: ``("state",)``. Only rows that
                have a next one are drawn then; the newest, and the seam of a full ring, never are.
            out: Where to put them: column (or ``next_NAME``) to a preallocated array or tensor of the very shape and
                dtype. What it lacks is allocated.
            tensors: torch tensors and not NumPy arrays (on a device always tensors).
            random: As :meth:`draw`.

        Raises:
            KeyError: There is no such column.
            ValueError: Too few rows, ``out`` does not fit, or ``next_NAME`` is a column already.
        """
        following = tuple(following)
        for name in following:
            self._require_column(name)
            if f"next_{name}" in self._columns:
                raise ValueError(f"`following` cannot name `{name}`: there is a column `next_{name}`")
        places = self.draw(batch_size, ahead=1 if following else 0, random=random)
        return gather(self._storage, self._names, self.capacity, places, following, out, tensors)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the rows held, oldest first, as an ``.npz`` that ``numpy.load`` reads too. No copy in memory.

        Atomic: the old file stays until the new one is complete and on the disk.

        Raises:
            OSError: It cannot be written.
        """
        _archive.save(path, self._columns, self.ring, self._storage)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Replaces what is held by what :meth:`save` wrote. The file is read twice: it is verified before anything
        changes. Needs no memory.

        Raises:
            ValueError: Damaged, other columns, or more rows than ``capacity``. The buffer is unchanged then.
            OSError: There is none, or the disk failed in the second reading: then the buffer is empty.
        """
        _archive.load(path, self._columns, self.ring, self._storage)

    def require(self, columns: Iterable[Any], count: int) -> None:
        """Raises what :meth:`extend` of ``count`` rows, in the order of the columns, would raise; changes nothing."""
        for name, rows in zip(self._names, columns, strict=True):
            self._storage.fit(name, rows, count)

    def _require_column(self, name: str) -> None:
        if name not in self._columns:
            raise KeyError(f"there is no column `{name}`: there are {', '.join(self._names)}")
