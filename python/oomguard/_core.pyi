"""
What Python needs from the engine.
"""

from os import PathLike
from pathlib import Path
from typing import Any, Final, SupportsFloat, SupportsIndex, final

__all__ = [
    "Guard",
    "Shield",
    "Snapshot",
    "Trend",
    "__version__",
    "acknowledge",
    "after_fork_in_child",
    "at_ease",
    "available",
    "check",
    "end",
    "forget_peak",
    "holds_reserve",
    "level",
    "limit_self",
    "notify",
    "on_interrupt",
    "parse_size",
    "peak_resident",
    "prune_requested",
    "request_stop",
    "resident",
    "should_stop",
    "snapshot",
    "stop_requested",
    "take_relief",
    "take_report",
    "trim",
    "vram_wanted",
]

__version__: Final[str]

@final
class Guard:
    """
    Watches memory while it is entered. Sizes in bytes.
    """
    def __enter__(self, /) -> Guard: ...
    def __exit__(self, kind: Any | None, error: Any | None, traceback: Any | None, /) -> None: ...
    def __new__(
        cls,
        /,
        trial: Any | None,
        context: str,
        warn: SupportsIndex | None,
        critical: SupportsIndex | None,
        limit: SupportsIndex | None,
        interrupt: bool,
    ) -> Guard: ...
    def __repr__(self, /) -> str: ...
    def check(self, /, context: str | None = None) -> None:
        """
        Raises if memory is too short to go on, or if this process holds as much as the guard's limit; else costs some
        atomic loads.
        """
    @property
    def critical_below(self, /) -> int:
        """
        Below it check() raises, where no guard decides.
        """
    @property
    def limit(self, /) -> int | None:
        """
        What this process may hold, None without a limit.
        """
    @staticmethod
    def shield() -> Shield:
        """
        Delays interrupts of this thread while it is entered: for a save that must not be cut in half.
        """
    @property
    def warn_below(self, /) -> int:
        """
        Below it check() warns.
        """

@final
class Shield:
    """
    Delays interrupts of the thread that enters it.
    """
    def __enter__(self, /) -> Shield: ...
    def __exit__(self, kind: Any | None = None, error: Any | None = None, traceback: Any | None = None, /) -> None: ...
    def __new__(cls, /) -> Shield: ...

@final
class Snapshot:
    """
    What is known at one moment. Sizes in bytes.
    """
    @property
    def available(self, /) -> int | None:
        """
        Memory that can still be given without swapping.
        """
    @property
    def cause(self, /) -> str | None:
        """
        Why the guard wants that, in its words.
        """
    @property
    def gpu(self, /) -> str | None:
        """
        Which GPU that is about, if it is about one; what this job held of it, and what it may hold.
        """
    @property
    def gpu_limit(self, /) -> int | None: ...
    @property
    def gpu_usage(self, /) -> int | None: ...
    @property
    def guard_pid(self, /) -> int | None:
        """
        The guard's process.
        """
    @property
    def guarded(self, /) -> bool:
        """
        A living guard watches this process.
        """
    @property
    def interval(self, /) -> float:
        """
        Seconds until its next look.
        """
    @property
    def level(self, /) -> str:
        """
        `normal`, `warning` or `critical`: the guard's word, or against `reserve` and `warning`; `unknown` where
        `available` is None.
        """
    @property
    def limit(self, /) -> int | None:
        """
        What this job may use.
        """
    @property
    def own_limit(self, /) -> int | None:
        """
        The lowest limit of any guard of this process that is entered.
        """
    @property
    def own_usage(self, /) -> int | None:
        """
        What this process holds, where such a limit is watched.
        """
    @property
    def reserve(self, /) -> int:
        """
        Below it level is critical.
        """
    @property
    def samples(self, /) -> int:
        """
        How often the sampling thread has looked.
        """
    @property
    def stop(self, /) -> str | None:
        """
        `prune`, `terminate` or None.
        """
    @property
    def total(self, /) -> int | None:
        """
        What `available` is out of.
        """
    @property
    def unknown(self, /) -> str | None:
        """
        Why `available` and `total` are None.
        """
    @property
    def usage(self, /) -> int | None:
        """
        What this job uses.
        """
    @property
    def warning(self, /) -> int:
        """
        Below it level is warning.
        """

@final
class Trend:
    """
    The trend of the lowest value of each window: Theil and Sen's slope with Mann and Kendall's confidence, over the
    newest 16 windows. With `window_seconds` of 0 each value counts. `seconds` may be any count that only rises.
    """
    def __new__(cls, /, window_seconds: SupportsFloat | SupportsIndex = 0.0) -> Trend: ...
    def __repr__(self, /) -> str: ...
    def add(self, /, seconds: SupportsFloat | SupportsIndex, bytes: SupportsIndex) -> bool:
        """
        Takes the value at this moment. Whether a window has ended with it.
        """
    @property
    def at_least(self, /) -> int | None:
        """
        The slope is no less, with 95 % certainty.
        """
    @property
    def at_most(self, /) -> int | None:
        """
        The slope is no more, with 95 % certainty.
        """
    @property
    def confidence(self, /) -> float | None:
        """
        That it grows (shrinks, where the slope is negative) and chance alone did not do this: 0.5 to 0.999.
        """
    def reaches(self, /, limit: SupportsIndex, usage: SupportsIndex) -> float | None:
        """
        Seconds until `usage` has become `limit` at this slope, None while it does not grow.
        """
    @property
    def slope(self, /) -> int | None:
        """
        Bytes per second, negative while it shrinks; None before the fourth window.
        """
    @property
    def sure(self, /) -> bool:
        """
        Whether it grows for good: at least eight windows, 99 % certain, by 32 MiB or more, to where it has not been,
        and not less and less.
        """
    @property
    def windows(self, /) -> int:
        """
        Windows that count: 16 at the most.
        """

def acknowledge() -> tuple[int, int | None] | None:
    """
    The exception has arrived in this thread: no further one may follow it. Returns below how many available bytes the
    thread's guards want it, and from how many held on (None: never); None if the thread has no guard.
    """

def after_fork_in_child() -> None:
    """
    The next check starts a sampling thread of the child's own.
    """

def at_ease(threshold: SupportsIndex) -> bool:
    """
    Whether nobody asks this process to stop and at least `threshold` bytes are available: the fast way through a check.
    """

def available() -> int | None:
    """
    Available memory in bytes as last seen, None if unknown.
    """

def check(context: Any | None = None) -> None:
    """
    Raises if memory is too short to go on; else costs some atomic loads (30 ns) and no system call.

    Under a living guard it follows the guard's wish alone: in one shortage the guard picks one job. Without a guard it
    raises while available memory is below the reserve: 2 GiB, on machines under 16 GiB an eighth of the memory, or
    what `OOMGUARD_RESERVE` says.

    Raises MemoryCritical (free what you can, save, go on or end), StopRequested (a SystemExit too: the process was
    asked to end), ValueError (`OOMGUARD_RESERVE` or `OOMGUARD_WARNING` is not a size).
    """

def end() -> None:
    """
    From now on no thread of ours asks for the GIL: for `atexit`.
    """

def forget_peak() -> None:
    """
    Begins a new peak_resident(). Raises OSError where the kernel does not let us.
    """

def holds_reserve() -> bool:
    """
    Whether it is held.
    """

def level() -> str:
    """
    `normal`, `warning` or `critical` as last seen: the guard's word, or available memory against the thresholds of
    check(). `unknown` without a reading. Some atomic loads.
    """

def limit_self(
    limit: SupportsIndex, parent: str | PathLike[str] | None, nested: bool
) -> tuple[str, int, Path | None, str | None]:
    """
    Holds this process and its future children to `limit` bytes. Raises ValueError if it uses as much already, OSError
    if nothing at all can hold it.

    `parent`: the cgroup to make the leaf in, None to find one. `nested`: this process is in a guard's cgroup already
    and must not leave it.
    """

def notify(message: str) -> bool:
    """
    Sends one datagram to the guard (`NOTIFY_SOCKET`, the sd_notify protocol). Returns whether it was sent; never
    blocks and never raises.
    """

def on_interrupt(number: SupportsIndex, frame: Any) -> None:
    """
    Raises in the main thread if it is to be interrupted: the handler of the signal that does it.
    """

def parse_size(text: str) -> int:
    """
    A size as people write it (`8GiB`, `8G`, `500M`), in bytes. Raises ValueError that says what is wrong with it.
    """

def peak_resident() -> int | None:
    """
    The most that resident() has been since the process began, or since forget_peak(); None where it cannot be read.
    """

def prune_requested() -> bool:
    """
    Whether the guard asks this process to give up its present work.
    """

def request_stop() -> None:
    """
    Makes every later check of this process ask it to end. Safe in a signal handler.
    """

def resident() -> int | None:
    """
    Bytes of this process that are in RAM, shared pages included; None where that cannot be read. 15 us.
    """

def should_stop(threshold: SupportsIndex) -> bool:
    """
    Whether a check with this threshold, in bytes, has to look closer. From now on the sampling thread looks often
    enough for it.
    """

def snapshot() -> Snapshot:
    """
    Everything that is known, read afresh.
    """

def stop_requested() -> bool:
    """
    Whether this process was asked to end.
    """

def take_relief() -> tuple[int | None, float] | None:
    """
    Takes the request for relief, if there is one: what trimming gave back in bytes (None: unknown), and its seconds.
    Whoever gets it does the rest; it is given once.
    """

def take_report() -> bool:
    """
    Takes the request to tell what this process holds of GPUs, if there is one. Whoever gets `True` does it.
    """

def trim() -> int | None:
    """
    Gives freed heap back to the kernel (malloc_trim), without the GIL. Returns the bytes that the resident set fell by,
    None where the allocator has no such call.
    """

def vram_wanted() -> bool:
    """
    Whether the guard wants to be told what this process holds of GPUs: no driver tells it.
    """
