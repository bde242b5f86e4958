"""Optuna's heartbeat and its retry callback beside our reaper: each trial is ended once, and queued again once."""

from __future__ import annotations

import contextlib
import sqlite3
import warnings

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from test_optuna_reap import HERE, dead, record, running  # noqa: F401

import oomguard.optuna as og
from oomguard.optuna import _reap

warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)

NEW = hasattr(optuna.storages, "RetryHeartbeatStaleTrialCallback")
CALLBACK = optuna.storages.RetryHeartbeatStaleTrialCallback if NEW else optuna.storages.RetryFailedTrialCallback
ARGUMENT = "heartbeat_stale_trial_callback" if NEW else "failed_trial_callback"


@pytest.fixture
def beating(tmp_path):
    """A study whose storage has a heartbeat and Optuna's own retries."""
    storage = RDBStorage(
        f"sqlite:///{tmp_path}/beat.db", heartbeat_interval=60, grace_period=120, **{ARGUMENT: CALLBACK(max_retry=2)}
    )
    study = optuna.create_study(study_name="s", storage=storage)
    study.path = tmp_path / "beat.db"
    return study


def dies(study, owner):
    """Trial 0 runs in another process, and that is dead."""
    storage = f"sqlite:///{study.path}"
    running(optuna.load_study(study_name="s", storage=storage), owner, {"x": 0.5})


def went_stale(study, number):
    """The last heartbeat of this trial was long ago."""
    trial_id = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    study._storage.record_heartbeat(trial_id)
    with sqlite3.connect(study.path) as database:
        then = "UPDATE trial_heartbeats SET heartbeat = '2001-01-01 00:00:00' WHERE trial_id = ?"
        database.execute(then, (trial_id,))


def one(trial):
    return trial.suggest_float("x", 0, 1)


@pytest.mark.parametrize(("cause", "state"), [("limit", TrialState.PRUNED), ("reserve", TrialState.FAIL)])
def test_the_reaper_goes_first(beating, dead, tmp_path, monkeypatch, cause, state):  # noqa: F811
    """Optuna would make FAIL of both, and try both again."""
    study = og.attach(beating)
    dies(study, dead)
    went_stale(study, 0)
    record(tmp_path, dead, cause)
    monkeypatch.setenv("OOMGUARD_STATE", str(tmp_path))
    study.optimize(one, n_trials=1)
    trials = study.get_trials()
    assert (trials[0].state, trials[0].user_attrs["oom_cause"]) == (state, cause)
    assert [trial.value for trial in trials if trial.params == {"x": 0.5}] == [None] + [0.5] * (cause == "reserve")
    study.optimize(one, n_trials=1)
    assert len([trial for trial in study.get_trials() if trial.params == {"x": 0.5}]) == 1 + (cause == "reserve")


def test_a_living_owner_that_hangs_is_optunas_to_judge(beating):
    study = og.attach(beating)
    running(study, HERE, {"x": 0.5})
    study._storage.set_trial_user_attr(1, "emergency_killed", True)
    study._storage.set_trial_user_attr(1, "peak_rss", 7)
    went_stale(study, 0)
    study.optimize(one, n_trials=1)
    first, again = study.get_trials()
    assert (first.state, again.state, again.value) == (TrialState.FAIL, TrialState.COMPLETE, 0.5)
    assert CALLBACK.retried_trial_number(again) == 0
    assert not again.user_attrs.get("emergency_killed")
    assert again.user_attrs["peak_rss"] > 7
    assert og.valid_trials(study) == [again]


def test_when_both_end_a_trial_at_once_it_is_queued_again_once(beating, dead, monkeypatch):  # noqa: F811
    """Optuna's heartbeat ends it between our retry and our final state, and calls its callback."""
    study = og.attach(beating)
    dies(study, dead)
    went_stale(study, 0)
    monkeypatch.setattr(_reap, "alone", lambda name, patience: contextlib.nullcontext())
    enqueue = _reap.enqueue_again

    def overtaken(of, trial):
        done = enqueue(of, trial)
        storage = of._storage
        assert storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        getter = getattr(storage, f"get_{ARGUMENT}")
        getter()(of, storage.get_trial(trial._trial_id))
        return done

    monkeypatch.setattr(_reap, "enqueue_again", overtaken)
    assert og.reap(study) == []
    assert [trial.state for trial in study.get_trials()] == [TrialState.FAIL, TrialState.WAITING]


def test_what_optuna_queued_again_is_not_queued_by_us_too(beating, dead):  # noqa: F811
    study = og.attach(beating)
    dies(study, dead)
    CALLBACK()(study, study.get_trials()[0])
    (reaped,) = og.reap(study)
    assert reaped.retried
    assert [trial.state for trial in study.get_trials()] == [TrialState.FAIL, TrialState.WAITING]
