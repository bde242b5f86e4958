"""Who holds the memory: the largest processes, for a message. Reads ``/proc`` and asks `nvidia-smi`; signals nobody."""

from __future__ import annotations

import os
from typing import NamedTuple

from oomguard.pytest._vram import nvidia_smi

MOST = 5
"""Processes named."""
LONGEST = 80
"""Characters of a command line."""


class Holder(NamedTuple):
    """A process and the bytes that it holds."""

    pid: int
    name: str
    size: int


def of_ram() -> tuple[list[Holder], str | None]:
    """The largest resident sets but our own, shared pages included, or why there are none. 5 ms for 100 processes."""
    page, found = os.sysconf("SC_PAGE_SIZE"), []
    try:
        pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    except OSError as error:
        return [], f"/proc cannot be read: {error.strerror}"
    for pid in pids:
        if pid == os.getpid():
            continue
        try:
            found.append((int(_read(pid, "statm").split()[1]) * page, pid))
        except (OSError, IndexError, ValueError):
            continue  # it has ended meanwhile, or is another user's under hidepid
    found = sorted(found, reverse=True)[:MOST]
    return [Holder(pid, command(pid), size) for size, pid in found if size], None


def of_vram() -> tuple[list[Holder], str | None]:
    """The processes that hold most on the GPUs, or why they are not known."""
    out, unknown = nvidia_smi("--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits")
    if unknown is not None:
        return [], unknown
    found = []
    for line in out.splitlines():
        pid, _, used = line.partition(",")
        try:
            found.append(Holder(int(pid), command(int(pid)), int(float(used) * (1 << 20))))
        except ValueError:
            continue  # `[N/A]`: another container's
    if not found:
        return [], "`nvidia-smi` lists no process (it does not see those of other containers)"
    return sorted(found, key=lambda one: -one.size)[:MOST], None


def command(pid: int) -> str:
    """Its command line, shortened; in brackets the bare name where there is none."""
    try:
        words = _read(pid, "cmdline").replace("\0", " ").split()
        line = " ".join(words) or f"[{_read(pid, 'comm').strip()}]"
    except OSError:
        return "(ended)"
    return line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."


def _read(pid: int, name: str) -> str:
    with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="replace") as file:
        return file.read()
