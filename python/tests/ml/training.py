"""Runs a training in a fresh interpreter and gives back what it found out. The native monitor is one per process, so
several trainings that see the same machine share one interpreter: torch alone takes seconds to start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from conftest import clean_env

DEADLINE = 240.0
"""Seconds; the frameworks import slowly on a busy machine."""
SHORT = {"OOMGUARD_RESERVE": "1M", "OOMGUARD_WARNING": "1024T"}
"""Every machine is at level warning."""
CRITICAL = {"OOMGUARD_RESERVE": "1024T", "OOMGUARD_WARNING": "1024T"}
"""Every machine is at level critical."""

BEGINNING = """
import json, logging, os, signal, sys, warnings
warnings.filterwarnings("ignore")
import oomguard
log = []
class Kept(logging.Handler):
    def emit(self, record): log.append(record.getMessage())
logging.getLogger("oomguard").addHandler(Kept())
logging.getLogger("oomguard").propagate = False
told = []
tell = oomguard.checkpoint
oomguard.checkpoint = lambda: told.append(1) or tell()
def page(**values):
    sys.path.insert(0, os.environ["TESTS"])
    import pathlib
    from conftest import Page
    seen = Page.__new__(Page); seen.path = pathlib.Path(os.environ["OOMGUARD_PAGE"]); seen.set(**values)
def raised(call):
    try:
        call()
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return None
def freed(what):
    # Whether the last reference was ours, and no cycle waits for a collection.
    import gc, weakref
    gc.collect(); gc.disable()
    gone = weakref.ref(what.pop())
    result = gone() is None
    gc.enable()
    return result
found = {}
"""
END = """
print("FOUND" + json.dumps(found))
"""


def start(code: str, folder: os.PathLike[str], **env: str) -> subprocess.Popen[str]:
    """A training that the test talks to. It runs in ``folder``."""
    tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    more = {"OMP_NUM_THREADS": "1", "KERAS_BACKEND": "torch", "TESTS": tests, "PYTHONWARNINGS": "ignore", **env}
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, env=clean_env(**more), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What it wrote, when it has ended; at the deadline it is killed and the test fails."""
    try:
        return process.communicate(timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"still training after {DEADLINE} s: {out[-2000:]}{err[-4000:]}")


def train(code: str, folder: os.PathLike[str], **env: str) -> dict[str, Any]:
    """Runs ``code``, which fills ``found``, in ``folder``; gives ``found``."""
    process = start(BEGINNING + code + END, folder, **env)
    out, err = finish(process)
    assert process.returncode == 0, out[-2000:] + err[-6000:]
    found: dict[str, Any] = json.loads(out.rpartition("FOUND")[2])
    return found
