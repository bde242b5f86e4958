"""``@pytest.mark.oomguard(memory="4GiB", vram="2GiB", serial=True)``, read and checked at collection."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from oomguard.pytest._size import to_bytes


class Needs(NamedTuple):
    """What the marks of one test say; sizes in bytes."""

    memory: int | None = None
    vram: int | None = None
    serial: bool = False


NONE = Needs()
_KEY = pytest.StashKey[Needs]()


def of(item: pytest.Item) -> Needs:
    """What :func:`read` has found at collection."""
    return item.stash.get(_KEY, NONE)


def read(item: pytest.Item) -> Needs:
    """Reads the marks of a test, its class and its module: for each argument the closest one counts.

    Raises:
        pytest.UsageError: An argument has no meaning; the message names the test.
    """
    given: dict[str, Any] = {}
    for mark in item.iter_markers("oomguard"):
        if mark.args:
            raise _wrong(item, f"`{mark.args[0]!r}` has no name (try `memory={mark.args[0]!r}`)")
        given = {**mark.kwargs, **given}
    unknown = sorted(set(given) - set(Needs._fields))
    if unknown:
        raise _wrong(item, f"`{unknown[0]}` is not one of `memory`, `vram`, `serial`")
    serial = given.get("serial", False)
    if not isinstance(serial, bool):
        raise _wrong(item, f"`serial` must be True or False, not `{serial!r}`")
    needs = Needs(_size(item, given, "memory"), _size(item, given, "vram"), serial)
    item.stash[_KEY] = needs
    return needs


def _size(item: pytest.Item, given: dict[str, Any], name: str) -> int | None:
    if given.get(name) is None:
        return None
    try:
        return to_bytes(given[name])
    except ValueError as error:
        raise _wrong(item, f"`{name}`: {error}") from None


def _wrong(item: pytest.Item, what: str) -> pytest.UsageError:
    return pytest.UsageError(f"{item.nodeid}: @pytest.mark.oomguard: {what}")
