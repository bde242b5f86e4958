"""The brake inside a trial: ``check_memory``, ``objective``, ``callback``, and SIGTERM."""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys

import optuna
import pytest
from conftest import DEADLINE, clean_env
from optuna.trial import TrialState

import oomguard
import oomguard.optuna as og

HUGE = 1_000_000.0
"""A threshold in GB that every machine is below."""


def test_a_pruned_trials_memory_is_back_before_the_next_one_begins(quick):
    import gc
    import weakref

    class Tensor: ...

    held, alive = [], []

    def objective(trial):
        alive.extend(tensor() is not None for tensor in held)
        tensor = Tensor()
        held.append(weakref.ref(tensor))
        if trial.number == 1:
            raise optuna.TrialPruned("by the objective itself")
        og.check_memory(trial, safe_threshold_gb=1e6)

    gc.disable()
    try:
        og.attach(quick).optimize(objective, n_trials=4)
    finally:
        gc.enable()
    assert len(held) == 4
    assert not any(alive)


def test_check_memory_passes_on_a_machine_with_room(quick):
    trial = quick.ask()
    og.check_memory(trial)
    og.check_memory(trial, "split 3/5", 0.001)
    assert trial.user_attrs == {}


def test_check_memory_prunes_with_the_origin_systems_words(study, caplog):
    caplog.set_level(logging.INFO, "oomguard")
    trial = study.ask()
    with pytest.raises(optuna.TrialPruned):
        og.check_memory(trial, "split 3/5", safe_threshold_gb=HUGE)
    # At a lower level there may be a line on the caches that were given back first.
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert lines[0] == "🚨 EMERGENCY BRAKE ACTIVATED [Trial #0 split 3/5]"
    assert lines[1] == "Trial #0 killed to prevent OOM crash"
    assert lines[2].startswith("Available memory: ")
    assert lines[2].endswith(" GB")
    assert lines[3] == "Safety threshold: 1000000.0 GB"
    study.tell(trial, state=TrialState.PRUNED)
    attrs = study.trials[0].user_attrs
    assert attrs["emergency_killed"] is True
    assert attrs["kill_reason"] == "OOM prevention [split 3/5]"
    assert 0 < attrs["available_gb_at_kill"] < HUGE
    assert len(study.trials) == 1, "nobody else is to blame, so nothing is queued again"


@pytest.mark.parametrize("threshold", [-1, float("nan"), "2", None])
def test_check_memory_refuses_a_threshold_that_is_none(quick, threshold):
    with pytest.raises((TypeError, ValueError), match="safe_threshold_gb"):
        og.check_memory(quick.ask(), "x", threshold)


def test_check_memory_works_on_a_fixed_trial():
    trial = optuna.trial.FixedTrial({"x": 1})
    og.check_memory(trial)
    with pytest.raises(optuna.TrialPruned):
        og.check_memory(trial, "again", HUGE)
    assert trial.user_attrs["emergency_killed"] is True


class OutOfMemoryError(RuntimeError):
    """Stands for torch's."""


OutOfMemoryError.__module__ = "torch"


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (MemoryError(), TrialState.PRUNED),
        (oomguard.MemoryCritical("epoch 3", "limit", 1 << 30), TrialState.PRUNED),
        (OutOfMemoryError("CUDA out of memory"), TrialState.PRUNED),
    ],
)
def test_running_out_of_memory_prunes(quick, error, state):
    def fail(trial):
        trial.suggest_float("x", 0, 1)
        raise error

    og.attach(quick).optimize(fail, n_trials=1)
    trial = quick.trials[0]
    assert trial.state == state
    assert trial.user_attrs["emergency_killed"] is True
    assert trial.user_attrs["kill_reason"].startswith("OOM prevention [")
    assert og.valid_trials(quick) == []


def test_other_errors_are_left_alone(quick):
    def fail(trial):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        og.attach(quick).optimize(fail, n_trials=1)
    assert quick.trials[0].state == TrialState.FAIL
    quick.optimize(fail, n_trials=1, catch=(RuntimeError,))
    assert "emergency_killed" not in quick.trials[1].user_attrs


def test_a_system_exit_in_an_objective_does_not_leave_the_trial_running(study):
    with pytest.raises(SystemExit):
        og.attach(study).optimize(lambda trial: sys.exit(3), n_trials=1)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL]


def test_memory_of_a_failed_objective_is_free_before_optuna_logs(quick):
    import weakref

    class Big:
        pass

    seen = []

    def fail(trial):
        big = Big()
        seen.append(weakref.ref(big))
        raise MemoryError

    class Watch(logging.Handler):
        def emit(self, record):
            seen.append(seen[0]() is None)

    trial = quick.ask()
    log = logging.getLogger("oomguard")
    watch = Watch()
    log.addHandler(watch)
    try:
        with pytest.raises(optuna.TrialPruned):
            og.objective(fail)(trial)
    finally:
        log.removeHandler(watch)
    assert seen[1] is True


def test_a_retry_does_not_inherit_that_it_was_killed(quick):
    quick.enqueue_trial({"x": 0.5}, user_attrs={"emergency_killed": True, "kill_reason": "old", "mine": 1})
    study = og.attach(quick)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    trial = study.trials[0]
    assert trial.value == 0.5
    assert not trial.user_attrs["emergency_killed"]
    assert trial.user_attrs["mine"] == 1
    assert og.valid_trials(study) == [trial]


def test_attach_keeps_what_optimize_takes_and_is_idempotent(quick):
    seen = []
    study = og.attach(og.attach(quick))
    study.optimize(lambda t: t.suggest_float("x", 0, 1), 2, None, 1, (), [lambda s, t: seen.append(t.number)])
    study.optimize(og.objective(lambda t: 1.0), n_trials=1, callbacks=[lambda s, t: seen.append(t.number)])
    assert seen == [0, 1, 2]
    assert og.objective(og.objective(len)).function is len


def test_an_attached_study_can_be_pickled_and_still_owns_its_trials(study):
    copy = pickle.loads(pickle.dumps(og.attach(study)))
    copy.optimize(_one, n_trials=1)
    assert any(key.startswith("oomguard:") for key in copy.trials[-1].system_attrs)


def _one(trial):
    return 1.0


@pytest.mark.parametrize("thing", [None, "study", 3])
def test_attach_refuses_what_is_no_study(thing):
    with pytest.raises(TypeError, match=r"takes an optuna\.Study"):
        og.attach(thing)


def test_in_memory_studies_can_be_attached():
    study = og.attach(optuna.create_study())
    study.optimize(_one, n_trials=2)
    assert len(og.valid_trials(study)) == 2


WORKER = """
import os, sys, time, optuna, oomguard.optuna as og
from conftest import new_study
from oomguard.optuna._spec import open_storage
optuna.logging.set_verbosity(optuna.logging.WARNING)
study = og.attach(optuna.load_study(study_name="s", storage=open_storage(sys.argv[1])))
def objective(trial):
    x = trial.suggest_float("x", 0, 1)
    os.write(1, b"running\\n")  # one write: print makes two, and threads mix them
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        og.check_memory(trial, "epoch 1")
        time.sleep(0.01)
    raise AssertionError("nobody stopped me")
study.optimize(objective, n_jobs=int(sys.argv[2]))
print("not reached")
"""


def start(code, *arguments, **env):
    import pathlib

    here = pathlib.Path(__file__).parent
    env = clean_env(**env)
    env["PYTHONPATH"] = str(here)
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("jobs", [1, 2])
def test_sigterm_prunes_the_trial_queues_it_again_and_exits_0(study, spec, jobs):
    worker = start(WORKER, spec, str(jobs))
    assert worker.stdout.readline() == "running\n", worker.stderr.read()
    if jobs == 2:
        assert worker.stdout.readline() == "running\n"
    worker.terminate()
    out, err = worker.communicate(timeout=DEADLINE)
    assert worker.returncode == 0, err
    assert "not reached" not in out
    states = [trial.state for trial in study.get_trials()]
    assert states == [TrialState.PRUNED] * jobs + [TrialState.WAITING] * jobs
    for trial, again in zip(study.trials[:jobs], study.trials[jobs:], strict=True):
        assert trial.user_attrs["kill_reason"] == "Stop requested [epoch 1]"
        assert again.params == trial.params or again.params in [t.params for t in study.trials[:jobs]]
        assert "emergency_killed" not in again.user_attrs


IN_A_THREAD = """
import os, signal, sys, threading, time, optuna, oomguard.optuna as og
study = og.attach(optuna.load_study(study_name="s", storage=sys.argv[1]))
both = threading.Barrier(2, timeout=15)
def objective(trial):
    both.wait()
    if trial.number == 0 and sys.argv[2] == "me":
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    if trial.number == 0 and sys.argv[2] == "child":
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
            os.kill(os.getpid(), signal.SIGTERM)
            while True: time.sleep(0.01)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        both.wait()
        both.wait()
        return og.check_memory(trial) or 1.0
    if sys.argv[2] == "child":
        both.wait()
        both.wait()
    deadline = time.monotonic() + (15 if sys.argv[2] == "me" else 0.2)
    while time.monotonic() < deadline:
        og.check_memory(trial)
        time.sleep(0.01)
    if sys.argv[2] == "me": raise AssertionError("nobody stopped me")
    return 1.0
study.optimize(objective, n_trials=2, n_jobs=2)
"""


@pytest.mark.parametrize(("who", "state"), [("me", TrialState.PRUNED), ("child", TrialState.COMPLETE)])
def test_with_threads_sigterm_is_heard_wherever_it_arrives(quick, tmp_path, who, state):
    """The main thread sleeps until a trial ends, and only it runs handlers. A forked child's SIGTERM is its own."""
    worker = start(IN_A_THREAD, f"sqlite:///{tmp_path}/study.db", who)
    _, err = worker.communicate(timeout=2 * DEADLINE)
    assert worker.returncode == 0, err
    assert [trial.state for trial in quick.trials[:2]] == [state] * 2


@pytest.mark.parametrize(("cause", "queued"), [(4, 0), (5, 0), (6, 1), (8, 1), (10, 1)])
def test_the_guards_wish_prunes_and_queues_again_unless_the_trial_is_to_blame(quick, tmp_path, page, cause, queued):
    page.set(stop=0, cause=cause)
    worker = start(WORKER, f"sqlite:///{tmp_path}/study.db", "1", OOMGUARD_PAGE=str(page.path))
    assert worker.stdout.readline() == "running\n", worker.stderr.read()
    page.set(stop=2)
    _, err = worker.communicate(timeout=DEADLINE)
    assert worker.returncode == 0, err
    states = [trial.state for trial in quick.trials]
    assert states == [TrialState.PRUNED] + [TrialState.WAITING] * queued
    if cause == 4:
        assert "EMERGENCY BRAKE ACTIVATED [Trial #0 epoch 1]" in err
        assert "Job memory: 1.0 GB of 8.0 GB [limit]" in err


def test_sigterm_outside_of_optimize_exits_at_once(quick, tmp_path):
    worker = start(
        """
import sys, time, optuna, oomguard.optuna as og
study = og.attach(optuna.load_study(study_name="s", storage=sys.argv[1]))
try:
    print("idle", flush=True)
    time.sleep(15)
finally:
    print("cleaned up", flush=True)
""",
        f"sqlite:///{tmp_path}/study.db",
    )
    assert worker.stdout.readline() == "idle\n"
    worker.terminate()
    out, _ = worker.communicate(timeout=DEADLINE)
    assert (worker.returncode, out) == (0, "cleaned up\n")
    assert quick.trials == []


def test_a_handler_that_was_there_before_is_called_too(quick, tmp_path):
    worker = start(
        """
import signal, sys, time, optuna
signal.signal(signal.SIGTERM, lambda *_: print("mine", flush=True))
import oomguard.optuna as og, oomguard
study = og.attach(optuna.load_study(study_name="s", storage=sys.argv[1]))
print("idle", flush=True)
end = time.monotonic() + 15
while time.monotonic() < end:
    oomguard.check(); time.sleep(0.01)
""",
        f"sqlite:///{tmp_path}/study.db",
    )
    assert worker.stdout.readline() == "idle\n"
    worker.terminate()
    out, _ = worker.communicate(timeout=DEADLINE)
    assert (worker.returncode, out) == (0, "mine\n")


def test_a_forked_helper_dies_of_sigterm(run, quick, tmp_path):
    result = run(
        """
import os, signal, sys, time, optuna, oomguard.optuna as og
study = og.attach(optuna.load_study(study_name="s", storage=sys.argv[1]))
pid = os.fork()
if pid == 0:
    time.sleep(15); os._exit(1)
os.kill(pid, signal.SIGTERM)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
""",
        f"sqlite:///{tmp_path}/study.db",
    )
    assert result.stdout == "-15\n", result.stderr


def test_a_worker_that_was_asked_to_end_starts_no_new_trial(quick, tmp_path, run):
    result = run(
        """
import sys, optuna, oomguard, oomguard.optuna as og
study = og.attach(optuna.load_study(study_name="s", storage=sys.argv[1]))
oomguard._core.request_stop()
study.optimize(lambda t: 1.0)
""",
        f"sqlite:///{tmp_path}/study.db",
    )
    assert result.returncode == 0, result.stderr
    assert quick.trials == []


def test_the_guard_hears_of_trials(quick, tmp_path, page, run):
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        result = run(
            """
import sys, optuna, oomguard.optuna as og
study = og.attach(optuna.load_study(study_name="s", storage=sys.argv[1]))
study.optimize(lambda t: 1.0, n_trials=2)
""",
            f"sqlite:///{tmp_path}/study.db", NOTIFY_SOCKET=str(tmp_path / "notify"), OOMGUARD_PAGE=str(page.path),
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        sock.setblocking(False)
        words = [sock.recv(100).decode() for _ in range(6)]
    expected = ["X_OOMGUARD_TRIAL=0", "X_OOMGUARD_TRIAL=", "X_OOMGUARD_TRIAL=1", "X_OOMGUARD_TRIAL="]
    assert sorted(words[:2]) == ["READY=1", "X_OOMGUARD_CHECKS=1"]
    assert words[2:] == expected
