"""After a death: whose trials are judged, what they become, and that it happens once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import optuna
import pytest
from conftest import clean_env, new_study, wait_until
from optuna.trial import TrialState
from test_optuna_brake import start

import oomguard.optuna as og
from oomguard import _owner
from oomguard.optuna._names import CLAIM, OWNER, RETRY_OF

HERE = _owner.current()


@pytest.fixture(scope="session")
def dead():
    """A process of this host that is dead, and whose parent has waited for it."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = HERE._replace(pid=child.pid, start=_owner.start_time(child.pid))
    child.communicate(b"\n")
    return owner


def running(study, owner, params=None, retries=0, **system):
    """A RUNNING trial with this owner, as ``attach`` would have made it. Returns its number."""
    distributions = {name: optuna.distributions.FloatDistribution(0, 1) for name in params or {}}
    mark = {**owner._asdict(), "retries": retries} if owner else None
    study.add_trial(
        optuna.trial.create_trial(
            state=TrialState.RUNNING, params=params, distributions=distributions,
            system_attrs={**({OWNER: mark} if mark else {}), **system},
        )
    )  # fmt: skip
    return len(study.get_trials()) - 1


def record(folder, owner, cause, **more):
    line = {
        "job": owner.job, "boot_id": owner.boot, "pid": owner.pid, "start_time": owner.start, "cause": cause,
        "own": cause in ("limit", "leak"), "available_gb": 1.8, "usage_gb": 8.1, "limit_gb": 8.0,
        "ts": "2026-11-22T00:00:00Z", **more,
    }  # fmt: skip
    with open(folder / "deaths.jsonl", "a", encoding="ascii") as file:
        file.write(json.dumps(line) + "\n")


@pytest.mark.parametrize(
    ("cause", "state", "queued"),
    [
        ("limit", TrialState.PRUNED, False), ("leak", TrialState.PRUNED, False),
        ("reserve", TrialState.FAIL, True), ("vram", TrialState.FAIL, True), ("age", TrialState.FAIL, True),
        ("requested", TrialState.FAIL, True), ("timeout", TrialState.FAIL, True),
        ("crash", TrialState.FAIL, False), ("finished", TrialState.FAIL, False), (None, TrialState.FAIL, True),
    ],
)  # fmt: skip
def test_how_a_worker_died_decides_what_becomes_of_its_trial(quick, dead, tmp_path, cause, state, queued):
    number = running(quick, dead, {"x": 0.25})
    if cause:
        record(tmp_path, dead, cause)
    (reaped,) = og.reap(quick, state=str(tmp_path))
    trial = quick.trials[number]
    assert trial.state == state
    assert trial.user_attrs["emergency_killed"] is True
    assert (cause or "unknown") in trial.user_attrs["kill_reason"]
    assert trial.user_attrs["available_gb_at_kill"] == (1.8 if cause else None)
    assert reaped == ("s", number, state.name, cause or "unknown", queued, dead.pid, dead.host)
    rest = quick.trials[1:]
    assert len(rest) == queued
    if queued:
        assert rest[0].state == TrialState.WAITING
        assert rest[0].params == {"x": 0.25}
        assert "emergency_killed" not in rest[0].user_attrs
        assert rest[0].system_attrs["failed_trial"] == number, "what Optuna's own retry callback writes"
    assert og.reap(quick, state=str(tmp_path)) == [], "twice is once"
    assert og.valid_trials(quick) == []


def test_on_every_storage_a_dead_owners_trial_is_ended_and_queued_again(study, dead):
    running(study, dead, {"x": 0.5})
    running(study, HERE, {"x": 0.6})
    og.reap(study)
    assert [t.state for t in study.get_trials()] == [TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING]
    og.attach(study).optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert study.get_trials()[2].value == 0.5


def test_a_record_is_found_by_the_job_of_a_child_process(quick, dead, tmp_path):
    child = dead._replace(job="R1/worker-1#3")
    record(tmp_path, child._replace(pid=1, start=1), "limit")
    running(quick, child)
    assert og.reap(quick, state=str(tmp_path))[0].state == "PRUNED"


def test_a_limit_says_how_much_was_used(quick, dead, tmp_path):
    record(tmp_path, dead, "limit")
    running(quick, dead)
    og.reap(quick, state=str(tmp_path))
    assert quick.trials[0].user_attrs["kill_reason"] == "OOM prevention [limit: 8.1 GB of 8.0 GB]"


def test_a_death_for_vram_names_the_gpu_and_how_much_was_held(quick, dead, tmp_path):
    gpu = {"gpu": "GPU 0 (NVIDIA T)", "vram_gb": 5.0}
    record(tmp_path, dead, "vram", own=True, vram_limit_gb=4.0, **gpu)
    running(quick, dead)
    other = dead._replace(start=dead.start + 1)  # nobody has had this number so soon again
    record(tmp_path, other, "vram", vram_limit_gb=None, **gpu)
    running(quick, other)
    og.reap(quick, state=str(tmp_path))
    assert [(trial.user_attrs["kill_reason"], trial.state) for trial in quick.trials[:2]] == [
        ("OOM prevention [VRAM of GPU 0 (NVIDIA T): 5.0 GB of 4.0 GB]", TrialState.PRUNED),
        ("OOM prevention [VRAM of GPU 0 (NVIDIA T): 5.0 GB]", TrialState.FAIL),
    ]


def test_a_pruned_trial_keeps_its_last_report_as_its_value(study, dead, tmp_path):
    record(tmp_path, dead, "limit")
    number = running(study, dead)
    trial_id = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    study._storage.set_trial_intermediate_value(trial_id, 3, 0.75)
    og.reap(study, state=str(tmp_path))
    assert (study.trials[0].state, study.trials[0].value) == (TrialState.PRUNED, 0.75)


def test_torn_and_foreign_lines_in_the_record_are_passed_over(quick, dead, tmp_path):
    (tmp_path / "deaths.jsonl").write_bytes(b'{"job": "x", \n\xff\xfe\n[1]\n{"cause": 3}\n')
    record(tmp_path, dead, "limit")
    running(quick, dead)
    assert og.reap(quick, state=str(tmp_path))[0].cause == "limit"


def test_living_owners_are_left_alone_and_so_are_trials_without_one(quick):
    running(quick, HERE)
    running(quick, None)
    assert og.reap(quick) == []


def test_other_hosts_are_never_judged_unless_an_operator_says_they_are_gone(quick, dead):
    running(quick, dead._replace(host="elsewhere", machine="abc"))
    running(quick, dead._replace(pidns="pid:[1]"))
    assert og.reap(quick) == []
    (reaped,) = og.reap(quick, dead_hosts=["elsewhere"])
    assert (reaped.number, reaped.host, reaped.cause) == (0, "elsewhere", "unknown")


def test_a_pid_that_lives_again_is_another_process(quick):
    running(quick, HERE._replace(start=HERE.start - 1))
    assert len(og.reap(quick)) == 1


def test_before_a_reboot_everybody_is_dead(quick):
    if not HERE.machine:
        pytest.skip("this machine has no /etc/machine-id, so another host could have its name")
    running(quick, HERE._replace(boot="0" * 36))
    assert og.reap(quick)[0].cause == "reboot"


def test_the_same_name_and_no_machine_id_is_not_enough(quick):
    assert not _owner.is_dead(HERE._replace(machine="", boot="x"), HERE._replace(machine=""))


def test_a_zombie_is_dead():
    child = subprocess.Popen([sys.executable, "-c", ""])
    owner = HERE._replace(pid=child.pid, start=_owner.start_time(child.pid) or 0)
    wait_until(lambda: _owner.start_time(child.pid) is None, "a zombie")
    assert _owner.is_dead(owner, HERE)
    child.wait()


def test_a_retry_is_not_queued_a_second_time(quick, dead, tmp_path):
    record(tmp_path, dead, "reserve")
    running(quick, dead, {"x": 0.5}, retries=1, retry_history=[0], failed_trial=0)
    (reaped,) = og.reap(quick, state=str(tmp_path))
    assert (reaped.state, reaped.retried) == ("FAIL", False)


def test_the_second_death_that_nobody_recorded_counts_as_the_trials_own(quick, dead):
    running(quick, dead, {"x": 0.5}, retries=1, retry_history=[0], failed_trial=0)
    (reaped,) = og.reap(quick)
    assert (reaped.state, reaped.retried) == ("PRUNED", False)


def test_an_owner_that_a_retry_inherited_is_not_its_own(quick, dead):
    running(quick, dead, retries=0, retry_history=[7])
    assert og.reap(quick) == []


def test_a_reaper_that_died_halfway_is_finished_by_the_next(quick, dead):
    number = running(quick, dead, {"x": 0.5})
    quick.add_trial(optuna.trial.create_trial(state=TrialState.WAITING, system_attrs={RETRY_OF: number}))
    (reaped,) = og.reap(quick)
    assert reaped.retried
    assert [t.state for t in quick.trials] == [TrialState.FAIL, TrialState.WAITING]


def test_many_reapers_at_once_queue_each_trial_once(spec, dead):
    study = new_study(spec)
    for i in range(5):
        running(study, dead, {"x": i / 10})
    code = """
import sys, optuna, oomguard.optuna as og
optuna.logging.set_verbosity(optuna.logging.WARNING)
print(len(og.reap(sys.argv[1], "s")))
"""
    reapers = [start(code, spec) for _ in range(3)]
    outs = [reaper.communicate(timeout=60) for reaper in reapers]
    assert [reaper.returncode for reaper in reapers] == [0] * 3, outs
    assert sum(int(out) for out, _ in outs) == 5
    assert [t.state for t in study.get_trials()] == [TrialState.FAIL] * 5 + [TrialState.WAITING] * 5


def test_losing_to_somebody_who_finishes_the_trial_is_no_error(quick, dead, monkeypatch):
    number = running(quick, dead)
    from oomguard.optuna import _reap

    def too_late(study, trial):
        study._storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [1.0])
        return False

    monkeypatch.setattr(_reap, "enqueue_again", too_late)
    assert og.reap(quick) == []
    assert quick.trials[number].state == TrialState.COMPLETE


def test_a_trial_is_born_with_its_owner_in_one_write(tmp_path):
    path = tmp_path / "study.journal"
    path.touch()
    study = og.attach(new_study(f"journal:{path}"))
    study.ask()
    births = [line for line in map(json.loads, path.read_text().splitlines()) if line["op_code"] == 4]
    assert [birth["system_attrs"][OWNER]["pid"] for birth in births] == [os.getpid()]


def test_a_queued_trial_names_its_owner_before_it_runs(tmp_path):
    path = tmp_path / "study.journal"
    path.touch()
    study = og.attach(new_study(f"journal:{path}"))
    study.enqueue_trial({"x": 0.5})
    study.ask()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    claim = next(i for i, line in enumerate(lines) if CLAIM in str(line.get("system_attr")))
    state = next(i for i, line in enumerate(lines) if line["op_code"] == 6)
    assert claim < state


def test_of_many_that_take_a_queued_trial_one_has_it(spec):
    study = new_study(spec)
    for _ in range(6):
        study.enqueue_trial({"x": 0.5})
    code = """
import os, sys, time, optuna, oomguard.optuna as og
from oomguard.optuna._spec import open_storage
optuna.logging.set_verbosity(optuna.logging.WARNING)
study = og.attach(optuna.load_study(study_name="s", storage=open_storage(sys.argv[1])))
print("ready", flush=True); sys.stdin.readline()
def objective(trial):
    def claimants():
        attrs = study._storage.get_trial(trial._trial_id).system_attrs
        return [value["pid"] for key, value in attrs.items() if key.startswith("oomguard:claim:") and value]
    end = time.monotonic() + 10
    while trial.number < 6 and (seen := claimants()) != [os.getpid()]:
        assert time.monotonic() < end, f"{os.getpid()} runs what {seen} claim"
    return trial.suggest_float("x", 0, 1)
study.optimize(objective, n_trials=3)
"""
    import pathlib

    here = str(pathlib.Path(__file__).parent)
    env = clean_env()
    env["PYTHONPATH"] = str(here)
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen([sys.executable, "-c", code, spec], env=env, **pipe) for _ in range(3)]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n", worker.stderr.read()
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
    for worker in workers:
        _, err = worker.communicate(timeout=60)
        assert worker.returncode == 0, err
    assert [t.state for t in study.get_trials()] == [TrialState.COMPLETE] * 9


def test_claims_of_the_dead_and_the_living_wait_for_the_living(quick, dead):
    marks = [{**owner._asdict(), "retries": 0} for owner in (dead, HERE)]
    running(quick, None, **{CLAIM + "a": marks[0], CLAIM + "b": marks[1]})
    running(quick, None, **{CLAIM + "a": marks[0], CLAIM + "b": None})
    assert [reaped.number for reaped in og.reap(quick)] == [1]


def test_a_siblings_record_is_waited_for_under_our_own_guard(quick, tmp_path, page, run):
    """The guard writes the record after the death: whoever comes in between leaves the trial to the replacement."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    owner = HERE._replace(pid=child.pid, start=1, job="R1/worker-1#3")
    child.wait()
    running(quick, owner)
    code = "import sys, oomguard.optuna as og; print(len(og.reap(sys.argv[1])))"
    for job, count in (("R1/worker-2#1", 0), ("R1/worker-1#4", 1)):
        result = run(code, f"sqlite:///{tmp_path}/study.db", OOMGUARD_JOB=job, OOMGUARD_PAGE=str(page.path))
        assert result.stdout == f"{count}\n", result.stderr


def test_attach_reaps_and_registers_once(quick, dead, tmp_path, run):
    running(quick, dead)
    state = tmp_path / "state"
    state.mkdir()
    code = """
import sys, optuna, oomguard.optuna as og
for _ in range(2):
    og.attach(optuna.load_study(study_name="s", storage="sqlite:///study.db"))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=clean_env(OOMGUARD_STATE=str(state)), check=False,
        capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert quick.trials[0].state == TrialState.FAIL
    assert (state / "studies.jsonl").stat().st_mode & 0o777 == 0o600
    (line,) = map(json.loads, (state / "studies.jsonl").read_text().splitlines())
    expected = {"python": sys.executable, "storage": f"sqlite:///{tmp_path}/study.db", "study": "s"}
    assert line == {**expected, "cwd": str(tmp_path)}


def test_in_memory_studies_are_not_registered(tmp_path, run):
    code = "import optuna, oomguard.optuna as og; og.attach(optuna.create_study())"
    assert run(code, OOMGUARD_STATE=str(tmp_path)).returncode == 0
    assert not (tmp_path / "studies.jsonl").exists()


def cli(*arguments, **env):
    return subprocess.run(
        [sys.executable, "-m", "oomguard.optuna", *arguments],
        env=clean_env(**env), capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def test_the_command_reaps_every_registered_study(spec, dead, tmp_path):
    study = new_study(spec)
    running(study, dead)
    record(tmp_path, dead, "limit")
    line = json.dumps({"python": sys.executable, "storage": spec, "study": "s", "cwd": "/"}) + "\n"
    (tmp_path / "studies.jsonl").write_text(line + line + "torn {")
    result = cli("reap", "--state", str(tmp_path), "--json")
    assert result.returncode == 0, result.stderr
    (said,) = map(json.loads, result.stdout.splitlines())
    assert (said["number"], said["state"], said["cause"]) == (0, "PRUNED", "limit")
    assert cli("reap", "--state", str(tmp_path)).stdout == "0 reaped\n"


def test_the_command_reaps_one_storage(quick, dead, tmp_path):
    running(quick, dead)
    result = cli("reap", "--storage", f"sqlite:///{tmp_path}/study.db")
    assert result.stdout == "s: trial 0 is FAIL [unknown], queued again\n1 reaped\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "required"),
        (("reap",), 2, "one of the arguments --storage --state is required"),
        (("reap", "--state", "/nowhere"), 2, "error: `/nowhere` is not a directory"),
        (("reap", "--state", "/tmp", "--study", "s"), 2, "--study and --deaths go with --storage"),
        (("reap", "--storage", "study.db"), 1, "error: `study.db` is not a storage: give a database URL"),
        (("reap", "--storage", "sqlite:////nowhere/s.db"), 1, "there is no file `/nowhere/s.db`"),
        (("reap", "--storage", "journal:/nowhere/s"), 1, "error: `journal:/nowhere/s`: there is no such file"),
        (("reap", "--storage", "nosuch://u:secret@h/d"), 1, "`nosuch://u:***@h/d` cannot be opened"),
    ],
)
def test_wrong_input_is_one_error_that_points_at_it(arguments, code, said):
    result = cli(*arguments)
    assert result.returncode == code
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert "secret" not in result.stderr


def test_a_study_that_is_not_there_is_named(quick, tmp_path):
    result = cli("reap", "--storage", f"sqlite:///{tmp_path}/study.db", "--study", "S")
    assert result.returncode == 1
    assert "there is no study `S` in this storage (it has `s`)" in result.stderr


def test_one_bad_study_does_not_keep_the_others_from_being_reaped(quick, dead, tmp_path):
    running(quick, dead)
    lines = [{"python": "p", "storage": storage, "study": "s", "cwd": "/"}
             for storage in ("sqlite:////nowhere/s.db", f"sqlite:///{tmp_path}/study.db")]  # fmt: skip
    (tmp_path / "studies.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    result = cli("reap", "--state", str(tmp_path))
    assert result.returncode == 1
    assert quick.trials[0].state == TrialState.FAIL


def test_a_journals_lock_is_freed_when_its_holder_was_killed(tmp_path):
    path = tmp_path / "study.journal"
    path.touch()
    study = og.attach(new_study(f"journal:{path}"))
    code = """
import os, signal, sys, optuna, oomguard.optuna as og
from oomguard.optuna._spec import open_storage
storage = open_storage(sys.argv[1])
storage._backend._lock.acquire()
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = start(code, f"journal:{path}")
    assert killed.wait(20) == -9
    assert os.path.lexists(f"{path}.lock")
    done = threading.Event()

    def work():
        study.ask()
        done.set()

    threading.Thread(target=work, daemon=True).start()
    assert done.wait(10), "the lock of a dead process holds up the living"


def test_a_link_in_the_place_of_a_journals_lock_is_not_written_through(tmp_path):
    path = tmp_path / "study.journal"
    path.touch()
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "study.journal.oomguard").symlink_to(tmp_path / "precious")
    study = og.attach(new_study(f"journal:{path}"))
    study.optimize(lambda trial: 1.0, n_trials=1)
    assert len(study.trials) == 1, "Optuna's own lock does"
    assert (tmp_path / "precious").read_text() == "precious"
