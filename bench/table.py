"""What the scripts beside this print: one Markdown table, or one JSON object, and whether what is promised was kept."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Value = str | float | None


@dataclass
class Table:
    """Rows under columns that have a title and so many decimals; `None` was not measured."""

    columns: Mapping[str, tuple[str, int]]
    rows: list[dict[str, Value]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    promises: list[tuple[str, bool]] = field(default_factory=list)

    def skip(self, why: str) -> None:
        """Something cannot be measured here: said at once, and kept for the reader of the JSON."""
        print(f"not measured: {why}", file=sys.stderr, flush=True)
        self.missing.append(why)

    def promise(self, what: str, kept: bool) -> None:
        """A bound that the project keeps; one that is not kept is the script's failure."""
        self.promises.append((what, kept))

    def finish(self, as_json: bool) -> int:
        """Prints; the exit status."""
        if as_json:
            promises = [{"promise": what, "kept": kept} for what, kept in self.promises]
            print(json.dumps({"rows": self.rows, "missing": self.missing, "promises": promises}))
        else:
            self.draw()
        return 0 if all(kept for _, kept in self.promises) else 1

    def draw(self) -> None:
        lines = [[title for title, _ in self.columns.values()]]
        lines += [[shown(row.get(key), digits) for key, (_, digits) in self.columns.items()] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for number, line in enumerate(lines):
            first, *rest = (
                pad(cell, width, at == 0) for at, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            print(f"| {' | '.join([first, *rest])} |")
            if number == 0:
                print(f"| {' | '.join(['---'] + ['---:'] * (len(widths) - 1))} |")
        for what, kept in self.promises:
            print(f"\n{what}: {'yes' if kept else 'NO'}")


def shown(value: Value, digits: int) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:,.{digits}f}"


def pad(cell: str, width: int, is_first: bool) -> str:
    return cell.ljust(width) if is_first else cell.rjust(width)


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """A parser that knows `--json` and shows the script's own text."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    return parser


def median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
