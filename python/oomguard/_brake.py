"""What happens when a check says stop: the exception, and the lines people know from the origin system."""

from __future__ import annotations

from oomguard import _core
from oomguard._errors import MemoryCritical, StopRequested, gb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from logging import Logger


def logger() -> Logger:
    """The logger ``oomguard``. Imported late: ``logging`` is a quarter of the time ``import oomguard`` may take."""
    import logging

    return logging.getLogger("oomguard")


def raise_stop(context: str = "", threshold: int | None = None) -> None:
    """Raises what the present state asks for; returns if the shortage has passed meanwhile.

    The native ``check`` comes here only when its atomics say stop. ``threshold`` is in bytes; without it the
    process-wide one applies.
    """
    seen = _core.snapshot()
    if seen.stop == "terminate":
        raise StopRequested(context, seen.cause or "requested", seen.available)
    if seen.stop == "prune":
        raise MemoryCritical(context, seen.cause or "reserve", seen.available)
    limit = seen.reserve if threshold is None else threshold
    if not seen.guarded and seen.available is not None and seen.available < limit:
        raise MemoryCritical(context, "reserve", seen.available, limit)


def announce(label: str, subject: str, stop: MemoryCritical) -> None:
    """Logs the origin system's block: four lines at level ERROR, so that existing log searches go on working; under a
    guard a fifth says what the guard saw.

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
    log.error("Safety threshold: %s", gb(seen.reserve if stop.threshold is None else stop.threshold))
    if stop.threshold is None and seen.usage is not None:
        # The guard decided, and not by the two numbers above: say by which.
        limit = "no limit" if seen.limit is None else gb(seen.limit)
        log.error("Job memory: %s of %s [%s]", gb(seen.usage), limit, stop.cause)
