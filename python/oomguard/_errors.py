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
        vram: With cause ``vram`` under a guard: ``VRAM of GPU 0 (NVIDIA T4): 5.0 GB of 4.0 GB``, what this job held of
            which GPU and its limit there; else ``None``.
    """

    def __init__(
        self,
        context: str = "",
        cause: str = "reserve",
        available: int | None = None,
        threshold: int | None = None,
        usage: int | None = None,
        vram: str | None = None,
    ) -> None:
        self.context = context
        self.cause = cause
        self.available = available
        self.threshold = threshold
        self.usage = usage
        self.vram = vram
        super().__init__(context, cause, available, threshold, usage, vram)

    def __str__(self) -> str:
        where = f" [{self.context}]" if self.context else ""
        held = "" if self.usage is None else f", this process holds {gb(self.usage)}"
        known = "" if self.available is None else f", {gb(self.available)} available"
        below = "" if self.threshold is None else f", threshold {gb(self.threshold)}"
        return f"stop to give memory back{where}: {self.vram or self.cause}{held}{known}{below}"


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
            cause = seen.cause or ("limit" if plenty else "reserve")
            super().__init__("", cause, seen.available, vram=vram_of(seen))
        else:
            super().__init__("", "reserve", seen.available, threshold)

    def __reduce__(self) -> tuple[object, ...]:
        return MemoryCritical, self.args, self.__dict__


def vram_of(seen: _core.Snapshot) -> str | None:
    """What the guard's request is about, if it is about a GPU."""
    if seen.gpu is None or seen.gpu_usage is None:
        return None
    limit = "" if seen.gpu_limit is None else f" of {gb(seen.gpu_limit)}"
    return f"VRAM of {seen.gpu}: {gb(seen.gpu_usage)}{limit}"


def gb(size: float) -> str:
    """``size`` bytes as people read it: binary, one decimal, ``GB`` as the origin system wrote it."""
    return f"{size / (1 << 30):.1f} GB"
