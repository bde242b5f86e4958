"""What a training loop has to do now: go on, stop in good order, or raise.

One :class:`Brake` stands behind each framework's callback. It decides and tells the log; it never saves by itself, and
never knows a framework. While nothing is wrong, asking it costs one native call.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable

import oomguard
from oomguard import _core
from oomguard._brake import logger
from oomguard._errors import MemoryCritical, gb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    OnWarning = Literal["stop", "warn", "ignore"]

AGREE_EVERY = 16
"""Steps between two agreements of several ranks: one all-reduce of four bytes, which waits for the accelerator."""
WARN_EVERY = 60.0
"""Seconds between two warnings in the log, and between two attempts to give memory back."""


class Wish(enum.IntEnum):
    """What the loop has to do. Of several ranks the greatest wish counts."""

    GO_ON = 0
    STOP = 1
    """End the training in good order: save, and let the framework return to its caller."""
    LEAVE = 2
    """Save, then raise: the guard chose this process, or it got SIGTERM."""


class Brake:
    """Decides for one training loop at a time.

    Without a guard level ``warning`` is a wish to stop (``on_warning="stop"``), and level ``critical`` raises. Under a
    living guard the machine's level stops nobody, or every worker would stop in one shortage: only the worker that the
    guard chose is asked to leave. It raises at once, unsaved, if the machine's level is critical by then.

    Args:
        on_warning: ``"stop"``; ``"warn"``: give freed memory back and write a line, at most once a minute; or
            ``"ignore"``.

    Raises:
        ValueError: ``on_warning`` is none of these.
    """

    def __init__(self, on_warning: OnWarning = "stop") -> None:
        if on_warning not in ("stop", "warn", "ignore"):
            raise ValueError(f"on_warning must be `stop`, `warn` or `ignore`, not `{on_warning}`")
        self.on_warning = on_warning
        self.stopped: str | None = None
        """Why the last training was ended early, in good order: ``"warning"``; ``None`` if it was not."""
        self._threshold = 0
        self._ranks: Callable[[int], int] | None = None
        self._next_warning = 0.0

    @property
    def together(self) -> bool:
        """Whether several ranks agree on what they do."""
        return self._ranks is not None

    def begin(self, ranks: Callable[[int], int] | None = None) -> None:
        """A training begins. ``ranks`` gives the greatest of all ranks' numbers, where there are several."""
        seen = _core.snapshot()
        self.stopped = None
        self._next_warning = 0.0
        self._ranks = ranks
        self._threshold = seen.reserve if self.on_warning == "ignore" else seen.warning
        _core.should_stop(self._threshold)  # from now on sampled often enough for it
        if seen.available is None:
            logger().warning("available memory is unknown (%s): training is not watched", seen.unknown)

    def wish(self, place: str, number: int) -> Wish:
        """What to do at this step. ``place`` and ``number`` are for messages: ``"batch"``, 17.

        With several ranks, each must call it with the same numbers; then they all wish the same.

        Raises:
            MemoryCritical, StopRequested: There is no time to save.
        """
        if self._ranks is None:
            return Wish.GO_ON if _core.at_ease(self._threshold) else self._look_closer(place, number)
        if number % AGREE_EVERY:
            self.check_critical(place, number)
            return Wish.GO_ON
        return Wish(self._ranks(self._look_closer(place, number)))

    def check(self, place: str, number: int, save: Callable[..., object] | None = None, *saved: object) -> None:
        """Raises where a training cannot be stopped in good order: in an evaluation or a prediction. ``saved`` is what
        ``save`` takes.

        Raises:
            MemoryCritical, StopRequested: After the save, where one is possible and there is time.
        """
        if _core.at_ease(self._threshold):
            return
        context = f"{place} {number}"
        if (_core.stop_requested() or _core.prune_requested()) and has_time():
            if self._ranks is not None:
                return  # the ranks agree on it at their next step
            if save is not None:
                save_before_leaving(context, save, *saved)
        _core.check(context)

    def check_critical(self, place: str, number: int) -> None:
        """Raises where there is no time for what :meth:`wish` would say at the end of this step.

        Raises:
            MemoryCritical, StopRequested: The level is critical.
        """
        if not _core.at_ease(self._threshold) and _core.level() == "critical":
            _core.check(f"{place} {number}")

    def ends(self, place: str, number: int, save: Callable[..., object] | None, *saved: object) -> bool:
        """Does what is to be done at this step, where a save is possible at any moment: ``save(*saved)``.

        Returns:
            Whether the training is to end, in good order.

        Raises:
            MemoryCritical, StopRequested: After the save, where there was time for one.
            Exception: What ``save`` raises, unless this process has to leave: then it is logged.
        """
        wish = self.wish(place, number)
        if wish is Wish.GO_ON:
            return False
        context = f"{place} {number}"
        if wish is Wish.LEAVE:
            if save is not None:
                save_before_leaving(context, save, *saved)
            leave(context, at_all_events=self.together)
            return False
        if save is not None:
            save(*saved)
        self.stop(context, saved=save is not None)
        return True

    def stop(self, context: str, saved: bool) -> None:
        """Records that the training ends in good order, and says so."""
        self.stopped = "warning"
        said = "saved, and stops" if saved else "stops"
        logger().warning("Memory warning [%s]: %s: the training %s in good order", context, _numbers(), said)

    def _look_closer(self, place: str, number: int) -> Wish:
        context = f"{place} {number}"
        if (_core.stop_requested() or _core.prune_requested()) and has_time():
            return Wish.LEAVE
        _core.check(context)  # critical; under a guard only if it chose this process
        if self.on_warning == "ignore" or self.stopped is not None:  # a framework may have to go on for a while
            return Wish.GO_ON
        if _core.level() != "warning" or time.monotonic() < self._next_warning:
            return Wish.GO_ON
        return self._warned(context)

    def _warned(self, context: str) -> Wish:
        self._next_warning = time.monotonic() + WARN_EVERY
        oomguard.relieve()
        seen = _core.snapshot()
        if seen.level != "warning":
            return Wish.GO_ON
        if self.on_warning == "stop" and not seen.guarded:
            return Wish.STOP
        who = "; the guard decides who stops" if seen.guarded else ""
        logger().warning("Memory warning [%s]: %s%s", context, _numbers(), who)
        return Wish.GO_ON


def leave(context: str, at_all_events: bool = False) -> None:
    """Raises what the guard, or SIGTERM, asks for; returns if that was taken back meanwhile.

    ``at_all_events``: another rank was asked, so this one leaves as well.

    Raises:
        MemoryCritical, StopRequested: As :func:`oomguard.check`.
    """
    _core.check(context)
    if at_all_events:
        raise MemoryCritical(context, "requested", _core.available())


def save_before_leaving(context: str, save: Callable[..., object], *saved: object) -> None:
    """Saves; what goes wrong is logged, because this process has to leave all the same."""
    try:
        save(*saved)
    except Exception as error:
        logger().error("could not save before the stop [%s]: %s: %s", context, type(error).__name__, error)


def has_time() -> bool:
    """Whether a save may be begun now: not while the machine is below its reserve."""
    return _core.level() != "critical"


def _numbers() -> str:
    seen = _core.snapshot()
    available = "unknown" if seen.available is None else gb(seen.available)
    return f"{available} available (warning threshold {gb(seen.warning)}, safety threshold {gb(seen.reserve)})"
