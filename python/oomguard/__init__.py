"""oomguard keeps machines that train models from dying of memory.

``check()`` in a training loop costs an atomic load. Under ``oomguard up`` or ``oomguard run`` it does what the guard
asks; without a guard a native thread watches the machine's available memory. ``oomguard.optuna`` holds what Optuna
workers need. ``python -m oomguard`` says what it sees on this machine.

PYTEST_DONT_REWRITE: a process that forks test processes has imported this before pytest does.
"""

from __future__ import annotations

import atexit
import os

from oomguard import _core
from oomguard._core import __version__, check
from oomguard._errors import MemoryCritical, StopRequested

# What runs when memory is short is loaded now. Later there is no room, and a module that another thread was loading
# when this process was forked can never be loaded in the child.
from oomguard._relief import Relief, on_pressure, relieve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from oomguard._guard import guard, guarded
    from oomguard._limit import Limited, limit_self
    from oomguard._live import monitor
    from oomguard._monitor import MemoryMonitor, MemoryStatus
    from oomguard._signals import handle_sigterm
    from oomguard._trial_end import end_of_trial, freeze_imports
    from oomguard.workers import worker_init

__all__ = [
    "Limited",
    "MemoryCritical",
    "MemoryMonitor",
    "MemoryStatus",
    "Relief",
    "StopRequested",
    "__version__",
    "check",
    "checkpoint",
    "end_of_trial",
    "freeze_imports",
    "guard",
    "guarded",
    "handle_sigterm",
    "limit_self",
    "monitor",
    "on_pressure",
    "relieve",
    "shield",
    "worker_init",
]

if hasattr(os, "register_at_fork"):
    # The sampling thread does not live on in a forked child, and the child was not the one asked to stop.
    os.register_at_fork(after_in_child=_core.after_fork_in_child)
atexit.register(_core.end)

_LATE = {
    "Limited": "_limit",
    "MemoryMonitor": "_monitor",
    "MemoryStatus": "_monitor",
    "end_of_trial": "_trial_end",
    "freeze_imports": "_trial_end",
    "guard": "_guard",
    "guarded": "_guard",
    "handle_sigterm": "_signals",
    "limit_self": "_limit",
    "monitor": "_live",
    "worker_init": "workers",
}
_MODULES = ("leaks", "workers")
"""Those that need nothing else to be installed: ``help(oomguard.workers)`` works at once."""


def shield() -> _core.Shield:
    """While it is entered, no ``guard(interrupt=True)`` interrupts this thread: ``with oomguard.shield(): save()``.

    What was due meanwhile is raised afterwards. For anything that must not be cut in half; keep it short.
    """
    return _core.Shield()


def checkpoint() -> bool:
    """Tells the guard that everything up to here is saved: killing this job now would cost little.

    Returns:
        Whether a guard was told. Never blocks and never raises.
    """
    return _core.notify("X_OOMGUARD_CHECKPOINT=1")


def __getattr__(name: str) -> object:
    """Imports the less used names on first use: ``import oomguard`` is to stay under 20 ms."""
    import importlib

    if name in _MODULES:
        return importlib.import_module(f"oomguard.{name}")
    module = _LATE.get(name)
    if module is None:
        raise AttributeError(f"module 'oomguard' has no attribute {name!r}")

    value: object = getattr(importlib.import_module(f"oomguard.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
