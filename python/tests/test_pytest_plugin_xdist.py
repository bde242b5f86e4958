"""Under pytest-xdist: workers measure, the controller talks, and a serial test has the machine to itself."""

from __future__ import annotations

import json
import re

import pytest
from absence import needs
from inner_pytest import MIB

MEETING = """
import os, pathlib, time, pytest
def meet(name, deadline):
    # Says that it runs, and waits until it sees another test run at the same time, or its deadline is over.
    here = pathlib.Path("here", name)
    here.touch()
    end = time.monotonic() + deadline
    seen = set()
    while time.monotonic() < end and not seen:
        seen = set(os.listdir("here")) - {name}
        time.sleep(0.001)
    here.unlink()
    with open("seen", "a") as file: file.write(f"{name}: {sorted(seen)}\\n")
"""


@pytest.fixture(autouse=True)
def xdist():
    needs("xdist")


def test_workers_measure_and_the_controller_reports(inner):
    inner.write(
        test_a="import pytest\n@pytest.mark.parametrize('i', range(6))\ndef test_a(i): bytearray((i + 1) * 20 << 20)"
    )
    tests = inner.report("-n", "2", "--oomguard")
    assert len(tests) == 6
    assert {test["worker"] for test in tests.values()} == {"gw0", "gw1"}
    for i in range(6):
        assert tests[f"test_a.py::test_a[{i}]"]["rss_rise"] == pytest.approx((i + 1) * 20 * MIB, abs=4 * MIB)


def test_lines_and_tables_come_once_from_the_controller(inner):
    inner.write(test_a="def test_a(): bytearray(60 << 20)", test_b="def test_b(): pass")
    out = inner.run("-n", "2", "--dist=loadfile", "--oomguard", "--oomguard-profile=p.txt").out
    assert len(re.findall(r"^oomguard: \[gw[01]\] test_[ab]\.py::test_[ab]: before ", out, re.MULTILINE)) == 2
    assert out.count("largest peaks (2 of 2 tests)") == 1
    assert re.search(r"^peaks of the workers: gw0 \d+\.\d MiB, gw1 \d+\.\d MiB$", out, re.MULTILINE)
    shape = r"^\[MEMORY-PROFILE [^]]*\] (?:BEFORE|AFTER) \| Test: test_[ab]\.py \| RAM: .*MB$"
    shown = re.findall(shape, out, re.MULTILINE)
    assert len(shown) == 4
    written = re.findall(shape, (inner.folder / "p.txt").read_text(), re.MULTILINE)
    assert sorted(written) == sorted(shown)


def test_preflight_is_the_controllers(inner):
    inner.write(test_a="raise SystemExit('collected all the same')")
    result = inner.run("-n", "2", "--oomguard-ram-preflight=0")
    assert result.code == 75, result
    assert result.err.count("no room to run tests") == 1
    assert "workers" not in result.out


def test_limits_hold_in_workers(inner):
    inner.write(
        test_a="import pytest\n@pytest.mark.oomguard(memory='20MiB')\ndef test_a(): bytearray(60 << 20)\n"
        "def test_b(): bytearray(60 << 20)"
    )
    result = inner.run("-n", "2")
    assert result.code == 1, result
    assert "1 failed, 1 passed" in result.out
    assert "memory limit exceeded: the test grew by" in result.out
    assert "2 failed" in inner.run("-n", "2", "--oomguard-limit=30MiB").out


def test_a_worker_that_dies_has_no_figures(inner):
    inner.write(test_a="import os\ndef test_a(): os._exit(3)\ndef test_b(): pass")
    tests = inner.report("-n", "1", "--oomguard")
    dead = tests["test_a.py::test_a"]
    assert dead["outcome"] in ("failed", "error")
    assert dead["rss_peak"] is None
    assert tests["test_a.py::test_b"]["rss_peak"] > 0


def seen(inner, mark, deadline):
    (inner.folder / "here").mkdir()
    tests = [f"def test_{i}(): meet('{i}', 0.2)" for i in range(3)]
    inner.write(test_a="\n".join([MEETING, mark, f"def test_s(): meet('s', {deadline})", *tests]))
    result = inner.run("-n", "2")
    assert result.code == 0, result
    return dict(line.split(": ") for line in (inner.folder / "seen").read_text().splitlines())


def test_a_serial_test_meets_nobody(inner):
    told = seen(inner, "@pytest.mark.oomguard(serial=True)", 0.5)
    assert set(told) == {"s", "0", "1", "2"}
    assert told["s"] == "[]"
    assert all("s" not in others for others in told.values())


def test_without_the_mark_it_does(inner):
    told = seen(inner, "", 20)
    assert any("'" in others for others in told.values()), "or the test above proves nothing"


def test_the_place_where_they_queue_is_removed(inner, tmp_path):
    place = tmp_path / "tmp"
    place.mkdir()
    inner.write(test_a="import pytest, os\n@pytest.mark.oomguard(serial=True)\ndef test_a(): assert os.listdir('tmp')")
    result = inner.run("-n", "2", env={"TMPDIR": str(place)})
    assert result.code == 0, result
    assert not [one for one in place.iterdir() if one.name.startswith("oomguard")]


def test_the_report_is_one_json_document(inner):
    inner.write(test_a="def test_a(): pass")
    inner.run("-n", "2", "--oomguard-report=r.json")
    document = json.loads((inner.folder / "r.json").read_text())
    assert set(document) == {"version", "oomguard", "pytest", "exitstatus", "tests"}
    assert not [one for one in inner.folder.iterdir() if one.name.startswith("r.json.")]
