"""The package in a worker of the real ``oomguard up``: what the guard asks for is done, and said."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

import cgroups
from absence import absent
from conftest import clean_env

PARENT = cgroups.parent_of("up")

OOMGUARD = shutil.which("oomguard", path=f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


def up(folder, worker, **pool):
    """Runs ``up`` with one worker to its end; its log."""
    if OOMGUARD is None:
        absent("oomguard", "the command `oomguard` is not installed")
    settings = {"count": 1, "memory_limit": "300MiB", "grace": "5s", "restart": "never", **pool}
    lines = [f"{name} = {str(value) if isinstance(value, int) else repr(value)}" for name, value in settings.items()]
    (folder / "worker.py").write_text(worker)
    config = f"state_dir = 'state'\n[pool.train]\ncommand = [{sys.executable!r}, 'worker.py']\n" + "\n".join(lines)
    (folder / "oomguard.toml").write_text(config)
    done = subprocess.run(
        [OOMGUARD, "up"], cwd=folder, env=clean_env(OOMGUARD_CGROUP_PARENT=PARENT, XDG_RUNTIME_DIR=str(folder)),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    log = (folder / "logs" / "watchdog.log").read_text()
    if "cgroup" not in log.splitlines()[0]:
        absent("cgroup", f"no cgroup holds the worker: {log.splitlines()[0]}")
    assert done.returncode == 0, done.stdout + done.stderr
    return log, (folder / "logs" / "worker-1.log").read_text()


def test_a_worker_near_its_limit_gives_back_its_garbage_and_goes_on(tmp_path):
    log, said = up(
        tmp_path,
        """
import gc, time, oomguard
gc.disable()
relieved = []
oomguard.on_pressure(lambda: relieved.append(1))
end = time.monotonic() + 30
while not relieved and time.monotonic() < end:
    cycle = [bytearray(1 << 20)]
    cycle.append(cycle)
    time.sleep(0.01)
    oomguard.check()
print("relieved", len(relieved))
""",
    )
    assert "relieved 1" in said
    assert "asked to give back caches" in log
    gave = next(line for line in log.splitlines() if "gave back" in line)
    assert int(gave.rpartition(" ")[2].removesuffix("MB")) > 150, gave
    assert "SIGTERM" not in log


def test_a_guarded_block_is_interrupted_when_the_guard_says_so(tmp_path):
    log, said = up(
        tmp_path,
        """
import time, oomguard
try:
    with oomguard.guard(interrupt=True, context="the fold"):
        held = []
        while True:
            held.append(bytearray(1 << 20))
            time.sleep(0.02)
except MemoryError as error:
    del held
    print("gave way:", error.__cause__.cause)
""",
    )
    assert "gave way: limit" in said, log
    assert "EMERGENCY BRAKE ACTIVATED [the fold]" in said
