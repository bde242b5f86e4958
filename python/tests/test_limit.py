"""``limit_self``: held by the kernel, or by RLIMIT_DATA and a warning that says what that is worth."""

from __future__ import annotations

import signal

import cgroups
import pytest
from absence import absent
from test_check import ok

import oomguard

PARENT = cgroups.parent_of("limit")


@pytest.fixture
def cgroup():
    """A parent cgroup of this test's own, removed afterwards."""
    yield PARENT
    cgroups.remove(PARENT)


def held(result):
    """The line that the snippet prints, or a skip."""
    out = ok(result)
    if not out.startswith("cgroup"):
        absent("cgroup", f"none could be made: {out}")
    return out


LIMIT = """
import os, subprocess, sys, warnings, oomguard
warnings.simplefilter("ignore")
held = oomguard.limit_self(sys.argv[1])
print(held.enforcement, flush=True)
"""


def test_the_kernel_ends_the_process_at_its_limit_and_nobody_else(run, cgroup):
    result = run(LIMIT + "x = bytearray(400 << 20); print('survived')", "200M", OOMGUARD_CGROUP_PARENT=cgroup)
    if result.returncode != -signal.SIGKILL:
        held(result)
    assert result.returncode == -signal.SIGKILL
    assert "survived" not in result.stdout


def test_below_its_limit_it_lives_and_a_child_shares_it(run, cgroup):
    code = (
        LIMIT
        + """
x = bytearray(100 << 20)
child = subprocess.run([sys.executable, "-c", "x = bytearray(100 << 20)"])
grown = subprocess.run([sys.executable, "-c", "x = bytearray(400 << 20)"])
print(child.returncode, grown.returncode)
"""
    )
    out = held(run(code, "300M", OOMGUARD_CGROUP_PARENT=cgroup))
    assert out.split()[1:] == ["0", "-9"]


def test_a_second_call_changes_the_limit_and_a_dead_processes_leaf_is_swept(run, cgroup):
    code = (
        LIMIT
        + """
again = oomguard.limit_self("150M")
assert (again.where, again.limit) == (held.where, 150 << 20)
assert 0 < again.left < 150 << 20
print(len([n for n in os.listdir(os.path.dirname(held.where)) if n.startswith("self-")]))
"""
    )
    for _ in range(2):
        assert held(run(code, "200M", OOMGUARD_CGROUP_PARENT=cgroup)).split()[1] == "1"


def test_workers_that_start_together_do_not_sweep_each_other(run, cgroup):
    code = """
import subprocess, sys
worker = "import oomguard; print(oomguard.limit_self('100M').enforcement)"
workers = [subprocess.Popen([sys.executable, "-c", worker], stdout=subprocess.PIPE, text=True) for _ in range(6)]
print(*sorted({w.communicate()[0].strip() for w in workers}))
"""
    assert len(held(run(code, OOMGUARD_CGROUP_PARENT=cgroup)).split()) == 1


def test_without_a_cgroup_allocations_fail_and_a_warning_says_what_that_is_worth(run):
    code = """
import warnings, oomguard
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    held = oomguard.limit_self("300M", parent="/../escape")
print(held.enforcement, held.where, bool(held.why))
print(said[0].category.__name__, "children" in str(said[0].message), "plain names" in str(said[0].message))
small = bytearray(100 << 20)
try:
    bytearray(400 << 20)
except MemoryError:
    print("MemoryError")
"""
    out = ok(run(code)).splitlines()
    assert out == ["rlimit None True", "RuntimeWarning True True", "MemoryError"]


@pytest.mark.parametrize(
    ("limit", "error", "said"),
    [("1M", ValueError, "holds .* already"), ("much", ValueError, "limit: "), (None, TypeError, "must be a size")],
)
def test_a_limit_that_cannot_be_is_an_error(limit, error, said):
    with pytest.raises(error, match=said):
        oomguard.limit_self(limit)
