"""Runs a real pytest, in a process and a folder of its own, on files that a test writes."""

from __future__ import annotations

import importlib.metadata
import json
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import pytest
from conftest import clean_env

import oomguard

SECONDS = 60
"""Deadline of an inner run: with pytest-xdist three interpreters start, on a machine that may be busy."""
TEMPORARY = tempfile.TemporaryDirectory(prefix="inner-pytest-")
"""Where inner runs have their ``tmp_path``: pytest removes the folders of its last runs but three, and warns of each
that another run is removing at the same time."""


class Inner:
    """A folder of test files, and what pytest says about them."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder

    def write(self, **files: str) -> None:
        """``test_a="..."`` becomes ``test_a.py``."""
        for name, text in files.items():
            (self.folder / f"{name}.py").write_text(text)

    def ini(self, *lines: str) -> None:
        (self.folder / "pytest.ini").write_text("\n".join(["[pytest]", *lines]))

    def run(self, *arguments: str, env: dict[str, str] | None = None, plugin: bool = True, **more: Any) -> Result:
        """``plugin`` loads ours by name where the installed package does not do so by itself."""
        loaded = [] if is_installed() or not plugin else ["-p", "oomguard.pytest"]
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *loaded, *arguments]
        env = environment(**(env or {}))
        text: dict[str, Any] = {"capture_output": True, "text": True, "timeout": SECONDS, "check": False}
        return Result(subprocess.run(command, cwd=self.folder, env=env, **text, **more))

    def report(self, *arguments: str, **more: Any) -> dict[str, dict[str, Any]]:
        """Runs with ``--oomguard-report`` and gives the JSON document's tests by node id."""
        result = self.run("--oomguard-report=report.json", *arguments, **more)
        try:
            document = json.loads((self.folder / "report.json").read_text())
        except OSError:
            pytest.fail(f"no report:\n{result}")
        assert document["exitstatus"] == result.code
        return {test["nodeid"]: test for test in document["tests"]}


class Result:
    """The end of an inner run."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code = done.returncode
        self.out = done.stdout
        self.err = done.stderr

    def __repr__(self) -> str:
        return f"exit code {self.code}\n{self.out}\n{self.err}"


def environment(**more: str) -> dict[str, str]:
    """Without a guard, without this run's pytest variables, and with the very package that is tested here."""
    # Where `CI` is set pytest does not shorten its summary.
    own = ("PYTEST_", "CI", "BUILD_NUMBER")
    env = {name: value for name, value in clean_env().items() if not name.startswith(own)}
    env |= {"PYTHONPATH": str(pathlib.Path(oomguard.__file__).parents[1]), "COLUMNS": "200"}
    return {**env, "PYTEST_DEBUG_TEMPROOT": TEMPORARY.name, **more}


def is_installed() -> bool:
    """Whether pytest finds the plugin by itself."""
    return any(point.name == "oomguard" for point in importlib.metadata.entry_points(group="pytest11"))


MIB = 1 << 20
