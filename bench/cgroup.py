"""A memory cgroup of our own, for what must not take the machine's memory."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

V1 = Path("/sys/fs/cgroup/memory")
SOON_S = 120


@contextmanager
def limited(limit: int) -> Iterator[Path]:
    """Its directory; removed in the end, once it is empty. OSError where we may not, or the controller is not on."""
    name = f"{os.environ.get('OOMGUARD_CGROUP_PARENT', '/oomguard').strip('/')}-bench-{os.getpid()}"
    top, file = (V1, "memory.limit_in_bytes") if V1.is_dir() else (V1.parent, "memory.max")
    folder = top / name
    folder.mkdir()
    try:
        (folder / file).write_text(str(limit))
        yield folder
    finally:
        end = time.monotonic() + SOON_S
        while time.monotonic() < end and (folder / "cgroup.procs").read_text():
            time.sleep(0.05)
        folder.rmdir()
