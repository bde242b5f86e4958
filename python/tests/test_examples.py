"""The examples do what they say, as a stranger would run them."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import cgroups
import pytest
from conftest import clean_env

FOLDER = pathlib.Path(__file__).parents[2] / "examples" / "python"
PARENT = cgroups.parent_of("examples")

SAYS = {
    "guard_a_loop.py": [
        "batch 1024 does not fit: stop to give memory back [step 0]: limit",
        "batch 64 fits, loss 0.59",
    ],
    "interrupt_a_library.py": ["stopped: stop to give memory back [somebody_elses_code]: reserve"],
    "give_back.py": ["gave back ", "drop_the_cache 6", "cached: 0"],
    "limit_a_worker.py": ["held by ", "and nobody else did"],
    "live_line.py": ["held: 100 MiB", "RAM "],
}
SETTINGS = {"interrupt_a_library.py": {"OOMGUARD_RESERVE": "1024T", "OOMGUARD_WARNING": "1024T"}}


@pytest.fixture
def cgroup():
    """What the examples make in cgroups is removed."""
    yield
    cgroups.remove(PARENT)


def test_every_example_is_run():
    assert sorted(SAYS) == sorted(path.name for path in FOLDER.glob("*.py"))


@pytest.mark.parametrize("name", SAYS)
def test_it_says_what_it_should(name, cgroup):
    done = subprocess.run(
        [sys.executable, str(FOLDER / name)], env=clean_env(OOMGUARD_CGROUP_PARENT=PARENT, **SETTINGS.get(name, {})),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    for said in SAYS[name]:
        assert said in done.stdout, done.stdout
    assert "not reached" not in done.stdout
