"""SIGKILL for this process when its parent dies: ``prctl(PR_SET_PDEATHSIG)``. Does without where there is no ctypes.

For as long as the zygote imports what others wrote, and cannot look at its socket. Once it serves, the socket's end
says the same, and leaves the time to end the children and what they have started.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

PR_SET_PDEATHSIG = 1

_prctl: Callable[..., int] | None
try:
    import ctypes

    _prctl = ctypes.CDLL(None).prctl
except (ImportError, OSError, AttributeError):
    _prctl = None


def kill_me_after(parent: int) -> None:
    """From now on; at once if ``parent`` has already died. A microsecond."""
    if _prctl is None:
        return
    _prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def no_more() -> None:
    """The parent's death is nothing to die of any more."""
    if _prctl is not None:
        _prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0)
