"""Which workers met their limit: a file that all workers of a pool write to, and the kernel's own counters."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import NamedTuple


class Worker(NamedTuple):
    """One line of the file."""

    pid: int
    enforcement: str
    """What holds it: ``cgroup2``, ``cgroup1`` or ``rlimit``; ``killed``: it was seen to be dead of its limit."""
    where: str | None
    """The directory of its cgroup."""


def write(record: str, worker: Worker) -> None:
    """Appends a line. Where that fails there will be no hint, and nothing else: the file may be gone with its owner."""
    try:
        descriptor = os.open(record, os.O_WRONLY | os.O_APPEND)
    except OSError:
        return
    try:
        # One write of a short line: those of several processes do not mix.
        os.write(descriptor, json.dumps(worker).encode("ascii") + b"\n")
    except OSError:
        pass
    finally:
        os.close(descriptor)


def read(record: str) -> list[Worker]:
    """Every whole line."""
    try:
        with open(record, "rb") as file:
            lines = file.read().splitlines(keepends=True)
    except OSError:
        return []
    return [Worker(*json.loads(line)) for line in lines if line.endswith(b"\n")]


def killed(workers: Iterable[Worker]) -> list[int]:
    """The pids of workers in whose cgroup the kernel has killed at the limit, each once. A cgroup that is gone says
    nothing."""
    found = [each.pid for each in workers if each.enforcement == "killed" or _kills(each)]
    return list(dict.fromkeys(found))


def _kills(worker: Worker) -> int:
    if worker.where is None:
        return 0
    name = "memory.events" if worker.enforcement == "cgroup2" else "memory.oom_control"
    try:
        with open(os.path.join(worker.where, name), encoding="ascii") as file:
            fields = dict(line.split() for line in file)
    except OSError:
        return 0
    return int(fields.get("oom_kill", 0))
