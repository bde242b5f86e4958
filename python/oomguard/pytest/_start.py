"""Registers what was asked for, each thing once."""

from __future__ import annotations

import pytest

from oomguard.pytest import _mark, _settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from oomguard.pytest import _measure


def start(config: pytest.Config) -> None:
    """Registers what the options ask for.

    Raises:
        pytest.UsageError: A value has no meaning, or pluggy is too old.
    """
    settings = _settings.read(config)
    wanted = settings.gc or ("auto" if settings.shown or settings.report else "never")
    measure(config, wanted)
    if settings.limit is not None:
        limit(config, settings.limit)
    if settings.shown or settings.profile:
        from oomguard.pytest import _profile

        config.pluginmanager.register(_profile.Profile(config, settings), _profile.NAME)
    if is_worker(config):
        return
    if settings.shown or settings.report:
        from oomguard.pytest import _ledger

        config.pluginmanager.register(_ledger.Ledger(config, settings), _ledger.NAME)
    if settings.ram_preflight is not None or settings.vram_preflight is not None:
        from oomguard.pytest import _preflight

        config.pluginmanager.register(_preflight.Preflight(config, settings), _preflight.NAME)


def start_for_marks(config: pytest.Config, marked: list[pytest.Item]) -> None:
    """Registers what the marks of these tests need.

    Raises:
        pytest.UsageError: A mark has an argument without a meaning, or pluggy is too old.
    """
    needs = [_mark.read(item) for item in marked]
    _require_wrappers()
    if any(need.memory is not None or need.vram is not None for need in needs):
        limit(config, None)
    if any(need.serial for need in needs):
        from oomguard.pytest import _serial

        folder = _serial.folder(config)
        if folder is not None and not config.pluginmanager.has_plugin(_serial.NAME):
            config.pluginmanager.register(_serial.Serial(folder), _serial.NAME)


def limit(config: pytest.Config, default: int | None) -> None:
    """Has tests held to their limits; ``default`` is for those without a mark."""
    measuring = measure(config, "never")
    from oomguard.pytest import _limit

    if not config.pluginmanager.has_plugin(_limit.NAME):
        config.pluginmanager.register(_limit.Limit(measuring, default), _limit.NAME)


def measure(config: pytest.Config, gc: str, every_phase: bool = True) -> _measure.Measure:
    """Has tests measured; a second call finds what the first has registered."""
    _require_wrappers()
    from oomguard.pytest import _measure

    found: _measure.Measure | None = config.pluginmanager.get_plugin(_measure.NAME)
    if found is None:
        found = _measure.Measure(gc, every_phase)
        config.pluginmanager.register(found, _measure.NAME)
    return found


def _require_wrappers() -> None:
    try:
        pytest.hookimpl(wrapper=True)
    except TypeError:
        raise pytest.UsageError("oomguard needs pluggy 1.2 or later: pip install -U pluggy") from None


def is_worker(config: pytest.Config) -> bool:
    """Whether this is a pytest-xdist worker; ``PYTEST_XDIST_WORKER`` would be inherited by what its tests start."""
    return hasattr(config, "workerinput")
