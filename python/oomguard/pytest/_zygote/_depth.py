"""Whether what loading plugins and initial ``conftest.py`` files has done may be shared by all children.

Reads pytest's public configuration. A reason is a fragment that follows "because": it names what to change for the
deeper and cheaper fork.
"""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

import pytest

from oomguard.pytest._zygote import _origin, _safety

HOOKS = ("pytest_sessionstart", "pytest_unconfigure")
"""What a user's plugin does in these is done, or undone, once per process: a conftest that starts a server, say."""
OPTIONS = {
    "basetemp": "--basetemp is given, and each file needs its own",
    "cov_source": "--cov is given, and coverage must start in each file's process",
    "numprocesses": "pytest-xdist is active (-n)",
    "tx": "pytest-xdist is active (--tx)",
    "pastebin": "--pastebin is given",
    "usepdb": "--pdb is given",
}


def unsafe() -> str | None:
    """Why no child may be forked here, whoever asks for it."""
    return _safety.everything() or _safety.children()


def telling(config: pytest.Config, at_exit: str | None) -> str | None:
    """Why sharing would show; ``at_exit`` is what :class:`Cleanups` has seen."""
    for name, why in OPTIONS.items():
        if config.getoption(name, None):
            return why
    for hook in HOOKS:
        for implementation in getattr(config.hook, hook).get_hookimpls():
            file = _origin.of_plugin(implementation.plugin)
            if file is not None and (_origin.is_users(file) or os.path.basename(file) == "conftest.py"):
                return f"`{_short(config, file)}` implements {hook}"
    if at_exit is not None:
        return f"`{_short(config, at_exit)}` registers something that runs at exit"
    return None


class Cleanups:
    """Sees, while it is entered, which of the user's files register something with ``atexit``, or a
    ``weakref.finalize``, which does so once for all.

    A temporary folder that a conftest makes at import is the example: the first child to end would remove it for all.
    What a library registers when it is imported is the library's own.
    """

    def __init__(self) -> None:
        self.users: str | None = None

    def __enter__(self) -> Cleanups:
        self._register = atexit.register
        self._finalize = weakref.finalize.__init__

        def register(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[..., Any]:
            self.users = self.users or _by_user(sys._getframe(1))
            return self._register(function, *args, **kwargs)

        def finalize(finalizer: Any, /, *args: Any, **kwargs: Any) -> None:
            self.users = self.users or _by_user(sys._getframe(1))
            self._finalize(finalizer, *args, **kwargs)

        atexit.register = register  # type: ignore[assignment]
        weakref.finalize.__init__ = finalize  # type: ignore[method-assign]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Sees no more."""
        atexit.register = self._register
        weakref.finalize.__init__ = self._finalize  # type: ignore[method-assign]


def _by_user(frame: FrameType | None) -> str | None:
    """The user's file that called, through the standard library at most; an import in between makes it the module's."""
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith("<frozen importlib"):
            return None
        if _origin.is_users(file) or os.path.basename(file) == "conftest.py":
            return file
        if _origin.is_installed(file):
            return None
        frame = frame.f_back
    return None


def _short(config: pytest.Config, file: str) -> str:
    return os.path.relpath(file, config.rootpath)
