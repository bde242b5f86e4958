"""Sizes as people give them."""

from __future__ import annotations

from typing import overload

from oomguard import _core


@overload
def size(name: str, given: str | int) -> int: ...


@overload
def size(name: str, given: str | int | None) -> int | None: ...


def size(name: str, given: str | int | None) -> int | None:
    """``given`` in bytes; errors name the argument ``name``.

    Raises:
        ValueError: It is a string that is no size, or negative.
        TypeError: It is neither a string nor a whole number.
    """
    if given is None:
        return None
    if isinstance(given, str):
        try:
            return _core.parse_size(given)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    if isinstance(given, bool) or not isinstance(given, int):
        raise TypeError(f'{name} must be a size such as "4GiB", or a number of bytes, not {given!r}')
    if not 0 <= given < 1 << 63:
        raise ValueError(f"{name} must be a number of bytes, 0 or more, not {given!r}")
    return given
