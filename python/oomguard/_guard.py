"""``oomguard.guard``: a block of work that gives way when memory is short, and says so as an ordinary error."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, overload

from oomguard import _core
from oomguard._sizes import size

Work = TypeVar("Work", bound=Callable[..., Any])


def guard(
    trial: Any = None,
    warn: str | int | None = None,
    critical: str | int | None = None,
    limit: str | int | None = None,
    interrupt: bool = False,
    context: str = "",
) -> _core.Guard:
    """Guards a block of work: ``with oomguard.guard() as g: ... g.check("epoch 3")``.

    ``g.check()`` costs some atomic loads. It raises ``MemoryCritical`` when memory is too short to go on, after the
    caches were given back and that was not enough. Where that leaves the block it is converted, in native code:
    to ``optuna.TrialPruned`` with a ``trial``, else to ``MemoryError``, whose message says how much was available
    and where it was raised. The emergency block is logged. ``StopRequested`` (the process was asked to end) passes
    as it is, but with a ``trial``, which is pruned.

    Under a living ``oomguard up`` or ``run`` the guard process decides and ``warn`` and ``critical`` do not count: in
    one shortage only one job has to give way.

    Args:
        trial: The Optuna trial that is under way.
        warn: Below so much available memory ``check`` logs a warning, at most once a minute, and caches are given
            back. Default 4 GiB, on machines under 16 GiB a quarter; or ``OOMGUARD_WARNING``.
        critical: Below it ``check`` raises. Default 2 GiB, on machines under 16 GiB an eighth; or
            ``OOMGUARD_RESERVE``.
        limit: What this process may hold (its resident set, without children): at that much ``check`` raises.
            Nothing is enforced; for that see ``oomguard.limit_self``.
        interrupt: Raise in the block even where nobody calls ``check``: in the main thread within some milliseconds,
            in a ``time.sleep`` too; in other threads as soon as they run Python code. C code that holds the GIL is not
            interrupted. Each shortage raises once; protect saves with ``oomguard.shield()``. In other threads let
            the block be a single call (as :func:`guarded` and ``oomguard.optuna.objective`` do): in a loop written
            directly under the ``with``, CPython 3.13 can lose an exception from outside. In a coroutine let there be
            no ``await`` in the block: what runs meanwhile in this thread would be interrupted instead.
        context: What to call the work in logs and messages, where ``check`` is given no name.

    Sizes are in bytes, or as people write them: ``"4GiB"``, ``"500M"``.

    Raises:
        ValueError: A size cannot be read, or ``critical`` is above ``warn``.
        TypeError: A size is neither a string nor a whole number, or ``trial`` is no trial.
    """
    if trial is not None and not callable(getattr(trial, "set_user_attr", None)):
        raise TypeError(
            f"trial must be an Optuna trial, not {trial!r}; hint: give a size by name, `limit=` or `critical=`"
        )
    low, reserve = size("warn", warn), size("critical", critical)
    if low is not None and reserve is None:
        reserve = min(low, _core.snapshot().reserve)
    return _core.Guard(trial, context, low, reserve, size("limit", limit), bool(interrupt))


@overload
def guarded(function: Work, /) -> Work: ...


@overload
def guarded(
    *,
    warn: str | int | None = None,
    critical: str | int | None = None,
    limit: str | int | None = None,
    interrupt: bool = False,
    context: str = "",
) -> Callable[[Work], Work]: ...


def guarded(function: Any = None, /, **settings: Any) -> Any:
    """A function whose every call is a block under :func:`guard`: ``@guarded``, or ``@guarded(critical="3GiB")``.

    The function's name is the context. Optuna's objectives have ``oomguard.optuna.objective``.

    Raises:
        TypeError: It is a coroutine or a generator, whose body runs in pieces that are not under the guard alone.
    """
    if function is None:
        return functools.partial(guarded, **settings)
    if not callable(function):
        raise TypeError(f"guarded() takes a function, not {function!r}")
    if (
        inspect.iscoroutinefunction(function)
        or inspect.isgeneratorfunction(function)
        or inspect.isasyncgenfunction(function)
    ):
        raise TypeError(
            f"`{getattr(function, '__name__', function)}` runs in pieces: use `with oomguard.guard()` inside it instead"
        )
    name = settings.pop("context", "") or getattr(function, "__name__", "")
    guard(**settings)  # a wrong size is an error here, not at the first call

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with guard(context=name, **settings):
            return function(*args, **kwargs)

    return call
