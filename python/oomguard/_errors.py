"""What the brake raises."""

from __future__ import annotations

from oomguard import _core


class MemoryCritical(BaseException):
    """Memory is too short to go on, or the guard chose this process to give its memory back.

    It derives from ``BaseException``, as ``KeyboardInterrupt`` does, so that the ``except Exception:`` of a training
    loop or a library does not swallow it. ``oomguard.guard`` makes a ``MemoryError`` or a ``TrialPruned`` of it.
    Outside of a guard catch it by name: free what you can, save, and go on or end.

    Attributes:
        context: What the caller passed to ``check``.
        cause: Why, in the words of the guard's reports: ``reserve`` (the machine is short), ``limit`` or ``leak``
            (this job's own footprint), ``vram``, ``age``, ``timeout`` or ``requested``.
        available: Available memory in bytes when it was raised, ``None`` if unknown.
        threshold: The threshold in bytes that was crossed, ``None`` where the guard decided.
        usage: What this process held in bytes, where that crossed the threshold; else ``None``.
    """

    def __init__(
        self,
        context: str = "",
        cause: str = "reserve",
        available: int | None = None,
        threshold: int | None = None,
        usage: int | None = None,
    ) -> None:
        self.context = context
        self.cause = cause
        self.available = available
        self.threshold = threshold
        self.usage = usage
        super().__init__(context, cause, available, threshold, usage)

    def __str__(self) -> str:
        where = f" [{self.context}]" if self.context else ""
        held = "" if self.usage is None else f", this process holds {gb(self.usage)}"
        known = "" if self.available is None else f", {gb(self.available)} available"
        below = "" if self.threshold is None else f", threshold {gb(self.threshold)}"
        return f"stop to give memory back{where}: {self.cause}{held}{known}{below}"


class StopRequested(MemoryCritical, SystemExit):
    """The process was asked to end (SIGTERM, or the guard's page says so): finish or drop the present work.

    It is a ``SystemExit`` too: when nobody catches it, the interpreter ends with code 0 and no traceback.
    """

    code: int = 0


class Interrupted(MemoryCritical):
    """What ``guard(interrupt=True)`` raises in a thread that did not check: made by CPython itself, in that thread.

    Pickled it is a ``MemoryCritical``: whoever makes an ``Interrupted`` says that it has arrived.
    """

    def __init__(self) -> None:
        critical, limit = _core.acknowledge() or (None, None)
        seen, held = _core.snapshot(), _core.resident()
        threshold = seen.reserve if critical is None else critical
        short = seen.available is not None and seen.available < threshold and not seen.guarded
        if limit is not None and held is not None and (held >= limit or (not short and seen.stop is None)):
            super().__init__("", "limit", seen.available, limit, held)
        elif seen.guarded:
            # The guard may have taken its request back meanwhile. With memory to spare the machine was not short.
            plenty = seen.available is not None and seen.available >= seen.warning
            super().__init__("", seen.cause or ("limit" if plenty else "reserve"), seen.available)
        else:
            super().__init__("", "reserve", seen.available, threshold)

    def __reduce__(self) -> tuple[object, ...]:
        return MemoryCritical, self.args, self.__dict__


def gb(size: int) -> str:
    """``size`` bytes as people read it: binary, one decimal, ``GB`` as the origin system wrote it."""
    return f"{size / (1 << 30):.1f} GB"
