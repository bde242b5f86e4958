"""What happens when a check says stop: the exception, what it becomes, and the lines people know."""

from __future__ import annotations

import time

from oomguard import _core
from oomguard._errors import Interrupted, MemoryCritical, StopRequested, gb, vram_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from logging import Logger
    from types import FrameType, TracebackType
    from typing import Any

SECOND_THOUGHT = 0.1
"""Seconds for the guard to look again; it does so every 10 ms while a job is near its limit."""

previous_interrupt: Callable[[int, FrameType | None], Any] | None = None
"""Who handled SIGURG before oomguard did."""


def logger() -> Logger:
    """The logger ``oomguard``. Imported late: ``logging`` is a quarter of the time ``import oomguard`` may take."""
    import logging

    return logging.getLogger("oomguard")


def raise_stop(context: str = "", threshold: int | None = None, over: tuple[int, int] | None = None) -> None:
    """Raises what the present state asks for; returns if the shortage has passed meanwhile.

    The native ``check`` comes here only when its atomics say stop, or when relief is due. ``threshold`` is in bytes;
    without it the process-wide one applies. ``over`` is a limit of this process's own that it has met, and what it
    held then.

    Giving memory back is tried first, at most twice a minute. When the process is to end it comes too late.
    """
    from oomguard import _relief

    if _core.take_report():
        from oomguard import _vram

        _vram.report()
    due = _core.take_relief()
    relieved = due is not None and bool(_relief.carry_out(due).steps)  # none: another thread is at it
    seen = _core.snapshot()
    if seen.stop == "prune" and _relief.before_stopping():
        # The guard has to see that memory is back before it can take its request back.
        time.sleep(SECOND_THOUGHT)
        seen = _core.snapshot()
    if seen.stop == "terminate":
        raise StopRequested(context, seen.cause or "requested", seen.available, vram=vram_of(seen))
    if seen.stop == "prune":
        raise MemoryCritical(context, seen.cause or "reserve", seen.available, vram=vram_of(seen))
    limit = seen.reserve if threshold is None else threshold
    short = not seen.guarded and seen.available is not None and seen.available < limit
    if not short and over is None:
        return
    if not relieved and _relief.before_stopping():
        seen = _core.snapshot()
    if not seen.guarded and seen.available is not None and seen.available < limit:
        raise MemoryCritical(context, "reserve", seen.available, limit)
    if over is not None:
        held = _core.resident() or over[1]
        if held >= over[0]:
            raise MemoryCritical(context, "limit", seen.available, over[0], held)


def interrupt() -> None:
    """Raises in the main thread, between two of its bytecodes."""
    if _core.stop_requested():
        raise StopRequested("", _core.snapshot().cause or "requested", _core.available())
    raise Interrupted


def pass_on(number: int, frame: FrameType | None) -> None:
    """A SIGURG that was not ours, or came too late to be."""
    if previous_interrupt is not None:
        previous_interrupt(number, frame)


def leave(trial: Any, stop: MemoryCritical, context: str) -> None:
    """Raises what ``stop`` becomes at the end of a guard: ``TrialPruned`` with a trial, else ``MemoryError``.

    Returns where it should pass as it is: a process that was asked to end is to end. The traceback is dropped, or its
    frames would keep what they hold alive while the caller handles the error; the message says where it was.
    """
    place = _place(stop.__traceback__)
    stop.context = stop.context or context
    if trial is not None:
        from oomguard.optuna._objective import prune

        stop.__traceback__ = None
        prune(trial, stop)
    if isinstance(stop, StopRequested):
        return
    stop.__traceback__ = None
    announce(stop.context or "guard", "Guarded work", stop)
    raise MemoryError(f"{stop}{place}") from stop


def _place(traceback: TracebackType | None) -> str:
    """Where an exception was raised: the innermost frame that is not ours."""
    place = ""
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if not traceback.tb_frame.f_globals.get("__name__", "").startswith("oomguard."):
            place = f" (at {code.co_filename}:{traceback.tb_lineno})"
        traceback = traceback.tb_next
    return place


def announce(label: str, subject: str, stop: MemoryCritical) -> None:
    """Logs the origin system's block: four lines at level ERROR, so that existing log searches go on working; under a
    guard a fifth says what it saw, and at a limit of this process's own it stands in the fourth's place.

    A planned stop is one line at INFO: nothing is wrong.
    """
    log = logger()
    if stop.cause in ("age", "requested", "timeout"):
        log.info("%s: stopping as asked (%s); it is queued again", label or subject, stop.cause)
        return
    log.error("🚨 EMERGENCY BRAKE ACTIVATED [%s]", label)
    log.error("%s killed to prevent OOM crash", subject)
    log.error("Available memory: %s", "unknown" if stop.available is None else gb(stop.available))
    seen = _core.snapshot()
    own = stop.usage is not None
    if not own:
        log.error("Safety threshold: %s", gb(seen.reserve if stop.threshold is None else stop.threshold))
    usage, limit = (stop.usage, stop.threshold) if own else (seen.usage, seen.limit)
    if usage is not None and (own or stop.threshold is None):
        # Not decided by the two numbers above: say by which.
        log.error("Job memory: %s of %s [%s]", gb(usage), "no limit" if limit is None else gb(limit), stop.cause)


def warn(context: str, warning: int, critical: int) -> None:
    """Logs that memory is below a warning threshold; sizes in bytes."""
    logger().warning(
        "Memory warning%s: %s available (warning threshold %s, safety threshold %s)",
        f" [{context}]" if context else "",
        gb(_core.available() or 0),
        gb(warning),
        gb(critical),
    )
