"""What an examination found, as text and as plain values."""

from __future__ import annotations

from typing import Any, NamedTuple

from oomguard._errors import gb

MIB = 1 << 20


class Step(NamedTuple):
    """One thing that was done or measured. Sizes are resident bytes of the process, ``None`` where unknown."""

    name: str
    seconds: float
    before: int | None
    after: int | None


class Cause(NamedTuple):
    """One reason why the process is larger than it has to be, or will become so.

    ``kind`` is one of ``retention`` (freed heap that the allocator kept; given back now), ``cycles`` (unreachable
    objects that waited for a collection; freed now), ``attributes`` (data stored with an Optuna study; still there),
    ``untouched`` (reserved memory that is not in RAM yet; no leak), ``living`` (objects that hold more than before;
    still there) and ``growth`` (what remains after all that; a leak).
    """

    kind: str
    bytes: int
    """What it comes to; for ``growth`` bytes per trial or per second, see ``facts``."""
    text: str
    """A sentence."""
    remedy: str
    """What to do about it."""
    facts: dict[str, Any]
    """The same for programs: sizes in bytes, times in seconds."""


class Report(NamedTuple):
    """What an examination found. ``str(report)`` is for people, ``as_json()`` for programs."""

    causes: tuple[Cause, ...]
    """The largest first within each kind."""
    steps: tuple[Step, ...]
    """Everything that was done, in order, with what it took."""
    resident: int | None
    """Resident bytes of this process at the end, ``None`` where they cannot be read."""
    unknown: dict[str, str]
    """What could not be examined, and why."""

    def cause(self, kind: str) -> Cause | None:
        """The first cause of this kind."""
        return next((cause for cause in self.causes if cause.kind == kind), None)

    def as_json(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``: sizes in bytes, times in seconds."""
        return {
            "causes": [cause._asdict() for cause in self.causes],
            "steps": [step._asdict() for step in self.steps],
            "resident": self.resident,
            "unknown": self.unknown,
        }

    def __str__(self) -> str:
        resident = "unknown" if self.resident is None else mb(self.resident)
        lines = [f"memory of this process: {resident} resident"]
        for number, cause in enumerate(self.causes, 1):
            lines += [f"{number}. {cause.kind}: {cause.text}", f"   remedy: {cause.remedy}"]
        if not self.causes:
            lines.append("nothing found: no freed memory kept, no cycles, nothing that grows")
        lines.append("measured:")
        lines += [f"  {step.name:<28} {_seconds(step.seconds):>8}  {_change(step)}" for step in self.steps]
        lines += [f"  not examined: {what}: {why}" for what, why in self.unknown.items()]
        return "\n".join(lines)


def _change(step: Step) -> str:
    if step.before is None or step.after is None:
        return "resident size unknown"
    if step.before == step.after:
        return f"{mb(step.after)} resident"
    return f"{mb(step.before)} -> {mb(step.after)} resident"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def mb(size: float) -> str:
    """``552 MB``, ``7.9 GB``, ``120 KB``: binary, as the rest of oomguard writes it."""
    if abs(size) >= 1 << 30:
        return gb(size)
    if abs(size) >= 10 * MIB:
        return f"{size / MIB:.0f} MB"
    return f"{size / MIB:.1f} MB" if abs(size) >= MIB else f"{size / 1024:.0f} KB"
