"""Interrupts trials by the hundred, at random places, and looks whether one was left RUNNING.

    python python/bench/interrupts.py              # 500 trials in this interpreter
    python3.13 python/bench/interrupts.py --json

Every trial is interrupted by ``attach(study, interrupt=True)`` on a machine that says it is short, while its objective
does one of several things: counts, calls, handles exceptions of its own, sleeps, waits for a lock, reports to the
storage. Half of the trials run in the main thread, the others in four threads (``n_jobs=4``).
"""

from __future__ import annotations

import argparse
import collections
import json
import logging
import os
import platform
import random
import sys
import tempfile
import threading
import time

os.environ.update(OOMGUARD_RESERVE="1024T", OOMGUARD_WARNING="1024T")

import optuna

import oomguard.optuna


def count(trial, dice):
    n = 0
    while True:
        n += 1


def call(trial, dice):
    while True:
        sorted(range(dice.randrange(1, 2000)))


def handle(trial, dice):
    while True:
        try:
            [].pop()
        except Exception:
            trial.user_attrs  # noqa: B018
        finally:
            sum(range(100))


def sleep(trial, dice):
    time.sleep(60)


def wait(trial, dice):
    threading.Event().wait(60)


def report(trial, dice):
    for step in range(1 << 40):
        trial.report(step, step)
        trial.suggest_float(f"x{step}", 0, 1)


IN_ANY_THREAD = [count, call, handle, report]
IN_MAIN = [*IN_ANY_THREAD, sleep, wait]


def run(trials: int, seed: int) -> dict[str, object]:
    """Interrupts so many trials; what became of them."""
    dice = random.Random(seed)
    done: collections.Counter[str] = collections.Counter()
    attributed = 0
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="oomguard-interrupts-") as folder:
        for jobs, share in ((1, trials // 2), (4, trials - trials // 2)):
            loops = IN_MAIN if jobs == 1 else IN_ANY_THREAD
            study = optuna.create_study(
                storage=f"sqlite:///{folder}/{jobs}.db", sampler=optuna.samplers.RandomSampler()
            )
            oomguard.optuna.attach(study, interrupt=True)
            study.optimize(lambda trial, loops=loops: dice.choice(loops)(trial, dice), n_trials=share, n_jobs=jobs)
            for trial in optuna.load_study(study_name=study.study_name, storage=study._storage).get_trials():
                done[trial.state.name] += 1
                attributed += bool(trial.user_attrs.get("emergency_killed"))
    return {
        "python": platform.python_version(),
        "optuna": optuna.__version__,
        "seed": seed,
        "trials": sum(done.values()),
        "left_running": done["RUNNING"],
        "states": dict(done),
        "with_kill_reason": attributed,
        "seconds": round(time.perf_counter() - begun, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--seed", type=int, default=random.randrange(1, 1 << 30))
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("oomguard").setLevel(logging.CRITICAL)
    found = run(given.trials, given.seed)
    if given.json:
        print(json.dumps(found))
    else:
        print(
            f"Python {found['python']}, Optuna {found['optuna']}, seed {found['seed']}: {found['trials']} trials "
            f"interrupted in {found['seconds']} s, {found['left_running']} left RUNNING, states {found['states']}"
        )
    return 0 if found["states"] == {"PRUNED": given.trials} else 1


if __name__ == "__main__":
    sys.exit(main())
