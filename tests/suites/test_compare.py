"""What the comparison makes of differences, with invented runs."""

from __future__ import annotations

import pathlib

import pytest
import runs
from compare import ABSENT, Explanations, differences
from place import Place
from suites import Known, Suite

SUITE = Suite("invented", "", ("tests",), known=(Known("t.py::known*", "it asks for the moon"),))


@pytest.fixture
def explain(monkeypatch, tmp_path):
    """Plain pytest's words for ``t.py::a``, run after run of the file alone."""

    def start(*words):
        left = iter(words)

        def plain(place, name, paths, args):
            return runs.Run({"t.py::a": (next(left), "")}, 0, 0.0, pathlib.Path())

        monkeypatch.setattr(runs, "plain", plain)
        return Explanations(SUITE, Place(tmp_path))

    return start


def test_every_id_of_either_side_is_compared():
    plain = {"a": ("passed", ""), "b": ("failed", "x"), "c": ("passed", "")}
    guarded = {"a": ("passed", "other words"), "b": ("passed", ""), "d": ("crash", "y")}
    assert differences(plain, guarded) == [
        ("b", ("failed", "x"), ("passed", "")),
        ("c", ("passed", ""), ABSENT),
        ("d", ABSENT, ("crash", "y")),
    ]


@pytest.mark.parametrize(
    ("alone", "word"),
    [
        (("failed", "failed"), "order"),
        (("passed", "failed"), "flaky"),
        (("passed", "passed"), None),
        (("error", "error"), None),
    ],
)
def test_only_what_plain_pytest_does_itself_explains(explain, alone, word):
    why = explain(*alone)(("t.py::a", ("passed", ""), ("failed", "")))
    assert why is None if word is None else why.startswith(word)


def test_a_known_difference_has_a_reason(explain):
    assert explain()(("t.py::known[1]", ("passed", ""), ("failed", ""))) == "known: it asks for the moon"
