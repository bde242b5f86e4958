"""``oomguard.monitor()``: one live line about memory, in a terminal or below a notebook's cell."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Any, TextIO

from oomguard import _core
from oomguard._errors import gb

IN_A_PIPE = 60.0
"""Seconds between two lines where a line cannot be overwritten."""

_COLOURS = {"warning": "\x1b[33m", "critical": "\x1b[31;1m"}


class LiveLine:
    """What :func:`monitor` returns: shows itself until ``stop()``, or to the end of its ``with`` block."""

    def __init__(self, every: float, file: TextIO) -> None:
        self._every = every
        self._file = file
        self._display = None if file is not sys.stderr else _notebook()
        self._overwrite = self._display is None and file.isatty()
        self._first: tuple[float, int] | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="oomguard-live", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"oomguard.monitor(): {self.line()}"

    def __enter__(self) -> LiveLine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Shows the last state and no more. Twice is once."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._show(last=True)

    def line(self) -> str:
        """The line as it is now: the machine, this process and its growth since the first line, and who guards."""
        seen, held = _core.snapshot(), _core.resident()
        parts = []
        if seen.available is None or not seen.total:
            parts.append(f"available memory unknown: {seen.unknown}")
        else:
            used = 100.0 * (seen.total - min(seen.available, seen.total)) / seen.total
            parts.append(f"RAM {used:.1f}%, {_size(seen.available)} of {_size(seen.total)} available [{seen.level}]")
        if held is not None:
            parts.append(f"this process {_size(held)}{self._growth(held)}")
        if seen.guarded:
            limit = "no limit" if seen.limit is None else _size(seen.limit)
            parts.append(f"guarded: {_size(seen.usage or 0)} of {limit}")
        if seen.stop is not None:
            parts.append(f"asked to stop: {seen.cause or seen.stop}")
        return " | ".join(parts)

    def _growth(self, held: int) -> str:
        now = time.monotonic()
        if self._first is None:
            self._first = (now, held)
        since, first = self._first
        minutes = (now - since) / 60.0
        if minutes < 0.5:
            return ""
        return f" ({'+' if held >= first else '-'}{_size(int(abs(held - first) / minutes))}/min)"

    def _run(self) -> None:
        every = self._every if self._display is not None or self._overwrite else max(self._every, IN_A_PIPE)
        while True:
            self._show(last=False)
            if self._stopped.wait(every):
                return

    def _show(self, *, last: bool) -> None:
        line = self.line()
        try:
            if self._display is not None:
                self._display.update({"text/plain": line}, raw=True)
            elif self._overwrite:
                colour = _COLOURS.get(_core.level(), "") if _colours() else ""
                end = "\n" if last else ""
                self._file.write(f"\r\x1b[K{colour}{line}{chr(27) + '[0m' if colour else ''}{end}")
                self._file.flush()
            else:
                self._file.write(f"{line}\n")
                self._file.flush()
        except (OSError, ValueError):
            # The terminal is gone, or the file was closed: nobody looks any more.
            self._stopped.set()


def monitor(every: float = 1.0, file: TextIO | None = None) -> LiveLine:
    """Shows memory in one live line: used RAM, what is available, this process and how fast it grows.

    In a notebook it stands below the cell and goes on while later cells run; in a terminal it is rewritten in place;
    in a pipe or a file there is a line a minute. Keep the result and call ``stop()``, or use it as
    ``with oomguard.monitor():``. A thread of its own does it, at a cost of some 0.2 ms a line.

    Args:
        every: Seconds between two looks.
        file: Where to write instead of ``sys.stderr``.

    Raises:
        ValueError: ``every`` is not above 0.
    """
    if not every > 0:
        raise ValueError(f"every must be a number of seconds above 0, not {every!r}")
    return LiveLine(float(every), sys.stderr if file is None else file)


def _notebook() -> Any:
    """A place below the running cell that can be updated; ``None`` outside of a notebook."""
    shell = sys.modules.get("IPython")
    if shell is None or getattr(shell.get_ipython(), "kernel", None) is None:
        return None
    import importlib

    display = importlib.import_module("IPython.display").display
    return display({"text/plain": "oomguard.monitor()"}, raw=True, display_id=True)


def _colours() -> bool:
    import os

    return not os.environ.get("NO_COLOR")


def _size(size: int) -> str:
    return gb(size) if size >= 1 << 30 else f"{size / (1 << 20):.0f} MB"
