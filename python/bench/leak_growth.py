"""A training loop whose dead agents stay, with and without `oomguard.end_of_trial()`. Each variant in its own process.

    python python/bench/leak_growth.py            # 40 splits each, about a minute; needs torch
    python python/bench/leak_growth.py --json --splits 20

The loop does what makes FinRL_Crypto's grow: one agent a split (PPO-like, 1024 wide, with Adam's state) that stores
its own methods on itself, so that only a full garbage collection frees it, and an environment with price arrays. Exit
code 1 if the loop does not grow without a remedy, or drifts by 5 % or more with `end_of_trial()`.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

MIB = 1 << 20
VARIANTS = ("nothing", "trim", "gc", "end_of_trial", "end_of_trial, frozen imports")
FLAT = 0.05
"""Growth over all splits, as a part of the size after the third, that counts as none."""


def train_one_split() -> None:
    """Makes an environment and an agent, trains a little, and forgets both."""
    import numpy as np
    import torch

    class Env:
        """Prices and indicators of 100 days in minutes: 4.6 MB."""

        def __init__(self) -> None:
            self.prices = np.random.default_rng(0).random((144_000, 4), dtype=np.float32)
            self.indicators = np.log1p(self.prices[:, :4])
            self.row = 0

        def step(self) -> torch.Tensor:
            self.row += 1
            return torch.from_numpy(np.concatenate([self.prices[self.row], self.indicators[self.row]]))

    class Agent:
        """An actor and a critic; `explore_env` and `get_obj_critic` are chosen when it is made, as bound methods."""

        def __init__(self, state: int = 8, width: int = 1024) -> None:
            self.env = Env()
            self.actor = torch.nn.Sequential(
                torch.nn.Linear(state, width), torch.nn.ReLU(), torch.nn.Linear(width, width), torch.nn.ReLU(),
                torch.nn.Linear(width, 2),
            )  # fmt: skip
            self.critic = torch.nn.Sequential(torch.nn.Linear(state, width), torch.nn.ReLU(), torch.nn.Linear(width, 1))
            self.optimizer = torch.optim.Adam([*self.actor.parameters(), *self.critic.parameters()], lr=1e-4)
            self.explore_env = self.explore_one_env
            self.get_obj_critic = self.get_obj_critic_raw

        def explore_one_env(self, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
            # A tuple of tensors a step, as it is there: these make the collector's generations pass, and the agent old.
            trajectory = []
            for _ in range(steps):
                state = self.env.step()
                trajectory.append((state, state.sum(), torch.ones(1), torch.zeros(2)))
            states, rewards, _, _ = (torch.stack(column) for column in zip(*trajectory, strict=True))
            return states, rewards

        def get_obj_critic_raw(self, states: torch.Tensor, rewards: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.mse_loss(self.critic(states).squeeze(1), rewards)

        def update(self, states: torch.Tensor, rewards: torch.Tensor) -> None:
            advantage = rewards - self.critic(states).squeeze(1).detach()
            policy = torch.log_softmax(self.actor(states), dim=1)[:, 0]
            loss = self.get_obj_critic(states, rewards) - (policy * advantage).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    agent = Agent()
    for _ in range(12):
        agent.update(*agent.explore_env(256))


def run(variant: str, splits: int) -> dict[str, object]:
    """Runs the loop in this process; sizes in bytes after each split, and the remedy's seconds."""
    import torch

    import oomguard
    from oomguard import _core

    torch.set_num_threads(1)
    remedies: dict[str, Callable[[], object]] = {
        "nothing": lambda: None,
        "trim": _core.trim,
        "gc": gc.collect,
        "end_of_trial": oomguard.end_of_trial,
        "end_of_trial, frozen imports": oomguard.end_of_trial,
    }
    sizes, costs = [], []
    trend = _core.Trend()
    # torch imports its compiler at the first step of an optimizer: one split that does not count, so that these objects
    # are old in each variant, and frozen in the last one.
    train_one_split()
    oomguard.end_of_trial()
    if variant.endswith("frozen imports"):
        oomguard.freeze_imports()
    for split in range(splits):
        train_one_split()
        start = time.perf_counter()
        remedies[variant]()
        costs.append(time.perf_counter() - start)
        size = _core.resident()
        if size is None:
            raise SystemExit("the resident size cannot be read here")
        sizes.append(size)
        if split >= 2:
            trend.add(split, size)
    return {
        "variant": variant,
        "splits": splits,
        "sizes": sizes,
        "start": sizes[2],
        "end": sizes[-1],
        "drift": (sizes[-1] - sizes[2]) / sizes[2],
        "bytes_per_split": (sizes[-1] - sizes[2]) / (splits - 3),
        "slope_of_the_last_16": trend.slope,
        "confidence": trend.confidence,
        "remedy_s": sorted(costs)[len(costs) // 2],
    }


def measure(variant: str, splits: int) -> dict[str, object]:
    """The same in a process of its own."""
    command = [sys.executable, os.path.abspath(__file__), "--splits", str(splits), "--only", variant]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def main() -> int:
    """Prints the table; 1 if it is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=40, help="at least 12 (default: 40)")
    parser.add_argument("--json", action="store_true", help="one JSON object a variant instead of the table")
    parser.add_argument("--only", choices=VARIANTS, help="run this variant in this process, print it as JSON")
    given = parser.parse_args()
    if given.splits < 12:
        parser.error("--splits must be 12 or more: growth is not certain sooner")
    if given.only:
        print(json.dumps(run(given.only, given.splits)))
        return 0
    if not given.json:
        print("| after each split | MB after 3 splits | after the last | MB a split | drift | remedy, ms |")
        print("| --- | --- | --- | --- | --- | --- |")
    found = {}
    for variant in VARIANTS:
        found[variant] = row = measure(variant, given.splits)
        numbers = {key: float(str(row[key])) for key in ("start", "end", "bytes_per_split", "drift", "remedy_s")}
        if given.json:
            print(json.dumps(row), flush=True)
        else:
            remedy = numbers["remedy_s"] * 1e3
            print(
                f"| {variant} | {numbers['start'] / MIB:.0f} | {numbers['end'] / MIB:.0f} "
                f"| {numbers['bytes_per_split'] / MIB:.1f} | {numbers['drift']:.1%} | {remedy:.1f} |",
                flush=True,
            )
    grows = float(str(found["nothing"]["drift"])) > FLAT
    flat = all(abs(float(str(found[name]["drift"]))) < FLAT for name in VARIANTS if name.startswith("end_of_trial"))
    if not (grows and flat):
        print("not as it should be: `nothing` is to grow, `end_of_trial` to stay flat", file=sys.stderr)
    return 0 if grows and flat else 1


if __name__ == "__main__":
    sys.exit(main())
