"""Sizes and shares as people type them, and sizes as messages show them."""

from __future__ import annotations

from oomguard import _core


def to_bytes(given: object) -> int:
    """Bytes of ``"4GiB"``, ``"512 MB"``, ``"1.5G"`` (all binary) or of a whole number of bytes.

    Raises:
        ValueError: It is not a size; the message quotes it and says what one looks like.
    """
    if isinstance(given, (int, str)) and not isinstance(given, bool):
        return _core.parse_size(str(given))
    raise ValueError(f"`{given!r}` is not a size (try `8GiB`, `512MiB` or `1.5G`)")


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
