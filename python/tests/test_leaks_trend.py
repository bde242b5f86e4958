"""``_core.Trend``: the guard's estimator on the numbers of Python."""

from __future__ import annotations

import pytest

from oomguard import _core

MIB = 1 << 20


def trend(sizes, window=0.0, step=1.0):
    found = _core.Trend(window)
    for number, size in enumerate(sizes):
        found.add(number * step, int(size))
    return found


def test_before_the_fourth_value_everything_is_unknown():
    found = trend([1, 2, 3])
    known = (found.slope, found.at_least, found.at_most, found.confidence, found.reaches(10, 1))
    assert known == (None,) * 5
    assert not found.sure
    assert found.windows == 3
    assert repr(found) == "Trend(unknown, 3 windows)"


def test_a_leak_has_a_slope_an_interval_a_confidence_and_an_end():
    found = trend([(500 + 22 * n) * MIB for n in range(10)])
    assert found.slope == found.at_least == found.at_most == 22 * MIB
    assert found.confidence == 0.999
    assert found.sure
    assert found.reaches(8192 * MIB, 698 * MIB) == pytest.approx(7494 / 22)


def test_the_lowest_of_each_window_counts():
    breathing = [(1000 + n + (300 if n % 20 < 10 else 0)) * MIB for n in range(301)]
    found = trend(breathing, window=30.0)
    assert found.windows == 10
    assert found.slope == pytest.approx(MIB, rel=0.05)
    assert found.sure


def test_what_shrinks_never_arrives():
    found = trend([900 * MIB - n * MIB for n in range(12)])
    assert found.slope == -MIB
    assert found.reaches(1000 * MIB, 900 * MIB) is None
    assert not found.sure


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_time_that_is_none_is_refused(seconds):
    with pytest.raises(ValueError, match="must be a number of seconds, 0 or more"):
        _core.Trend(seconds)
    with pytest.raises(ValueError, match="seconds must be a number"):
        _core.Trend().add(seconds, 1)
    with pytest.raises(OverflowError):
        _core.Trend().add(1.0, -1)
