"""Looks whether there is room before anything is collected; refuses with exit code 75 (EX_TEMPFAIL) if not."""

from __future__ import annotations

import pytest

from oomguard.pytest import _holders, _ram, _terminal, _vram
from oomguard.pytest._settings import Settings
from oomguard.pytest._size import shown

NAME = "oomguard-preflight"
EX_TEMPFAIL = 75


class Preflight:
    """Compares the machine's RAM and VRAM with ``settings``; what is unknown refuses nothing, and is said."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self._config = config
        self._settings = settings
        self._unknown: list[str] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Before pytest-xdist starts its workers.

        Raises:
            pytest.exit.Exception: There is no room; it says how full it is and who holds the memory.
        """
        problems = [*self._ram(self._settings.ram_preflight), *self._vram(self._settings.vram_preflight)]
        if problems:
            pytest.exit("oomguard: no room to run tests: " + "\n".join(problems), returncode=EX_TEMPFAIL)
        if self._config.getoption("verbose", 0) < 0:  # then there is no header
            for text in self._unknown:
                _terminal.say(self._config, f"oomguard: {text}")

    def pytest_report_header(self) -> list[str]:
        """What could not be looked at, unless the ledger's line says so."""
        return [] if self._settings.shown else [f"oomguard: {text}" for text in self._unknown]

    def _ram(self, most: float | None) -> list[str]:
        if most is None:
            return []
        ram = _ram.read()
        if ram.percent is None:
            self._unknown.append(f"RAM pre-flight: unknown, because {ram.unknown}")
            return []
        if ram.percent <= most:
            return []
        room = f"{shown(ram.available)} of {shown(ram.total)} available"
        return [
            f"RAM {ram.percent:.1f}% used, more than {most:g}% (--oomguard-ram-preflight); {room}",
            *_held(_holders.of_ram()),
            "  remedy: end one of them, wait for it, or raise the threshold",
        ]

    def _vram(self, most: float | None) -> list[str]:
        if most is None:
            return []
        gpu = _vram.machine()
        if gpu.percent is None:
            self._unknown.append(f"VRAM pre-flight: unknown, because {gpu.unknown}")
            return []
        if gpu.percent <= most:
            return []
        room = f"{shown(gpu.total - gpu.used)} of {shown(gpu.total)} free"
        return [
            f"VRAM {gpu.percent:.1f}% used, more than {most:g}% (--oomguard-vram-preflight); {room}",
            *_held(_holders.of_vram()),
            "  remedy: end one of them, wait for it, or raise the threshold",
        ]


def _held(holders: tuple[list[_holders.Holder], str | None]) -> list[str]:
    found, unknown = holders
    if unknown is not None:
        return [f"  held by: unknown, because {unknown}"]
    return [f"  held by: {shown(one.size)}  pid {one.pid}  {one.name}" for one in found]
