"""One mapping of a fixed size, seen as bytes. It never grows, is never moved and never goes through the heap.

Touches: ``mmap``, ``madvise`` (``MADV_POPULATE_WRITE``, ``MADV_HUGEPAGE``), and with ``path`` one unnamed file there.
"""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from oomguard._brake import logger
from oomguard.replay import _room

Bytes = NDArray[np.uint8]

POPULATE_WRITE = 23
"""``MADV_POPULATE_WRITE`` of Linux 5.14 and later; the ``mmap`` module has no name for it."""
STRIDE = 64 << 20
"""Bytes that are touched between two looks at what is left: 10 ms at the 6 GB/s of the fastest machine measured."""
HUGE = "/sys/kernel/mm/transparent_hugepage/enabled"


def reserve(
    size: int,
    what: str = "replay buffer",
    *,
    path: str | os.PathLike[str] | None = None,
    touch: bool = True,
    huge_pages: bool = False,
) -> Bytes:
    """A zeroed mapping of ``size`` bytes, as one array that owns it; freed when the last view of it goes.

    In memory it is private: a forked child sees the rows of that moment, and what either side writes from then on is
    copied page by page, so a child that lives on while rows are written costs up to ``size`` again. With ``path`` it is
    a shared mapping of a file: there parent and forked children write into the same rows.

    Args:
        size: Bytes.
        what: Begins the messages.
        path: A folder on a disk. The rows live in an unnamed file there, which the kernel writes out when memory is
            short and removes with the process, however that ends. A folder in memory (tmpfs) is memory.
        touch: Take the memory now, so that a need that cannot be met shows in the first second and not hours later.
            Files on a disk get their blocks reserved and are not touched.
        huge_pages: Ask for pages of 2 MiB (fewer TLB misses; memory is then taken in steps of 2 MiB).

    Raises:
        MemoryError: It does not fit (need, have, remedy); nothing was touched then. Or the kernel refuses the mapping.
        OSError: ``path`` is not a folder that can be written to, or its disk has not enough room.
    """
    in_memory = path is None or _is_tmpfs(path)
    if in_memory and touch:
        _room.require(size, what)
    mapping = _map(size, what) if path is None else _map_file(size, what, path)
    if huge_pages:
        _advise_huge(mapping, what)
    view: Bytes = np.frombuffer(mapping, dtype=np.uint8)[:size]
    if in_memory and touch:
        _touch(mapping, size, view, what)
    return view


def _map(size: int, what: str) -> mmap.mmap:
    try:
        if hasattr(mmap, "MAP_PRIVATE"):
            return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        return mmap.mmap(-1, size)
    except (OSError, OverflowError) as error:
        raise MemoryError(f"{what}: the system refuses a mapping of {_room.size(size)}: {error}") from error


def _map_file(size: int, what: str, path: str | os.PathLike[str]) -> mmap.mmap:
    if not os.path.isdir(path):
        raise NotADirectoryError(errno.ENOTDIR, f"{what}: `path` must be a folder to keep the rows in", os.fspath(path))
    with tempfile.TemporaryFile(dir=path, prefix="oomguard-replay-") as file:
        _take_blocks(file, size, what, path)
        return mmap.mmap(file.fileno(), size)


def _take_blocks(file: IO[bytes], size: int, what: str, path: str | os.PathLike[str]) -> None:
    """Reserves the file's blocks: a write into a hole of a full disk is a SIGBUS, and no handler helps there."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    except OSError as error:
        raise OSError(error.errno, f"{what}: cannot reserve {_room.size(size)}: {error.strerror}", str(path)) from error


def _is_tmpfs(path: str | os.PathLike[str]) -> bool:
    """Whether files in ``path`` are memory. Where mounts cannot be listed the answer is no."""
    try:
        device = os.stat(path).st_dev
        wanted = f"{os.major(device)}:{os.minor(device)}"
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                mount, _, kind = line.partition(" - ")
                if mount.split()[2] == wanted:
                    return kind.split()[0] in ("tmpfs", "ramfs")
    except (OSError, AttributeError, IndexError):
        pass
    return False


def _advise_huge(mapping: mmap.mmap, what: str) -> None:
    try:
        with open(HUGE, encoding="ascii") as file:
            off = "[never]" in file.read()
        if not off:
            mapping.madvise(mmap.MADV_HUGEPAGE)
            return
        why = f"`{HUGE}` says never"
    except (OSError, AttributeError) as error:
        why = str(error)
    logger().warning("%s: goes on without huge pages: %s", what, why)


def _touch(mapping: mmap.mmap, size: int, view: Bytes, what: str) -> None:
    """Takes the memory, ``STRIDE`` by ``STRIDE``, and looks before each whether the rest still fits."""
    populate = True
    for start in range(0, size, STRIDE):
        length = min(STRIDE, size - start)
        if start:
            _room.require(size - start, f"{what} (after the first {_room.size(start)})")
        populate = populate and _populate(mapping, start, length)
        if not populate:
            view[start : start + length : mmap.PAGESIZE] = 0


def _populate(mapping: mmap.mmap, start: int, length: int) -> bool:
    """One system call for all pages; ``False`` where the kernel has none (before 5.14, not Linux)."""
    advise: Any = getattr(mapping, "madvise", None)
    if advise is None:
        return False
    try:
        advise(POPULATE_WRITE, start, length)
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError(f"the system refuses the next {_room.size(length)}: {error.strerror}") from error
        return False
    return True
