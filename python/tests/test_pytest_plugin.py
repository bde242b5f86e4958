"""The pytest plugin: off, it leaves no trace; on, it measures what the tests really hold."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree

import pytest
from inner_pytest import MIB

LOADED = """
import sys
def test_loaded():
    print("LOADED", sorted(m for m in sys.modules if m.startswith("oomguard.pytest.")))
"""
MEMORY = """
import pytest
kept = []
def test_small(): pass
def test_spike(): bytearray(100 << 20)
@pytest.mark.parametrize("i", range(3))
def test_leak(i): kept.append(bytearray(12 << 20))
@pytest.fixture
def big(): yield bytearray(40 << 20)
def test_fixture(big): assert len(big)
def test_cycle():
    ring = [bytearray(30 << 20)]
    ring.append(ring)
def test_teardown(request): request.addfinalizer(lambda: bytearray(50 << 20))
"""


def test_off_it_loads_nothing_and_says_nothing(inner):
    inner.write(test_a=LOADED)
    result = inner.run("-s")
    assert result.code == 0, result
    assert "LOADED []" in result.out
    assert not [line for line in result.out.splitlines() if "oomguard" in line and not line.startswith("plugins:")]


def test_the_mark_is_known_even_when_off(inner):
    inner.write(test_a="import pytest\n@pytest.mark.oomguard()\ndef test_a(): pass")
    result = inner.run("--strict-markers", "-W", "error")
    assert result.code == 0, result
    assert "@pytest.mark.oomguard(memory=None, vram=None, serial=False)" in inner.run("--markers").out


def test_figures_are_what_the_tests_held(inner):
    inner.write(test_a=MEMORY)
    tests = {name.split("::")[1]: test for name, test in inner.report().items()}
    assert {test["outcome"] for test in tests.values()} == {"passed"}
    rises = {name: test["rss_rise"] / MIB for name, test in tests.items()}
    assert rises["test_small"] < 2
    assert rises["test_spike"] == pytest.approx(100, abs=4)
    assert rises["test_leak[1]"] == pytest.approx(12, abs=2)
    assert rises["test_fixture"] == pytest.approx(40, abs=4), "setup counts"
    assert rises["test_teardown"] == pytest.approx(50, abs=4), "teardown counts"
    growth = {name: test["rss_growth"] / MIB for name, test in tests.items()}
    assert abs(growth["test_spike"]) < 2
    assert abs(growth["test_fixture"]) < 2, "a fixture's value that pytest still holds has not stayed"
    assert growth["test_leak[2]"] == pytest.approx(12, abs=2)
    assert growth["test_cycle"] == pytest.approx(30, abs=3), "a cycle waits for the garbage collector"
    assert abs(tests["test_cycle"]["rss_retained"]) < 2 * MIB, "and is not what stays"
    assert tests["test_leak[2]"]["rss_retained"] == pytest.approx(12 * MIB, abs=2 * MIB)
    for test in tests.values():
        assert 0 < test["rss_before"] <= test["rss_peak"] >= test["rss_after"]
        assert test["rss_growth"] == test["rss_after"] - test["rss_before"]
        assert test["vram_before"] is None, "torch is not there: unknown is not 0"
        assert test["seconds"] > 0


@pytest.mark.parametrize(("gc", "collected"), [("never", set()), ("always", {"small", "cycle"}), ("auto", {"cycle"})])
def test_garbage_is_collected_when_asked(inner, gc, collected):
    inner.write(test_a="def test_small(): pass\ndef test_cycle():\n    x = [bytearray(30 << 20)]; x.append(x)")
    tests = inner.report(f"--oomguard-gc={gc}")
    assert {name[16:] for name, test in tests.items() if test["rss_retained"] is not None} == collected


def test_a_failed_tests_variables_are_no_leak(inner):
    inner.write(test_a="def test_a():\n    x = bytearray(30 << 20)\n    assert 0")
    test = inner.report()["test_a.py::test_a"]
    assert test["outcome"] == "failed"
    assert test["rss_retained"] is None


def test_outcomes_are_pytests_own(inner):
    inner.write(
        test_a="""
import pytest
def test_passed(): pass
def test_failed(): assert 0
def test_skipped(): pytest.skip("no")
@pytest.mark.xfail
def test_xfailed(): assert 0
@pytest.mark.xfail
def test_xpassed(): pass
@pytest.fixture
def broken(): assert 0
def test_error(broken): pass
@pytest.fixture
def later():
    yield
    assert 0
def test_error_later(later): pass
def test_failed_twice(later): assert 0
"""
    )
    for name, test in inner.report().items():
        assert name.split("::test_")[1].split("_")[0] == test["outcome"], test


def test_junit_xml_carries_the_figures(inner):
    inner.write(test_a=MEMORY)
    result = inner.run("--oomguard-gc=auto", "--junitxml=junit.xml")
    assert result.code == 0, result
    cases = xml.etree.ElementTree.parse(inner.folder / "junit.xml").iter("testcase")
    spike = next(case for case in cases if case.get("name") == "test_spike")
    found = {one.get("name"): int(one.get("value")) for one in spike.iter("property")}
    assert set(found) == {f"oomguard_rss_{name}" for name in ("before", "after", "peak", "growth")}
    assert found["oomguard_rss_peak"] - found["oomguard_rss_before"] == pytest.approx(100 * MIB, abs=4 * MIB)


def test_other_properties_are_left_alone(inner):
    inner.write(test_a="def test_a(record_property):\n    record_property('mine', 1)\n    record_property('mine', 2)")
    assert inner.run("--oomguard", "--junitxml=junit.xml").code == 0
    properties = list(xml.etree.ElementTree.parse(inner.folder / "junit.xml").iter("property"))
    assert [one.get("value") for one in properties if one.get("name") == "mine"] == ["1", "2"]
    assert len([one for one in properties if one.get("name") == "oomguard_rss_before"]) == 1


def test_the_summary_ranks_peaks_and_leaks(inner):
    inner.write(test_a=MEMORY)
    result = inner.run("--oomguard")
    assert result.code == 0, result
    summary = result.out.split("memory (oomguard) =")[1].splitlines()
    peaks = summary[summary.index("largest peaks (8 of 8 tests)") + 1 :]
    assert peaks[0].split() == ["PEAK", "OVER", "START", "TEST"]
    assert re.fullmatch(r" *\d+\.\d MiB  +\+\d+\.\d MiB  test_a\.py::test_spike", peaks[1])
    assert {row.index("test_a.py") for row in peaks[1:9]} == {peaks[0].index("TEST")}, "aligned"
    leaks = summary[summary.index("memory that stayed") + 1 :]
    assert leaks[0].split() == ["STAYED", "TESTS", "LEAKS", "PER", "TEST", "FUNCTION"]
    stayed, tests, each = re.fullmatch(r" *\+(\S+) MiB +(\d) +\+(\S+) MiB  test_a.py::test_leak", leaks[1]).groups()
    assert (round(float(stayed) / 36, 1), tests, round(float(each) / 12, 1)) == (1.0, "3", 1.0)
    assert "::" not in leaks[2], "nothing else leaks"


def test_every_test_has_its_line_but_not_with_q(inner):
    inner.write(test_a="def test_a(): bytearray(100 << 20)")
    line = r"oomguard: test_a.py::test_a: before \d+\.\d MiB, peak 1\d\d\.\d MiB \(\+(99|100)\.\d MiB\), stayed "
    assert re.search(f"^{line}", inner.run("--oomguard").out, re.MULTILINE)
    quiet = inner.run("--oomguard", "-q").out
    assert "oomguard: test_a.py" not in quiet
    assert "MEMORY-PROFILE" not in quiet
    assert "largest peaks" in quiet


def test_ini_values_do_what_the_options_do(inner):
    inner.write(test_a="def test_a(): bytearray(60 << 20)")
    inner.ini("oomguard = true", "oomguard_limit = 20MiB", "oomguard_report = r.json", "oomguard_profile = p.txt")
    result = inner.run()
    assert result.code == 1, result
    assert "memory limit exceeded" in result.out
    assert "largest peaks" in result.out
    assert json.loads((inner.folder / "r.json").read_text())["tests"][0]["outcome"] == "failed"
    assert (inner.folder / "p.txt").read_text().count("MEMORY-PROFILE") == 2
    assert inner.run("--oomguard-limit=80MiB").code == 0, "an option goes first"


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("limit=8bananas", "--oomguard-limit: `bananas` in `8bananas` is not a unit"),
        ("limit=-1G", "--oomguard-limit: `-1G` is negative"),
        ("limit=99999999T", "--oomguard-limit: `99999999T` is larger than any machine"),
        ("gc=sometimes", "--oomguard-gc: `sometimes` is not one of `auto`, `always`, `never`"),
        ("ram-preflight=lots", "--oomguard-ram-preflight: `lots` is not a share"),
        ("vram-preflight=101%", "--oomguard-vram-preflight: `101%` is not between 0% and 100%"),
        ("profile=no/such/folder", "--oomguard-profile: "),
    ],
)
def test_a_wrong_option_is_one_error_that_names_it(inner, option, said):
    inner.write(test_a="def test_a(): pass")
    result = inner.run(f"--oomguard-{option}")
    assert result.code == 4, result
    assert f"ERROR: {said}" in result.err


def test_a_report_that_cannot_be_written_is_said(inner):
    inner.write(test_a="def test_a(): pass")
    result = inner.run("--oomguard-report=no/such/report.json")
    assert "error: --oomguard-report: `" in result.out
    assert "No such file or directory" in result.out


def test_a_report_is_not_written_through_a_link_that_lay_beside_it(inner):
    conftest = "import os\nos.symlink('precious', f'report.json.{os.getpid()}')"
    inner.write(test_a="def test_a(): pass", conftest=conftest)
    result = inner.run("--oomguard-report=report.json")
    assert result.code == 0, result
    assert (inner.folder / "report.json").is_file()
    assert not (inner.folder / "precious").exists(), "the link was not followed"
    assert not list(inner.folder.glob("report.json.*"))


def test_profile_lines_are_the_origin_systems(inner):
    inner.write(test_a="def test_a(): pass\ndef test_b(): pass", test_b="def test_c(): print(open('p.txt').read())")
    result = inner.run("-s", "--oomguard-profile=p.txt")
    assert result.code == 0, result
    lines = (inner.folder / "p.txt").read_text().splitlines()
    shape = (
        r"\[MEMORY-PROFILE \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] (BEFORE|AFTER) \| Test: (test_[ab]\.py) "
        r"\| RAM: \d{1,3}\.\d% \| VRAM: (?:unknown|\d{1,3}\.\d%) \| Process: [1-9]\d*MB"
    )
    told = [re.fullmatch(shape, line).groups() for line in lines]
    assert told == [("BEFORE", "test_a.py"), ("AFTER", "test_a.py"), ("BEFORE", "test_b.py"), ("AFTER", "test_b.py")]
    assert lines[2] in result.out, "on the disk while its test runs"
    assert inner.run("--oomguard-profile=p.txt", "-x").code == 0
    assert len((inner.folder / "p.txt").read_text().splitlines()) == 8, "appended to"


def test_a_session_that_stops_early_ends_its_file(inner):
    inner.write(test_a="def test_a(): assert 0\ndef test_b(): pass")
    result = inner.run("-x", "--oomguard", "--oomguard-profile=p.txt")
    assert [line.split()[3] for line in (inner.folder / "p.txt").read_text().splitlines()] == ["BEFORE", "AFTER"]
    assert result.out.count("[MEMORY-PROFILE ") == 2, "the terminal shows them, too"


def test_where_the_kernel_keeps_the_old_peak_a_higher_one_is_still_known(inner):
    inner.write(
        conftest="""
from oomguard import _core
from oomguard.pytest import _footprint
def refuse(): raise OSError("write 5 to `/proc/self/clear_refs`: Permission denied (os error 13)")
class Refusing:
    forget_peak = staticmethod(refuse)
    resident, peak_resident = _core.resident, _core.peak_resident
_footprint._core = Refusing
""",
        test_a="def test_high(): bytearray(100 << 20)\ndef test_lower(): bytearray(50 << 20)",
    )
    tests = inner.report("--oomguard")
    assert tests["test_a.py::test_high"]["rss_rise"] == pytest.approx(100 * MIB, abs=4 * MIB)
    lower = tests["test_a.py::test_lower"]
    assert (lower["rss_peak"], lower["rss_rise"]) == (None, None), "not the other test's peak"
    assert "the kernel keeps the old peak: write 5 to `/proc/self/clear_refs`" in lower["unknown"]["rss"]
