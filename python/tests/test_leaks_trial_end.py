"""``end_of_trial()`` and ``freeze_imports()``: what comes back, and when growth is said."""

from __future__ import annotations

import gc
import logging
import os
import pathlib

import pytest

import oomguard
from oomguard import _core, _trial_end, leaks

np = pytest.importorskip("numpy", reason="arrays are what leaks")

MIB = 1 << 20
HERE = str(pathlib.Path(oomguard.__file__).parents[1])


@pytest.fixture
def fresh(monkeypatch):
    """As in a process that has had no trial."""
    growth = _trial_end.Growth()
    monkeypatch.setattr(_trial_end, "_growth", growth)
    gc.collect()
    _core.trim()
    return growth


class Agent:
    def __init__(self) -> None:
        self.weights = [np.ones(1000) for _ in range(750)]
        self.act = self.explore

    def explore(self) -> None:
        """Never called."""


def test_what_dead_agents_held_comes_back_and_is_said(fresh):
    gc.disable()
    try:
        for _ in range(5):
            Agent()
        back = oomguard.end_of_trial()
    finally:
        gc.enable()
    assert back.objects >= 10
    assert 24 * MIB <= back.by_gc + (back.by_trim or 0) <= 60 * MIB
    assert back.gc_seconds > 0
    assert back.trim_seconds > 0
    assert back.resident == pytest.approx(_core.resident(), abs=4 * MIB)


def test_a_loop_that_gives_everything_back_is_flat_and_silent(fresh, caplog):
    sizes = []
    with caplog.at_level(logging.WARNING, "oomguard"):
        for number in range(20):
            Agent()
            sizes.append(oomguard.end_of_trial(number).resident)
    assert sizes[-1] - sizes[1] < 4 * MIB, [size // MIB for size in sizes]
    assert not caplog.records
    assert leaks.examine().cause("growth") is None


def test_real_growth_is_said_once_with_its_slope_and_where_it_ends(fresh, caplog):
    kept = []
    with caplog.at_level(logging.WARNING, "oomguard"):
        for number in range(16):
            kept.append(np.ones(6 * MIB // 8))
            oomguard.end_of_trial(number)
    assert len(caplog.records) == 1
    said = caplog.records[0].getMessage()
    assert said.startswith("Memory [trial ")
    assert "grows 6.0 MB a trial (sure: 99 %)" in said
    assert " trials / " in said
    cause = leaks.examine().cause("growth")
    assert cause.facts["trials"] == 16
    assert cause.bytes == pytest.approx(6 * MIB, rel=0.05)
    assert cause.facts["at_least"] <= cause.bytes <= cause.facts["at_most"]
    assert cause.facts["confidence"] >= 0.99
    assert cause.facts["bytes_per_second"] > 0


def sized(monkeypatch, sizes):
    """A process that is as large as ``sizes`` says after each trial, and nothing but the measurement."""
    now = iter([size for size in sizes for _ in range(3)])
    monkeypatch.setattr(_trial_end._core, "resident", lambda: next(now))
    monkeypatch.setattr(_trial_end._core, "trim", lambda: 0)
    monkeypatch.setattr(_trial_end.gc, "collect", lambda: 0)


@pytest.mark.parametrize(
    ("sizes", "warned"),
    [
        ([500 + 22 * n for n in range(8)], True),
        ([500 + 22 * n for n in range(7)], False),
        ([500 + 73 * n + (n * 7919 % 13 - 6) * 5 for n in range(12)], True),
        ([500 + (n * 7919 % 13) * 20 for n in range(60)], False),
        ([500 + 300 * (1 - 0.6**n) for n in range(30)], False),
        ([500 + (n % 5) * 40 for n in range(60)], False),
    ],
    ids=["origin, 22 MB", "too few", "origin, 73 MB and noise", "noise", "warms up", "saw"],
)
def test_growth_is_said_when_it_is_certain(fresh, caplog, monkeypatch, sizes, warned):
    sized(monkeypatch, [int(size * MIB) for size in sizes])
    with caplog.at_level(logging.WARNING, "oomguard"):
        for _ in sizes:
            oomguard.end_of_trial()
    assert len(caplog.records) == int(warned)


def test_the_limit_of_the_guard_is_what_it_reaches(run, page):
    page.set(limit=4 << 30, usage=1 << 30)
    result = run(
        """
import logging, oomguard
from oomguard import _core, _trial_end
logging.basicConfig(format="%(message)s")
size = iter(int((1024 + 22 * (n // 3)) * 2**20) for n in range(10**6))
_core.resident, _core.trim = lambda: next(size), lambda: 0
for number in range(10):
    oomguard.end_of_trial(number)
""",
        OOMGUARD_PAGE=str(page.path),
        PYTHONPATH=HERE,
    )
    assert result.stderr.startswith(
        "Memory [trial 7] grows 22 MB a trial (sure: 99 %), at 1.2 GB now: reaches 4.0 GB in"
    )
    assert "about 133 trials" in result.stderr


def test_unknown_sizes_are_none_and_never_zero(fresh, monkeypatch):
    monkeypatch.setattr(_trial_end._core, "resident", lambda: None)
    monkeypatch.setattr(_trial_end._core, "trim", lambda: None)
    back = oomguard.end_of_trial()
    assert (back.by_gc, back.by_trim, back.resident) == (None, None, None)
    assert fresh.trials == 0


def test_freeze_imports_takes_what_is_alive_out_of_every_later_collection(run):
    result = run(
        """
import gc, oomguard
before = len(gc.get_objects())
frozen = oomguard.freeze_imports()
assert frozen.objects > 0.9 * before, (frozen, before)
assert frozen.seconds > 0
assert len(gc.get_objects()) < 0.1 * before
class Node: pass
node = Node(); node.me = node; del node
assert gc.collect() >= 1
import atexit
atexit._run_exitfuncs()
print(gc.get_freeze_count())
""",
        PYTHONPATH=HERE,
    )
    assert result.stdout == "0\n", result.stderr


def test_import_oomguard_loads_none_of_this(run):
    code = "import oomguard, sys; print([m for m in sys.modules if 'leaks' in m or '_trial_end' in m])"
    assert run(code, PYTHONPATH=HERE).stdout == "[]\n"
    code = "import oomguard.leaks, sys; oomguard.leaks.examine(); print('numpy' in sys.modules, 'torch' in sys.modules)"
    assert run(code, PYTHONPATH=HERE).stdout == "False False\n"


SCRIPT = """
import sys
class Node:
    def __init__(self):
        self.block, self.me = bytearray(20 << 20), self
import gc; gc.disable()
for _ in range(3): Node()
kept = [bytearray(5 << 20)]
print("arguments:", sys.argv[1:], __name__)
sys.exit(3)
"""


def test_a_script_is_run_as_main_and_its_report_written(run, tmp_path):
    script, out = tmp_path / "train.py", tmp_path / "leaks.json"
    script.write_text(SCRIPT)
    code = "import runpy; runpy.run_module('oomguard.leaks', run_name='__main__', alter_sys=True)"
    result = run(code, "--json", str(out), str(script), "--epochs", "1", PYTHONPATH=HERE)
    assert result.returncode == 3, result.stderr
    assert result.stdout == "arguments: ['--epochs', '1'] __main__\n"
    assert "3 Node (reach 60 MB); Node.me is itself (3 times)" in result.stderr
    assert "living: 5.0 MB more" in result.stderr
    assert os.path.getsize(out) > 500


def test_a_script_that_is_not_there_is_a_wrong_use(run, tmp_path):
    code = "import runpy; runpy.run_module('oomguard.leaks', run_name='__main__', alter_sys=True)"
    result = run(code, str(tmp_path / "none.py"), PYTHONPATH=HERE)
    assert result.returncode == 2
    assert "is not a file" in result.stderr
