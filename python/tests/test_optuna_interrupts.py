"""``interrupt=True`` in trials: the bench's loops, fewer of them. ``OOMGUARD_INTERRUPTS`` sets how many."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

from conftest import clean_env

import oomguard.optuna as og

BENCH = pathlib.Path(__file__).parents[1] / "bench" / "interrupts.py"


def test_no_interrupted_trial_is_left_running():
    trials = int(os.environ.get("OOMGUARD_INTERRUPTS", "32"))
    done = subprocess.run(
        [sys.executable, str(BENCH), "--trials", str(trials), "--json"],
        env=clean_env(), capture_output=True, text=True, timeout=60 + trials, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["states"] == {"PRUNED": trials}, found
    assert found["with_kill_reason"] == trials


def test_wrapping_twice_forgets_nothing():
    def train(trial):
        return 0.0

    once = og.objective(train, interrupt=True)
    assert og.objective(once).interrupt is True
    assert og.objective(og.objective(train)).interrupt is False
    assert og.objective(og.objective(train), interrupt=True).interrupt is True
