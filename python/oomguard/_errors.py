"""What the brake raises."""

from __future__ import annotations


class MemoryCritical(BaseException):
    """Memory is too short to go on, or the guard chose this process to give its memory back.

    It derives from ``BaseException``, as ``KeyboardInterrupt`` does, so that the ``except Exception:`` of a training
    loop or a library does not swallow it. ``oomguard.optuna`` converts it to ``TrialPruned`` before Optuna sees it.
    Anywhere else catch it by name: free what you can, save, and go on or end.

    Attributes:
        context: What the caller passed to ``check``.
        cause: Why, in the words of the guard's reports: ``reserve`` (the machine is short), ``limit`` or ``leak``
            (this job's own footprint), ``vram``, ``age``, ``timeout`` or ``requested``.
        available: Available memory in bytes when it was raised, ``None`` if unknown.
        threshold: The threshold in bytes that was crossed, ``None`` where the guard decided.
    """

    def __init__(
        self,
        context: str = "",
        cause: str = "reserve",
        available: int | None = None,
        threshold: int | None = None,
    ) -> None:
        self.context = context
        self.cause = cause
        self.available = available
        self.threshold = threshold
        super().__init__(context, cause, available, threshold)

    def __str__(self) -> str:
        where = f" [{self.context}]" if self.context else ""
        known = "" if self.available is None else f", {gb(self.available)} available"
        below = "" if self.threshold is None else f", threshold {gb(self.threshold)}"
        return f"stop to give memory back{where}: {self.cause}{known}{below}"


class StopRequested(MemoryCritical, SystemExit):
    """The process was asked to end (SIGTERM, or the guard's page says so): finish or drop the present work.

    It is a ``SystemExit`` too: when nobody catches it, the interpreter ends with code 0 and no traceback.
    """

    code: int = 0


def gb(size: int) -> str:
    """``size`` bytes as people read it: binary, one decimal, ``GB`` as the origin system wrote it."""
    return f"{size / (1 << 30):.1f} GB"
