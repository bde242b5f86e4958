"""Sizes and shares as people type them, with the words of the native parser; and sizes as messages show them."""

from __future__ import annotations

import re

_UNITS = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_SIZE = re.compile(r"([0-9.]*)\s*(.*)", re.DOTALL)


def to_bytes(given: object) -> int:
    """Bytes of ``"4GiB"``, ``"512 MB"``, ``"1.5G"`` (all binary) or of a whole number of bytes.

    Raises:
        ValueError: It is not a size; the message quotes it and says what one looks like.
    """
    if isinstance(given, int) and not isinstance(given, bool):
        if given < 0:
            raise ValueError(f"`{given}` is negative; a size is a positive amount such as `8GiB`")
        return given
    if not isinstance(given, str):
        raise ValueError(f"`{given!r}` is not a size (try `8GiB`, `512MiB` or `1.5G`)")
    text = given.strip()
    if text.startswith("-"):
        raise ValueError(f"`{given}` is negative; a size is a positive amount such as `8GiB`")
    number, unit = _SIZE.fullmatch(text).groups()  # type: ignore[union-attr]  # it matches every text
    try:
        value = float(number)
    except ValueError:
        raise ValueError(f"`{given}` is not a size (try `8GiB`, `512MiB` or `1.5G`)") from None
    shift = _UNITS.get(re.sub(r"(?<=[kmgt])i?b$", "", unit.strip().lower()))
    if shift is None:
        known = "B, K, M, G, T, with or without `iB` or `B`; all binary"
        raise ValueError(f"`{unit.strip()}` in `{given}` is not a unit (known: {known})")
    if value * (1 << shift) >= 1 << 60:
        raise ValueError(f"`{given}` is larger than any machine")
    return int(value * (1 << shift))


def to_percent(given: str) -> float:
    """``"70%"`` or ``"70"`` as 70.0.

    Raises:
        ValueError: It is not a share between 0% and 100%.
    """
    try:
        value = float(given.strip().removesuffix("%"))
    except ValueError:
        raise ValueError(f"`{given}` is not a share (try `70%`)") from None
    if not 0 <= value <= 100:
        raise ValueError(f"`{given}` is not between 0% and 100%")
    return value


def shown(size: int) -> str:
    """``size`` bytes in MiB, from 10 GiB on in GiB, one decimal: ``251.3 MiB``. Differences may be negative."""
    if abs(size) >= 10 << 30:
        return f"{size / (1 << 30):.1f} GiB"
    return f"{size / (1 << 20):.1f} MiB"


def change(size: int) -> str:
    """A difference in bytes with its sign: ``+200.0 MiB``."""
    return shown(size) if size < 0 else f"+{shown(size)}"
