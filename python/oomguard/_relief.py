"""Giving memory back before the brake has to: freed heap, garbage, the caches of loaded libraries, the user's own.

Every step is measured. None of them imports a library that is not loaded already, and no failure of one stops the next.
"""

from __future__ import annotations

import gc
import sys
import time

from oomguard import _core
from oomguard._brake import logger

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    Callback = TypeVar("Callback", bound=Callable[[], object])

PAUSE = 30.0
"""Seconds between two reliefs that a check tries by itself before it raises: a collection takes 0.1 s with torch."""

JUST_NOW = 1.0
"""Seconds for which a relief is news to those who measure memory."""

_callbacks: dict[tuple[str, str] | int, Callable[[], object]] = {}
_tried = float("-inf")
_busy = False


class Step:
    """One thing that was tried.

    Attributes:
        name: ``trim``, ``gc``, ``torch``, ``cupy``, ``jax``, or the callback's name.
        freed: Bytes that the resident set fell by (``torch``, ``cupy``: bytes of device memory given back); never
            negative. ``None``: unknown.
        seconds: How long it took.
        failed: What it raised, ``None`` if nothing.
    """

    __slots__ = ("failed", "freed", "name", "seconds")

    def __init__(self, name: str, freed: int | None, seconds: float, failed: str | None = None) -> None:
        self.name = name
        self.freed = freed
        self.seconds = seconds
        self.failed = failed

    def __repr__(self) -> str:
        return f"Step({self.name!r}, freed={self.freed}, seconds={self.seconds:.4f}, failed={self.failed!r})"


class Relief:
    """What giving back has brought.

    Attributes:
        steps: What was tried, in order.
        before: This process's resident bytes before the first step that was measured here, ``None`` if unknown.
        after: The same after the last.
    """

    __slots__ = ("after", "before", "steps")

    def __init__(self, steps: tuple[Step, ...], before: int | None, after: int | None) -> None:
        self.steps = steps
        self.before = before
        self.after = after

    def __repr__(self) -> str:
        return f"Relief({self.steps!r}, before={self.before}, after={self.after})"

    @property
    def freed(self) -> int:
        """Bytes given back by all steps whose gain is known, device memory included."""
        return sum(step.freed or 0 for step in self.steps)

    def __str__(self) -> str:
        parts = [f"{step.name} {_size(step.freed)} in {step.seconds * 1e3:.0f} ms" for step in self.steps]
        return f"gave back {_size(self.freed)}: {', '.join(parts) or 'nothing to try'}"


def on_pressure(callback: Callback) -> Callback:
    """Has ``callback()`` called whenever memory is to be given back, after the garbage collector: ``@on_pressure``.

    It runs in the main thread or in the one that checks, between two bytecodes, so keep it short and take no lock that
    the interrupted code may hold. What it raises is logged. A function that is defined again (a notebook's cell that is
    run again) replaces its former self.

    Raises:
        TypeError: It cannot be called.
    """
    if not callable(callback):
        raise TypeError(f"on_pressure() takes a function without arguments, not {callback!r}")
    name = getattr(callback, "__qualname__", "<nameless>")
    named = "<" not in name and getattr(callback, "__self__", None) is None
    _callbacks[(str(getattr(callback, "__module__", "")), name) if named else id(callback)] = callback
    return callback


def relieve() -> Relief:
    """Gives back now what can be given back, and says what that brought.

    In this order: the allocator's freed heap (``malloc_trim``, without the GIL), ``gc.collect()`` and the heap again,
    the caches of torch, CuPy and JAX where they are loaded, the callbacks of :func:`on_pressure`. Takes 0.1 to 0.3 s
    with torch loaded, and no time worth speaking of after ``oomguard.freeze_imports()``.
    """
    return carry_out(None)


def before_stopping() -> bool:
    """Relief as the last thing before a check raises; at most one in ``PAUSE`` seconds.

    Returns:
        Whether it has just been done, here or elsewhere, so that looking again is worth while.
    """
    since = time.monotonic() - _tried
    if _busy or since < PAUSE:
        return since < JUST_NOW
    carry_out(None)
    return True


def answer() -> None:
    """Carries out what the native side asks for, if nobody else has done so."""
    due = _core.take_relief()
    if due is not None:
        carry_out(due)


def carry_out(done: tuple[int | None, float] | None) -> Relief:
    """Every step, but the first where the native side has done that one: what it gave back, and its seconds."""
    global _busy, _tried
    if _busy:
        return Relief((), None, None)
    _busy = True
    shield = _core.Shield()  # an interrupt in here would hit whoever answers, not the work
    shield.__enter__()
    try:
        before = _core.resident()
        steps = [_measured("trim", _core.trim) if done is None else Step("trim", *done)]
        steps.append(_measured("gc", _collect))
        steps += [_cached(name, give_back) for name, give_back in _LIBRARIES.items() if name in sys.modules]
        for callback in list(_callbacks.values()):
            steps.append(_measured(getattr(callback, "__name__", repr(callback)), callback))
        if _callbacks:
            steps.append(_measured("trim", _core.trim))
        relief = Relief(tuple(steps), before, _core.resident())
    finally:
        shield.__exit__()
        _busy = False
        _tried = time.monotonic()
    logger().info("Memory is short: %s", relief)
    _core.notify(f"X_OOMGUARD_RELIEVED={relief.freed}")
    return relief


def _measured(name: str, act: Callable[[], object]) -> Step:
    before, begun, failed = _core.resident(), time.perf_counter(), None
    try:
        act()
    except Exception as error:
        failed = f"{type(error).__name__}: {error}"
        logger().warning("giving memory back: `%s` failed: %s", name, failed)
    seconds, after = time.perf_counter() - begun, _core.resident()
    freed = None if before is None or after is None else max(before - after, 0)
    return Step(name, freed, seconds, failed)


def _cached(name: str, give_back: Callable[[Any], int | None]) -> Step:
    freed: int | None = None

    def act() -> None:
        nonlocal freed
        freed = give_back(sys.modules[name])

    step = _measured(name, act)
    return step if freed is None else Step(step.name, freed, step.seconds, step.failed)


def _collect() -> None:
    gc.collect()
    _core.trim()


def _torch(torch: Any) -> int | None:
    """Cached blocks of the CUDA allocator. Never initialises CUDA: that alone takes 500 MB."""
    cuda = getattr(torch, "cuda", None)
    if cuda is None or not cuda.is_initialized():
        return None
    devices = range(cuda.device_count())
    held = sum(cuda.memory_reserved(device) for device in devices)
    cuda.empty_cache()
    return max(int(held - sum(cuda.memory_reserved(device) for device in devices)), 0)


def _cupy(cupy: Any) -> int:
    pools = (cupy.get_default_memory_pool(), cupy.get_default_pinned_memory_pool())
    held = int(pools[0].total_bytes())
    for pool in pools:
        pool.free_all_blocks()
    return max(held - int(pools[0].total_bytes()), 0)


def _jax(jax: Any) -> None:
    jax.clear_caches()


_LIBRARIES: dict[str, Callable[[Any], int | None]] = {"torch": _torch, "cupy": _cupy, "jax": _jax}


def _size(size: int | None) -> str:
    return "?" if size is None else f"{size / (1 << 20):.0f} MB"
