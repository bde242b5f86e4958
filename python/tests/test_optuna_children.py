"""Child processes that work on their parent's attached study: forked, spawned, and by a fork server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from conftest import DEADLINE, clean_env, new_study
from optuna.trial import TrialState
from storages import open_fresh
from test_optuna_brake import start

import oomguard.optuna as og

FAMILY = """
import json, multiprocessing, os, sys, time, optuna, oomguard.optuna as og
from oomguard.optuna._spec import open_storage
optuna.logging.set_verbosity(optuna.logging.WARNING)

def objective(trial):
    x = trial.suggest_float("x", 0, 1)
    trial.set_user_attr("ran_in", os.getpid())
    return x * x

def work(study, ready=None):
    if ready is not None:
        ready.wait(20)
    study.optimize(objective, n_trials=4)

def work_elsewhere(spec):
    work(og.attach(optuna.load_study(study_name="s", storage=open_storage(spec))))
"""


def family(folder, body, spec, *arguments):
    """Runs ``body`` as a script file, because spawned children import the main module."""
    lines = "".join(f"    {line}\n" for line in body.strip().splitlines())
    (folder / "family.py").write_text(FAMILY + '\nif __name__ == "__main__":\n' + lines)
    return subprocess.Popen(
        [sys.executable, str(folder / "family.py"), spec, *arguments],
        env=clean_env(PYTHONPATH=os.path.dirname(__file__)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


SHARED = """
study = og.attach(optuna.load_study(study_name="s", storage=open_storage(sys.argv[1])))
study.ask()  # the parent's connection, cache and journal are in use
context = multiprocessing.get_context(sys.argv[2])
ready = context.Barrier(4)
children = [context.Process(target=work, args=(study, ready)) for _ in range(3)]
for child in children:
    child.start()
work(study, ready)
for child in children:
    child.join()
print(json.dumps([child.exitcode for child in children]))
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_may_go_on_with_the_study_of_their_parent(spec, tmp_path, method):
    study = new_study(spec)
    parent = family(tmp_path, SHARED, spec, method)
    out, err = parent.communicate(timeout=3 * DEADLINE)
    assert parent.returncode == 0, err
    assert json.loads(out) == [0, 0, 0], err
    first, *rest = open_fresh(spec).get_all_trials(study._study_id)
    assert first.state == TrialState.RUNNING, "the parent's own"
    assert [trial.number for trial in rest] == list(range(1, 17))
    assert [trial.state for trial in rest] == [TrialState.COMPLETE] * 16
    ran = [trial.user_attrs["ran_in"] for trial in rest]
    assert sorted(ran.count(pid) for pid in set(ran)) == [4, 4, 4, 4]
    assert [trial.system_attrs["oomguard:owner"]["pid"] for trial in rest] == ran
    assert [reaped.number for reaped in og.reap(spec, "s")] == [0]


def test_forked_children_may_open_the_study_themselves(spec, tmp_path):
    study = new_study(spec)
    body = """
children = [multiprocessing.get_context("fork").Process(target=work_elsewhere, args=(sys.argv[1],)) for _ in range(3)]
for child in children:
    child.start()
for child in children:
    child.join()
print(json.dumps([child.exitcode for child in children]))
"""
    parent = family(tmp_path, body, spec)
    out, err = parent.communicate(timeout=3 * DEADLINE)
    assert json.loads(out) == [0, 0, 0], err
    trials = open_fresh(spec).get_all_trials(study._study_id)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 12


def test_a_forked_child_that_is_killed_loses_no_trial_and_its_parent_goes_on(quick, tmp_path):
    body = """
study = og.attach(optuna.load_study(study_name="s", storage=open_storage(sys.argv[1])))
read, write = os.pipe()
def hang(trial):
    os.write(write, b"x")
    time.sleep(60)
child = multiprocessing.get_context("fork").Process(target=study.optimize, args=(hang,))
child.start()
os.read(read, 1)
child.kill()
child.join()
study.optimize(objective, n_trials=1)
print(len(og.reap(study)), flush=True)
"""
    parent = family(tmp_path, body, f"sqlite:///{tmp_path}/study.db")
    out, err = parent.communicate(timeout=DEADLINE)
    assert out == "1\n", err
    states = [trial.state for trial in quick.trials]
    assert states == [TrialState.FAIL, TrialState.COMPLETE, TrialState.WAITING]


def test_a_forked_child_that_optimizes_heeds_sigterm_as_a_worker_does(quick, tmp_path):
    body = """
study = og.attach(optuna.load_study(study_name="s", storage=open_storage(sys.argv[1])))
read, write = os.pipe()
def endless(trial):
    os.write(write, b"x")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        og.check_memory(trial); time.sleep(0.01)
child = multiprocessing.get_context("fork").Process(target=study.optimize, args=(endless,))
child.start()
os.read(read, 1)
child.terminate()
child.join()
print(child.exitcode, flush=True)
"""
    parent = family(tmp_path, body, f"sqlite:///{tmp_path}/study.db")
    out, err = parent.communicate(timeout=DEADLINE)
    assert out == "0\n", err
    assert [trial.state for trial in quick.trials] == [TrialState.PRUNED, TrialState.WAITING]


@pytest.mark.parametrize("killed", [False, True])
def test_a_child_forked_while_a_journal_is_locked_does_not_keep_the_lock(tmp_path, killed):
    """A data loader forked in one thread while another writes: it outlives the write, and even its parent."""
    path = tmp_path / "study.journal"
    path.touch()
    study = new_study(f"journal:{path}")
    holder = start(
        """
import os, signal, sys, optuna, oomguard.optuna as og
from oomguard.optuna._spec import open_storage
lock = open_storage(sys.argv[1])._backend._lock
lock.acquire()
pid = os.fork()
if pid == 0:
    signal.pause()
if sys.argv[2] == "True":
    print(pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
lock.release()
print(pid, flush=True)
sys.stdin.close()
""",
        f"journal:{path}", str(killed),
    )  # fmt: skip
    child = int(holder.stdout.readline())
    try:
        holder.wait(DEADLINE)
        writer = start(
            """
import sys, optuna, oomguard.optuna as og
from oomguard.optuna._spec import open_storage
og.attach(optuna.load_study(study_name="s", storage=open_storage(sys.argv[1]))).ask()
""",
            f"journal:{path}",
        )
        _, err = writer.communicate(timeout=DEADLINE)
        assert writer.returncode == 0, err
    finally:
        os.kill(child, signal.SIGKILL)
    assert len(study.trials) == 1
