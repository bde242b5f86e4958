"""A child's first steps, from the fork until pytest goes on; and its last, from pytest's exit code to the process's."""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import os
import resource
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from typing import Any, NoReturn

from oomguard.pytest._zygote._order import Order
from oomguard.pytest._zygote._output import flush

FAILED = 125
"""Exit code of a child that could not become what was ordered."""


def fail(order: Order, why: str) -> NoReturn:
    """Exits with 125, and says why on the child's stderr."""
    with contextlib.suppress(OSError):
        os.write(order.stderr, f"oomguard: the test file was not started: {why}\n".encode())
    os._exit(FAILED)


def enter(joins: list[int], oom_score_adj: int | None) -> str | None:
    """Enters a session and cgroups of its own, before anything else allocates; says what could not be entered."""
    try:
        os.setsid()
    except OSError as error:
        return f"setsid: {error}"
    for join in joins:
        try:
            os.write(join, b"0")
        except OSError as error:
            return f"joining the cgroup `{os.path.dirname(os.readlink(f'/proc/self/fd/{join}'))}`: {error}"
    try:
        if oom_score_adj is not None:
            score = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
            os.write(score, b"%d" % oom_score_adj)
            os.close(score)
    except OSError as error:
        return f"oom_score_adj: {error}"
    return None


def limit(rlimit_data: int | None) -> str | None:
    """Limits the bytes of this process and its children each; says why that could not be done."""
    try:
        if rlimit_data is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (rlimit_data, rlimit_data))
    except (OSError, ValueError) as error:
        return f"RLIMIT_DATA: {error}"
    return None


def apply(env: dict[str, str | None]) -> None:
    """Changes the environment."""
    for name, value in env.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def exit_code(run: Callable[[], int]) -> int:
    """What an interpreter that ends with ``sys.exit(run())`` would exit with; tracebacks go to stderr."""
    try:
        return int(run())
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    return 1


def leave(code: int) -> NoReturn:
    """Ends this process as an interpreter does, except that memory is left to the kernel.

    Threads are waited for, what is registered with ``atexit`` runs, streams are flushed. Taking modules apart would
    cost as much again as a small test file, most of it copying pages that are about to be thrown away.
    """
    try:
        # What multiprocessing's forked children do; there is no public way to say so.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    except BaseException:
        traceback.print_exc()
    flush()
    os._exit(code & 0xFF)


class Handlers:
    """What signals do. The zygote's own needs come first while it serves; a child gets back what pytest had."""

    OURS = ((signal.SIGINT, signal.SIG_IGN), (signal.SIGTERM, signal.SIG_DFL), (signal.SIGCHLD, signal.SIG_DFL))

    def __init__(self) -> None:
        before = [(number, signal.signal(number, handler)) for number, handler in self.OURS]
        # What a child need not touch: a call costs 50 microseconds there.
        self._before = [one for one in before if one not in self.OURS]

    def child(self) -> None:
        """After a fork: SIGINT raises KeyboardInterrupt unless somebody has set something else."""
        for number, handler in self._before:
            # A handler that C code has installed is not known by name, and cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def keep_finalizers() -> None:
    """Has no child run, at its end, what ``weakref.finalize`` is to do for objects of the zygote.

    Such an object is every child's to share: a temporary folder that a library made at import would be gone with the
    first child. And taking torch's registered operators apart costs 30 ms, which is more than a small test file.
    """
    finalizers: list[weakref.finalize[..., object]] = list(getattr(weakref.finalize, "_registry", ()))
    for finalizer in finalizers:
        finalizer.atexit = False


class Garbage:
    """While this is held nothing is collected, and what there is now stays where it is: a collection in a child would
    write to every page it looks at. pytest collects at its end, which would cost a small file twice what it takes.

    Frozen objects are invisible to those who ask the collector what there is, as hypothesis does at its import, and
    hold what they refer to: where anybody but pytest asks or collects they are let go first.
    """

    ASKS = ("get_objects", "get_referrers", "collect")

    def __init__(self) -> None:
        self._enabled = gc.isenabled()
        self._asked = [(name, _of_everything(getattr(gc, name))) for name in self.ASKS]
        gc.collect()
        gc.disable()
        gc.freeze()

    def child(self) -> None:
        """After a fork."""
        for name, asked in self._asked:
            setattr(gc, name, asked)
        if self._enabled:
            gc.enable()


def _of_everything(ask: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(ask)
    def asked(*given: object, **options: object) -> Any:
        if not sys._getframe(1).f_globals.get("__name__", "").startswith("_pytest."):
            gc.unfreeze()
        found = ask(*given, **options)
        return [one for one in found if one is not given] if isinstance(found, list) else found

    return asked
