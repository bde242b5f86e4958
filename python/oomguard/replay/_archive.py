"""A buffer's rows in a file: a ZIP of ``.npy`` members, as ``numpy.savez`` writes it, but without a copy in memory.

Every byte of it is covered by a checksum of ZIP. The file appears complete or not at all.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

from oomguard import _core
from oomguard.replay._columns import Column
from oomguard.replay._replace import replacing
from oomguard.replay._ring import Ring
from oomguard.replay._storage import Storage


def save(path: str | os.PathLike[str], columns: Mapping[str, Column], ring: Ring, storage: Storage) -> None:
    """Writes the rows held, oldest first.

    Raises:
        OSError: It cannot be written; what was there before still is.
    """
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, column in columns.items():
            # One date for all: the same rows make the same file.
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            with archive.open(info, "w", force_zip64=True) as member:
                _write_header(member, (ring.size, *column.shape), column.dtype)
                for start, stop in ring.pieces(ring.tail, ring.head):
                    for chunk in storage.read(name, start, stop):
                        member.write(chunk)


def load(path: str | os.PathLike[str], columns: Mapping[str, Column], ring: Ring, storage: Storage) -> None:
    """Verifies all of the file, then reads it in place of what is held.

    Raises:
        FileNotFoundError: There is none.
        ValueError: Damaged, or of other columns or more rows than the ring has. Nothing is changed then.
    """
    with open(path, "rb") as file:
        try:
            archive = zipfile.ZipFile(file)
            _require_columns(archive, columns)
            bad = archive.testzip()
            if bad is not None:
                raise ValueError(f"`{bad}` has a wrong checksum")
            rows = _require_shapes(archive, columns)
            if rows > ring.capacity:
                raise ValueError(f"it has {rows} rows, and the capacity is {ring.capacity}: make the buffer that large")
        except Exception as error:
            # Damage can come out of zipfile as nearly anything: BadZipFile, EOFError, NotImplementedError, zlib.error.
            raise ValueError(f"`{os.fspath(path)}` cannot be loaded, and nothing was changed: {error}") from error
        with _core.Shield():  # an interrupt in the middle would leave neither the old rows nor the new
            ring.clear()
            for name in columns:
                with archive.open(f"{name}.npy") as member:
                    _read_header(member)
                    for chunk in storage.fill(name, rows):
                        _read_into(member, chunk)
            ring.advance(rows)


def matches(path: str | os.PathLike[str], columns: Mapping[str, Column]) -> bool:
    """Whether the file at ``path`` has these very columns, so that :func:`load` is the way to read it."""
    try:
        with zipfile.ZipFile(path) as archive:
            _require_columns(archive, columns)
            _require_shapes(archive, columns)
    except Exception:
        return False
    return True


def _write_header(member: IO[bytes], shape: tuple[int, ...], dtype: Any) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(member, header)


def _read_header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, Any]:
    version = np.lib.format.read_magic(member)
    if version != (1, 0):
        raise ValueError(f"its arrays have format version {version}, not (1, 0)")
    return np.lib.format.read_array_header_1_0(member)


def _read_into(member: IO[bytes], chunk: memoryview) -> None:
    at = 0
    while at < len(chunk):
        read = member.readinto(chunk[at:])  # type: ignore[attr-defined]
        if not read:
            raise OSError("the file became shorter while it was read")
        at += read


def _require_columns(archive: zipfile.ZipFile, columns: Mapping[str, Column]) -> None:
    found = sorted(name.removesuffix(".npy") for name in archive.namelist())
    if found != sorted(columns):
        raise ValueError(f"expected the columns {', '.join(sorted(columns))}, found {', '.join(found) or 'none'}")


def _require_shapes(archive: zipfile.ZipFile, columns: Mapping[str, Column]) -> int:
    counts = set()
    for name, column in columns.items():
        with archive.open(f"{name}.npy") as member:
            shape, fortran, dtype = _read_header(member)
        if fortran or not shape or shape[1:] != column.shape or dtype != column.dtype:
            raise ValueError(
                f"column `{name}`: expected rows {column.shape} of {column.dtype}, found {shape[1:]} of {dtype}"
            )
        counts.add(shape[0])
    if len(counts) != 1:
        raise ValueError(f"its columns differ in their number of rows: {sorted(counts)}")
    return counts.pop()
