"""``python -m oomguard``: says what the Python side sees on this machine, and whether it works. Exit code 0 or 1."""

from __future__ import annotations

import argparse
import json
import sys
import time
import timeit
from collections.abc import Sequence
from typing import Any

import oomguard
from oomguard import _core, _owner
from oomguard._errors import gb

CHECK_BUDGET_NS = 1000.0
"""A check that costs more fails the self-test. 15 to 60 ns is usual; a loaded machine is no reason to fail."""


def examine() -> tuple[dict[str, Any], list[str]]:
    """What is seen, and what is wrong; nothing wrong is an empty list."""
    wrong: list[str] = []
    seen = _core.snapshot()
    facts: dict[str, Any] = {
        "version": oomguard.__version__,
        "python": sys.version.split()[0],
        "available": seen.available,
        "total": seen.total,
        "level": seen.level,
        "reserve": seen.reserve,
        "warning": seen.warning,
        "guarded": seen.guarded,
        "guard_pid": seen.guard_pid,
        "limit": seen.limit,
        "usage": seen.usage,
        "stop": seen.stop,
        "cause": seen.cause,
    }
    if seen.available is None:
        wrong.append(f"available memory is unknown: {seen.unknown}")
    before = seen.samples
    deadline = time.monotonic() + 5.0
    while _core.snapshot().samples == before and time.monotonic() < deadline:
        time.sleep(0.01)
    seen = _core.snapshot()
    facts["sampler_interval_s"] = seen.interval
    facts["sampler"] = seen.samples > before
    if not facts["sampler"]:
        wrong.append("the sampling thread did not look within 5 s")
    facts["check_ns"] = round(cost_of_check(), 1)
    if facts["check_ns"] > CHECK_BUDGET_NS:
        wrong.append(f"check() costs {facts['check_ns']} ns")
    facts["owner"] = owner = _owner.current() is not None
    if not owner:
        wrong.append(f"trials cannot carry their owner: {_owner.why_unknown()}")
    try:
        import optuna
    except ImportError:
        facts["optuna"] = None
    else:
        facts["optuna"] = optuna.__version__
    return facts, wrong


def cost_of_check() -> float:
    """Nanoseconds of one ``check()``: the least of 20 rounds of 20,000; where it raises, of the native part alone."""
    call: Any = oomguard.check
    try:
        call()
    except oomguard.MemoryCritical:
        return min(timeit.repeat(lambda: _core.at_ease(0), number=20_000, repeat=20)) / 20_000 * 1e9
    return min(timeit.repeat("check()", globals={"check": call}, number=20_000, repeat=20)) / 20_000 * 1e9


def lines(facts: dict[str, Any]) -> list[str]:
    """``facts`` for people."""

    def size(name: str) -> str:
        return "unknown" if facts[name] is None else gb(facts[name])

    guard = f"yes, process {facts['guard_pid']}" if facts["guarded"] else "no: this process watches the machine itself"
    shown = [
        f"oomguard {facts['version']}, Python {facts['python']}, Optuna {facts['optuna'] or 'not installed'}",
        f"available: {size('available')} of {size('total')}, level {facts['level']}",
        f"thresholds: reserve {size('reserve')}, warning {size('warning')}",
        f"guard: {guard}",
        f"sampler: {'works' if facts['sampler'] else 'does not work'}, looks every {facts['sampler_interval_s']:.3f} s",
        f"check(): {facts['check_ns']} ns",
    ]
    if facts["guarded"]:
        limit = size("limit") if facts["limit"] is not None else "no limit"
        shown.insert(4, f"this job: {size('usage')} of {limit}, asked to stop: {facts['stop'] or 'no'}")
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the self-test; exit code 0 if nothing is wrong, else 1."""
    parser = argparse.ArgumentParser(prog="python -m oomguard", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text; sizes in bytes")
    given = parser.parse_args(arguments)
    try:
        facts, wrong = examine()
    except ValueError as error:  # a setting in the environment
        print(f"error: {error}", file=sys.stderr)
        return 1
    if given.json:
        print(json.dumps({**facts, "ok": not wrong, "wrong": wrong}))
    else:
        print("\n".join(lines(facts)))
        for problem in wrong:
            print(f"error: {problem}", file=sys.stderr)
        print("self-test: FAILED" if wrong else "self-test: passed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
