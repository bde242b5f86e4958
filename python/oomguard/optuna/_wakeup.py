"""SIGTERM while trials run in threads: heard even if the main thread sleeps on.

With ``n_jobs > 1`` the main thread waits for a lock, and only it runs signal handlers. A signal that arrives on its way
into that wait, or in another thread, is handled when a trial ends, which may take hours. Python writes every signal's
number to a pipe, though, from whichever thread was interrupted; here a thread reads it.
"""

from __future__ import annotations

import os
import signal
import threading

from oomguard import _core, _signals

_installed = False


class Wakeup:
    """While entered, a SIGTERM is seen by the checks of all threads at once. Does nothing outside the main thread, or
    where somebody else (asyncio) already uses the pipe.
    """

    def __init__(self) -> None:
        self._write: int | None = None
        self._reader: threading.Thread | None = None

    def __enter__(self) -> None:
        global _installed
        if os.name != "posix" or threading.current_thread() is not threading.main_thread():
            return
        read, write = os.pipe()
        os.set_blocking(write, False)
        before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        if before != -1:
            signal.set_wakeup_fd(before)
            os.close(read)
            os.close(write)
            return
        _installed = True
        self._write = write
        self._reader = threading.Thread(target=_listen, args=(read,), name="oomguard-sigterm", daemon=True)
        self._reader.start()

    def __exit__(self, *_: object) -> None:
        global _installed
        if self._write is None or self._reader is None or not _installed:
            return
        _installed = False
        signal.set_wakeup_fd(-1)
        os.close(self._write)
        self._reader.join()


def _listen(read: int) -> None:
    with open(read, "rb", buffering=0) as pipe:
        while numbers := pipe.read(64):
            if signal.SIGTERM in numbers and _signals.in_force():
                _core.request_stop()


def _forget_in_child() -> None:
    """What a data loader's worker is sent is not meant for its parent."""
    global _installed
    if _installed:
        _installed = False
        signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
