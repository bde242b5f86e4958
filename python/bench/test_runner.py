"""What `oomguard test` costs, against pytest itself and pytest-xdist: CPU and wall time in one run, as ratios.

    python python/bench/test_runner.py [--files 100] [--work 0.2] [--torch] [--runner PATH]

Makes a suite of small files (three tests each, importing numpy, or torch with ``--torch``), and runs it

- ``plain``: one ``python -m pytest`` for all files: no isolation at all
- ``xdist``: ``pytest -n 2``: two processes for all files: no isolation either
- ``fresh``: ``python -m pytest FILE`` for each file, one after another (a sample of them)
- ``oomguard``: a process tree of its own, with a limit, for each file, at ``-n 1`` and ``-n 2``

CPU is user and system time of everything that was started, divided by the number of files. ``--work`` seconds of
computation in each file show what is left of it when tests do something. Rounds alternate; medians are shown.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = """
import {module}
import pytest
{work}

def test_sum():
    assert int({module}.zeros(10).sum()) == 0

@pytest.mark.parametrize("n", [1, 2])
def test_shape(n):
    assert {module}.zeros((n, 3)).shape == (n, 3)
"""
WORK = """
import time
def setup_module():
    end = time.process_time() + {seconds}
    while time.process_time() < end:
        pass
"""


def suite(folder: Path, files: int, module: str, seconds: float) -> Path:
    """Writes the files."""
    tests = folder / "tests"
    tests.mkdir()
    (folder / "pytest.ini").write_text("[pytest]\n")
    work = WORK.format(seconds=seconds) if seconds else ""
    for number in range(files):
        (tests / f"test_{number:03}.py").write_text(TESTS.format(module=module, work=work))
    return tests


def measured(command: list[str], cwd: Path, env: dict[str, str]) -> tuple[float, float]:
    """CPU and wall seconds of a command and all that it started; it must succeed."""
    before = os.times()
    began = time.perf_counter()
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    wall = time.perf_counter() - began
    after = os.times()
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed ({done.returncode}):\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return spent, wall


def main() -> None:
    """Measures and prints a table; ``--json`` prints one object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--work", type=float, default=0.0, help="seconds of computation in each file")
    parser.add_argument("--torch", action="store_true", help="files import torch instead of numpy")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fresh", type=int, default=5, help="files that are also run by a fresh pytest each")
    parser.add_argument("--runner", default=shutil.which("oomguard") or "oomguard")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    module = "torch" if args.torch else "numpy"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tests = suite(folder, args.files, module, args.work)
        # Bytecode is written here, as it is for most people.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        env = {**os.environ, "XDG_STATE_HOME": str(folder / "state"), "OMP_NUM_THREADS": "1"}
        python = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        # Files are run elsewhere.
        runner = [
            str(Path(args.runner).absolute()) if "/" in args.runner else args.runner,
            "test",
            "--python",
            sys.executable,
            "-q",
            "tests",
        ]
        ways = {
            "plain": [*python, "tests"],
            "xdist": [*python, "-n", "2", "tests"],
            "oomguard -n 1": [*runner, "-n", "1"],
            "oomguard -n 2": [*runner, "-n", "2"],
        }
        measured(ways["plain"], folder, env)
        cpu: dict[str, list[float]] = {way: [] for way in [*ways, "fresh"]}
        wall: dict[str, list[float]] = {way: [] for way in [*ways, "fresh"]}
        for _ in range(args.rounds):
            for way, command in ways.items():
                spent, took = measured(command, folder, env)
                cpu[way].append(1000 * spent / args.files)
                wall[way].append(took)
            sample = sorted(tests.glob("test_*.py"))[: args.fresh]
            each = [measured([*python, str(file)], folder, env) for file in sample]
            cpu["fresh"].append(1000 * statistics.fmean(spent for spent, _ in each))
            wall["fresh"].append(statistics.fmean(took for _, took in each) * args.files)
    found = {
        way: {"cpu_ms_per_file": statistics.median(cpu[way]), "wall_s": statistics.median(wall[way])} for way in cpu
    }
    ratios = {
        "fresh / oomguard, CPU": found["fresh"]["cpu_ms_per_file"] / found["oomguard -n 1"]["cpu_ms_per_file"],
        "oomguard -n 2 / xdist -n 2, wall": found["oomguard -n 2"]["wall_s"] / found["xdist"]["wall_s"],
    }
    if args.json:
        print(json.dumps({"files": args.files, "module": module, "work_s": args.work, "ways": found, "ratios": ratios}))
        return
    print(
        f"{args.files} files that import {module}, 3 tests and {args.work} s of work each; medians of {args.rounds}\n"
    )
    for way, numbers in found.items():
        print(f"{way:15} {numbers['cpu_ms_per_file']:8.1f} ms CPU a file {numbers['wall_s']:8.2f} s in all")
    print()
    for what, ratio in ratios.items():
        print(f"{what}: {ratio:.2f}")


if __name__ == "__main__":
    main()
