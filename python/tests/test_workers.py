"""``oomguard.worker_init`` in the pools of the standard library."""

from __future__ import annotations

import gc
import os
import pickle

import pytest
from pools import NO_CGROUP, cgroup_parent, run_script

import oomguard
from oomguard._limits_met import Worker, killed, read, write

METHODS = ["fork", "spawn", "forkserver"]


@pytest.fixture(scope="module")
def parent():
    yield from cgroup_parent()


EXECUTOR = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
if __name__ == "__main__":
    oomguard.handle_sigterm()
    limit = oomguard.worker_init(limit=LIMIT)
    pool = lambda: ProcessPoolExecutor(2, multiprocessing.get_context(sys.argv[1]), initializer=limit)
    found = {}
    with pool() as workers:
        found["small"] = list(workers.map(small, range(4)))
        found["spike"] = told(limit, lambda: workers.submit(spike).result())
        found["after"] = told(limit, lambda: workers.submit(small).result())
    fresh = oomguard.worker_init(limit=LIMIT)
    with ProcessPoolExecutor(1, multiprocessing.get_context(sys.argv[1]), initializer=fresh) as workers:
        found["crash"] = told(fresh, lambda: workers.submit(os._exit, 3).result())
    print(json.dumps(found))
"""


def executor(method, folder, parent):
    code = EXECUTOR.replace("sys.argv[1]", repr(method))
    return run_script(code, folder, OOMGUARD_CGROUP_PARENT=parent)


@pytest.mark.parametrize("method", METHODS)
def test_a_worker_beyond_its_limit_is_killed_alone_and_the_error_is_explained(tmp_path, parent, method):
    found = executor(method, tmp_path, parent)
    assert found["small"] == [[1 << 20, True, None]] * 4, "SIGTERM has its default action, and check() works"
    name, hint, notes = found["spike"]
    assert name == "BrokenProcessPool"
    assert hint.startswith("the kernel killed a worker (pid ")
    assert "at the limit of 0.3 GB each" in hint
    assert notes in ([], [f"hint: {hint}"]), "from Python 3.11 on the error carries it"
    name, hint, _ = found["crash"]
    assert (name, hint) == ("BrokenProcessPool", None), "what has another cause is not put down to the limit"


@pytest.mark.parametrize("method", METHODS)
def test_without_a_cgroup_allocations_fail_and_the_pool_goes_on(tmp_path, method):
    found = executor(method, tmp_path, NO_CGROUP)
    assert found["small"] == [[1 << 20, True, None]] * 4
    name, hint, _ = found["spike"]
    assert name == "MemoryError"
    assert hint.startswith("its worker met its limit of 0.3 GB (RLIMIT_DATA)")
    assert found["after"] == repr((1 << 20, True, None))
    name, hint, _ = found["crash"]
    assert name == "BrokenProcessPool"
    assert "if nothing else explains it" in hint


POOL = """
import multiprocessing, time
if __name__ == "__main__":
    limit = oomguard.worker_init(limit=LIMIT)
    with multiprocessing.get_context("fork").Pool(1, initializer=limit) as pool:
        lost = pool.apply_async(spike)
        small_one = pool.apply(small)
        end = time.monotonic() + 60
        while limit.explain(TimeoutError()) is None and time.monotonic() < end: time.sleep(0.01)
        found = {"small": small_one, "hint": told(limit, lambda: lost.get(timeout=0))}
    print(json.dumps(found))
"""


def test_a_pool_that_replaces_the_dead_worker_still_has_its_hint(tmp_path, parent):
    found = run_script(POOL, tmp_path, OOMGUARD_CGROUP_PARENT=parent)
    assert found["small"] == [1 << 20, True, None], "the next worker serves"
    name, hint, _ = found["hint"]
    assert name == "TimeoutError"
    assert hint.startswith("the kernel killed a worker (pid ")


@pytest.mark.parametrize("method", METHODS)
def test_a_check_in_a_worker_raises_in_the_parent(tmp_path, method):
    code = f"""
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
def work(name):
    oomguard.check(name)
if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    with ProcessPoolExecutor(1, context, initializer=oomguard.worker_init()) as workers:
        error = workers.submit(work, "tile 7").exception()
    print(json.dumps([type(error).__name__, error.context, error.cause, error.available > 0]))
"""
    found = run_script(code, tmp_path, OOMGUARD_RESERVE="1024T", OOMGUARD_WARNING="1024T")
    assert found == ["MemoryCritical", "tile 7", "reserve", True]


@pytest.mark.parametrize(
    ("limit", "error", "said"),
    [("8 bananas", ValueError, "limit: .*`bananas`"), (-1, ValueError, "limit"), (2.5, TypeError, "limit")],
)
def test_a_wrong_limit_is_refused_in_the_parent(limit, error, said):
    with pytest.raises(error, match=said):
        oomguard.worker_init(limit=limit)


def test_the_file_goes_with_the_object_but_not_with_a_workers_copy():
    limit = oomguard.worker_init("1GiB")
    record = limit._record
    copy = pickle.loads(pickle.dumps(limit))
    assert (copy.limit, copy.parent, copy._record) == (1 << 30, None, record)
    del copy
    gc.collect()
    assert os.path.exists(record)
    pid = os.fork()
    if pid == 0:
        del limit
        gc.collect()
        os._exit(0 if os.path.exists(record) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    del limit
    gc.collect()
    assert not os.path.exists(record)


def test_the_kernels_counters_are_read_in_both_of_their_forms(tmp_path):
    for name, enforcement, file, text in [
        ("v2", "cgroup2", "memory.events", "low 0\nhigh 0\nmax 9\noom 1\noom_kill 1\noom_group_kill 0\n"),
        ("v1", "cgroup1", "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
        ("calm", "cgroup2", "memory.events", "low 0\nhigh 3\nmax 9\noom 0\noom_kill 0\n"),
    ]:
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(text)
        write(str(tmp_path / "record"), Worker(1, enforcement, str(tmp_path / name)))
    assert read(str(tmp_path / "record")) == [], "a record that is gone is not made again"
    (tmp_path / "record").touch()
    places = [("v2", "cgroup2"), ("v1", "cgroup1"), ("calm", "cgroup2"), ("gone", "cgroup1")]
    for pid, (name, enforcement) in enumerate(places):
        write(str(tmp_path / "record"), Worker(pid, enforcement, str(tmp_path / name)))
    write(str(tmp_path / "record"), Worker(9, "rlimit", None))
    write(str(tmp_path / "record"), Worker(1, "killed", None))
    with open(tmp_path / "record", "ab") as file:
        file.write(b'[5, "cgro')
    assert killed(read(str(tmp_path / "record"))) == [0, 1]


def test_without_a_folder_to_write_to_there_is_no_hint_and_nothing_else(monkeypatch):
    def refused(*_, **__):
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr("tempfile.mkstemp", refused)
    limit = oomguard.worker_init(limit="1GiB")
    assert limit.explain(MemoryError("x")) is None
    again = pickle.loads(pickle.dumps(limit))
    assert again.limit == 1 << 30
    again.limit = None
    again(0)
