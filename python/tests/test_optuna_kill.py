"""Workers killed at random moments: no trial is left RUNNING, none is lost, none that was finished changes.

``OOMGUARD_KILLS`` sets the number of kills for each storage (default 4), ``OOMGUARD_SEED`` the moments.
"""

from __future__ import annotations

import os
import random
import signal
import time

import pytest
from conftest import new_study
from optuna.trial import TrialState
from storages import open_fresh
from test_optuna_brake import start

import oomguard.optuna as og

WORKER = """
import sys, optuna, oomguard, oomguard.optuna as og
from oomguard.optuna._spec import open_storage
optuna.logging.set_verbosity(optuna.logging.WARNING)
sampler = optuna.samplers.RandomSampler()
study = og.attach(optuna.load_study(study_name="s", storage=open_storage(sys.argv[1]), sampler=sampler))
def objective(trial):
    x = trial.suggest_float("x", -1, 1)
    for step in range(3):
        og.check_memory(trial, f"split {step + 1}/3")
        trial.report(x * x, step)
    return x * x
print("up", flush=True)
study.optimize(objective)
"""

WORKERS = 3


def finished(trials):
    return {t.number: (t.state, t.values, t.params, t.datetime_complete) for t in trials if t.state.is_finished()}


def test_killed_workers_lose_no_trial(spec):
    kills = int(os.environ.get("OOMGUARD_KILLS", "4"))
    seed = int(os.environ.get("OOMGUARD_SEED", "0")) or random.randrange(1, 1 << 30)
    print(f"OOMGUARD_SEED={seed}")
    dice = random.Random(seed)
    study = new_study(spec)
    for i in range(10):
        study.enqueue_trial({"x": i / 10})
    before = {}

    workers = [start(WORKER, spec) for _ in range(WORKERS)]
    try:
        for worker in workers:
            assert worker.stdout.readline() == "up\n", worker.stderr.read()
        for _ in range(kills):
            # Not a wait for anything: the moment of the kill itself is what is random.
            time.sleep(dice.uniform(0.0, 0.15))
            slot = dice.randrange(WORKERS)
            worker = workers[slot]
            gentle = dice.random() < 0.4
            worker.send_signal(signal.SIGTERM if gentle else signal.SIGKILL)
            _, err = worker.communicate(timeout=40)
            assert worker.returncode == (0 if gentle else -signal.SIGKILL), err
            workers[slot] = start(WORKER, spec)
            assert workers[slot].stdout.readline() == "up\n", workers[slot].stderr.read()
            # Through a storage of its own, as another process would see it: this is what must never change again.
            now = finished(open_fresh(spec).get_all_trials(study._study_id))
            assert {number: now.get(number) for number in before} == before, "a finished trial changed"
            before = now
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()

    og.reap(spec, "s")
    trials = open_fresh(spec).get_all_trials(study._study_id)
    after = finished(trials)
    assert {number: after.get(number) for number in before} == before, "a finished trial changed"
    assert [t.number for t in trials] == list(range(len(trials)))
    assert [t.number for t in trials if t.state == TrialState.RUNNING] == []
    for trial in trials:
        if trial.user_attrs.get("emergency_killed"):
            assert trial.state in (TrialState.PRUNED, TrialState.FAIL)
            assert {"kill_reason", "available_gb_at_kill"} <= set(trial.user_attrs)
        else:
            assert trial.state in (TrialState.COMPLETE, TrialState.WAITING)
    # What was ended but not to blame is there again, exactly once.
    first = [t.number for t in trials if t.state == TrialState.FAIL and not t.system_attrs.get("retry_history")]
    again = [t.system_attrs["oomguard:retry_of"] for t in trials if "oomguard:retry_of" in t.system_attrs]
    assert sorted(set(again)) == sorted(again)
    assert set(first) <= set(again)
    killed = sum(bool(t.user_attrs.get("emergency_killed")) for t in trials)
    print(f"{len(trials)} trials, {killed} ended from outside, {len(again)} queued again")


@pytest.mark.parametrize("gentle", [False, True])
def test_a_queued_trial_is_not_lost_either(study, spec, gentle):
    """The worker dies between taking a trial from the queue and its first parameter."""
    study.enqueue_trial({"x": 0.5})
    worker = start(
        """
import sys, time, optuna, oomguard, oomguard.optuna as og
from oomguard.optuna._spec import open_storage
study = og.attach(optuna.load_study(study_name="s", storage=open_storage(sys.argv[1])))
trial = study.ask()
print("taken", flush=True)
end = time.monotonic() + 20
try:
    while time.monotonic() < end:
        og.check_memory(trial); time.sleep(0.01)
except optuna.TrialPruned:
    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
""",
        spec,
    )
    assert worker.stdout.readline() == "taken\n", worker.stderr.read()
    worker.send_signal(signal.SIGTERM if gentle else signal.SIGKILL)
    worker.communicate(timeout=20)
    og.reap(study)
    states = [t.state for t in study.get_trials()]
    assert states == [TrialState.PRUNED if gentle else TrialState.FAIL, TrialState.WAITING]
    og.attach(study).optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert study.get_trials()[1].value == 0.5
