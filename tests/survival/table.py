"""The results as a table: scenarios down, guards across. Pure."""

from __future__ import annotations

from typing import Any


def table(results: list[dict[str, Any]]) -> str:
    """Markdown. A cell: verdict, stall in ms / least available MiB / ms from the reserve to the first signal / to the
    turning point."""
    guards = list(dict.fromkeys(result["guard"] for result in results))
    cells = {(result["scenario"], result["guard"]): text(result) for result in results}
    lines = [f"| scenario | {' | '.join(guards)} |", "| --- " * (len(guards) + 1) + "|"]
    for scenario in dict.fromkeys(result["scenario"] for result in results):
        lines.append(f"| {scenario} | {' | '.join(cells.get((scenario, guard), '') for guard in guards)} |")
    return "\n".join(lines)


def text(result: dict[str, Any]) -> str:
    """One cell."""
    if "stall_ms" not in result:
        return str(result["verdict"])
    signal, turned = ("-" if at is None else f"{round(at)}" for at in (result["signal_ms"], result["turned_ms"]))
    ended = f" x{result['jobs_ended']}" if result["jobs_ended"] > 1 else ""
    return f"{result['verdict']} {result['stall_ms']:.0f}/{result['least_mib']}/{signal}/{turned}{ended}"
