"""`oomguard test` on suites that do everything wrong: real processes, real cgroups, the real command."""

from __future__ import annotations

import functools
import json
import operator
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from typing import Any

import cgroups
import pytest
from absence import absent, needs
from conftest import DEADLINE, clean_env, wait_until

OOMGUARD = str(pathlib.Path(sys.executable).with_name("oomguard"))
WAITS = """
    import pathlib
    def test_a():
        pathlib.Path("begun").touch()
        while not pathlib.Path("go").exists(): pass
    """
"""A test file that says when it has begun, and ends when it is told."""
PATIENCE = 6 * DEADLINE
"""For a whole run: Python starts once or more, on a machine that may be busy."""

HOSTILE = {
    "test_fine.py": """
        def test_one(): pass
        def test_two(): pass
        """,
    "test_too_much.py": """
        def test_before(): pass
        def test_takes_four_times_its_limit():
            kept = [bytearray(1 << 20) for _ in range(4 * 96)]
        def test_after(): pass
        """,
    "test_leaks.py": """
        kept = []
        import pytest
        @pytest.mark.parametrize("n", range(4))
        def test_leak(n): kept.append(bytearray(64 << 20))
        """,
    "test_outlived.py": """
        import pathlib, subprocess
        def test_forks_a_child_that_outlives_it():
            pathlib.Path("outlived.pid").write_text(str(subprocess.Popen(["sleep", "1000"]).pid))
        """,
    "test_own_group.py": """
        import pathlib, subprocess
        def test_spawns_its_own_group():
            child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
            pathlib.Path("group.pid").write_text(str(child.pid))
        """,
    "test_hangs.py": """
        import threading
        def test_hang(): threading.Event().wait()
        """,
    "test_segfaults.py": """
        import os, signal
        def test_fine(): pass
        def test_segfault(): os.kill(os.getpid(), signal.SIGSEGV)
        def test_never(): pass
        """,
    "test_fills_shm.py": """
        import os
        def test_fill():
            with open("/dev/shm/oomguard-test-%d" % os.getpid(), "wb") as file:
                for _ in range(4 * 96):
                    file.write(bytes(1 << 20))
        """,
    "test_also_fine.py": "def test_three(): pass\n",
}


def write(folder: pathlib.Path, files: dict[str, str]) -> pathlib.Path:
    """A suite, and the folder that it lies in."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    for name, text in files.items():
        path = folder / "tests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder


class Suite:
    """Runs the command in a folder, with a state directory and a cgroup of its own."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        parent = cgroups.parent_of("suite")
        state = folder.parent / f"{folder.name}-state"
        self.parent = parent
        self.env = clean_env(OOMGUARD_CGROUP_PARENT=parent, XDG_STATE_HOME=str(state))
        self.state = state

    def command(self, *words: str) -> list[str]:
        return [OOMGUARD, "test", "--ram-preflight", "100%", "--ram-target", "100%", "--python", sys.executable, *words]

    def run(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return run_in(self, self.command(*words), **env)

    def report(self, *words: str) -> tuple[int, dict[str, dict[str, Any]], dict[str, Any]]:
        """Exit code, files by name, and the whole document."""
        path = self.folder / "report.json"
        done = self.run("--report", str(path), *words)
        assert path.exists(), done.stdout + done.stderr
        document = json.loads(path.read_text())
        return done.returncode, {pathlib.Path(file["path"]).name: file for file in document["files"]}, document


def run_in(suite: Suite, command: list[str], **env: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in the suite's folder; one that hangs is a failure."""
    return subprocess.run(
        command, cwd=suite.folder, env={**suite.env, **env}, capture_output=True, text=True, timeout=PATIENCE,
        check=False,
    )  # fmt: skip


@pytest.fixture
def suite(tmp_path: pathlib.Path) -> Callable[[dict[str, str]], Suite]:
    folder = tmp_path / "suite"
    folder.mkdir()
    return lambda files: Suite(write(folder, files))


def holds_limits(suite: Suite) -> bool:
    """Whether a cgroup holds a file to its limit here."""
    doctor = subprocess.run([OOMGUARD, "doctor", "--json"], env=suite.env, capture_output=True, text=True, check=False)
    return bool(json.loads(doctor.stdout)["enforcement"].startswith("cgroup"))


@pytest.fixture(params=["auto", "spawn"])
def isolation(request: pytest.FixtureRequest) -> Iterator[str]:
    return request.param


def alive(pid: int) -> bool:
    """A process that is not only waiting to be reaped."""
    try:
        return "State:\tZ" not in pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_every_way_to_die_is_named_and_hurts_nobody_else(suite: Callable[..., Suite], isolation: str) -> None:
    it = suite(HOSTILE)
    if not holds_limits(it):
        absent("cgroup", "nothing holds a tree of processes to a limit here")
    code, files, document = it.report(
        "tests", "--isolation", isolation, "--memory-limit", "96MiB", "--timeout", "8s", "-n", "2",
        "--junitxml", "junit.xml",
    )  # fmt: skip
    assert code == 1
    verdicts = {name: file["verdict"] for name, file in files.items()}
    assert verdicts == {
        "test_fine.py": "passed", "test_also_fine.py": "passed", "test_outlived.py": "passed",
        "test_own_group.py": "passed", "test_too_much.py": "memory-limit", "test_leaks.py": "memory-limit",
        "test_fills_shm.py": "memory-limit", "test_hangs.py": "timeout", "test_segfaults.py": "crash",
    }  # fmt: skip
    working = {name: (file["running"] or "").partition("::")[2] for name, file in files.items()}
    assert working["test_too_much.py"] == "test_takes_four_times_its_limit"
    assert working["test_leaks.py"].startswith("test_leak[")
    assert working["test_hangs.py"] == "test_hang"
    assert working["test_segfaults.py"] == "test_segfault"
    assert working["test_fills_shm.py"] == "test_fill"
    assert [test["outcome"] for test in files["test_too_much.py"]["tests"]] == ["passed", "killed", "not-run"]
    assert "sleep" in files["test_outlived.py"]["left_behind"][0]
    assert "sleep" in files["test_own_group.py"]["left_behind"][0]
    assert not any(alive(int((it.folder / name).read_text())) for name in ("outlived.pid", "group.pid"))
    assert not list(pathlib.Path("/dev/shm").glob("oomguard-test-*"))

    xml = ElementTree.parse(it.folder / "junit.xml").getroot()
    killed = xml.find(".//testcase[@name='test_takes_four_times_its_limit']/error")
    assert killed is not None
    assert killed.get("type") == "oomguard.MemoryLimit"
    left = xml.find(".//testsuite[@name='tests/test_too_much.py']/testcase[@name='test_after']/skipped")
    assert left is not None
    assert left.get("message") == "not run, process killed"
    assert document["ended"]["exit_code"] == 1


def test_outcomes_and_exit_codes_are_pytests(suite: Callable[..., Suite], isolation: str) -> None:
    it = suite({
        "test_all.py": """
            import pytest
            def test_passes(): pass
            def test_fails():
                print("to be seen")
                assert 1 == 2
            def test_skips(): pytest.skip("not today")
            @pytest.mark.xfail
            def test_xfails(): assert 0
            @pytest.fixture
            def broken(): raise RuntimeError("broken")
            def test_errors(broken): pass
            """,
        "test_import.py": "import there_is_no_such_module\n",
        "test_empty.py": "",
    })  # fmt: skip
    code, files, _ = it.report("tests", "--isolation", isolation)
    assert code == 1
    outcomes = {test["nodeid"].partition("::")[2]: test["outcome"] for test in files["test_all.py"]["tests"]}
    assert outcomes == {
        "test_passes": "passed", "test_fails": "failed", "test_skips": "skipped", "test_xfails": "xfailed",
        "test_errors": "error",
    }  # fmt: skip
    failed = next(test for test in files["test_all.py"]["tests"] if test["outcome"] == "failed")
    assert "assert 1 == 2" in failed["message"]
    assert "to be seen" in str(failed["sections"])
    assert files["test_import.py"]["verdict"] == "failed"
    assert "there_is_no_such_module" in files["test_import.py"]["tests"][0]["text"]
    assert files["test_empty.py"]["verdict"] == "no-tests"

    assert it.run("tests/test_all.py::test_passes", "--isolation", isolation).returncode == 0
    assert it.run("tests/test_empty.py", "--isolation", isolation).returncode == 5
    assert it.run("tests", "--isolation", isolation, "--", "--no-such-flag").returncode == 4
    assert it.run("no-such-folder").returncode == 4


def test_a_test_that_stops_pytest_is_named(suite: Callable[..., Suite], isolation: str) -> None:
    it = suite({
        "test_exit.py": """
            import pytest
            def test_before(): pass
            def test_stops(): pytest.exit("had enough", returncode=7)
            def test_after(): pass
            """,
        "test_interrupt.py": "def test_stops(): raise KeyboardInterrupt\n",
        "test_fine.py": "def test_fine(): pass\n",
    })  # fmt: skip
    code, files, _ = it.report("tests", "--isolation", isolation, "--junitxml", "junit.xml")
    assert code == 1
    stopped = files["test_exit.py"]
    assert "pytest stopped during tests/test_exit.py::test_stops" in stopped["message"]
    assert [test["outcome"] for test in stopped["tests"]] == ["passed", "killed", "not-run"]
    assert "had enough" in stopped["tests"][1]["text"]
    assert stopped["tests"][2]["message"] == "not run, pytest stopped"
    assert "test_interrupt.py::test_stops" in files["test_interrupt.py"]["message"]
    assert [files[name]["verdict"] for name in sorted(files)] == ["failed", "passed", "failed"]
    xml = ElementTree.parse(it.folder / "junit.xml").getroot()
    assert len(xml.findall(".//testcase[@name='test_stops']/error")) == 2


def test_a_file_that_fails_without_a_failed_test_says_so(suite: Callable[..., Suite], isolation: str) -> None:
    it = suite({
        "conftest.py": "def pytest_terminal_summary(): raise RuntimeError('a plugin is broken')\n",
        "test_fine.py": "def test_fine(): pass\n",
    })  # fmt: skip
    code, files, _ = it.report("tests", "--isolation", isolation, "--junitxml", "junit.xml")
    assert code == 1
    (file,) = files.values()
    assert [test["outcome"] for test in file["tests"]] == ["passed"]
    assert "no test did" in file["message"], file
    assert "a plugin is broken" in pathlib.Path(file["log"]).read_text()
    xml = ElementTree.parse(it.folder / "junit.xml").getroot()
    assert len(xml.findall(".//testcase/error")) == 1


def test_what_is_meant_for_one_process_holds_for_all_files(suite: Callable[..., Suite], isolation: str) -> None:
    """One report of all files, and for each file a folder of its own for its temporary files."""
    text = """
        import pathlib, pytest
        @pytest.fixture(scope="module", autouse=True)
        def both():
            here, there = pathlib.Path("here-{own}"), pathlib.Path("here-{other}")
            here.mkdir()
            while not there.exists():
                pass
        def test_{own}(tmp_path):
            (tmp_path / "kept").touch()
        """
    it = suite({f"test_{own}.py": text.format(own=own, other=other) for own, other in ("ab", "ba")})
    (it.folder / "pytest.ini").write_text("[pytest]\naddopts = --junitxml=$XML_HERE/junit.xml --basetemp=temporary\n")
    it.env["XML_HERE"] = str(it.folder)
    code, files, _ = it.report("tests", "--isolation", isolation, "-n", "2", "--memory-limit", "256MiB")
    assert (code, len(files)) == (0, 2), files
    xml = ElementTree.parse(it.folder / "junit.xml").getroot()
    assert sorted(case.get("name", "") for case in xml.iter("testcase")) == ["test_a", "test_b"]
    kept = sorted(str(path.relative_to(it.folder)) for path in it.folder.glob("temporary/*/*/*0/kept"))
    assert kept == ["temporary/tests/test_a.py/test_a0/kept", "temporary/tests/test_b.py/test_b0/kept"]


@pytest.mark.parametrize("said", ["flags", "settings"])
def test_coverage_is_judged_once_for_all_files(suite: Callable[..., Suite], said: str) -> None:
    """No file alone covers half of the code."""
    needs("pytest_cov")
    it = suite({
        "code_.py": "def a():\n    return 1\n\n\ndef b():\n    return 2\n\n\ndef c():\n    return 3\n",
        "test_a.py": "import code_\ndef test_a(): assert code_.a() == 1\n",
        "test_b.py": "import code_\ndef test_b(): assert code_.b() == 2\n",
    })  # fmt: skip
    options = ["--cov=tests", "--cov-fail-under=80"]
    if said == "settings":
        (it.folder / "pytest.ini").write_text(f"[pytest]\naddopts = {' '.join(options)}\n")
        options = []
    done = it.run("tests", "-n", "2", "--", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Required test coverage of 80% reached" in done.stdout
    (it.folder / "tests/test_b.py").unlink()
    assert it.run("tests", "--", *options).returncode == 1


def test_one_file_sees_nothing_of_another(suite: Callable[..., Suite], isolation: str) -> None:
    """Not its modules, not its environment, not its random numbers."""
    text = """
        import os, random, sys
        def test_alone():
            assert "OTHER" not in os.environ and "left_by_another" not in sys.modules
            os.environ["OTHER"] = "1"
            sys.modules["left_by_another"] = sys
            print("drawn", random.random())
            assert 0
        """
    it = suite({"test_a.py": text, "test_b.py": text, "test_c.py": text})
    _, files, _ = it.report("tests", "--isolation", isolation)
    drawn = {str(file["tests"][0]["sections"]) for file in files.values()}
    assert len(drawn) == 3
    assert all(file["tests"][0]["message"].startswith("assert 0") for file in files.values()), files


def test_a_machine_that_is_full_is_refused_before_anything_starts(suite: Callable[..., Suite]) -> None:
    it = suite({"test_a.py": "def test_a(): pass\n"})
    command = [OOMGUARD, "test", "--ram-preflight", "1%", "tests"]
    done = run_in(it, command)
    assert done.returncode == 75
    assert "no room: RAM" in done.stderr
    assert "pid" in done.stderr
    assert not list(it.state.rglob("memory_profile.log"))


def test_a_file_that_waits_for_memory_in_vain_ends_the_run(suite: Callable[..., Suite]) -> None:
    it = suite({"test_a.py": "def test_a(): pass\n"})
    command = [*it.command("tests"), "--ram-target", "1%", "--wait", "1s"]
    del command[command.index("--ram-target") : command.index("--ram-target") + 2]
    done = run_in(it, command)
    assert done.returncode == 75, done.stdout + done.stderr
    assert "RAM" in done.stdout
    assert "not run" in done.stdout


def test_the_profile_names_every_file_before_and_after(suite: Callable[..., Suite]) -> None:
    it = suite({"test_a.py": "def test_a(): pass\n", "sub/test_b.py": "def test_b(): pass\n"})
    assert it.run("tests", "--memory-profile", "profile.log").returncode == 0
    lines = (it.folder / "profile.log").read_text().splitlines()
    pattern = (
        r"^\[MEMORY-PROFILE \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] (BEFORE|AFTER) \| Test: (\S+) \| RAM: [\d.]+% "
        r"\| VRAM: (unknown|[\d.]+%) \| Process: \d+MB$"
    )
    found = [re.match(pattern, line) for line in lines]
    assert all(found), lines
    said = [match.groups()[:2] for match in found if match]
    assert sorted(said) == sorted([
        ("BEFORE", "tests/sub/test_b.py"), ("AFTER", "tests/sub/test_b.py"),
        ("BEFORE", "tests/test_a.py"), ("AFTER", "tests/test_a.py"),
    ])  # fmt: skip
    assert it.run("tests", "--no-memory-profile").returncode == 0
    assert not list(it.state.rglob("memory_profile.log"))


def test_last_failed_runs_what_failed(suite: Callable[..., Suite]) -> None:
    it = suite({
        "test_a.py": "def test_good(): pass\ndef test_bad(): assert 0\n",
        "test_b.py": "def test_b(): pass\n",
    })  # fmt: skip
    assert it.report("tests")[0] == 1
    code, files, _ = it.report("tests", "--last-failed")
    assert code == 1
    assert [test["nodeid"] for test in files["test_a.py"]["tests"]] == ["tests/test_a.py::test_bad"]
    assert set(files) == {"test_a.py"}


def test_the_first_failure_stops_the_run(suite: Callable[..., Suite]) -> None:
    it = suite({"test_a.py": "def test_a(): assert 0\n", "test_b.py": "def test_b(): pass\n"})
    code, files, document = it.report("tests", "-x")
    assert code == 1
    assert files.get("test_b.py", {"verdict": "not-run"})["verdict"] == "not-run"
    assert document["ended"]["stopped"]


def test_a_file_that_fails_once_is_flaky_and_passes(suite: Callable[..., Suite]) -> None:
    it = suite({
        "test_a.py": """
            import pathlib
            def test_second_time():
                seen = pathlib.Path(__file__).with_name("seen")
                if not seen.exists():
                    seen.touch()
                    assert 0
            """,
    })  # fmt: skip
    code, _, document = it.report("tests", "--retries", "1", "--junitxml", "junit.xml")
    assert code == 0
    assert [file["verdict"] for file in document["files"]] == ["failed", "passed"]
    xml = ElementTree.parse(it.folder / "junit.xml").getroot()
    assert xml.find(".//flakyFailure") is not None or xml.find(".//flakyError") is not None


def test_another_runner_is_judged_by_its_exit_code(suite: Callable[..., Suite]) -> None:
    it = suite({
        "test_a.py": "import unittest\nclass T(unittest.TestCase):\n    def test_a(self): pass\n",
        "test_b.py": "import unittest\nclass T(unittest.TestCase):\n    def test_b(self): self.fail('no')\n",
    })  # fmt: skip
    code, files, _ = it.report("tests", "--command", f"{sys.executable} -m unittest {{file}}")
    assert code == 1
    assert {name: file["verdict"] for name, file in files.items()} == {"test_a.py": "passed", "test_b.py": "failed"}


def test_ctrl_c_ends_the_files_and_writes_every_report(suite: Callable[..., Suite]) -> None:
    it = suite({
        "test_a.py": "def test_a(): pass\n",
        "test_b.py": """
            import pathlib, threading
            def test_b():
                pathlib.Path("begun").touch()
                threading.Event().wait()
            """,
        "test_c.py": "def test_c(): pass\n",
    })  # fmt: skip
    command = it.command("tests", "--junitxml", "junit.xml", "--report", "report.json")
    process = subprocess.Popen(
        command, cwd=it.folder, env=it.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_until(lambda: (it.folder / "begun").exists(), "the second file did not begin", PATIENCE)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2, out
    document = json.loads((it.folder / "report.json").read_text())
    verdicts = {pathlib.Path(file["path"]).name: file["verdict"] for file in document["files"]}
    assert verdicts["test_a.py"] == "passed"
    assert verdicts["test_b.py"] == "interrupted"
    at_work = ElementTree.parse(it.folder / "junit.xml").getroot().find(".//testcase[@name='test_b']/skipped")
    assert at_work is not None
    assert "interrupted" in (at_work.get("message") or "")


def test_a_killed_runner_leaves_nothing_running_and_readable_books(suite: Callable[..., Suite], isolation: str) -> None:
    it = suite({
        "test_a.py": "def test_a(): pass\n",
        "test_b.py": """
            import os, pathlib, subprocess, threading
            def test_b():
                child = subprocess.Popen(["sleep", "1002"], start_new_session=True)
                pathlib.Path("begun").write_text(f"{os.getpid()} {child.pid}")
                threading.Event().wait()
            """,
    })  # fmt: skip
    command = it.command(
        "tests", "--isolation", isolation, "--junitxml", "junit.xml", "--memory-profile", "profile.log"
    )
    process = subprocess.Popen(command, cwd=it.folder, env=it.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    begun = it.folder / "begun"
    wait_until(
        lambda: begun.exists() and len(begun.read_text().split()) == 2, "the second file did not begin", PATIENCE
    )
    pids = [int(pid) for pid in begun.read_text().split()]
    process.kill()
    process.wait()
    wait_until(lambda: not any(alive(pid) for pid in pids), "its files outlived the runner", PATIENCE)
    wait_until(lambda: not cgroups.folders(it.parent), "its cgroups outlived the runner", PATIENCE)
    assert "BEFORE | Test: tests/test_b.py" in (it.folder / "profile.log").read_text()
    assert ElementTree.parse(it.folder / "junit.xml").getroot().find(".//testcase[@name='test_a']") is not None


def test_a_marker_is_a_limit_and_serial_files_run_alone(suite: Callable[..., Suite]) -> None:
    it = suite({
        "test_big.py": """
            import pytest
            pytestmark = pytest.mark.oomguard(memory="700MiB", serial=True)
            def test_big(): kept = [bytearray(1 << 20) for _ in range(200)]
            """,
        "test_small.py": "def test_small(): pass\n",
    })  # fmt: skip
    plan = it.run("tests", "--dry-run", "--json")
    files = {pathlib.Path(file["path"]).name: file for file in json.loads(plan.stdout)["files"]}
    assert files["test_big.py"]["memory_limit"] == 700 << 20
    assert files["test_big.py"]["serial"]
    code, ran, _ = it.report("tests", "--memory-limit", "64MiB")
    assert ran["test_big.py"]["limit"] == 700 << 20
    assert code == 0, ran


def test_shards_cover_the_suite_once(suite: Callable[..., Suite]) -> None:
    it = suite({f"test_{letter}.py": "def test_it(): pass\n" for letter in "abcdefg"})
    parts = [it.run("tests", "--list", "--shard", f"{part}/3").stdout.split() for part in (1, 2, 3)]
    assert sorted(functools.reduce(operator.iadd, parts, [])) == [f"tests/test_{letter}.py" for letter in "abcdefg"]


def test_what_one_part_took_moves_no_file_to_another(suite: Callable[..., Suite], tmp_path: pathlib.Path) -> None:
    files = {f"test_{letter}.py": "def test_it(): pass\n" for letter in "abcdefg"}
    it = suite({**files, "test_a.py": "def test_it(): assert sum(range(10_000_000))\n"})

    def listed(part: int, state: str) -> list[str]:
        return it.run("tests", "--list", "--shard", f"{part}/2", XDG_STATE_HOME=str(tmp_path / state)).stdout.split()

    # One after the other on the same machine, and each on its own.
    for states in (("one", "one"), ("one", "other")):
        for part, state in zip((1, 2), states, strict=True):
            assert it.run("tests", "--shard", f"{part}/2", XDG_STATE_HOME=str(tmp_path / state)).returncode == 0
            together = listed(1, states[0]) + listed(2, states[1])
            assert sorted(together) == [f"tests/{name}" for name in sorted(files)]


def test_what_an_interrupted_file_was_at_is_no_failure(suite: Callable[..., Suite]) -> None:
    it = suite({
        "test_bad.py": """
            import pathlib
            def test_bad():
                while not pathlib.Path("begun").exists(): pass
                assert 0
            """,
        "test_good.py": """
            import pathlib, threading
            def test_good():
                pathlib.Path("begun").touch()
                threading.Event().wait()
            def test_after(): pass
            """,
    })  # fmt: skip
    words = ("tests", "-n", "2", "-x", "--memory-limit", "256MiB", "--junitxml", "junit.xml")
    done = it.run(*words, GITHUB_ACTIONS="true")
    assert done.returncode == 1, done.stdout
    assert [line for line in done.stdout.splitlines() if line.startswith("::error")] == [
        "::error file=tests/test_bad.py,title=tests/test_bad.py%3A%3Atest_bad::assert 0"
    ]
    xml = ElementTree.parse(it.folder / "junit.xml").getroot()
    assert (xml.get("failures"), xml.get("errors"), xml.get("skipped")) == ("1", "0", "2")
    failed = it.run("tests", "--last-failed", "--list").stdout.split()
    assert failed == ["tests/test_bad.py"]


def test_runs_at_the_same_time_leave_each_other_their_folder_and_what_they_learned(suite: Callable[..., Suite]) -> None:
    it = suite({
        "test_a.py": WAITS,
        "test_b.py": "def test_b(): pass\n",
        "test_c.py": "def test_c(): assert 0\n",
    })  # fmt: skip
    process = subprocess.Popen(
        it.command("tests/test_a.py", "tests/test_b.py", "--timeout", "120s"),
        cwd=it.folder,
        env=it.env,
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: (it.folder / "begun").exists(), "the file did not begin", PATIENCE)
    for _ in range(6):
        assert it.run("tests/test_c.py").returncode == 1
    (it.folder / "go").touch()
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, out
    assert len(list(it.state.glob("oomguard/*/runs/*"))) == 6, "five, and the one that went on"
    assert it.run("tests", "--last-failed", "--list").stdout.split() == ["tests/test_c.py"], "learned meanwhile"


def test_under_nohup_the_terminal_may_go(suite: Callable[..., Suite]) -> None:
    it = suite({
        "test_a.py": WAITS,
        "test_b.py": "def test_b(): pass\n",
    })  # fmt: skip
    command = ["sh", "-c", 'trap "" HUP; exec "$0" "$@"', *it.command("tests", "--timeout", "60s")]
    process = subprocess.Popen(command, cwd=it.folder, env=it.env, stdout=subprocess.PIPE, text=True)
    wait_until(lambda: (it.folder / "begun").exists(), "the file did not begin", PATIENCE)
    process.send_signal(signal.SIGHUP)
    (it.folder / "go").touch()
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, out
    assert "2 passed" in out


def test_what_failed_last_is_remembered_until_it_has_run_and_may_be_gone(suite: Callable[..., Suite]) -> None:
    text = "def test_good(): pass\ndef test_bad(): assert 0\n"
    it = suite({"test_a.py": text, "test_b.py": text})
    assert it.run("tests").returncode == 1
    assert it.run("tests", "-k", "good").returncode == 0
    assert it.run("tests/test_a.py::test_good").returncode == 0
    (it.folder / "tests" / "test_b.py").write_text(text.replace("bad", "renamed"))
    code, files, _ = it.report("tests", "--last-failed")
    assert code == 1
    ran = {name: [test["nodeid"].partition("::")[2] for test in file["tests"]] for name, file in files.items()}
    assert ran == {"test_a.py": ["test_bad"], "test_b.py": ["test_good", "test_renamed"]}
    assert it.run("tests", "--last-failed", "--list").stdout.split() == ["tests/test_a.py", "tests/test_b.py"]


def test_a_command_runs_whole_files_and_nothing_is_left_out_in_silence(suite: Callable[..., Suite]) -> None:
    it = suite({"test_a.py": "print('fine')\n", "test_b.py": "raise SystemExit(3)\n"})
    command = ("--command", f"{sys.executable} {{file}}")
    done = it.run("tests", *command, "--junitxml", "junit.xml")
    assert done.returncode == 1, done.stdout
    xml = ElementTree.parse(it.folder / "junit.xml").getroot()
    assert (xml.get("tests"), xml.get("errors")) == ("2", "1")
    for words in (("-k", "fine"), ("-m", "slow"), ("tests/test_a.py::test_x",), ("--", "-q")):
        refused = it.run(*command, *words)
        assert refused.returncode == 4
        assert "is for pytest" in refused.stderr, refused.stderr


def test_json_lines_tell_every_file(suite: Callable[..., Suite]) -> None:
    it = suite({"test_a.py": "def test_a(): pass\n", "test_b.py": "def test_b(): assert 0\n"})
    done = it.run("tests", "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events if event["event"].startswith(("file", "suite"))] == [
        "suite-found", "file-started", "file-ended", "file-started", "file-ended", "suite-ended",
    ]  # fmt: skip
    ends = [(event["worker"], event["exit"]["code"]) for event in events if event["event"] == "ended"]
    assert ends == [("tests/test_a.py", 0), ("tests/test_b.py", 1)]
    starts = [(event["worker"], event["attempt"]) for event in events if event["event"] == "started"]
    assert starts == [("tests/test_a.py", 1), ("tests/test_b.py", 1)]
    assert [event["event"] for event in events].count("done") == 1


def test_the_command_is_there() -> None:
    assert shutil.which(OOMGUARD)
