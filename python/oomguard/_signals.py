"""SIGTERM as a wish: a sticky flag that the next check sees, instead of death in the middle of a write."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from oomguard import _core
from oomguard._errors import StopRequested

_busy: Callable[[], bool] | None = None
_previous: Any = None
_hooked = False
_held = False


def handle_sigterm() -> bool:
    """Makes SIGTERM end this process in good order: the next check raises, and the process exits 0.

    A handler that was there before is called afterwards. ``oomguard.optuna.attach`` calls this by itself. While a
    trial runs the signal only sets a flag (raising in the middle of a storage write hung workers when we tried it);
    with none, it raises ``StopRequested`` at once.

    Returns:
        Whether it is in force. ``False`` outside the main thread, where Python allows no handler.
    """
    global _previous, _hooked
    if threading.current_thread() is not threading.main_thread():
        return False
    present = signal.getsignal(signal.SIGTERM)
    if present is not _on_sigterm:
        if present is signal.SIG_IGN:
            return False
        _previous = present if callable(present) else None
        signal.signal(signal.SIGTERM, _on_sigterm)
        if not _hooked and hasattr(os, "register_at_fork"):
            os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_restore_in_child)
            _hooked = True
    return True


def in_force() -> bool:
    """Whether SIGTERM means what :func:`handle_sigterm` says. For any thread."""
    return signal.getsignal(signal.SIGTERM) is _on_sigterm


def busy_while(busy: Callable[[], bool]) -> None:
    """Registers who knows whether work is under way that the signal must not interrupt."""
    global _busy
    _busy = busy


def _on_sigterm(signum: int, frame: FrameType | None) -> None:
    _core.request_stop()
    if _previous is not None:
        _previous(signum, frame)
    elif _busy is not None and not _busy():
        raise StopRequested("", _core.snapshot().cause or "requested")


def _hold() -> None:
    """No SIGTERM between ``fork`` and the child's own handler: it would be taken by the wrong one, and be lost."""
    global _held
    _held = signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _release() -> None:
    if _held:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _restore_in_child() -> None:
    """A forked helper (a DataLoader's worker) must die of the SIGTERM that its parent sends it."""
    if signal.getsignal(signal.SIGTERM) is _on_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if _previous is None else _previous)
    _release()
