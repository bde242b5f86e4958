"""What the README shows in Python is Python, and what it shows as a whole program runs."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest
from conftest import clean_env

README = pathlib.Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
PROGRAMS = [
    block
    for block in BLOCKS
    # Fragments for a framework are whole programs in `examples/frameworks`; tests are pytest's.
    if block.startswith("import ") and "def test_" not in block
]


def test_there_are_blocks():
    assert len(BLOCKS) >= 8
    assert len(PROGRAMS) >= 4


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0])
def test_it_is_python(block):
    compile(block, "README.md", "exec")


@pytest.mark.parametrize("block", PROGRAMS, ids=lambda block: block.splitlines()[-1])
def test_it_runs(block, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=tmp_path, env=clean_env(),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
