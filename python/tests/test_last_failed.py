"""``--last-failed`` with a process per test file."""

from __future__ import annotations

import json
import os
import tempfile

import pytest


@pytest.fixture(params=["collection", "imports", "fresh"])
def run(request, inner, zygote):
    """Runs files, each in a process that began before any of them ended; their exit codes."""

    def fresh(*arguments):
        with tempfile.TemporaryFile() as file:
            env = {"OOMGUARD_TEST_REPORT": str(file.fileno())}
            plugins = ("-p", "oomguard.pytest._heartbeat", "-p", "cacheprovider")
            return inner.run(*plugins, *arguments, plugin=False, env=env, pass_fds=[file.fileno()]).code

    def all_of(*names, options=()):
        if request.param == "fresh":
            return [fresh(*options, name) for name in names]
        started = zygote(*options, depth=request.param)
        children = [started.fork(name) for name in names]
        started.wait(*children)
        return [child.code for child in children]

    return all_of


def failed(inner):
    try:
        return sorted(json.loads((inner.folder / ".pytest_cache/v/cache/lastfailed").read_text()))
    except FileNotFoundError:
        return []


def test_failures_of_all_files_are_remembered(inner, run):
    for name in "abc":
        inner.write(**{f"test_{name}": f"def test_good(): pass\ndef test_{name}(): assert 0"})
    inner.write(test_d="import nothing_there", test_e="def test_e(): pass")
    files = [f"test_{name}.py" for name in "abcde"]
    assert run(*files) == [1, 1, 1, 2, 0]
    assert failed(inner) == ["test_a.py::test_a", "test_b.py::test_b", "test_c.py::test_c", "test_d.py"]
    inner.write(test_b="def test_good(): pass\ndef test_b(): pass", test_d="def test_d(): pass\ndef test_f(): assert 0")
    assert run("test_b.py", "test_d.py") == [0, 1]
    assert failed(inner) == ["test_a.py::test_a", "test_c.py::test_c", "test_d.py::test_f"]
    # What is known chooses the tests: only one of the file's two runs.
    inner.write(test_a="def test_good(): assert 0\ndef test_a(): pass")
    assert run("test_a.py", options=("--lf",)) == [0]
    assert failed(inner) == ["test_c.py::test_c", "test_d.py::test_f"]
    again = inner.run("--lf", "-p", "cacheprovider", plugin=False)
    assert "1 failed" in again.out or "2 failed" in again.out, again


def test_without_failures_nothing_is_written(inner, run):
    inner.write(test_a="def test_a(cache): cache.set('mine/x', 1)")
    assert run("test_a.py") == [0]
    cache = inner.folder / ".pytest_cache" / "v"
    written = sorted(
        os.path.relpath(os.path.join(at, name), cache) for at, _, names in os.walk(cache) for name in names
    )
    # pytest before 9 writes an empty list of its --stepwise, always.
    assert [name for name in written if name != "cache/stepwise"] == ["mine/x"]


def test_a_test_may_clear_the_cache(inner, run):
    clear = "import shutil\ndef test_a(request): shutil.rmtree(request.config.rootpath / '.pytest_cache')"
    inner.write(test_a=f"{clear}\ndef test_b(): assert 0")
    assert run("test_a.py") == [1]
    assert failed(inner) == ["test_a.py::test_b"]
