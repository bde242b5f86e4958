"""The origin system's lines, one before and one after each test file:

    [MEMORY-PROFILE 2025-11-15 23:00:00] BEFORE | Test: tests/test_a.py | RAM: 45.2% | VRAM: 12.3% | Process: 1024MB

RAM and VRAM are shares of the machine, Process is this process's resident set in MiB; what is not known is ``unknown``.
A line is on the disk before the first test of its file begins, so that the file's name survives whatever follows.
Under pytest-xdist each worker writes the lines of its own tests.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator

import pytest

from oomguard import _core
from oomguard.pytest import _ram, _terminal, _vram
from oomguard.pytest._settings import Settings

NAME = "oomguard-profile"


class Profile:
    """Writes the lines to ``settings.profile``, and with ``settings.shown`` to the terminal, but not with ``-q``.

    Raises:
        pytest.UsageError: The file cannot be opened.
    """

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self._config = config
        self._shown = settings.shown and config.getoption("verbose", 0) >= 0
        self._unsent: list[str] | None = [] if self._shown and hasattr(config, "workerinput") else None
        self._open: str | None = None
        self._file: int | None = None
        if settings.profile:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
            try:
                self._file = os.open(settings.profile, flags, 0o666)
            except OSError as error:
                raise pytest.UsageError(f"--oomguard-profile: `{settings.profile}`: {error.strerror}") from None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """A file begins with its first test and ends with the last before another file's."""
        name = _file(item)
        if name != self._open:
            self._end()
            self._open = name
            self._say("BEFORE", name)
        result = yield
        if nextitem is None or _file(nextitem) != name:
            self._end()
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """In a worker: the lines since the last report travel with this one."""
        report = yield
        if self._unsent:
            report.oomguard_lines = list(self._unsent)  # type: ignore[attr-defined]  # reports carry extra attributes
            self._unsent.clear()
        return report

    def pytest_sessionfinish(self) -> None:
        """A session that stops early (``-x``) leaves a file open; a worker's last lines go with its last word."""
        self._end()
        if self._unsent:
            self._config.workeroutput["oomguard_lines"] = self._unsent  # type: ignore[attr-defined]  # of pytest-xdist

    def pytest_unconfigure(self) -> None:
        """Closes the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _end(self) -> None:
        if self._open is not None:
            self._say("AFTER", self._open)
            self._open = None

    def _say(self, when: str, name: str) -> None:
        text = line(when, name)
        if self._file is not None:
            os.write(self._file, f"{text}\n".encode(errors="replace"))
            try:
                os.fdatasync(self._file)
            except OSError:
                pass  # a terminal or a pipe has nothing to write through
        if self._unsent is not None:
            self._unsent.append(text)
        elif self._shown:
            _terminal.say(self._config, text)


def line(when: str, name: str) -> str:
    """One line, as of now."""
    resident = _core.resident()
    process = "unknown" if resident is None else f"{resident >> 20}MB"
    stamp = time.strftime("%Y-%m-%d %H:%M:%S")
    ram, vram = _percent(_ram.read().percent), _percent(_vram.machine().percent)
    return f"[MEMORY-PROFILE {stamp}] {when} | Test: {name} | RAM: {ram} | VRAM: {vram} | Process: {process}"


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f}%"


def _file(item: pytest.Item) -> str:
    return item.nodeid.split("::", 1)[0]
