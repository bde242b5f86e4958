"""The summary: which tests had the highest peaks, and which functions leave memory behind."""

from __future__ import annotations

from collections.abc import Sequence

from oomguard.pytest._size import change, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from oomguard.pytest._ledger import Entry

ROWS = 10
"""Lines of a table."""
NOTABLE = 1 << 20
"""Bytes from which memory that stayed is worth a line."""


def summary(entries: Sequence[Entry]) -> list[str]:
    """Lines of text, the tables with aligned columns."""
    known = [(entry.rise, entry) for entry in entries if entry.rise is not None]
    known.sort(key=lambda pair: -pair[0])
    lines = [*_peaks(known, len(entries)), *_workers(entries), *_leaks(entries)]
    for reason, count in _reasons(entries).items():
        lines.append(f"unknown for {count} of {len(entries)} tests: {reason}")
    return lines


def _peaks(known: list[tuple[int, Entry]], count: int) -> list[str]:
    if not known:
        return []
    gpu = any(entry.vram_rise is not None for _, entry in known)
    rows = [["PEAK", "OVER START", *(["VRAM OVER START"] if gpu else []), "TEST"]]
    for rise, entry in known[:ROWS]:
        vram = "unknown" if entry.vram_rise is None else change(entry.vram_rise)
        rows.append([shown(entry.sizes["rss_peak"]), change(rise), *([vram] if gpu else []), entry.nodeid])
    return [f"largest peaks ({len(rows) - 1} of {count} tests)", *aligned(rows)]


def _workers(entries: Sequence[Entry]) -> list[str]:
    peaks: dict[str, int] = {}
    for entry in entries:
        if entry.worker is not None and "rss_peak" in entry.sizes:
            peaks[entry.worker] = max(peaks.get(entry.worker, 0), entry.sizes["rss_peak"])
    said = ", ".join(f"{worker} {shown(peak)}" for worker, peak in sorted(peaks.items()))
    return [f"peaks of the workers: {said}"] if said else []


def _leaks(entries: Sequence[Entry]) -> list[str]:
    """By function: one run may fill a cache, but parameters that each leave the same amount behind are a leak."""
    stayed: dict[str, list[int]] = {}
    for entry in entries:
        if entry.stayed is not None:
            stayed.setdefault(entry.nodeid.split("[", 1)[0], []).append(entry.stayed)
    ranked = sorted(stayed.items(), key=lambda pair: -sum(pair[1]))
    rows = [["STAYED", "TESTS", "LEAKS PER TEST", "FUNCTION"]]
    for name, sizes in ranked[:ROWS]:
        if sum(sizes) >= NOTABLE:
            rows.append([change(sum(sizes)), str(len(sizes)), change(sum(sizes) // len(sizes)), name])
    return ["memory that stayed", *aligned(rows)] if len(rows) > 1 else []


def _reasons(entries: Sequence[Entry]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for entry in entries:
        for what, why in entry.unknown.items():
            text = f"{what}: {why}"
            counts[text] = counts.get(text, 0) + 1
    return counts


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Figures to the right, the last column (the name) to the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return ["  ".join([*(cell.rjust(w) for cell, w in zip(row, widths, strict=False)), row[-1]]) for row in rows]
