"""The ways in which people use Optuna: threads, several objectives, ask and tell, samplers and pruners."""

from __future__ import annotations

import threading

import optuna
import pytest
from conftest import new_study
from optuna.trial import TrialState
from storages import open_fresh
from test_optuna_reap import HERE, dead, record, running  # noqa: F401

import oomguard.optuna as og
from oomguard.optuna._birth import owners

KILLED = {"emergency_killed": True, "kill_reason": "old", "available_gb_at_kill": 1.0, "oom_cause": "limit",
          "peak_rss": 1, "peak_rss_shared": True}  # fmt: skip


def test_in_threads_only_the_trial_that_ran_out_is_pruned(study):
    four = threading.Barrier(4, timeout=30)

    def objective(trial):
        four.wait()
        if trial.number == 2:
            raise MemoryError
        return trial.suggest_float("x", 0, 1)

    og.attach(study).optimize(objective, n_trials=4, n_jobs=4)
    states = {trial.number: trial.state for trial in study.get_trials()}
    assert states == {n: TrialState.PRUNED if n == 2 else TrialState.COMPLETE for n in range(4)}


def test_threads_that_want_the_same_queued_trial_leave_it_its_owner(spec):
    study = og.attach(new_study(spec))
    study.enqueue_trial({"x": 0.5})
    (queued,) = study.get_trials(states=(TrialState.WAITING,))
    rival = og.attach(optuna.load_study(study_name="s", storage=open_fresh(spec)))
    assert study.ask()._trial_id == queued._trial_id
    answers = []

    def late():
        answers.append(rival._storage.set_trial_state_values(queued._trial_id, TrialState.RUNNING))

    thread = threading.Thread(target=late)
    thread.start()
    thread.join()
    assert answers == [False]
    assert owners(open_fresh(spec).get_trial(queued._trial_id)) == [HERE]


@pytest.mark.parametrize("kind", ["TPESampler", "NSGAIISampler", "RandomSampler"])
def test_several_objectives_are_pruned_and_the_sampler_goes_on(quick, kind):
    sampler = getattr(optuna.samplers, kind)(seed=1)
    study = optuna.create_study(directions=["minimize", "maximize"], storage=quick._storage, sampler=sampler)

    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        if trial.number % 3 == 1:
            og.check_memory(trial, "split 1/2", 1_000_000.0)
        if trial.number % 3 == 2:
            raise MemoryError
        return x, 1 - x

    og.attach(study).optimize(objective, n_trials=30)
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.PRUNED] * 10
    assert len(og.valid_trials(study)) == 10
    assert {trial.number for trial in study.best_trials} <= {trial.number for trial in og.valid_trials(study)}


def test_several_objectives_are_reaped(quick, dead, tmp_path):  # noqa: F811
    study = optuna.create_study(directions=["minimize", "maximize"], storage=quick._storage)
    record(tmp_path, dead, "limit")
    running(study, dead, {"x": 0.5})
    (reaped,) = og.reap(study, state=str(tmp_path))
    assert (reaped.state, study.trials[0].values) == ("PRUNED", None)


def test_ask_and_tell_own_their_trials_and_begin_afresh(study):
    study.enqueue_trial({"x": 0.5}, user_attrs={**KILLED, "mine": 1})  # as a worker without oomguard would
    study = og.attach(study)
    trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    assert owners(study._storage.get_trial(trial._trial_id)) == [HERE]
    assert {key: value for key, value in trial.user_attrs.items() if value} == {"mine": 1}
    other = study.ask()
    with pytest.raises(optuna.TrialPruned):
        og.check_memory(other, "step 1", 1_000_000.0)
    study.tell(other, state=TrialState.PRUNED)
    study.tell(trial, 0.25)
    assert [trial.value for trial in og.valid_trials(study)] == [0.25]


def test_a_trial_queued_from_an_attached_worker_carries_nothing_over(quick):
    study = og.attach(quick)
    study.enqueue_trial({"x": 0.5}, user_attrs={**KILLED, "mine": 1})
    assert quick.trials[0].user_attrs == {"mine": 1}


def test_catch_does_not_make_a_failure_of_it(quick):
    og.attach(quick).optimize(lambda trial: b"x" * (1 << 62), n_trials=2, catch=(MemoryError, Exception))
    assert [trial.state for trial in quick.trials] == [TrialState.PRUNED] * 2


def test_a_grid_is_complete_although_a_worker_died_on_it(quick, dead):  # noqa: F811
    grid = {"x": [0.0, 1.0, 2.0, 3.0]}
    study = optuna.load_study(study_name="s", storage=quick._storage, sampler=optuna.samplers.GridSampler(grid, seed=1))
    distribution = optuna.distributions.FloatDistribution(0, 3)
    trial = study.ask({"x": distribution})
    study._storage.set_trial_system_attr(trial._trial_id, "oomguard:owner", {**dead._asdict(), "retries": 0})
    og.attach(study).optimize(lambda trial: trial.suggest_float("x", 0, 3), n_trials=10)
    done = [trial.params["x"] for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert sorted(done) == grid["x"]


def test_a_retry_starts_at_a_pruners_first_rung(quick, dead):  # noqa: F811
    running(quick, dead, {"x": 0.5}, completed_rung_0=0.1, completed_rung_1=0.1, grid_id=3)
    og.reap(quick)
    again = quick.trials[1]
    assert again.state == TrialState.WAITING
    assert [key for key in again.system_attrs if key.startswith("completed_rung_")] == []
    assert again.system_attrs["grid_id"] == 3, "what a sampler chose the parameters by stays"


@pytest.mark.parametrize("pruner", [optuna.pruners.HyperbandPruner(), optuna.pruners.SuccessiveHalvingPruner()])
def test_the_brake_and_a_pruner_work_on_the_same_study(quick, pruner):
    study = optuna.load_study(study_name="s", storage=quick._storage, pruner=pruner)

    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        for step in range(10):
            if trial.number % 5 == 4:
                og.check_memory(trial, "step 0", 1_000_000.0)
            trial.report(x, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return x

    og.attach(study).optimize(objective, n_trials=30)
    assert {trial.state for trial in study.trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    ended = [trial for trial in study.trials if trial.user_attrs.get("emergency_killed")]
    assert [trial.number for trial in ended] == [4, 9, 14, 19, 24, 29]
    assert len(og.valid_trials(study, (TrialState.COMPLETE, TrialState.PRUNED))) == 24
