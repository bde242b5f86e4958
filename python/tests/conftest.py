"""What several tests need. Nothing here sleeps: tests wait for an event, with a deadline."""

from __future__ import annotations

import gc
import os
import pathlib
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import ClassVar

import cgroups
import pytest
from storages import KINDS, spec_for

DEADLINE = 20.0
"""Seconds after which a wait is a failure; on a busy 2-core machine a Python with Optuna takes 2 s to start."""


@pytest.fixture(scope="session", autouse=True)
def no_cgroup_is_left() -> Iterator[None]:
    """Whatever was made for a test is gone after the last one, in every hierarchy."""
    yield
    assert not cgroups.left()


class Page:
    """A guard's page, written by hand: native endian, 4096 bytes."""

    FIELDS: ClassVar = {
        "stop": (12, "I"), "level": (16, "I"), "relieve": (20, "I"), "available": (24, "Q"), "beat": (32, "Q"),
        "cause": (40, "I"), "guard_pid": (44, "I"), "limit": (48, "Q"), "usage": (56, "Q"), "reserve": (64, "Q"),
        "warning": (72, "Q"), "total": (80, "Q"),
    }  # fmt: skip
    GIB = 1 << 30

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        path.touch(mode=0o600)
        path.write_bytes((b"OOMGUARD" + struct.pack("=I", 1)).ljust(4096, b"\0"))
        self.set(available=10 * self.GIB, limit=8 * self.GIB, usage=self.GIB, reserve=2 * self.GIB)
        self.set(warning=4 * self.GIB, total=32 * self.GIB, guard_pid=1)
        self.beat()

    def set(self, **values: int) -> None:
        with open(self.path, "r+b") as file:
            for name, value in values.items():
                offset, code = self.FIELDS[name]
                file.seek(offset)
                file.write(struct.pack("=" + code, value))

    def beat(self, ahead: float = 3600.0) -> None:
        """Alive for the rest of the test: a beat in the future is as good as one every second."""
        self.set(beat=time.monotonic_ns() + int(ahead * 1e9))

    def die(self) -> None:
        """A beat of long ago."""
        self.set(beat=1)


@pytest.fixture
def page(tmp_path: pathlib.Path) -> Page:
    return Page(tmp_path / "page")


@pytest.fixture
def run() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a snippet in a fresh interpreter: the native monitor is one per process."""

    def runner(code: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=clean_env(**env), capture_output=True, text=True, timeout=DEADLINE, check=False,
        )  # fmt: skip

    return runner


def clean_env(**more: str) -> dict[str, str]:
    """This environment without a guard in it."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OOMGUARD_", "NOTIFY_"))}
    env.pop("PYTHONPATH", None)  # the installed package is what is tested
    return {**env, "PYTHONWARNINGS": "ignore::FutureWarning", **more}


def wait_until(what: Callable[[], object], why: str, deadline: float = DEADLINE) -> None:
    """Waits for a condition that no event tells about."""
    end = time.monotonic() + deadline
    while not what():
        if time.monotonic() > end:
            pytest.fail(f"after {deadline} s still not: {why}")
        os.sched_yield()
        time.sleep(0.005)


@pytest.fixture(scope="session")
def server() -> Iterator[Callable[[str], object]]:
    """Gives a server by name, started when it is first asked for."""
    import servers

    running: dict[str, object] = {}

    def named(name: str) -> object:
        if name not in running:
            running[name] = servers.start(name)
        return running[name]

    yield named
    for each in reversed(running.values()):
        each.stop()


@pytest.fixture(params=KINDS)
def spec(request: pytest.FixtureRequest, tmp_path: pathlib.Path, server: Callable[[str], object]) -> str:
    """A fresh storage of each kind, as text."""
    return spec_for(request.param, tmp_path, server)


@pytest.fixture
def study(spec: str) -> object:
    """A fresh study called ``s`` in a storage of each kind."""
    return new_study(spec)


@pytest.fixture
def quick(tmp_path: pathlib.Path) -> object:
    """The same in SQLite only, for tests in which the storage does not matter."""
    return new_study(f"sqlite:///{tmp_path}/study.db")


def new_study(spec: str) -> object:
    import optuna
    from storages import open_fresh

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(study_name="s", storage=open_fresh(spec))


@pytest.fixture
def collected_by_hand() -> Iterator[None]:
    """Nothing is collected between a test's garbage and its look at it."""
    from oomguard import _core

    gc.collect()
    _core.trim()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def inner(tmp_path: pathlib.Path) -> object:
    """A pytest of its own, in an empty folder."""
    from inner_pytest import Inner

    return Inner(tmp_path)


@pytest.fixture
def zygote(inner: object) -> Iterator[Callable[..., object]]:
    """Starts zygotes of test processes in the inner pytest's folder, and ends them."""
    from inner_pytest import environment
    from zygote_runner import Zygote

    started = []

    def start(*arguments: str, env: dict[str, str] | None = None, **hello: object) -> object:
        started.append(Zygote(inner.folder, environment(**(env or {})), *arguments, **hello))
        return started[-1]

    yield start
    for each in started:
        each.close()
