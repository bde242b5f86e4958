"""What a replay buffer costs in memory over its payload, by how rows come into it. Each way in a fresh process.

    python python/bench/replay_cost.py             # needs torch; 20 MiB, 200 rounds, about two minutes
    python python/bench/replay_cost.py --json      # one JSON object a line

Rounds are 50 to 100 % of the payload long, and the round before stays bound while the next is collected, as in the
training loops of ElegantRL and FinRL. Ratios can be compared between machines, milliseconds cannot.

Exits with 1 if rows written in place peak above 1.05 times the payload or drift by more than 1 MiB.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

STATE, ACTION = 512, 8
ROW_BYTES = 4 * (STATE + 1 + 1 + ACTION + ACTION)
MIB = 1 << 20
PEAK, DRIFT = 1.05, MIB
"""What the project keeps for rows written in place."""

Round = Callable[[int], None]


def blocks(rows: int) -> list[Any]:
    """A round as one tensor a column: what a vectorized environment gives."""
    import torch

    return [torch.rand(rows, width) for width in (STATE, 1, 1, ACTION, ACTION)]


def steps(rows: int) -> list[Any]:
    """A round as a list of small tensors, stacked at its end: what ``explore_one_env`` does."""
    import torch

    made = [[torch.rand(width) for width in (STATE, 1, 1, ACTION, ACTION)] for _ in range(rows)]
    return [torch.stack(column) for column in zip(*made, strict=True)]


def read(buffer: list[Any]) -> None:
    """Learns something: looks at every value, without a copy."""
    for item in buffer:
        item.sum()


def catenated(explore: Callable[[int], list[Any]]) -> Callable[[int], Round]:
    """The list buffer as it is usually written: a new tensor a column and round."""

    def make(_capacity: int) -> Round:
        import torch

        buffer: list[Any] = []
        kept: list[Any] = []

        def one(rows: int) -> None:
            trajectories = [explore(rows)]
            buffer[:] = [torch.cat(items, dim=0) for items in zip(*trajectories, strict=True)]
            kept[:] = trajectories
            read(buffer)

        return one

    return make


def updated(explore: Callable[[int], list[Any]]) -> Callable[[int], Round]:
    """The drop-in, with only the import changed."""

    def make(_capacity: int) -> Round:
        from oomguard.replay.elegantrl2022 import ReplayBufferList

        buffer = ReplayBufferList()
        kept: list[Any] = []

        def one(rows: int) -> None:
            trajectories = [explore(rows)]
            buffer.update_buffer(trajectories)
            kept[:] = trajectories
            read(buffer)

        return one

    return make


def pushed(capacity: int) -> Round:
    """Row by row, from NumPy arrays."""
    import numpy as np

    from oomguard.replay.elegantrl2022 import ReplayBufferList

    buffer = ReplayBufferList(capacity, STATE, ACTION)
    dice = np.random.default_rng(0)

    def one(rows: int) -> None:
        for _ in range(rows):
            state, other = dice.random(STATE, np.float32), dice.random(ACTION, np.float32)
            buffer.push(state, 1.0, 0.99, other, other)
        buffer.finish()
        read(buffer)

    return one


def written(capacity: int) -> Round:
    """Into a window onto the buffer, as one block a column."""
    import torch

    from oomguard.replay.elegantrl2022 import ReplayBufferList

    buffer = ReplayBufferList(capacity, STATE, ACTION)

    def one(rows: int) -> None:
        window = buffer.writer(rows)
        for name in ("state", "reward", "mask", "action", "noise"):
            view = window.tensor(name)
            torch.rand(view.shape, out=view)
        window.commit()
        buffer.finish()
        read(buffer)

    return one


WAYS: dict[str, Callable[[int], Round]] = {
    "torch.cat, a tensor a column": catenated(blocks),
    "torch.cat, a tensor a step": catenated(steps),
    "update_buffer(), a tensor a column": updated(blocks),
    "update_buffer(), a tensor a step": updated(steps),
    "push(), row by row": pushed,
    "writer(), in place": written,
}


def measure(way: str, payload: int, rounds: int) -> dict[str, Any]:
    """Runs one way in this process."""
    import torch

    from oomguard import _core

    torch.set_num_threads(1)
    capacity = payload // ROW_BYTES
    WAYS[way](64)(64)  # what importing and the first call cost is not the buffer's
    _core.trim()
    base = _core.resident()
    _core.forget_peak()
    if base is None:
        raise SystemExit("this machine does not tell a process's resident memory")
    dice = random.Random(0)
    one = WAYS[way](capacity)
    resident, seconds = [], []
    for number in range(rounds):
        rows = capacity if number == 0 else dice.randint(capacity // 2, capacity)
        start = time.perf_counter()
        one(rows)
        seconds.append(time.perf_counter() - start)
        resident.append((_core.resident() or 0) - base)
    part = max(1, rounds // 10)
    return {
        "way": way,
        "payload": payload,
        "rounds": rounds,
        "peak_ratio": ((_core.peak_resident() or 0) - base) / payload,
        "end_ratio": resident[-1] / payload,
        "drift_bytes": statistics.median(resident[-part:]) - statistics.median(resident[part : 2 * part]),
        "round_ms": statistics.median(seconds) * 1e3,
    }


def line_of(found: dict[str, Any]) -> str:
    """One line of the table."""
    drift = found["drift_bytes"] / MIB
    ratios = f"{found['peak_ratio']:.2f} | {found['end_ratio']:.2f}"
    return f"| {found['way']:34} | {ratios} | {drift:+.1f} | {found['round_ms']:.1f} |"


def main() -> int:
    """Prints the table; 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--payload", type=int, default=20, help="MiB of a full round (20)")
    parser.add_argument("--rounds", type=int, default=200, help="rounds (200)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--way", choices=WAYS, help="only this one, in this process")
    given = parser.parse_args()
    if given.way:
        print(json.dumps(measure(given.way, given.payload * MIB, given.rounds)))
        return 0
    results = []
    if not given.json:
        print(f"{given.payload} MiB, {given.rounds} rounds of 50 to 100 %\n")
        print("| how rows come into the buffer | peak over payload | at the end | drift, MiB | round, ms |")
        print("| --- | --- | --- | --- | --- |")
    for way in WAYS:
        command = [sys.executable, __file__, "--way", way, "--payload", str(given.payload)]
        command += ["--rounds", str(given.rounds)]
        done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
        if done.returncode != 0:
            print(done.stderr, file=sys.stderr)
            return 1
        found = json.loads(done.stdout)
        results.append(found)
        print(json.dumps(found) if given.json else line_of(found), flush=True)
    last = results[-1]
    if last["peak_ratio"] > PEAK or abs(last["drift_bytes"]) > DRIFT:
        print(f"writing in place: {last} is beyond {PEAK} times the payload or {DRIFT} bytes of drift", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
