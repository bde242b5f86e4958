"""Whether this process may be forked: threads, devices, children. Reads ``/proc/self``; changes nothing.

A thread that is left after a fork is one that nobody shuts down for forks: its locks would be held for ever in the
child. OpenBLAS ends its threads before every fork and starts them anew when needed, so a fork is tried and the threads
are counted again: proof by effect, with no list of libraries.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings

GRACE = 0.2
"""Seconds that an ended thread may take to leave ``/proc/self/task``."""
DEVICES = ("/dev/nvidia", "/dev/kfd", "/dev/dri/")
NEVER = ("jax", "jaxlib", "torch_xla", "tensorflow", "cupy", "pycuda", "numba.cuda", "ray", "vllm")
"""Modules that start threads or contexts late, or say themselves that they must not be forked."""


def fork() -> int:
    """``os.fork``, without Python 3.12's warning about threads: they have been looked at."""
    if sys.version_info < (3, 12):
        return os.fork()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return os.fork()


def threads() -> str | None:
    """Why the threads of this process make a fork unsafe; a millisecond, and a fork if there is more than one."""
    if _count() == 1:
        return None
    pid = fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    end = time.monotonic() + GRACE
    while _count() > 1:
        if time.monotonic() > end:
            return f"a thread was started: {_named()}"
        time.sleep(0.001)
    return None


def everything() -> str | None:
    """Why this process must not be forked at all."""
    return threads() or device() or cuda() or never()


def device() -> str | None:
    """An open GPU device."""
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue  # the listing's own
        if target.startswith(DEVICES):
            return f"`{target}` was opened"
    return None


def cuda() -> str | None:
    """torch has a CUDA context."""
    torch = sys.modules.get("torch")
    initialized = getattr(getattr(torch, "cuda", None), "is_initialized", None)
    return "torch.cuda was initialized" if initialized is not None and initialized() else None


def never() -> str | None:
    """A module was imported that is not safe to fork."""
    found = next((name for name in NEVER if name in sys.modules), None)
    return None if found is None else f"`{found}` was imported, which is not safe to fork"


def children() -> str | None:
    """A process was started."""
    started = child_pids()
    return f"a process was started: {started[0]}" if started else None


def child_pids() -> list[int]:
    """Our children, living or not yet reaped; none where the kernel does not tell."""
    found: list[int] = []
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/children") as file:
                found += map(int, file.read().split())
        except OSError:
            continue
    return found


def _count() -> int:
    return len(os.listdir("/proc/self/task"))


def _named() -> str:
    known = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if known:
        return ", ".join(f"`{name}`" for name in known)
    names = []
    for task in os.listdir("/proc/self/task"):
        if int(task) != os.getpid():
            with open(f"/proc/self/task/{task}/comm") as file:
                names.append(f"`{file.read().strip()}`, not by Python")
    return ", ".join(names)
