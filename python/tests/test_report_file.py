"""``OOMGUARD_TEST_REPORT`` in a fresh process."""

from __future__ import annotations

import json
import os
import tempfile

import pytest

ALONE = ("-p", "oomguard.pytest._heartbeat")


def details(inner, *arguments, number=None, **more):
    with tempfile.TemporaryFile() as file:
        env = {"OOMGUARD_TEST_REPORT": number or str(file.fileno())}
        result = inner.run(*ALONE, *arguments, plugin=False, env=env, pass_fds=[file.fileno()], **more)
        file.seek(0)
        return result, [json.loads(line) for line in file]


def test_what_passes_is_not_told(inner):
    inner.write(test_a="def test_a(): print('x')")
    result, lines = details(inner)
    assert (result.code, lines) == (0, [])


def test_long_texts_are_whole(inner):
    inner.write(test_a="def test_a():\n    print('x' * 1000000)\n    assert 0, 'why \\u00e9 \\n not'")
    _, (line,) = details(inner)
    assert dict(line["sections"])["Captured stdout call"] == "x" * 1000000 + "\n"
    assert line["message"] == "AssertionError: why \u00e9"


def test_the_line_is_the_test_files_own(inner):
    inner.write(
        other="def fails():\n    raise ValueError('deep')", test_a="import other\n\n\ndef test_a(): other.fails()"
    )
    _, (line,) = details(inner)
    assert (line["file"], line["line"], line["message"]) == ("test_a.py", 4, "ValueError: deep")


def test_an_error_of_a_plugins_own(inner):
    inner.write(
        conftest="def pytest_runtest_setup(item): 1 / 0\ndef pytest_collection_modifyitems(): raise KeyError('mine')"
    )
    inner.write(test_a="def test_a(): pass")
    result, (line,) = details(inner)
    assert result.code == 3
    assert (line["when"], line["outcome"], line["nodeid"]) == ("internal", "error", "")
    assert "KeyError: 'mine'" in line["message"]


@pytest.mark.parametrize("stop", ["pytest.exit('enough')", "raise KeyboardInterrupt('enough')"])
def test_who_stops_pytest_is_told(inner, stop):
    inner.write(test_a=f"import pytest\ndef test_a(): pass\ndef test_b(): {stop}")
    result, (line,) = details(inner)
    assert result.code == 2
    assert (line["when"], line["nodeid"]) == ("interrupt", "test_a.py::test_b")
    assert "enough" in line["message"]


def test_what_was_told_outlives_the_process(inner):
    inner.write(test_a="import os\ndef test_a(): assert 0\ndef test_b(): os.kill(os.getpid(), 9)")
    result, (line,) = details(inner)
    assert result.code == -9
    assert line["nodeid"] == "test_a.py::test_a"


def test_no_child_of_a_test_writes(inner):
    inner.write(
        test_a="""
import os, subprocess, sys
def files():
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try: found.append(os.readlink("/proc/self/fd/" + fd))
        except OSError: pass
    return found
def test_a():
    assert "OOMGUARD_TEST_REPORT" not in os.environ
    command = [sys.executable, "-m", "pytest", "-p", "oomguard.pytest._heartbeat", "test_inner_.py"]
    subprocess.run(command, close_fds=False)
def test_forked():
    if os.fork() == 0: assert 0
    os.wait()
"""
    )
    inner.write(test_inner_="def test_inner(): assert 0")
    _, lines = details(inner, "test_a.py")
    assert lines == []


@pytest.mark.parametrize("given", ["many", "-1", "999", "1"])
def test_what_is_no_file_is_a_warning(inner, given):
    inner.write(test_a="def test_a(): pass")
    read, write = os.pipe()
    result, lines = details(inner, number=given, stdin=read)
    os.close(read)
    os.close(write)
    assert result.code == 0
    assert lines == []
    assert f"OOMGUARD_TEST_REPORT=`{given}`: " in result.out
