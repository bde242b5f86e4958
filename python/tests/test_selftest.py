"""``python -m oomguard``."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from conftest import clean_env


def selftest(*arguments, **env):
    return subprocess.run(
        [sys.executable, "-m", "oomguard", *arguments],
        env=clean_env(**env), capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def test_it_says_what_it_sees_and_passes():
    result = selftest()
    assert result.returncode == 0, result.stdout + result.stderr
    for word in ("available: ", "thresholds: reserve ", "guard: no", "sampler: works", "check(): ", "passed"):
        assert word in result.stdout


def test_under_a_guard_it_shows_the_guards_view(page):
    page.set(stop=1, cause=8)
    result = selftest("--json", OOMGUARD_PAGE=str(page.path))
    facts = json.loads(result.stdout)
    assert result.returncode == 0, facts
    seen = [facts[name] for name in ("guarded", "stop", "cause", "usage", "limit", "ok")]
    assert seen == [True, "prune", "age", 1 << 30, 8 << 30, True]


@pytest.mark.parametrize("value", ["8 bananas", ""])
def test_a_wrong_setting_fails_with_one_line(value):
    result = selftest(OOMGUARD_RESERVE=value)
    assert result.returncode == 1
    assert result.stderr.startswith("error: OOMGUARD_RESERVE: ")
    assert len(result.stderr.splitlines()) == 1
