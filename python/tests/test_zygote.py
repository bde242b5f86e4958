"""The zygote and its children, over the real protocol."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from absence import needs
from conftest import wait_until
from inner_pytest import SECONDS, environment
from zygote_runner import Zygote, children, gone

DEPTHS = ("collection", "imports")


@pytest.fixture(params=DEPTHS)
def depth(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["at once", "standing by"])
def ready(zygote, depth, request):
    """Starts a zygote that must be ready at ``depth``, which it is told. Its children are made when they are ordered,
    or stand by for that."""
    started = zygote(depth=depth)
    assert started.ready["event"] == "ready", started.ready
    assert started.ready["depth"] == depth
    started.stands_by = request.param
    return started


EVERY_OUTCOME = """
import pytest
def test_passed(): pass
def test_failed():
    print("told")
    assert 1 == 2, "one is not two"
@pytest.mark.skip(reason="not today")
def test_skipped(): pass
@pytest.mark.xfail(reason="known")
def test_xfailed(): assert 0
@pytest.mark.xfail
def test_xpassed(): pass
@pytest.fixture
def broken(): raise ValueError("no")
def test_error(broken): pass
@pytest.fixture
def leaving():
    yield
    raise KeyError("late")
def test_teardown(leaving): pass
@pytest.mark.parametrize("i", ["a/b", "x y", "\\u00e9", "::", "[]"])
def test_ids(i): pass
class TestClass:
    def test_method(self, tmp_path): (tmp_path / "file").write_text("x")
"""


def test_the_same_outcomes_as_a_fresh_process(inner, ready):
    inner.write(test_a=EVERY_OUTCOME)
    fresh = inner.run("-rA", "test_a.py", plugin=False)
    child = ready.run("test_a.py")
    assert child.code == fresh.code == 1, child
    outcomes = child.outcomes()
    assert {name.partition("::")[2]: word for name, word in outcomes.items() if "test_ids" not in name} == {
        "test_passed": "passed",
        "test_failed": "failed",
        "test_skipped": "skipped",
        "test_xfailed": "xfailed",
        "test_xpassed": "xpassed",
        "test_error": "error",
        "test_teardown": "error",
        "TestClass::test_method": "passed",
    }
    assert sum(word == "passed" for name, word in outcomes.items() if "test_ids" in name) == 5
    last = "2 failed" if "2 failed" in fresh.out else "1 failed"
    assert last in child.stdout
    assert child.stdout.startswith("=" * 20), "pytest's header is the child's own"
    assert child.stderr == ""
    assert child.events[-1] == {"v": 1, "event": "end", "exitstatus": 1, "dropped": 0}


def test_the_details_of_what_did_not_pass(inner, ready):
    inner.write(test_a=EVERY_OUTCOME)
    details = {(one["nodeid"].partition("::")[2], one["when"]): one for one in ready.run("test_a.py").details}
    assert set(details) == {
        ("test_failed", "call"),
        ("test_skipped", "setup"),
        ("test_xfailed", "call"),
        ("test_xpassed", "call"),
        ("test_error", "setup"),
        ("test_teardown", "teardown"),
    }
    failed = details["test_failed", "call"]
    assert failed["outcome"] == "failed"
    assert failed["message"] == "AssertionError: one is not two"
    assert "assert 1 == 2" in failed["text"]
    assert failed["sections"] == [["Captured stdout call", "told\n"]]
    assert (failed["file"], failed["line"]) == ("test_a.py", 6)
    assert failed["seconds"] >= 0
    assert details["test_skipped", "setup"]["message"] == "not today"
    assert details["test_xfailed", "call"]["message"] == "known"
    assert details["test_error", "setup"]["outcome"] == "error"
    assert details["test_teardown", "teardown"]["message"] == "KeyError: 'late'"


def test_a_file_that_cannot_be_imported(inner, ready):
    inner.write(
        test_a="import nothing_of_that_name", test_b="import pytest\npytest.skip('all', allow_module_level=True)"
    )
    child = ready.run("test_a.py")
    assert child.code == 2
    (line,) = child.details
    assert (line["nodeid"], line["when"], line["outcome"]) == ("test_a.py", "collect", "error")
    assert "nothing_of_that_name" in line["message"]
    (line,) = ready.run("test_b.py").details
    assert (line["nodeid"], line["outcome"], line["message"]) == ("test_b.py", "skipped", "all")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("def test_a(): pass", 0),
        ("def test_a(): assert 0", 1),
        ("import pytest\ndef test_a(): pytest.exit('now')", 2),
        ("import pytest\ndef test_a(): pytest.exit('now', 77)", 77),
        ("def test_a(): raise KeyboardInterrupt", 2),
        ("", 5),
        ("import atexit\ndef test_a(): atexit.register(print, 'LAST')", 0),
        ("import os\ndef test_a(): os._exit(9)", 9),
        ("import os\ndef test_a(): os.kill(os.getpid(), 9)", -9),
        ("import os, signal\ndef test_a(): os.kill(os.getpid(), signal.SIGTERM)", -15),
        ("import os, signal\ndef test_a(): os.kill(os.getpid(), signal.SIGINT)", 2),
    ],
    ids=[
        "passed",
        "failed",
        "exit",
        "exit 77",
        "interrupt",
        "empty",
        "atexit",
        "_exit",
        "SIGKILL",
        "SIGTERM",
        "SIGINT",
    ],
)
def test_exit_codes(inner, ready, text, code):
    inner.write(test_a=text)
    child = ready.run("test_a.py")
    assert child.code == code, child
    if "LAST" in text:
        assert child.stdout.endswith("LAST\n")
    if code == -9:
        assert child.events[-1]["event"] == "start", "the test that was running is known"


def test_a_thread_is_waited_for_at_the_end(inner, ready):
    inner.write(
        test_a="""
import concurrent.futures, threading
go = threading.Event()
pool = concurrent.futures.ThreadPoolExecutor(1)
def late():
    go.wait(30)
    print("LATE", flush=True)
def test_a():
    pool.submit(late)
    threading._register_atexit(go.set)
"""
    )
    child = ready.run("test_a.py")
    assert child.code == 0, child
    assert "LATE" in child.stdout


def test_one_file_sees_nothing_of_another(inner, ready):
    inner.write(
        shared="seen = []",
        test_a="import shared, os\ndef test_a():\n    assert shared.seen == []\n    shared.seen.append(1)\n"
        "    os.environ['LEFT'] = '1'",
    )
    inner.write(
        test_b="import shared, os\ndef test_b():\n    assert shared.seen == []\n    assert 'LEFT' not in os.environ"
    )
    assert [ready.run(f"test_{name}.py").code for name in "aba"] == [0, 0, 0]


def test_a_file_that_takes_the_number_of_a_pipe_is_not_written_to(inner, ready):
    inner.write(
        test_a="""
import os, stat
def ours():
    found = []
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            kind = os.fstat(fd).st_mode
        except OSError:
            continue
        if fd > 2 and stat.S_ISFIFO(kind):
            found.append(fd)
    return found
kept = []
def test_closes(tmp_path):
    for fd in ours():
        mine = os.open(tmp_path / str(fd), os.O_CREAT | os.O_RDWR)
        os.dup2(mine, fd)
        kept.append(fd)
    assert kept
def test_skips(): import pytest; pytest.skip("to be told")
def test_finds_its_own():
    assert [os.fstat(fd).st_size for fd in kept] == [0] * len(kept)
"""
    )
    child = ready.run("test_a.py")
    assert (child.code, "2 passed, 1 skipped" in child.stdout) == (0, True), child


def test_the_garbage_collector_sees_everything(inner, ready):
    """hypothesis asks it at its import."""
    inner.write(
        test_a="import gc, pytest\n"
        "def test_a(): assert any(one is vars(pytest) for one in gc.get_referrers(pytest.mark))\n"
        "def test_b(): assert any(one is vars(pytest) for one in gc.get_objects())\n"
        "def test_c():\n    mine = []\n    held = [mine]\n    assert gc.get_referrers(mine) == [held]"
    )
    child = ready.run("test_a.py")
    assert child.code == 0, child


@pytest.fixture
def sigint_is_heard():
    """Whoever starts us in the background of a script has it ignored, and fresh processes inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_world_is_that_of_a_fresh_process(inner, sigint_is_heard, ready):
    text = """
import json, os, signal, sys
def test_a():
    print("FOUND", json.dumps({
        "cwd": os.getcwd(), "path": sys.path, "argv0": sys.argv[0], "sigint": str(signal.getsignal(signal.SIGINT)),
        "sigterm": str(signal.getsignal(signal.SIGTERM)), "sigchld": str(signal.getsignal(signal.SIGCHLD)),
        "file": __file__, "name": __name__, "stdin": os.readlink("/proc/self/fd/0"),
        "oomguard": sorted(name for name in os.environ if name.startswith(("OOMGUARD", "PYTORCH_NVML"))),
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    }))
"""
    (inner.folder / "deep").mkdir()
    inner.ini()
    inner.write(sibling="")
    inner.write(**{"deep/test_a": "import sibling\n" + text})
    fresh = inner.run("-rP", "deep/test_a.py", plugin=False, stdin=subprocess.DEVNULL)
    child = ready.run("deep/test_a.py")
    assert child.code == fresh.code == 0, (child, fresh)
    found = next(line for line in fresh.out.splitlines() if line.startswith("FOUND"))
    again = Zygote(inner.folder, environment(), "-rP", depth=ready.ready["depth"])
    with again:
        here = next(line for line in again.run("deep/test_a.py").stdout.splitlines() if line.startswith("FOUND"))
    assert here == found


def test_the_environment_of_one_child(inner, zygote, depth):
    inner.write(test_a="import os\ndef test_a(): assert (os.environ['K'], os.environ.get('GONE')) == ('v', None)")
    started = zygote(depth=depth, env={"GONE": "here"})
    assert started.run("test_a.py", env={"K": "v", "GONE": None}).code == 0
    assert started.run("test_a.py").code == 1


def test_a_child_is_a_group_and_session_of_its_own(inner, ready):
    inner.write(test_a="import os\ndef test_a(): assert os.getpgid(0) == os.getsid(0) == os.getpid()")
    assert ready.run("test_a.py").code == 0


def test_limits_of_one_child(inner, ready):
    inner.write(
        test_a="""
import resource
def test_a():
    assert open("/proc/self/oom_score_adj").read().strip() == "500"
    assert resource.getrlimit(resource.RLIMIT_DATA) == (8 << 30, 8 << 30)
"""
    )
    child = ready.run("test_a.py", oom_score_adj=500, rlimit_data=8 << 30)
    assert child.code == 0, child


def test_a_child_joins_before_it_does_anything(inner, ready, tmp_path):
    inner.write(test_a="def test_a(): pass")
    joined = [os.open(tmp_path / name, os.O_CREAT | os.O_WRONLY) for name in ("one", "two")]
    child = ready.run("test_a.py", joins=tuple(joined))
    assert child.code == 0, child
    assert [(tmp_path / name).read_text() for name in ("one", "two")] == ["0", "0"]
    for fd in joined:
        os.close(fd)


def test_a_child_that_cannot_join_runs_nothing(inner, ready, tmp_path):
    inner.write(test_a="def test_a(): pass")
    fd = os.open(tmp_path, os.O_RDONLY)
    child = ready.run("test_a.py", joins=(fd,))
    os.close(fd)
    assert child.code == 125
    assert "the test file was not started: joining the cgroup" in child.stderr
    assert child.events == []


@pytest.mark.parametrize("count", [2, 5])
def test_children_that_print_at_the_same_time_keep_their_output_apart(inner, ready, count):
    for number in range(count):
        os.mkfifo(inner.folder / f"here_{number}")
        os.mkfifo(inner.folder / f"go_{number}")
        inner.write(
            **{
                f"test_{number}": f"""
import os, subprocess, sys
def test_a():
    for i in range(200):
        print("{number}" * 50)
        os.write(1, b"{number}" * 50 + b"\\n")
        os.write(2, b"{number}" * 50 + b"\\n")
        if i == 100:
            open("here_{number}", "w").close()
            open("go_{number}").close()
            subprocess.run(["echo", "{number}" * 50], check=True)
    assert 0
"""
            }
        )
    children = [ready.fork(f"test_{number}.py") for number in range(count)]
    # Nobody goes on before all of them hold output in their capture files.
    for step, mode in (("here", "r"), ("go", "w")):
        for number in range(count):
            open(inner.folder / f"{step}_{number}", mode).close()
    ready.wait(*children)
    for number, child in enumerate(children):
        assert child.code == 1, child
        (line,) = child.details
        captured = dict(line["sections"])
        assert captured["Captured stdout call"].split() == [f"{number}" * 50] * 401
        assert captured["Captured stderr call"].split() == [f"{number}" * 50] * 200
        others = set("01234"[:count]) - {str(number)}
        assert not any(other * 50 in child.stdout for other in others)


@pytest.mark.parametrize("capture", ["-s", "--capture=sys", "--capture=tee-sys", "--capture=fd"])
def test_every_way_of_capturing(inner, zygote, depth, capture):
    inner.write(
        conftest="print('FROM CONFTEST')",
        test_a="""
import ctypes, os, sys
def test_a(capfd):
    print("captured")
    assert capfd.readouterr().out == "captured\\n"
def test_b():
    print("printed")
    print("erred", file=sys.stderr)
    os.write(1, b"written\\n")
    assert 0
def test_c(capfd):
    with capfd.disabled(): ctypes.CDLL(None).printf(b"by C\\n")
""",
    )
    started = zygote(capture, depth=depth)
    child = started.run("test_a.py")
    assert child.outcomes() == {
        f"test_a.py::test_{name}": word for name, word in zip("abc", ("passed", "failed", "passed"), strict=True)
    }
    for word in ("printed", "written"):
        assert word in child.stdout
    assert "erred" in child.stdout + child.stderr
    assert child.stdout.count("by C") == 1, "the C library's buffer is written when the process ends"


def test_random_numbers_differ(inner, ready):
    needs("numpy")
    inner.write(
        test_a="import random, numpy\n"
        "def test_a():\n    print('DRAWN', random.random(), numpy.random.rand())\n    assert 0"
    )
    inner.write(conftest="import random, numpy")
    drawn = []
    for _ in range(2):
        captured = dict(ready.run("test_a.py").details[0]["sections"])["Captured stdout call"]
        drawn.append(captured.split()[1:])
    assert drawn[0][0] != drawn[1][0]
    assert drawn[0][1] != drawn[1][1]


def test_a_seed_of_a_conftest_holds(inner, zygote, depth):
    needs("numpy")
    inner.write(
        conftest="import random, numpy\nrandom.seed(1)\nnumpy.random.seed(1)",
        test_a="import random, numpy\nfirst = random.random(), numpy.random.rand()\n"
        "def test_a(): assert first == (0.13436424411240122, 0.417022004702574)",
    )
    started = zygote(depth=depth)
    assert [started.run("test_a.py").code for _ in range(2)] == [0, 0]


def test_the_end_of_the_socket_kills_what_runs(inner, zygote, depth):
    inner.write(
        test_a="""
import os, subprocess, time
def test_a():
    child = subprocess.Popen(["sleep", "1000"])
    with open("pid.tmp", "w") as file: file.write(str(child.pid))
    os.rename("pid.tmp", "pid")
    time.sleep(1000)
"""
    )
    started = zygote(depth=depth)
    child = started.fork("test_a.py")
    wait_until((inner.folder / "pid").exists, "the test has begun")
    grandchild = int((inner.folder / "pid").read_text())
    assert started.close() == 0
    assert gone(child.pid)
    assert gone(grandchild)


def test_children_of_a_killed_zygote_go_on(inner, zygote, depth):
    os.mkfifo(inner.folder / "go")
    inner.write(test_a="def test_a(): open('go').close()")
    started = zygote(depth=depth)
    child = started.fork("test_a.py")
    started.process.send_signal(signal.SIGKILL)
    started.process.wait(SECONDS)
    open(inner.folder / "go", "w").close()
    assert gone(child.pid)
    child.finish()
    assert child.outcomes() == {"test_a.py::test_a": "passed"}


RUNNER = """
import os, pathlib, sys
from zygote_runner import Zygote
folder = pathlib.Path(sys.argv[1])
started = Zygote(folder, dict(os.environ), depth=sys.argv[2])
started.fork("test_a.py")
started.next()
"""


STUCK = """
import os, subprocess, time
def stuck():
    child = subprocess.Popen(["sleep", "1000"])
    with open("pids.part", "w") as file:
        file.write(f"{os.getpid()} {child.pid}")
    os.rename("pids.part", "pids")
    time.sleep(1000)
"""


@pytest.mark.parametrize("when", ["serving", "loading"])
def test_a_killed_runner_leaves_nothing(inner, when):
    inner.write(stuck=STUCK, conftest="", test_a="import stuck\ndef test_a(): stuck.stuck()")
    if when == "loading":
        inner.write(conftest="import stuck\nstuck.stuck()")
    path = f"{environment()['PYTHONPATH']}:{os.path.dirname(__file__)}"
    command = [sys.executable, "-c", RUNNER, str(inner.folder), "collection"]
    runner = subprocess.Popen(command, env=environment(PYTHONPATH=path))
    wait_until((inner.folder / "pids").exists, f"it is {when}")
    stuck, started = map(int, (inner.folder / "pids").read_text().split())
    runner.kill()
    runner.wait(SECONDS)
    assert gone(stuck)
    if when == "serving":
        assert gone(started)
    else:
        os.kill(started, signal.SIGKILL)  # what a conftest has started while it was imported is its own


@pytest.mark.parametrize(
    ("order", "why"),
    [
        ({"op": "dance"}, "`op` is `dance`, not `fork` or `stand by`"),
        ({"joins_told": 1}, "4 descriptors came, not 4 and 1 to join"),
        ({"env": {"K": 1}}, "`env` is not an object of texts and nulls"),
        ({"args": "test_a.py"}, "`args` is not a list of texts"),
        ({"oom_score_adj": True}, "`oom_score_adj` is not a whole number"),
    ],
)
def test_orders_without_a_meaning_are_refused(inner, ready, order, why):
    inner.write(test_a="def test_a(): pass")
    assert ready.run("test_a.py", **order).refused == why
    assert ready.run("test_a.py").code == 0


@pytest.fixture
def standing(inner, zygote, depth, tmp_path):
    """A zygote, the number of a child that stands by, and its pid; it has joined."""
    inner.write(test_a="def test_a(): pass")
    started = zygote(depth=depth)
    join = tmp_path / "cgroup.procs"
    fd = os.open(join, os.O_CREAT | os.O_WRONLY)
    number = started.stand_by(fd)
    os.close(fd)
    wait_until(lambda: join.read_text() == "0", "nobody has joined")
    (child,) = children(started.process.pid)
    return started, number, child


def test_a_child_that_stands_by_has_joined_before_it_is_known_for_what(standing):
    zygote, number, pid = standing
    child = zygote.fork("test_a.py", standby=number)
    assert child.pid == pid
    zygote.wait(child)
    assert child.code == 0, child


def test_who_stands_by_no_more_is_replaced(standing):
    zygote, number, pid = standing
    os.kill(pid, signal.SIGKILL)
    assert gone(pid)
    child = zygote.run("test_a.py", standby=number)
    assert child.pid != pid
    assert child.code == 0, child
    assert zygote.run("test_a.py", standby=99).code == 0


@pytest.mark.parametrize("depth", ["collection"], indirect=True)
def test_who_stands_by_for_a_refused_order_goes(standing):
    zygote, number, pid = standing
    assert "comes too late" in zygote.run("-k", "test_a", standby=number).refused
    assert gone(pid)


def test_a_long_order_is_passed_on_whole(inner, ready):
    inner.write(test_a='import os\ndef test_a(): assert len(os.environ["LONG"]) == 20_000')
    child = ready.run("test_a.py", env={"LONG": "\N{CYRILLIC SMALL LETTER YA}" * 20_000})
    assert child.code == 0, child
    assert list(child.outcomes().values()) == ["passed"]


def test_to_stand_by_may_be_refused(inner, zygote):
    inner.write(test_a="def test_a(): pass")
    started = zygote()
    number = started.stand_by(joins_told=1)
    assert started.run("test_a.py", standby=number).code == 0
    refusal = {"event": "refused", "standby": number, "why": "0 descriptors came, not 1 to join"}
    assert started.not_standing == [refusal]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_who_stands_by_goes_with_the_zygote(standing, how):
    zygote, _, pid = standing
    zygote.stand_by()
    zygote.process.send_signal(how)
    assert gone(pid)


def test_options_come_too_late_for_a_deep_fork(inner, zygote):
    inner.write(test_a="def test_a(): pass\ndef test_b(): pass")
    with_options = ("test_a.py", "-k", "test_b")
    assert "`-k` comes too late" in zygote(depth="collection").run(*with_options).refused
    assert list(zygote(depth="imports").run(*with_options).outcomes()) == ["test_a.py::test_b"]


def test_node_ids(inner, ready):
    inner.write(test_a="def test_a(): pass\ndef test_b(): pass")
    assert list(ready.run("test_a.py::test_b").outcomes()) == ["test_a.py::test_b"]
    assert ready.run("test_a.py::nothing").code == 4
    assert ready.run("nothing.py").code == 4


def test_arguments_of_all_children(inner, zygote, depth):
    inner.write(test_a="def test_a(): pass\ndef test_b(): assert 0")
    child = zygote("-q", "-k", "test_b", depth=depth).run("test_a.py")
    assert list(child.outcomes()) == ["test_a.py::test_b"]
    assert "test session starts" not in child.stdout
