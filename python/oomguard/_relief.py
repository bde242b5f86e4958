"""Giving memory back before the brake has to: freed heap, garbage, the caches of loaded libraries, the user's own.

Every step is measured. None of them imports a library that is not loaded already, and no failure of one stops the next.
"""

from __future__ import annotations

import _thread
import gc
import os
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

WAIT = 2.0
"""Seconds that a check waits for a relief in another thread before it raises: longer, and that thread may be waiting
for a lock that the checking one holds."""

_callbacks: dict[tuple[object, str] | int, Callable[[], Callable[[], object] | None]] = {}
"""Each with a function that gives it, or ``None`` when its object is gone."""
_tried = float("-inf")
_by: int | None = None
"""The thread that relieves."""


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
    run again) replaces its former self. A bound method does not keep its object alive, and is forgotten with it.

    Raises:
        TypeError: It cannot be called.
    """
    if not callable(callback):
        raise TypeError(f"on_pressure() takes a function without arguments, not {callback!r}")
    owner, name = getattr(callback, "__self__", None), getattr(callback, "__qualname__", "<nameless>")
    if owner is None and "<" not in name:
        _callbacks[str(getattr(callback, "__module__", "")), name] = lambda: callback
        return callback
    if hasattr(callback, "__func__") and type(owner).__weakrefoffset__:
        from weakref import WeakMethod

        key = (id(owner), name)
        _callbacks[key] = WeakMethod(callback, lambda _: _callbacks.pop(key, None))
        return callback
    _callbacks[id(callback)] = lambda: callback
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
    begun = time.monotonic()
    while _by not in (None, _thread.get_ident()) and time.monotonic() < begun + WAIT:
        time.sleep(0.005)
    since = time.monotonic() - _tried
    if _by is not None or since < PAUSE:
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
    global _by, _tried
    me = _thread.get_ident()
    if _by is not None:
        return Relief((), None, None)
    try:
        _by = me  # here, where nothing that interrupts Python can leave it set
        with _core.Shield():  # an interrupt in here would hit whoever answers, not the work
            before = _core.resident()
            steps = [_measured("trim", _core.trim) if done is None else Step("trim", *done)]
            steps.append(_measured("gc", _collect))
            steps += [_cached(name, give_back) for name, give_back in _LIBRARIES.items() if name in sys.modules]
            callbacks = [callback for get in list(_callbacks.values()) if (callback := get()) is not None]
            for callback in callbacks:
                steps.append(_measured(getattr(callback, "__name__", repr(callback)), callback))
            if callbacks:
                steps.append(_measured("trim", _core.trim))
            relief = Relief(tuple(steps), before, _core.resident())
    finally:
        _by = None
        _tried = time.monotonic()
    logger().info("Memory is short: %s", relief)
    _core.notify(f"X_OOMGUARD_RELIEVED={relief.freed}")
    if _core.vram_wanted():
        from oomguard import _vram

        _vram.report()
    return relief


def _after_fork_in_child() -> None:
    """The thread that relieved is not there in a forked child."""
    global _by
    _by = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


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
