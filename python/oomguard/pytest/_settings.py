"""What was asked for, from options and ini values; an option goes first."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import pytest

from oomguard.pytest._size import to_bytes, to_percent

_T = TypeVar("_T")


class Settings(NamedTuple):
    """Sizes in bytes, shares in percent, files as absolute paths; ``None`` was not asked for."""

    shown: bool = False
    limit: int | None = None
    report: str | None = None
    profile: str | None = None
    gc: str | None = None
    ram_preflight: float | None = None
    vram_preflight: float | None = None


def read(config: pytest.Config) -> Settings:
    """The settings of this session.

    Raises:
        pytest.UsageError: A value has no meaning; it names the option and quotes the value.
    """
    return Settings(
        shown=bool(config.getoption("oomguard") or config.getini("oomguard")),
        limit=_read(config, "limit", to_bytes),
        report=_file(config, "report"),
        profile=_file(config, "profile"),
        gc=_read(config, "gc", _gc),
        ram_preflight=_read(config, "ram-preflight", to_percent),
        vram_preflight=_read(config, "vram-preflight", to_percent),
    )


def _read(config: pytest.Config, name: str, parse: Callable[[str], _T]) -> _T | None:
    ini = f"oomguard_{name.replace('-', '_')}"
    option = config.getoption(ini)
    text = option or config.getini(ini)
    if not text:
        return None
    try:
        return parse(str(text))
    except ValueError as error:
        raise pytest.UsageError(f"{f'--oomguard-{name}' if option else ini}: {error}") from None


def _file(config: pytest.Config, name: str) -> str | None:
    """Options are relative to where pytest was started, ini values to the root folder."""
    option = config.getoption(f"oomguard_{name}")
    if option:
        return os.path.join(config.invocation_params.dir, os.path.expanduser(str(option)))
    ini = config.getini(f"oomguard_{name}")
    return os.path.join(config.rootpath, os.path.expanduser(str(ini))) if ini else None


def _gc(text: str) -> str:
    if text not in ("auto", "always", "never"):
        raise ValueError(f"`{text}` is not one of `auto`, `always`, `never`")
    return text
