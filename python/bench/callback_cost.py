"""What a training step costs with ``MemoryGuard`` while memory is normal. Prints nanoseconds, least of many rounds.

python python/bench/callback_cost.py        # for each framework that is installed; 1 if one costs a microsecond
"""

from __future__ import annotations

import importlib
import os
import sys
import timeit
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("OOMGUARD_RESERVE", "1M")
os.environ.setdefault("OOMGUARD_WARNING", "2M")

STEPS: dict[str, str] = {
    "lightning": "guard.on_train_batch_start(at, at, at, 7); guard.on_train_batch_end(at, at, at, at, 7)",
    "transformers": "guard.on_step_begin(at, at, at); guard.on_step_end(at, at, at)",
    "keras": "guard.on_train_batch_begin(7)",
    "stable_baselines3": "guard._on_step()",
}
"""All hooks of one step."""
BUDGET_NS = 1000.0


def cost(name: str, step: str) -> float:
    """Nanoseconds of ``step``, least of 30 rounds of 20,000."""
    guard: Any = importlib.import_module(f"oomguard.{name}").MemoryGuard()
    guard._brake.begin()
    names = {"guard": guard, "at": SimpleNamespace(global_step=7)}
    return min(timeit.repeat(step, globals=names, number=20_000, repeat=30)) / 20_000 * 1e9


def main() -> int:
    """Prints the table; 1 if a step costs more than the budget."""
    worst = 0.0
    for name, step in STEPS.items():
        try:
            nanoseconds = cost(name, step)
        except ImportError as error:
            print(f"{name:20} {error}")
            continue
        worst = max(worst, nanoseconds)
        print(f"{name:20} {nanoseconds:8.1f} ns a step")
    return 1 if worst > BUDGET_NS else 0


if __name__ == "__main__":
    sys.exit(main())
