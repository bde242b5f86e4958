"""The examples run, stop when memory is short, and go on; the README says what they do."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest
from absence import needs
from conftest import clean_env
from training import DEADLINE, SHORT

ROOT = pathlib.Path(__file__).parents[3]
EXAMPLES = ROOT / "examples" / "frameworks"
TRAININGS = {
    "lightning": ("train_lightning.py", "last.ckpt"),
    "transformers": ("train_transformers.py", "out/checkpoint-1"),
    "keras": ("train_keras.py", "last.keras"),
    "stable_baselines3": ("train_stable_baselines3.py", "last.zip"),
}


def run(name, folder, **env):
    result = subprocess.run(
        [sys.executable, "-W", "ignore", str(EXAMPLES / name)], cwd=folder, capture_output=True, text=True,
        timeout=DEADLINE, check=False, env=clean_env(OMP_NUM_THREADS="1", KERAS_BACKEND="torch", **env),
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    return result.stdout.splitlines()[-1]


@pytest.mark.parametrize("framework", TRAININGS)
def test_a_training_stops_and_goes_on_where_it_stopped(tmp_path, framework):
    needs(framework)
    script, saved = TRAININGS[framework]
    assert run(script, tmp_path, **SHORT) == "1 steps, stopped by: warning"
    assert (tmp_path / saved).exists()
    steps, _, stopped = run(script, tmp_path).partition(" steps, stopped by: ")
    assert stopped == "None"
    assert int(steps) > 1


def test_a_data_loader_reads_with_limited_workers(tmp_path):
    needs("torch")
    assert run("data_loader.py", tmp_path, OOMGUARD_CGROUP_PARENT="/cgroup.procs") == "4 batches, 960"


def test_a_pools_error_is_explained(tmp_path):
    last = run("worker_pools.py", tmp_path, OOMGUARD_CGROUP_PARENT="/cgroup.procs")
    assert last.startswith("MemoryError: its worker met its limit of 0.3 GB")


def test_the_readme_names_what_is_there():
    """Every import of the section exists, and every keyword is one that the class takes."""
    section = (ROOT / "README.md").read_text().split("## In your framework")[1].split("\n## ")[0]
    imports = re.findall(r"from (oomguard\.(\w+)) import MemoryGuard.*?MemoryGuard\((\w*)", section, flags=re.S)
    assert [module for _, module, _ in imports] == list(TRAININGS)
    for _, module, keyword in imports:
        source = (ROOT / "python" / "oomguard" / f"{module}.py").read_text()
        assert f"{keyword}: " in source
        text = (EXAMPLES / TRAININGS[module][0]).read_text()
        assert re.search(rf"MemoryGuard\({keyword}", text), f"the example of {module} is another one"
