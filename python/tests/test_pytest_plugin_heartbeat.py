"""``OOMGUARD_TEST_FD``: what a runner reads from the pipe, and that no reader can hold pytest up."""

from __future__ import annotations

import fcntl
import json
import os
import select
import subprocess
import sys
import threading

import pytest
from absence import needs
from inner_pytest import MIB, SECONDS, environment

ALONE = ("-p", "oomguard.pytest._heartbeat")
TWO = "def test_a(): bytearray(60 << 20)\ndef test_b(): assert 0"


class Reader:
    """Reads one inner run's pipe to its end while the run lasts."""

    def __init__(self, inner, *arguments, **more):
        ours, theirs = os.pipe()
        self._raw = b""
        thread = threading.Thread(target=self._read, args=(ours,))
        thread.start()
        try:
            env = {"OOMGUARD_TEST_FD": str(theirs), **more.pop("env", {})}
            more = {"plugin": "-p" not in arguments, **more}
            self.result = inner.run(*arguments, env=env, pass_fds=[theirs], **more)
        finally:
            os.close(theirs)
            thread.join(SECONDS)
            assert not thread.is_alive(), "somebody still holds the writing end"
        self.lines = self._raw.splitlines(keepends=True)
        self.events = [json.loads(line) for line in self.lines]

    def _read(self, fd):
        with open(fd, "rb") as file:
            self._raw = file.read()

    def of(self, event):
        return [one for one in self.events if one["event"] == event]


@pytest.mark.parametrize("arguments", [ALONE, (), ("--oomguard",)], ids=["alone", "by itself", "measuring"])
def test_the_events_of_a_run(inner, arguments):
    inner.write(test_x=TWO)
    read = Reader(inner, *arguments)
    assert read.result.code == 1, read.result
    assert {one["v"] for one in read.events} == {1}
    told = [(one["event"], one.get("nodeid", one.get("ids"))) for one in read.events]
    assert told == [
        ("collected", ["test_x.py::test_a", "test_x.py::test_b"]),
        ("start", "test_x.py::test_a"),
        ("finish", "test_x.py::test_a"),
        ("start", "test_x.py::test_b"),
        ("finish", "test_x.py::test_b"),
        ("end", None),
    ]
    assert read.events[0]["count"] == 2
    assert read.events[-1] == {"v": 1, "event": "end", "exitstatus": 1, "dropped": 0}
    first, second = read.of("finish")
    assert (first["outcome"], second["outcome"]) == ("passed", "failed")
    assert first["rss_peak"] - first["rss_before"] == pytest.approx(60 * MIB, abs=4 * MIB)
    assert abs(first["rss_after"] - first["rss_before"]) < 2 * MIB
    assert 0 < first["seconds"] < SECONDS


def test_a_killed_run_leaves_a_start_without_its_finish(inner):
    inner.write(
        test_x="import os, signal\ndef test_a(): pass\ndef test_dies(): os.kill(os.getpid(), signal.SIGKILL)\n"
        "def test_c(): pass"
    )
    read = Reader(inner)
    assert read.result.code == -9
    assert read.events[-1] == {"v": 1, "event": "start", "nodeid": "test_x.py::test_dies"}


def test_many_and_long_ids_come_in_lines_that_fit(inner):
    inner.write(
        test_x="""
import pytest
@pytest.mark.parametrize("i", range(500))
def test_many(i): pass
@pytest.mark.parametrize("i", [1], ids=["x" * 5000])
def test_long(i): pass
@pytest.mark.parametrize("i", [1], ids=["\\u00e9\\U0001f6a8" * 200])
def test_foreign(i): pass
"""
    )
    read = Reader(inner, *ALONE)
    assert read.result.code == 0, read.result
    assert max(map(len, read.lines)) <= select.PIPE_BUF
    collected = read.of("collected")
    assert len(collected) > 1
    assert {one["count"] for one in collected} == {502}
    ids = [one for chunk in collected for one in chunk["ids"]]
    assert ids[:500] == [f"test_x.py::test_many[{i}]" for i in range(500)]
    assert len(ids) == 501, "all but the one that fits into no line"
    assert [one["nodeid"] for one in read.of("start")][:500] == ids[:500]
    cut = read.of("start")[500]
    assert cut["cut"] is True
    assert cut["nodeid"].startswith("test_x.py::test_long[xxx")
    assert len(read.of("finish")) == 502


def test_no_tests_are_told_too(inner):
    read = Reader(inner, *ALONE)
    assert [one["event"] for one in read.events] == ["collected", "end"]
    assert read.events[0] == {"v": 1, "event": "collected", "count": 0, "ids": []}
    assert read.events[1]["exitstatus"] == 5


def test_a_reader_that_is_gone_disturbs_nothing(inner):
    inner.write(test_x=TWO)
    ours, theirs = os.pipe()
    os.close(ours)
    result = inner.run(env={"OOMGUARD_TEST_FD": str(theirs)}, pass_fds=[theirs])
    os.close(theirs)
    assert "1 failed, 1 passed" in result.out
    assert "oomguard" not in result.err + result.out.split("short test summary")[1]


def test_a_reader_that_does_not_read_loses_lines_and_is_told_how_many(inner):
    # The pipe is full until the last test runs; that one has it emptied, so that its finish and the end have room.
    inner.write(
        test_x="""
def test_a(): pass
def test_b(): pass
def test_empties():
    open("empty", "w").close()
    open("emptied").close()
"""
    )
    os.mkfifo(inner.folder / "empty")
    os.mkfifo(inner.folder / "emptied")
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, MIB)
    os.set_blocking(theirs, False)
    filled = 0
    try:
        while True:
            filled += os.write(theirs, b"." * select.PIPE_BUF)
    except BlockingIOError:
        assert filled == MIB

    def empty():
        open(inner.folder / "empty").close()
        left = filled
        while left:
            left -= len(os.read(ours, left))
        open(inner.folder / "emptied", "w").close()

    thread = threading.Thread(target=empty, daemon=True)
    thread.start()
    result = inner.run(*ALONE, env={"OOMGUARD_TEST_FD": str(theirs)}, pass_fds=[theirs], plugin=False)
    os.close(theirs)
    thread.join(SECONDS)
    with open(ours) as file:
        events = [json.loads(line) for line in file]
    assert result.code == 0, result
    assert [one["event"] for one in events] == ["finish", "end"]
    assert events[0]["nodeid"] == "test_x.py::test_empties"
    assert events[1]["dropped"] == 6, "collected, three starts, two finishes"


def test_no_child_of_a_test_holds_the_pipe(inner):
    inner.write(
        test_x=f"""
import os, subprocess, sys
LOOK = '''
import os
def pipes():
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try: found.append(os.readlink("/proc/self/fd/" + fd))
        except OSError: pass
    return [one for one in found if one.startswith("pipe:") and os.environ["THE_PIPE"] == one]
'''
exec(LOOK)
def test_exec():
    assert pipes(), "this process has it"
    code = LOOK + "print(pipes())"
    told = subprocess.run([sys.executable, "-c", code], close_fds=False, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
def test_fork():
    pid = os.fork()
    if pid == 0: os._exit(len(pipes()))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
def test_environment():
    assert "OOMGUARD_TEST_FD" not in os.environ
def test_pytest_in_pytest(tmp_path):
    (tmp_path / "test_inner.py").write_text("def test_inner(): pass")
    command = [sys.executable, "-m", "pytest", *{list(ALONE)!r}, str(tmp_path)]
    subprocess.run(command, check=True, timeout={SECONDS}, close_fds=False)
"""
    )
    ours, theirs = os.pipe()
    name = os.readlink(f"/proc/self/fd/{theirs}")
    result = inner.run(*ALONE, env={"OOMGUARD_TEST_FD": str(theirs), "THE_PIPE": name}, pass_fds=[theirs], plugin=False)
    os.close(theirs)
    with open(ours) as file:
        assert "test_inner" not in file.read()
    assert result.code == 0, result


@pytest.mark.parametrize("given", ["many", "-1", "999", "1", str(1 << 70)])
def test_what_is_no_pipe_is_a_warning(inner, given, tmp_path):
    inner.write(test_x="def test_a(): pass")
    with open(tmp_path / "out", "w+") as out:
        subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *ALONE],
            cwd=tmp_path, env=environment(OOMGUARD_TEST_FD=given), stdout=out, stderr=out, timeout=SECONDS, check=True,
        )  # fmt: skip
        out.seek(0)
        told = out.read()
    assert f"OOMGUARD_TEST_FD=`{given}`: " in told
    assert "1 passed" in told
    assert '"event"' not in told


def test_under_xdist_the_controller_tells(inner):
    needs("xdist")
    inner.write(test_x=TWO)
    read = Reader(inner, "-n", "2")
    assert read.result.code == 1, read.result
    assert read.of("collected") == [
        {"v": 1, "event": "collected", "count": 2, "ids": ["test_x.py::test_a", "test_x.py::test_b"]}
    ]
    finished = {one["nodeid"]: one for one in read.of("finish")}
    assert {name: one["outcome"] for name, one in finished.items()} == {
        "test_x.py::test_a": "passed",
        "test_x.py::test_b": "failed",
    }
    first = finished["test_x.py::test_a"]
    assert first["rss_peak"] - first["rss_before"] == pytest.approx(60 * MIB, abs=4 * MIB)
    assert len(read.of("start")) == 2
    assert read.events[-1]["event"] == "end"


def test_the_pipe_is_made_larger(inner):
    inner.write(test_x="def test_a(): pass")
    ours, theirs = os.pipe()
    before = fcntl.fcntl(ours, fcntl.F_GETPIPE_SZ)
    inner.run(*ALONE, env={"OOMGUARD_TEST_FD": str(theirs)}, pass_fds=[theirs], plugin=False)
    assert fcntl.fcntl(ours, fcntl.F_GETPIPE_SZ) > before
    os.close(ours)
    os.close(theirs)
