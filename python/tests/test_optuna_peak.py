"""``peak_rss``: the most memory of a trial, on every way out of it, and the constraint made of it."""

from __future__ import annotations

import logging
import sys
import threading

import optuna
import pytest
from optuna.trial import TrialState
from test_optuna_reap import HERE, dead, record, running  # noqa: F401

import oomguard.optuna as og
from oomguard import _core
from oomguard.optuna import _peak
from oomguard.optuna._names import MEMORY_CONSTRAINT

MIB = 1 << 20
CONSTRAINTS = hasattr(optuna.trial.Trial, "set_constraint")


def hold(mib):
    """Touches that much memory and lets go of it."""
    assert len(b"x" * (mib * MIB)) == mib * MIB


def test_each_trial_has_its_own_peak(study):
    attached = og.attach(study)
    attached.optimize(lambda trial: hold([1, 200, 1][trial.number]) or 1.0, n_trials=3)
    small, large, after = (trial.user_attrs["peak_rss"] for trial in attached.trials)
    assert large - small > 150 * MIB
    assert large - after > 150 * MIB
    assert abs(_core.peak_resident() - after) < 50 * MIB
    assert "peak_rss_shared" not in attached.trials[1].user_attrs


def leave(trial):
    sys.exit(3)


def fail(trial):
    raise ValueError("mine")


def run_out(trial):
    raise MemoryError


def brake(trial):
    og.check_memory(trial, "split 1/2", 1_000_000.0)


def prune(trial):
    raise optuna.TrialPruned


@pytest.mark.parametrize(
    ("way", "state"),
    [
        (leave, TrialState.FAIL), (fail, TrialState.FAIL), (lambda trial: float("nan"), TrialState.FAIL),
        (run_out, TrialState.PRUNED), (brake, TrialState.PRUNED), (prune, TrialState.PRUNED),
    ],
)  # fmt: skip
def test_it_is_there_however_the_trial_ends(quick, way, state):
    try:
        og.attach(quick).optimize(way, n_trials=1, catch=(ValueError,))
    except SystemExit:
        assert way is leave
    trial = quick.trials[0]
    assert trial.state == state
    assert trial.user_attrs["peak_rss"] > 10 * MIB
    og.attach(quick).optimize(lambda trial: 1.0, n_trials=1)
    assert "peak_rss_shared" not in quick.trials[1].user_attrs, "the first one's watch is over"


def test_trials_that_overlap_in_one_process_say_so(quick):
    both = threading.Barrier(2, timeout=20)

    def together(trial):
        if trial.number < 2:
            both.wait()
            hold(100 * trial.number)
            both.wait()
        return 1.0

    study = og.attach(quick)
    study.optimize(together, n_trials=2, n_jobs=2)
    study.optimize(together, n_trials=1)
    first, second, alone = (trial.user_attrs for trial in study.trials)
    assert first["peak_rss_shared"] is True
    assert second["peak_rss_shared"] is True
    assert "peak_rss_shared" not in alone
    assert min(first["peak_rss"], second["peak_rss"]) > 100 * MIB


def test_a_wrapped_objective_records_it_without_attach():
    study = optuna.create_study()
    study.optimize(og.objective(lambda trial: 1.0), n_trials=1)
    assert study.trials[0].user_attrs["peak_rss"] > 10 * MIB


def test_an_unknown_peak_is_not_written_and_said_once(quick, monkeypatch, caplog):
    class Blind:
        def forget_peak(self):
            raise OSError("cannot write 5 to `/proc/self/clear_refs`")

    monkeypatch.setattr(_peak, "_core", Blind())
    monkeypatch.setattr(_peak, "_said", set())
    caplog.set_level(logging.WARNING, "oomguard")
    og.attach(quick).optimize(lambda trial: 1.0, n_trials=2)
    assert [trial.state for trial in quick.trials] == [TrialState.COMPLETE] * 2
    assert ["peak_rss" in trial.user_attrs for trial in quick.trials] == [False, False]
    said = [record.getMessage() for record in caplog.records]
    assert said == ["peak_rss is not recorded: cannot write 5 to `/proc/self/clear_refs`"]


@pytest.mark.skipif(not CONSTRAINTS, reason="trials have constraints from Optuna 5.0 on")
class TestConstraint:
    def test_too_large_a_trial_is_not_feasible(self, study):
        limit = _core.resident() + 100 * MIB
        attached = og.attach(study, memory_constraint=limit)
        attached.optimize(lambda trial: hold([1, 300][trial.number]) or -trial.number, n_trials=2)
        small, large = attached.trials
        for trial in (small, large):
            assert trial.constraints == {"peak_rss": (trial.user_attrs["peak_rss"] - limit) / (1 << 30)}
        assert small.constraints["peak_rss"] < 0 < large.constraints["peak_rss"]
        assert attached.best_trial.number == 0, "the better value is not feasible"

    def test_what_ran_out_of_its_own_memory_never_is(self, quick):
        og.attach(quick).optimize(og.objective(run_out, memory_constraint="100GiB"), n_trials=1)
        assert 0 < quick.trials[0].constraints["peak_rss"] < 0.001

    def test_nor_is_what_the_guard_killed_for_its_own_memory(self, quick, dead, tmp_path):  # noqa: F811
        record(tmp_path, dead, "limit")
        record(tmp_path, dead._replace(pid=1), "reserve")
        for owner in (dead, dead._replace(pid=1)):
            running(quick, owner, **{MEMORY_CONSTRAINT: 6 << 30})
        og.reap(quick, state=str(tmp_path))
        own, neighbours = quick.trials[:2]
        assert own.constraints == {"peak_rss": pytest.approx(2.1)}
        assert neighbours.constraints == {}

    def test_it_is_not_in_force_where_trials_overlap(self, quick, caplog, monkeypatch):
        monkeypatch.setattr(_peak, "_said", set())
        both = threading.Barrier(2, timeout=20)
        og.attach(quick, memory_constraint="1MiB").optimize(lambda trial: (both.wait() and 1.0) or 1.0, 2, n_jobs=2)
        assert [trial.constraints for trial in quick.trials] == [{}, {}]
        assert "memory_constraint is not in force with n_jobs > 1" in caplog.text

    def test_a_trial_that_could_not_begin_is_not_taken_for_one_that_runs(self, quick, monkeypatch):
        """It counted as overlapping with every later trial of the process."""
        attached = og.attach(quick, memory_constraint="100GiB")
        write, storage = type(quick._storage).set_trial_system_attr, type(quick._storage)

        def down(self, trial_id, key, value):
            if key == MEMORY_CONSTRAINT and len(quick.trials) == 1:
                raise ConnectionError("the storage is down")
            write(self, trial_id, key, value)

        monkeypatch.setattr(storage, "set_trial_system_attr", down)
        attached.optimize(lambda trial: 1.0, n_trials=2, catch=(ConnectionError,))
        first, second = attached.trials
        assert (first.state, second.state) == (TrialState.FAIL, TrialState.COMPLETE)
        assert "peak_rss_shared" not in second.user_attrs
        assert list(second.constraints) == ["peak_rss"]

    @pytest.mark.parametrize(
        ("size", "bytes"),
        [("6GiB", 6 << 30), ("6g", 6 << 30), ("1.5 GB", 3 << 29), ("512MiB", 512 << 20), ("100", 100), (7, 7)],
    )
    def test_a_size_is_bytes_or_text_in_binary_units(self, size, bytes):
        assert og.objective(prune, memory_constraint=size).memory_constraint == bytes

    @pytest.mark.parametrize("size", ["six", "6 Gold", "", "-1GiB", 0, -5, 1.5, True])
    def test_what_is_no_size_is_refused(self, quick, size):
        with pytest.raises((TypeError, ValueError)):
            og.attach(quick, memory_constraint=size)
        with pytest.raises((TypeError, ValueError)):
            og.objective(prune, memory_constraint=size)


@pytest.mark.skipif(CONSTRAINTS, reason="this Optuna has constraints")
def test_before_optuna_5_a_constraint_is_refused(quick):
    with pytest.raises(ValueError, match=r"memory_constraint needs Optuna 5\.0 or later \(this is "):
        og.attach(quick, memory_constraint="6GiB")
