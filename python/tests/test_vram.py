"""VRAM that a guard asks back: what the package does with torch, and what a guard makes of it.

Of torch there is only a stand-in here, which says whether it was called. The guard is the real one, with NVIDIA's
library as its tests script it; ``bench/gpu_check.sh`` asks a real GPU.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
import types
from typing import Any

import cgroups
import pytest
from absence import absent
from conftest import DEADLINE, clean_env, wait_until

import oomguard

GIB = 1 << 30
OOMGUARD = shutil.which("oomguard", path=f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", pathlib.Path(__file__).parents[2] / "target"))


class Cuda(types.ModuleType):
    """The part of ``torch.cuda`` that relief uses."""

    def __init__(self, started: bool) -> None:
        super().__init__("torch.cuda")
        self.started, self.emptied, self.cached = started, 0, 5 * GIB

    def is_initialized(self) -> bool:
        return self.started

    def device_count(self) -> int:
        return 1

    def memory_reserved(self, device: int) -> int:
        return self.cached

    def empty_cache(self) -> None:
        self.emptied, self.cached = self.emptied + 1, 2 * GIB


def with_torch(monkeypatch: pytest.MonkeyPatch, started: bool) -> Cuda:
    torch = types.ModuleType("torch")
    torch.cuda = Cuda(started)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch.cuda", torch.cuda)
    return torch.cuda


def test_torchs_cache_is_given_back_where_cuda_is_in_use(monkeypatch):
    cuda = with_torch(monkeypatch, started=True)
    step = next(step for step in oomguard.relieve().steps if step.name == "torch")
    assert (cuda.emptied, step.freed, step.failed) == (1, 3 * GIB, None)


def test_cuda_is_not_begun_for_the_sake_of_giving_back(monkeypatch):
    cuda = with_torch(monkeypatch, started=False)
    oomguard.relieve()
    assert cuda.emptied == 0


# What it gives back the driver knows at once, as it does of real memory.
WORKER = """
import fcntl, json, os, pathlib, sys, time, types, oomguard
DRIVER = pathlib.Path(os.environ["LD_LIBRARY_PATH"])
name = os.environ.get("OOMGUARD_WORKER", "0")
class Cuda(types.ModuleType):
    cached = 5 << 30
    def is_initialized(self): return True
    def device_count(self): return 1
    def memory_reserved(self, device): return self.cached
    def empty_cache(self):
        with open(DRIVER / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            said = json.loads((DRIVER / "fake-nvml.json").read_text())
            (card,) = said["devices"]
            for holder in card["compute"]:
                if holder["pid"] == os.getpid():
                    card["used"] -= holder["used"] - (1 << 30)
                    holder["used"] = 1 << 30
            (DRIVER / "lower").write_text(json.dumps(said))
            os.rename(DRIVER / "lower", DRIVER / "fake-nvml.json")
        self.cached = 0
        pathlib.Path(f"emptied-{name}").touch()
sys.modules["torch"] = torch = types.ModuleType("torch")
torch.cuda = sys.modules["torch.cuda"] = Cuda("torch.cuda")
oomguard.check()
pathlib.Path(f"new-{name}").write_text(str(os.getpid()))
os.rename(f"new-{name}", f"pid-{name}")
while not os.path.exists("stop"):
    oomguard.check()
    time.sleep(0.01)
"""


class Driver:
    """NVIDIA's library, and what it says."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder / "driver"
        self.folder.mkdir()
        places = [TARGET / "debug" / "libfake_nvml.so", TARGET / "debug" / "deps" / "libfake_nvml.so"]
        built = next((place for place in places if place.exists()), None)
        if built is None:
            absent("fake-nvml", f"`{places[0]}` is not there: cargo build -p fake-nvml")
        if OOMGUARD is None:
            absent("oomguard", "the command `oomguard` is not installed")
        shutil.copy(built, self.folder / "libnvidia-ml.so.1")
        self.says({})

    def says(self, held: dict[int, int], hidden: int = 0) -> None:
        """Each process holds so many GiB of the one card of 16, and some that are not shown ``hidden`` GiB."""
        compute = [{"pid": pid, "used": gib * GIB} for pid, gib in held.items()]
        used = (sum(held.values()) + hidden) * GIB
        card = {"uuid": "GPU-00", "name": "NVIDIA T", "total": 16 * GIB, "used": used, "compute": compute}
        (self.folder / "new").write_text(json.dumps({"driver": "550.54.15", "devices": [card]}))
        (self.folder / "new").rename(self.folder / "fake-nvml.json")

    def environment(self, folder: pathlib.Path) -> dict[str, str]:
        env = clean_env(
            LD_LIBRARY_PATH=str(self.folder), XDG_RUNTIME_DIR=str(folder), XDG_STATE_HOME=str(folder / "state"),
            OOMGUARD_CGROUP_PARENT=cgroups.parent_of("vram"),
        )  # fmt: skip
        for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
            env.pop(name, None)
        return env


def end(guard: subprocess.Popen[Any]) -> None:
    """Ends a guard that a failed test has left, and with it what it guards."""
    guard.terminate()
    guard.wait(DEADLINE)


def pid_of(folder: pathlib.Path, name: str) -> int:
    wait_until((folder / f"pid-{name}").exists, f"worker {name} has begun")
    return int((folder / f"pid-{name}").read_text())


def events(path: pathlib.Path) -> list[dict[str, object]]:
    whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
    return [json.loads(line) for line in whole.splitlines()]


def names(path: pathlib.Path) -> list[str]:
    return [str(event["event"]) for event in events(path)]


BRAKES = {"vram-brake", "prune", "terminate", "kill"}


def test_a_job_over_its_vram_limit_gives_back_and_is_not_braked(tmp_path):
    driver, told = Driver(tmp_path), tmp_path / "events"
    (tmp_path / "worker.py").write_text(WORKER)
    command = [OOMGUARD, "run", "--best-effort", "--vram-limit", "4GiB", "--json", "--", sys.executable, "worker.py"]
    with open(told, "w") as file:
        run = subprocess.Popen(command, cwd=tmp_path, env=driver.environment(tmp_path), stderr=file)
    try:
        pid = pid_of(tmp_path, "0")
        driver.says({pid: 5})
        wait_until((tmp_path / "emptied-0").exists, "torch's cache was given back")
        wait_until(lambda: "relieved" in names(told), "the guard knows")
        (tmp_path / "stop").touch()
        assert run.wait(DEADLINE) == 0, told.read_text()
    finally:
        end(run)
    said = names(told)
    assert said.index("vram-near") < said.index("vram-relieve") < said.index("relieved")
    assert not BRAKES & set(said), told.read_text()


def test_all_on_a_short_gpu_give_back_before_anybody_goes(tmp_path):
    driver, told = Driver(tmp_path), tmp_path / "logs" / "events.jsonl"
    (tmp_path / "worker.py").write_text(WORKER)
    (tmp_path / "oomguard.toml").write_text(
        "state_dir = 'state'\n[memory]\nvram_reserve = '2GiB'\n[pool.train]\ncount = 2\nmemory_limit = '1GiB'\n"
        f"restart = 'never'\ncommand = [{sys.executable!r}, 'worker.py']\n"
    )
    up = subprocess.Popen(
        [OOMGUARD, "up", "-q"], cwd=tmp_path, env=driver.environment(tmp_path), stderr=subprocess.PIPE, text=True
    )
    try:
        first, second = pid_of(tmp_path, "1"), pid_of(tmp_path, "2")
        driver.says({first: 9, second: 6})
        for name in "12":
            wait_until((tmp_path / f"emptied-{name}").exists, f"worker {name} gave back")
        wait_until(lambda: "vram-enough" in names(told), "there is enough again")
        (tmp_path / "stop").touch()
        assert up.wait(DEADLINE) == 0, told.read_text()
    finally:
        end(up)
        up.communicate()
    asked = {event["worker"] for event in events(told) if event["event"] == "vram-relieve"}
    assert asked == {"worker-1", "worker-2"}
    assert not BRAKES & set(names(told)), told.read_text()


# Torch as far as it tells what it holds: as many GiB of a card of 16 as a file says.
TELLS = """
import os, pathlib, sys, time, types, oomguard
held = lambda: int(pathlib.Path("held").read_text()) << 30
class Cuda(types.ModuleType):
    def is_initialized(self): return True
    def device_count(self): return 2
    def memory_reserved(self, device): return held() if device == 0 else 0
    def empty_cache(self): pass
    def mem_get_info(self, device):
        assert device == 0, "a device that nobody uses is not woken"
        return (16 << 30) - held(), 16 << 30
    def get_device_properties(self, device):
        pathlib.Path("asked").touch()
        return types.SimpleNamespace(name="NVIDIA T", uuid="00")
sys.modules["torch"] = torch = types.ModuleType("torch")
torch.cuda = sys.modules["torch.cuda"] = Cuda("torch.cuda")
torch.version = types.SimpleNamespace(hip=None)
oomguard.check()
"""
CHECKS = (
    TELLS
    + """
try:
    while True:
        oomguard.check()
        time.sleep(0.01)
except oomguard.MemoryCritical:
    sys.exit(1)
"""
)
TRIAL = (
    TELLS
    + """
import json, optuna
from oomguard.optuna import check_memory
def objective(trial):
    while True:
        check_memory(trial, "epoch 3")
        time.sleep(0.01)
study = optuna.create_study()
study.optimize(objective, n_trials=1)
pathlib.Path("attrs").write_text(json.dumps(study.trials[0].user_attrs))
"""
)


def holds(folder: pathlib.Path, gib: int) -> None:
    (folder / "new").write_text(str(gib))
    (folder / "new").rename(folder / "held")


@pytest.mark.parametrize("library", ["none", "hides"])
def test_where_no_driver_tells_who_holds_what_torch_is_asked(tmp_path, library):
    driver, told = Driver(tmp_path), tmp_path / "events"
    if library == "none":
        for file in driver.folder.iterdir():
            file.unlink()
    else:
        driver.says({}, hidden=3)
    env = driver.environment(tmp_path) | {"PATH": "/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": "0"}
    holds(tmp_path, 3)
    (tmp_path / "worker.py").write_text(CHECKS)
    command = [OOMGUARD, "run", "--best-effort", "--vram-limit", "4GiB", "--json", "--", sys.executable, "worker.py"]
    with open(told, "w") as file:
        run = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=file)
    try:
        wait_until((tmp_path / "asked").exists, "the worker is asked")
        assert not BRAKES & set(names(told)), told.read_text()
        holds(tmp_path, 5)
        run.wait(DEADLINE)
    finally:
        end(run)
    brake = next(event for event in events(told) if event["event"] == "vram-brake")
    assert (brake["used"], brake["limit"], brake["gpu"]) == (5 * GIB, 4 * GIB, "GPU 0 (NVIDIA T)"), told.read_text()
    assert names(told).index("vram-relieve") < names(told).index("vram-brake"), told.read_text()


def test_a_trial_pruned_in_its_process_says_which_gpu_it_was(tmp_path):
    driver = Driver(tmp_path)
    (tmp_path / "worker.py").write_text(TRIAL)
    holds(tmp_path, 5)
    driver.says({}, hidden=6)
    command = [OOMGUARD, "run", "--best-effort", "--vram-limit", "4GiB", "--", sys.executable, "worker.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env=driver.environment(tmp_path), capture_output=True, timeout=DEADLINE
    )
    assert done.returncode == 0, done.stderr.decode()
    attrs = json.loads((tmp_path / "attrs").read_text())
    assert attrs["kill_reason"] == "OOM prevention [epoch 3: VRAM of GPU 0 (NVIDIA T): 5.0 GB of 4.0 GB]"
    assert attrs["oom_cause"] == "vram"


def test_torch_tells_no_guard_that_does_not_ask(monkeypatch):
    said = []
    monkeypatch.setattr(oomguard._core, "notify", lambda text: said.append(text) or True)
    cuda = with_torch(monkeypatch, started=True)
    oomguard.relieve()
    assert cuda.emptied == 1
    assert [line.partition("=")[0] for line in said] == ["X_OOMGUARD_RELIEVED"]
