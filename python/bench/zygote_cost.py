"""What a process per test file costs, by how the process comes into being: N files of three small NumPy tests.

    python python/bench/zygote_cost.py                # 100 files; needs numpy, and pytest-xdist for its row
    python python/bench/zygote_cost.py --files 400 --modules torch --json

CPU is that of every process of a run, start and end included, divided by the files; a child's is what the kernel says
of it alone. Ratios can be compared between machines, milliseconds cannot.

Exits with 1 if a file costs more than 30 ms of CPU in deep forks, the zygote's own start included, or if two children
at a time take longer than ``pytest -n 2``, which isolates nothing. Wall time says nothing where others want the cores,
too: then it is not judged, which is said.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests"))

from zygote_runner import Zygote

import oomguard

TEST = """{imports}
import numpy as np

def test_zeros():
    assert np.zeros({n}).sum() == 0

def test_ones():
    assert np.ones({n}).sum() == {n}

def test_range():
    assert np.arange(3).tolist() == [0, 1, 2]
"""
MOST = 0.030
"""Seconds of CPU a file that the project keeps."""
BUSY = 0.25
"""Cores that others use on average, from which on wall times are theirs as much as ours."""
FRESH = 10
"""Files that are enough to know what a fresh process costs."""


def busy() -> float:
    """Seconds of all cores that somebody has used since the machine was started."""
    user, nice, system, _, _, irq, softirq, steal = map(int, pathlib.Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def measured(run: Callable[[], Any], files: int) -> dict[str, Any]:
    """CPU and wall seconds a file of everything that ``run`` starts and waits for, and cores that others used."""
    machine = busy()
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    more = run() or {}
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu": cpu / files, "wall": wall / files, "others": (busy() - machine - cpu) / wall, **more}


def environment() -> dict[str, str]:
    """One in which bytecode is kept, as it is for a user."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**env, "PYTHONPATH": str(pathlib.Path(oomguard.__file__).parents[1])}


def pytest_on(folder: pathlib.Path, *arguments: str) -> None:
    """Plain pytest, which must pass."""
    command = [sys.executable, "-m", "pytest", "-q", *arguments]
    subprocess.run(command, cwd=folder, env=environment(), stdout=subprocess.DEVNULL, check=True)


def forked(folder: pathlib.Path, names: list[str], modules: list[str], depth: str, at_once: int) -> dict[str, Any]:
    """A child per file."""
    zygote = Zygote(folder, environment(), "-q", depth=depth, preload=modules)
    if zygote.ready.get("depth") != depth:
        raise SystemExit(f"not at depth {depth}: {zygote.ready}")
    running, ended = [], []
    for name in names:
        running.append(zygote.fork(name))
        while len(running) == at_once or (name == names[-1] and running):
            done = zygote.wait_any(*running)
            running.remove(done)
            ended.append(done)
    zygote.close()
    if any(child.code != 0 for child in ended):
        raise SystemExit(f"a child has failed: {next(child for child in ended if child.code)}")
    return {"child": sum(child.end["user"] + child.end["system"] for child in ended) / len(ended)}


def main() -> int:
    """Prints the table; 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=100, help="test files (100)")
    parser.add_argument("--modules", nargs="*", default=["numpy"], help="what every file imports (numpy)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "pytest.ini").write_text("[pytest]\n")
        imports = "\n".join(f"import {module}" for module in given.modules)
        names = [f"test_{number:04}.py" for number in range(given.files)]
        for number, one in enumerate(names):
            (folder / one).write_text(TEST.format(imports=imports, n=number + 1))
        pytest_on(folder)  # bytecode is there from now on
        few = names[:FRESH]
        ways: dict[str, tuple[int, Callable[[], Any]]] = {
            "python -m pytest FILE": (len(few), lambda: [pytest_on(folder, one) for one in few] and None),
            "one process for all": (len(names), lambda: pytest_on(folder)),
            "pytest -n 2": (len(names), lambda: pytest_on(folder, "-n", "2")),
            "fork, imports": (len(names), lambda: forked(folder, names, given.modules, "imports", 1)),
            "fork, collection": (len(names), lambda: forked(folder, names, given.modules, "collection", 1)),
            "fork, collection, 2 at a time": (
                len(names), lambda: forked(folder, names, given.modules, "collection", 2),
            ),
        }  # fmt: skip
        found = {}
        for way, (files, run) in ways.items():
            try:
                found[way] = measured(run, files)
            except subprocess.CalledProcessError as error:
                print(f"{way}: {error}", file=sys.stderr)
    fresh = found["python -m pytest FILE"]["cpu"]
    if not given.json:
        print(f"{given.files} files, {', '.join(given.modules)}; milliseconds a file\n")
        print("| a test file's process | CPU, all | CPU, child | wall | fresh costs |")
        print("| --- | --- | --- | --- | --- |")
    for way, one in found.items():
        if given.json:
            print(json.dumps({"way": way, "files": given.files, "modules": given.modules, **one}))
            continue
        child = f"{one['child'] * 1e3:.1f}" if "child" in one else ""
        print(f"| {way} | {one['cpu'] * 1e3:.1f} | {child} | {one['wall'] * 1e3:.1f} | {fresh / one['cpu']:.1f}x |")
    deep, two = found["fork, collection"], found["fork, collection, 2 at a time"]
    beside = found.get("pytest -n 2", two)
    others = max(two["others"], beside["others"])
    if others > BUSY:
        print(f"not judged: wall times, for others used {others:.1f} cores", file=sys.stderr)
    slower = others <= BUSY and two["wall"] > beside["wall"]
    if deep["cpu"] > MOST or slower:
        print(f"a promise is broken: {deep['cpu']:.3f} s a file, {'slower' if slower else 'not slower'} than -n 2")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
