"""What warms the zygote up passes, and leaves nothing else behind."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from inner_pytest import SECONDS, environment

SCRIPT = """
import json, os, random, signal, sys, threading, warnings
from oomguard.pytest._zygote import _warm_up

def state():
    return {
        "path": list(sys.path),
        "finders": [repr(finder) for finder in sys.meta_path],
        "cached": sorted(sys.path_importer_cache),
        "env": dict(os.environ),
        "random": repr(random.getstate()),
        "threads": threading.active_count(),
        "cwd": os.getcwd(),
        "fds": sorted(os.listdir("/proc/self/fd")),
        "temporary": os.listdir(os.environ["TMPDIR"]),
        "hooks": [repr(hook) for hook in (sys.excepthook, sys.unraisablehook, threading.excepthook)],
        "filters": repr(warnings.filters),
        "interrupt": repr(signal.getsignal(signal.SIGINT)),
        "module": _warm_up.MODULE in sys.modules,
    }

# The first time imports what every later one uses.
written = _warm_up.warm_up()
before = state()
again = _warm_up.warm_up()
print(json.dumps([written, again, before, state()]))
"""


@pytest.fixture
def told(inner):
    env = environment(TMPDIR=str(inner.folder), PYTEST_ADDOPTS="--no-such-option", PYTEST_PLUGINS="no_such_plugin")
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd="/", env=env, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_its_tests_pass(told):
    for written in told[:2]:
        assert "12 passed, 1 skipped" in written, written


def test_nothing_of_it_is_left(told):
    before, after = told[2:]
    assert after == before
    assert not after["module"]
