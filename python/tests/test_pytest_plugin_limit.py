"""``@pytest.mark.oomguard`` and ``--oomguard-limit``: a test that grows over its limit fails, and says by how much."""

from __future__ import annotations

import re

import pytest

LIMITS = """
import pytest
@pytest.mark.oomguard(memory="20MiB")
def test_over(): bytearray(60 << 20)
@pytest.mark.oomguard(memory="80MiB")
def test_under(): bytearray(60 << 20)
@pytest.mark.oomguard(memory=20 << 20)
class TestClass:
    def test_inherits(self): bytearray(60 << 20)
    @pytest.mark.oomguard(memory="80MiB")
    def test_closest(self): bytearray(60 << 20)
    @pytest.mark.oomguard(serial=True)
    def test_combined(self): bytearray(60 << 20)
@pytest.mark.oomguard(memory="20MiB")
def test_skips():
    bytearray(60 << 20)
    pytest.skip("too late")
@pytest.fixture
def big(): return bytearray(60 << 20)
@pytest.mark.oomguard(memory="20MiB")
def test_setup_counts(big): pass
@pytest.mark.xfail
@pytest.mark.oomguard(memory="20MiB")
def test_expected(): bytearray(60 << 20)
"""
OUTCOMES = {
    "test_over": "failed",
    "test_under": "passed",
    "TestClass::test_inherits": "failed",
    "TestClass::test_closest": "passed",
    "TestClass::test_combined": "failed",
    "test_skips": "failed",
    "test_setup_counts": "failed",
    "test_expected": "xfailed",
}


def outcomes(tests):
    return {name.split("::", 1)[1]: test["outcome"] for name, test in tests.items()}


def test_a_test_over_its_limit_fails_in_its_call(inner):
    inner.write(test_a=LIMITS)
    assert outcomes(inner.report()) == OUTCOMES


def test_a_mark_counts_without_any_option(inner):
    inner.write(test_a=LIMITS)
    result = inner.run("--strict-markers", "-W", "error")
    assert result.code == 1, result
    assert "5 failed, 2 passed, 1 xfailed" in result.out
    assert "error" not in result.out.splitlines()[-1]
    assert "(oomguard)" not in result.out, "no summary was asked for"


def test_the_message_names_limit_peak_start_and_remedy(inner):
    inner.write(test_a=LIMITS)
    out = inner.run("-k", "test_over").out
    shape = (
        r"memory limit exceeded: the test grew by (\S+) MiB at its peak, its limit is 20\.0 MiB\n"
        r"  before: (\S+) MiB \(resident set of this process\)\n"
        r"  peak:   (\S+) MiB\n"
        r"  remedy: hold less at a time, or raise the limit \(memory in @pytest\.mark\.oomguard\)\n"
    )
    found = re.search(shape, out)
    assert found, out
    grown, before, peak = map(float, found.groups())
    assert 20 < grown < 64
    assert peak - before == pytest.approx(grown, abs=0.2)


def test_the_option_is_for_tests_without_a_mark(inner):
    inner.write(
        test_a="""
import pytest
def test_over(): bytearray(60 << 20)
def test_under(): bytearray(10 << 20)
@pytest.mark.oomguard(memory="80MiB")
def test_marked(): bytearray(60 << 20)
@pytest.mark.oomguard(serial=True)
def test_marked_otherwise(): bytearray(60 << 20)
"""
    )
    tests = outcomes(inner.report("--oomguard-limit=20MiB"))
    # The second begins when the watcher has just met the first one's limit: what it holds itself is not the second's.
    expected = {"test_over": "failed", "test_under": "passed", "test_marked": "passed"}
    assert tests == {**expected, "test_marked_otherwise": "failed"}
    assert "raise the limit (--oomguard-limit)" in inner.run("--oomguard-limit=20MiB").out


def test_a_failure_of_its_own_stays_and_the_limit_is_said_beside_it(inner):
    inner.write(
        test_a="""
import pytest
@pytest.mark.oomguard(memory="20MiB")
def test_both():
    bytearray(60 << 20)
    assert 1 == 2
"""
    )
    out = inner.run().out
    assert out.count("memory limit exceeded: the test grew by") == 1 + ("limit exceeded" in out.splitlines()[-2])
    assert "assert 1 == 2" in out or "stop to give memory back" in out, "the watcher may be the first"


def test_what_was_held_before_does_not_count(inner):
    inner.write(
        test_a="""
import pytest
kept = []
def test_first(): kept.append(bytearray(60 << 20))
@pytest.mark.oomguard(memory="20MiB")
def test_second(): assert len(kept[0])
"""
    )
    assert outcomes(inner.report()) == {"test_first": "passed", "test_second": "passed"}


def test_unittest_cases_have_limits_too(inner):
    inner.write(
        test_a="""
import unittest, pytest
class TestCase(unittest.TestCase):
    @pytest.mark.oomguard(memory="20MiB")
    def test_over(self): bytearray(60 << 20)
"""
    )
    assert outcomes(inner.report()) == {"TestCase::test_over": "failed"}


def test_a_test_that_holds_too_much_is_ended_while_it_runs(inner):
    inner.write(
        test_a="""
import time, pytest
@pytest.mark.oomguard(memory="40MiB")
@pytest.mark.parametrize("round", range(3))
def test_hangs(round):
    try:
        held = bytearray(80 << 20)
        end = time.monotonic() + 20
        while time.monotonic() < end: time.sleep(0.01)
    except Exception:
        pass
    print("NOT" "ENDED")
def test_after(): bytearray(80 << 20)
"""
    )
    result = inner.run("--oomguard-report=report.json", "-W", "error")
    assert "3 failed, 1 passed" in result.out
    assert "NOTENDED" not in result.out
    assert result.out.count("\nmemory limit exceeded: the test grew by ") == 3
    assert result.out.count("stop to give memory back [test_a.py::test_hangs[") == 3


def test_the_watcher_itself_does_not_count(inner):
    inner.write(
        test_a="import pytest\n@pytest.mark.oomguard(memory='4MiB')\ndef test_a(): pass\n"
        "def test_b(): bytearray(60 << 20)"
    )
    tests = inner.report()
    assert tests["test_a.py::test_a"]["rss_rise"] < 2 << 20
    assert tests["test_a.py::test_b"]["rss_rise"] == pytest.approx(60 << 20, abs=4 << 20)


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        ("memory='8 bananas'", "`memory`: `bananas` in `8 bananas` is not a unit"),
        ("memory=1.5", "`memory`: `1.5` is not a size (try `8GiB`, `512MiB` or `1.5G`)"),
        ("memory=True", "`memory`: `True` is not a size"),
        ("vram='-1G'", "`vram`: `-1G` is negative"),
        ("serial=1", "`serial` must be True or False, not `1`"),
        ("ram='1G'", "`ram` is not one of `memory`, `vram`, `serial`"),
        ("'1G'", "`'1G'` has no name (try `memory='1G'`)"),
    ],
)
def test_a_wrong_mark_is_one_error_that_names_the_test(inner, mark, said):
    inner.write(test_a=f"import pytest\n@pytest.mark.oomguard({mark})\ndef test_a(): pass")
    result = inner.run()
    assert result.code == 4, result
    assert f"ERROR: test_a.py::test_a: @pytest.mark.oomguard: {said}" in result.err
