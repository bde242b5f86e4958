"""Scripts with worker processes, run as files: ``spawn`` and ``forkserver`` import the script again."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import cgroups
import pytest
from absence import absent
from conftest import clean_env

DEADLINE = 180.0
NO_CGROUP = "/cgroup.procs"
"""A parent that cannot be: it is a file."""
BEGINNING = """
import json, os, signal, sys, warnings
warnings.simplefilter("ignore")
import oomguard
from oomguard import _core
LIMIT = 300 << 20
def spike(_=None):
    return len(b"x" * (700 << 20))
def small(_=None):
    return len(b"x" * (1 << 20)), signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, oomguard.check()
def told(limit, work):
    try:
        with limit:
            return repr(work())
    except BaseException as error:
        return [type(error).__name__, limit.explain(error), getattr(error, "__notes__", [])]
"""


def cgroup_parent() -> Iterator[str]:
    """A cgroup in which workers can be held, removed afterwards with what is in it; skips where there is none."""
    parent = cgroups.parent_of("pools")
    probe = "import oomguard; held = oomguard.limit_self('1GiB'); print(held.where); print(held.why)"
    env = clean_env(OOMGUARD_CGROUP_PARENT=parent, PYTHONWARNINGS="ignore")
    told = subprocess.run(
        [sys.executable, "-c", probe], env=env, capture_output=True, text=True, timeout=60, check=True
    )
    where, _, why = told.stdout.partition("\n")
    if where == "None":
        absent("cgroup", why.strip())
    yield parent
    cgroups.remove(parent)


def run_script(code: str, folder: pathlib.Path, **env: str) -> dict[str, Any]:
    """Runs ``code`` after :data:`BEGINNING`, as a file in ``folder``; gives the JSON of its last line."""
    script = folder / "script.py"
    script.write_text(BEGINNING + code, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, str(script)], cwd=folder, env=clean_env(OMP_NUM_THREADS="1", **env), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"still running after {DEADLINE} s: {out[-2000:]}{err[-4000:]}")
    assert process.returncode == 0, out[-2000:] + err[-6000:]
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found
