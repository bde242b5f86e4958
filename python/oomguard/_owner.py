"""Who owns a trial: one process, told apart from every other that ever had its number.

Reads ``/proc`` and ``/etc/machine-id``. It never signals anything.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

_OWNERS: dict[int, Owner] = {}


class Owner(NamedTuple):
    """A process. ``start`` is field 22 of ``/proc/PID/stat``: clock ticks since boot.

    ``host`` is the host name; ``machine`` is ``/etc/machine-id``, which tells two hosts of the same name apart;
    ``pidns`` is the pid namespace, for in another container the same pid means another process; ``job`` is the
    guard's token ``RUN/worker-1#3``, empty without one.
    """

    host: str
    machine: str
    boot: str
    pidns: str
    pid: int
    start: int
    job: str = ""


def current() -> Owner | None:
    """This process, or ``None`` where processes cannot be told apart (see :func:`why_unknown`).

    Costs about 0.1 ms once a process; a forked child reads its own.
    """
    pid = os.getpid()
    owner = _OWNERS.get(pid)
    if owner is None:
        start = start_time(pid)
        boot = _read("/proc/sys/kernel/random/boot_id")
        if start is None or not boot:
            return None
        owner = Owner(
            host=os.uname().nodename,
            machine=_read("/etc/machine-id"),
            boot=boot,
            pidns=_pid_namespace(),
            pid=pid,
            start=start,
            job=os.environ.get("OOMGUARD_JOB", ""),
        )
        _OWNERS.clear()
        _OWNERS[pid] = owner
    return owner


def why_unknown() -> str:
    """Why :func:`current` is ``None``: one sentence for people."""
    if sys.platform != "linux":
        return f"on {sys.platform} oomguard cannot tell a process from a later one with the same number"
    return "/proc does not show this process's start time and the boot id"


def start_time(pid: int) -> int | None:
    """Start of ``pid`` in clock ticks since boot; ``None`` if it is gone, or dead and only not yet waited for."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except OSError:
        return None
    # The name stands in parentheses and may itself hold spaces and parentheses.
    fields = stat[stat.rfind(b")") + 2 :].split()
    if len(fields) < 20 or fields[0] in (b"Z", b"X", b"x"):
        return None
    return int(fields[19])


def is_dead(owner: Owner, here: Owner, dead_hosts: frozenset[str] = frozenset()) -> bool:
    """Whether ``owner`` is certainly dead, as seen from ``here``.

    Processes of other hosts and of other containers are never judged: for them it is ``False``, unless an
    operator named their host in ``dead_hosts``. An earlier boot of this very machine is dead.
    """
    if owner.host in dead_hosts and (owner.host, owner.machine) != (here.host, here.machine):
        return True
    if (owner.host, owner.machine) != (here.host, here.machine):
        return False
    if owner.boot != here.boot:
        # Without a machine id another host of the same name looks just like this one before its last boot.
        return bool(here.machine) or owner.host in dead_hosts
    if owner.pidns != here.pidns:
        return owner.host in dead_hosts
    start = start_time(owner.pid)
    if start is None and _hidden(owner.pid):
        return False
    return start != owner.start


def _hidden(pid: int) -> bool:
    """Whether another user's process lives there that ``/proc`` (mounted with ``hidepid``) does not show us."""
    try:
        os.kill(pid, 0)  # asks only; no signal is sent
    except PermissionError:
        return not os.path.exists(f"/proc/{pid}")
    except (OSError, OverflowError):
        pass
    return False


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
