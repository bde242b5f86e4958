"""A worker of ``kills.py``: how it is started, and the ways in which it dies."""

from __future__ import annotations

import faulthandler
import json
import os
import pathlib
import random
import resource
import select
import signal
import time
from typing import Any

import optuna
from conftest import Page
from storages import open_fresh

import oomguard.optuna as og
from oomguard import _owner

ROUND = 50
PATIENCE = 300.0
"""Seconds that an answer may take: on a machine with ten times more to do than cores, a start takes half a minute."""
LIMIT = 96 << 20
"""Bytes that a worker's cgroup may hold; the bomb takes three times as much."""
CAUSES = {"limit": 4, "leak": 5, "reserve": 6, "age": 8, "requested": 10}
"""The page's numbers of the guard's words."""


class Worker:
    """One slot: a process after the other, guarded by a page of its own or by nobody."""

    def __init__(
        self, slot: int, spec: str, folder: pathlib.Path, cgroup: pathlib.Path | None, dice: random.Random
    ) -> None:
        self.slot, self.spec, self.folder, self.dice = slot, spec, folder, dice
        self.guarded = slot % 2 == 0
        self.page = Page(folder / f"page-{slot}")
        self.cgroup = None if cgroup is None else cgroup / f"w{os.getpid()}-{slot}"
        self.starts = 0
        self.pid = 0
        self.owner: Any = None
        if self.cgroup is not None:
            self.cgroup.mkdir(parents=True, exist_ok=True)
            (self.cgroup / "memory.limit_in_bytes").write_text(str(LIMIT))

    def start(self) -> None:
        """Forks the next one and waits until its loop is about to begin."""
        self.starts += 1
        self.page.set(stop=0, cause=0)
        self.job = f"R1/worker-{self.slot}#{self.starts}"
        seed = self.dice.random()
        self.said, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self.said)
                self._live(write, random.Random(seed))
                os._exit(0)
            except SystemExit as leaving:
                os._exit(int(leaving.code or 0))
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(99)
        os.close(write)
        self._hear(b"u")
        start = _owner.start_time(self.pid)
        self.owner = _owner.current()._replace(pid=self.pid, start=start, job=self.job)

    def _hear(self, word: bytes) -> None:
        end = time.monotonic() + PATIENCE
        while select.select([self.said], [], [], max(end - time.monotonic(), 0))[0]:
            heard = os.read(self.said, 1)
            if heard == word:
                return
            if not heard:
                break
        if os.waitpid(self.pid, os.WNOHANG)[0] == 0:
            os.kill(self.pid, signal.SIGQUIT)  # says where it stands
            time.sleep(1)
            raise SystemExit(f"worker {self.pid} hangs: it did not say {word!r} in {PATIENCE} s")
        raise SystemExit(f"worker {self.pid} ended by itself")

    def _live(self, write: int, dice: random.Random) -> None:
        if self.guarded:
            os.environ.update(OOMGUARD_PAGE=str(self.page.path), OOMGUARD_JOB=self.job, OOMGUARD_STATE=str(self.folder))
        if self.cgroup is not None:
            (self.cgroup / "cgroup.procs").write_text(str(os.getpid()))
        faulthandler.register(signal.SIGQUIT)
        wishes: set[str] = set()
        signal.signal(signal.SIGUSR1, lambda *_: wishes.add("bomb"))
        signal.signal(signal.SIGUSR2, lambda *_: wishes.add("refused"))

        def objective(trial: optuna.Trial) -> float:
            x = trial.suggest_float("x", -1, 1)
            for step in range(3):
                if "bomb" in wishes:
                    return len(b"x" * (3 * LIMIT))  # each page is written to: the kernel ends it here
                if "refused" in wishes:
                    wishes.clear()
                    _be_refused()
                time.sleep(dice.uniform(0, 0.03))
                og.check_memory(trial, f"split {step + 1}/3", 0.001)
                trial.report(x * x, step)
            return x * x

        def tell(study: optuna.Study, trial: Any) -> None:
            if trial.state == optuna.trial.TrialState.PRUNED:
                os.write(write, b"p")

        sampler = optuna.samplers.RandomSampler(seed=dice.randrange(1 << 30))
        study = og.attach(optuna.load_study(study_name="s", storage=open_fresh(self.spec), sampler=sampler))
        os.write(write, b"u")
        study.optimize(objective, callbacks=[tell])

    def die(self, dice: random.Random) -> str:
        """Ends it somehow. What a guard would do is done too: it writes down why."""
        ways = ["SIGKILL", "SIGKILL", "SIGTERM"]
        ways += ["page", "SIGKILL by guard", "SIGKILL by guard"] if self.guarded else ["SIGKILL"]
        ways += [] if self.cgroup is None else ["cgroup"]
        if dice.random() < 0.2:
            self._survive(dice)
        way = dice.choice(ways)
        if way == "SIGTERM":
            return self._end(way, signal.SIGTERM, 0)
        if way == "page":
            self.page.set(cause=CAUSES[dice.choice(list(CAUSES))])
            self.page.set(stop=2)
            return self._end(way, None, 0)
        if way == "cgroup":
            self._end(way, signal.SIGUSR1, -signal.SIGKILL)
            self._record("limit")
            return way
        self._end(way, signal.SIGKILL, -signal.SIGKILL)
        if way == "SIGKILL by guard":
            cause = dice.choice(["limit", "leak", "reserve", "age"])
            self._record(cause)
            return f"{way} [{cause}]"
        return way

    def kill(self, why: str) -> str:
        """SIGKILL, and the slot is closed."""
        self._end(why, signal.SIGKILL, -signal.SIGKILL)
        if self.cgroup is not None:
            self.cgroup.rmdir()
        return f"SIGKILL {why}"

    def _survive(self, dice: random.Random) -> None:
        """A brake that it lives through: the guard's wish to prune, or an allocation that is refused."""
        if self.guarded and dice.random() < 0.5:
            self.page.set(cause=CAUSES["reserve"])
            self.page.set(stop=1)
            self._hear(b"p")
            self.page.set(stop=0)
        else:
            os.kill(self.pid, signal.SIGUSR2)
            self._hear(b"p")

    def _end(self, way: str, number: signal.Signals | None, expected: int) -> str:
        if number is not None:
            os.kill(self.pid, number)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.said)
        if code != expected:
            raise SystemExit(f"worker {self.pid} ended with {code} by {way}, expected {expected}")
        return way

    def _record(self, cause: str) -> None:
        owner = self.owner
        line = {
            "job": owner.job, "boot_id": owner.boot, "pid": owner.pid, "start_time": owner.start, "cause": cause,
            "available_gb": 1.5, "usage_gb": 8.1, "limit_gb": 8.0,
        }  # fmt: skip
        with open(self.folder / "deaths.jsonl", "a", encoding="ascii") as file:
            file.write(json.dumps(line) + "\n")


def _be_refused() -> None:
    """A ``MemoryError`` that the kernel causes: ``RLIMIT_DATA`` at what the process has, and a gigabyte asked for."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (64 << 20, before[1]))
    try:
        bytearray(1 << 30)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
