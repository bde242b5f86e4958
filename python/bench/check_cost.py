"""What a check costs, against the ways people do it today. Prints nanoseconds (least of many rounds) and ratios.

    python python/bench/check_cost.py        # needs psutil for the comparison

The ratio is taken in one run on one machine, so it can be compared between machines; the nanoseconds cannot.
"""

from __future__ import annotations

import sys
import timeit
from collections.abc import Callable

import oomguard


def cost(call: Callable[[], object], number: int) -> float:
    """Nanoseconds a call, least of 30 rounds, with the cost of the empty loop in it."""
    return min(timeit.repeat("call()", globals={"call": call}, number=number, repeat=30)) / number * 1e9


def empty() -> None:
    """The least that anything written in Python costs."""
    return


def main() -> int:
    """Prints the table; 1 if psutil is missing."""
    monitor = oomguard.MemoryMonitor(0.001, 0.002)
    rows = {
        "oomguard.check()": cost(oomguard.check, 100_000),
        "MemoryMonitor.check()": cost(monitor.check, 100_000),
        "an empty Python function": cost(empty, 100_000),
    }
    try:
        import optuna

        from oomguard.optuna import check_memory

        trial = optuna.trial.FixedTrial({})
        rows["oomguard.optuna.check_memory(trial)"] = cost(lambda: check_memory(trial, "", 0.001), 50_000)
    except ImportError:
        pass
    try:
        import psutil  # type: ignore[import-untyped]
    except ImportError:
        print("psutil is not installed, so there is nothing to compare with", file=sys.stderr)
        return 1
    rows["psutil.virtual_memory()"] = theirs = cost(psutil.virtual_memory, 1_000)
    for name, nanoseconds in rows.items():
        print(f"{name:40} {nanoseconds:10.1f} ns   psutil costs {theirs / nanoseconds:8.1f} times as much")
    return 0


if __name__ == "__main__":
    sys.exit(main())
