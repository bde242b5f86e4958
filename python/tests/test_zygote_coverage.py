"""``--cov`` in a process per test file, put together afterwards."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from absence import needs
from inner_pytest import SECONDS, environment

CODE = "def a():\n    return 1\n\n\ndef b():\n    return 2\n\n\ndef c():\n    return 3\n"


@pytest.fixture
def measured(inner, zygote):
    """The data files of two children, of which one runs a(), the other b()."""
    needs("pytest_cov")
    inner.write(code=CODE, unused="x = 1\n")
    inner.write(test_a="import code_\ndef test_a(): assert code_.a() == 1")
    (inner.folder / "code.py").rename(inner.folder / "code_.py")
    inner.write(test_b="import code_\ndef test_b(): assert code_.b() == 2")
    started = zygote("--cov=.", "--cov-fail-under=90")
    assert started.ready["depth"] == "imports", started.ready
    files = []
    for name in ("test_a.py", "test_b.py"):
        (inner.folder / f"data-{name}").mkdir()
        files.append(str(inner.folder / f"data-{name}" / "coverage"))
        child = started.run("--cov-report=", "--cov-fail-under=0", name, env={"COVERAGE_FILE": files[-1]})
        assert child.code == 0, child
        assert "coverage:" not in child.stdout
    return files


def report(inner, *arguments):
    command = [sys.executable, "-m", "oomguard.pytest._coverage", *arguments]
    text = {"capture_output": True, "text": True, "timeout": SECONDS, "check": False}
    return subprocess.run(command, cwd=inner.folder, env=environment(), **text)


def test_the_parts_make_the_whole(inner, measured):
    whole = inner.run("--cov=.", "--cov-report=term-missing", plugin=False)
    assert whole.code == 0, whole
    told = report(inner, *measured, "--", "-q", "--cov=.", "--cov-report=term-missing", "--cov-report=xml:there.xml")
    assert told.returncode == 0, told
    row = next(line for line in whole.out.splitlines() if line.startswith("code_.py"))
    assert row.split()[1:] == ["6", "1", "83%", "10"]
    assert row in told.stdout.splitlines()
    assert re.search(r"^unused\.py +1 +1 +0%", told.stdout, re.M), "what nobody has imported counts, too"
    assert "code_.py" in (inner.folder / "there.xml").read_text()
    assert (inner.folder / ".coverage").exists()


def test_too_little_is_told_by_the_exit_code(inner, measured):
    told = report(inner, *measured, "--", "--cov=.", "--cov-report=", "--cov-fail-under=99.5")
    assert told.returncode == 2, told
    assert re.fullmatch(r"FAIL Required test coverage of 99.5% not reached. Total coverage: 8\d.\d\d%\n", told.stdout)
    (inner.folder / ".coverage").rename(inner.folder / "part")
    told = report(inner, "part", "--", "--cov-report=", "--cov-fail-under=50")
    assert told.returncode == 0, told


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "usage: "),
        (("nothing.there", "--", "--cov"), "no test file has left coverage data"),
        (("test_x.py", "--"), "No usable data files"),
    ],
)
def test_nothing_to_report(inner, arguments, why):
    needs("coverage")
    inner.write(test_x="no data")
    told = report(inner, *arguments)
    assert told.returncode == 1, told
    assert re.search(f"^oomguard: .*{why}", told.stderr, re.M), told.stderr
