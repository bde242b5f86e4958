"""One process of this user and host at a time, for what a storage does not serialise itself.

Touches a file of its own in ``$XDG_RUNTIME_DIR/oomguard`` (else in the temporary directory), mode 0600. The kernel
frees the lock with the process. Never fails: where there is no such lock, the work goes on without.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator

_held: set[int] = set()


@contextlib.contextmanager
def alone(name: str | None, patience: float) -> Iterator[None]:
    """Holds the lock called ``name``; goes on without it after ``patience`` seconds. ``None`` is no lock."""
    file = None if name is None else _open(name)
    if file is None:
        yield
        return
    import fcntl

    _held.add(file)
    deadline = time.monotonic() + patience
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    break
                time.sleep(0.005)
        yield
    finally:
        _held.discard(file)
        fcntl.flock(file, fcntl.LOCK_UN)  # closing alone would leave it to a child forked meanwhile
        os.close(file)


def _open(name: str) -> int | None:
    if os.name != "posix":
        return None
    base = os.environ.get("XDG_RUNTIME_DIR")
    folder = os.path.join(base, "oomguard") if base else f"{tempfile.gettempdir()}/oomguard-{os.getuid()}"
    path = os.path.join(folder, "lock-" + hashlib.sha256(name.encode()).hexdigest()[:24])
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if os.lstat(folder).st_uid != os.getuid():
            return None
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return None


def _forget_in_child() -> None:
    """A lock lives as long as any copy of its file: a child that outlives its parent must not keep it."""
    for file in _held:
        os.close(file)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
