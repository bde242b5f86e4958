"""The zygote under each pytest that the package supports, where ``OOMGUARD_TEST_PYTHONS`` (colons between) has it."""

from __future__ import annotations

import functools
import os
import subprocess
import sys

import pytest
from absence import absent
from inner_pytest import SECONDS, environment
from test_zygote import EVERY_OUTCOME
from zygote_runner import Zygote

VERSIONS = ("7.0", "8.4", "9.2")


@functools.cache
def pythons():
    """Interpreters by the pytest that they have; this one is among them."""
    found = {}
    for python in [*filter(None, os.environ.get("OOMGUARD_TEST_PYTHONS", "").split(":")), sys.executable]:
        code = "import pytest; print(pytest.__version__)"
        told = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=SECONDS, check=True)
        found[".".join(told.stdout.split(".")[:2])] = python
    return found


@pytest.mark.parametrize("depth", ["collection", "imports"])
@pytest.mark.parametrize("version", VERSIONS)
def test_the_same_outcomes_as_a_fresh_process(inner, version, depth):
    python = pythons().get(version)
    if python is None:
        absent(f"pytest{version}", "OOMGUARD_TEST_PYTHONS names no interpreter that has it")
    for name in ("one", "two"):
        folder = inner.folder / "tests" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
        (folder / "conftest.py").write_text(f"import pytest\n@pytest.fixture\ndef here(): return {name!r}")
        (folder / "test_a.py").write_text(EVERY_OUTCOME + f"\ndef test_here(here): assert here == {name!r}\n")
    inner.ini("addopts = -p no:cacheprovider")
    with Zygote(inner.folder, environment(), python=python, paths=["tests"], depth=depth) as zygote:
        assert zygote.ready["depth"] == depth, zygote.ready
        assert zygote.ready["pytest"].startswith(version)
        children = [zygote.fork(f"tests/{name}/test_a.py") for name in ("one", "two")]
        zygote.wait(*children)
    for name, child in zip(("one", "two"), children, strict=True):
        command = [python, "-m", "pytest", f"tests/{name}/test_a.py"]
        fresh = subprocess.run(
            command, cwd=inner.folder, env=environment(), capture_output=True, text=True, timeout=SECONDS, check=False
        )
        assert child.code == fresh.returncode == 1, child
        assert _words(child.stdout) == _words(fresh.stdout)
        assert child.outcomes()[f"tests/{name}/test_a.py::test_here"] == "passed"
        assert len(child.details) == 6


def _words(output):
    """pytest's last line without its time, and its summary of what did not pass."""
    lines = output.splitlines()
    return [*(line for line in lines if line.startswith(("FAILED", "ERROR"))), lines[-1].rpartition(" in ")[0]]
