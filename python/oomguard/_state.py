"""The guard's state directory, as workers use it: ``deaths.jsonl`` is read, ``studies.jsonl`` appended to.

One JSON object a line. A line that cannot be read (torn by a full disk, or written by a later version) is passed
over: a reaper that stops there would leave every other trial unreaped.
"""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

from oomguard._owner import Owner

OWN_CAUSES = frozenset({"limit", "leak"})
"""Causes that are the job's own footprint: ``Cause::is_own_footprint`` of the core."""
MEMORY_CAUSES = OWN_CAUSES | {"reserve", "vram"}
"""Causes that are about memory at all, whoever holds it."""


MOST = 16 << 20
"""Bytes of a file that are read."""


class Death(NamedTuple):
    """How a job ended. Sizes in GiB, ``None`` where the guard did not know."""

    cause: str
    own: bool
    available_gb: float | None
    usage_gb: float | None
    limit_gb: float | None
    gpu: str | None = None
    vram_gb: float | None = None
    vram_limit_gb: float | None = None


class Study(NamedTuple):
    """A registered study: enough to open it again from another process."""

    python: str
    storage: str
    study: str
    cwd: str


class Deaths:
    """The records of one state directory, found by process or by job token."""

    def __init__(self, state: str | None) -> None:
        self._by_process: dict[tuple[str, int, int], Death] = {}
        self._by_job: dict[tuple[str, str], Death] = {}
        if state:
            for line in _lines(os.path.join(state, "deaths.jsonl")):
                self._add(line)

    def _add(self, line: dict[str, Any]) -> None:
        try:
            death = Death(
                cause=str(line["cause"]),
                own=bool(line.get("own", line["cause"] in OWN_CAUSES)),
                available_gb=_number(line.get("available_gb")),
                usage_gb=_number(line.get("usage_gb")),
                limit_gb=_number(line.get("limit_gb")),
                gpu=None if line.get("gpu") is None else str(line["gpu"]),
                vram_gb=_number(line.get("vram_gb")),
                vram_limit_gb=_number(line.get("vram_limit_gb")),
            )
            boot = str(line["boot_id"])
            self._by_process[boot, int(line["pid"]), int(line["start_time"])] = death
            self._by_job[boot, str(line["job"])] = death
        # A number beyond every float is no pid.
        except (KeyError, TypeError, ValueError, OverflowError):
            return

    def of(self, owner: Owner) -> Death | None:
        """How ``owner`` died: its own record, or that of the job it belonged to."""
        found = self._by_process.get((owner.boot, owner.pid, owner.start))
        if found is None and owner.job:
            found = self._by_job.get((owner.boot, owner.job))
        return found


def register(state: str, study: Study) -> None:
    """Appends one line to ``studies.jsonl``, in one write, readable by this user only (a URL may hold a password).

    Raises:
        OSError: The directory is missing or not ours.
    """
    line = json.dumps(study._asdict()).encode() + b"\n"
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    file = os.open(os.path.join(state, "studies.jsonl"), flags, 0o600)
    try:
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            # Somebody died while writing: what is left of that line must not take ours along.
            line = b"\n" + line
        os.write(file, line)
    finally:
        os.close(file)


def studies(state: str) -> list[Study]:
    """The registered studies, each once, in order."""
    found: dict[tuple[str, str], Study] = {}
    for line in _lines(os.path.join(state, "studies.jsonl")):
        try:
            study = Study(str(line["python"]), str(line["storage"]), str(line["study"]), str(line.get("cwd", "")))
        except KeyError:
            continue
        found.setdefault((study.storage, study.study), study)
    return list(found.values())


def _lines(path: str) -> list[dict[str, Any]]:
    try:
        with open(path, "rb") as file:
            # Of a file that no guard would let grow so far, its end: the rest of the line where that begins is no JSON.
            file.seek(max(0, os.fstat(file.fileno()).st_size - MOST))
            raw = file.read(MOST).splitlines()
    except FileNotFoundError:
        return []
    parsed = []
    for line in raw:
        try:
            value = json.loads(line)
        # Nested deeper than Python counts.
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            parsed.append(value)
    return parsed


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
