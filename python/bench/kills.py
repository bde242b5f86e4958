"""Kills Optuna workers at random, thousands of times, and looks whether a trial was lost.

    python python/bench/kills.py --kills 400 --seed 7 --storages sqlite journal postgres redis grpc-sqlite

A round is a fresh study, three workers at a time, and some fifty deaths; every one is a process of its own, forked from
this one, which opens no storage itself. A line of JSON for each storage says what was done and what was found; the exit
code is 1 if anything was lost. Needs what the tests need; with ``--cgroup`` (cgroup v1, root) also deaths at a limit.
"""

from __future__ import annotations

import argparse
import collections
import importlib
import json
import logging
import os
import pathlib
import pickle
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "tests"))
sys.path.insert(0, str(pathlib.Path(__file__).parent))

import optuna
import servers
from kills_worker import ROUND, Worker
from storages import KINDS, open_fresh, spec_for

import oomguard.optuna as og

RETRIED = ("unknown", "reserve", "age", "requested")
WORKERS = 3


def main() -> int:
    """0 if nothing was lost, 1 if something was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="for each storage")
    parser.add_argument("--seed", type=int, default=random.randrange(1, 1 << 30))
    parser.add_argument("--storages", nargs="+", choices=KINDS, default=["sqlite", "journal", "postgres"])
    parser.add_argument("--cgroup", type=pathlib.Path, help="a memory cgroup (v1) to make the workers' own in")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("oomguard").setLevel(logging.CRITICAL)
    import_all()
    running: dict[str, Any] = {}

    def server(name: str) -> Any:
        if name not in running:
            kinds = {"postgres": servers.Postgres, "redis": servers.Redis, "mysql": servers.MariaDB}
            running[name] = {**kinds, "grpc": servers.Proxies}[name]()
        return running[name]

    lost = False
    try:
        for kind in given.storages:
            try:
                said = Campaign(kind, server, given.seed, given.cgroup).run(given.kills)
            except (ImportError, RuntimeError) as error:
                said = {"storage": kind, "optuna": optuna.__version__, "skipped": str(error)}
            lost = lost or bool(said.get("lost"))
            print(json.dumps(said), flush=True)
    finally:
        for each in reversed(running.values()):
            each.stop()
    return int(lost)


class Campaign:
    """All rounds on one kind of storage."""

    def __init__(self, kind: str, server: Callable[[str], Any], seed: int, cgroup: pathlib.Path | None) -> None:
        self.kind, self.server, self.cgroup = kind, server, cgroup
        self.dice = random.Random(f"{seed} {kind}")
        self.seed = seed
        self.deaths: collections.Counter[str] = collections.Counter()
        self.states: collections.Counter[str] = collections.Counter()
        self.lost: list[str] = []

    def run(self, kills: int) -> dict[str, Any]:
        began = time.monotonic()
        rounds = 0
        while sum(self.deaths.values()) < kills:
            folder = pathlib.Path(tempfile.mkdtemp(prefix="oomguard-kills-"))
            try:
                self._round(folder, min(ROUND, kills - sum(self.deaths.values())))
            finally:
                shutil.rmtree(folder)
            rounds += 1
        seconds = time.monotonic() - began
        return {
            "storage": self.kind, "optuna": optuna.__version__, "seed": self.seed, "rounds": rounds,
            "kills": sum(self.deaths.values()), "how": dict(sorted(self.deaths.items())),
            "trials": sum(self.states.values()), "states": dict(sorted(self.states.items())),
            "seconds": round(seconds, 1), "lost": self.lost,
        }  # fmt: skip

    def _round(self, folder: pathlib.Path, kills: int) -> None:
        spec = spec_for(self.kind, folder, self.server)
        apart(lambda: create(spec))
        workers = [Worker(slot, spec, folder, self.cgroup, self.dice) for slot in range(WORKERS)]
        before: dict[int, Any] = {}
        try:
            for worker in workers:
                worker.start()
            for n in range(kills - len(workers)):
                time.sleep(self.dice.uniform(0.0, 0.12))  # the moment of the death is what is random
                worker = self.dice.choice(workers)
                self.deaths[worker.die(self.dice)] += 1
                worker.start()
                if n % 8 == 7:
                    before = self._unchanged(before, apart(lambda: finished(spec)))
        finally:
            for worker in workers:
                self.deaths[worker.kill("at the end")] += 1
        apart(lambda: len(og.reap(spec, "s", state=str(folder))))
        self._unchanged(before, apart(lambda: finished(spec)))
        self._judge(apart(lambda: everything(spec)))

    def _unchanged(self, before: dict[int, Any], now: dict[int, Any]) -> dict[int, Any]:
        self.lost += [f"trial {n} changed: {was} -> {now.get(n)}" for n, was in before.items() if now.get(n) != was]
        return now

    def _judge(self, trials: list[Any]) -> None:
        again = collections.Counter(t.system_attrs.get("oomguard:retry_of") for t in trials)
        if [t.number for t in trials] != list(range(len(trials))):
            self.lost.append(f"numbers: {[t.number for t in trials]}")
        for trial in trials:
            state, attrs = trial.state.name, trial.user_attrs
            killed = bool(attrs.get("emergency_killed"))
            self.states[state + (" killed" if killed else "")] += 1
            told = {"kill_reason", "available_gb_at_kill"} <= set(attrs)
            right = {"RUNNING": False, "COMPLETE": not killed and attrs.get("peak_rss", 0) > 0, "WAITING": not killed}
            if not right.get(state, killed and told):
                self.lost.append(f"trial {trial.number} is {state}: {attrs} {trial.system_attrs}")
            cause = trial.system_attrs.get("oomguard:cause")
            due = state == "FAIL" and cause in RETRIED and not trial.system_attrs.get("retry_history")
            if again[trial.number] > 1 or (due and not again[trial.number]):
                self.lost.append(f"trial {trial.number} [{cause}] is queued again {again[trial.number]} times")


def import_all() -> None:
    """What every worker would import for itself: a second each."""
    optuna.storages.RDBStorage("sqlite:///:memory:")
    for name in ("psycopg2", "redis", "pymysql", "grpc", "optuna.storages._grpc.client"):
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    if len(os.listdir("/proc/self/task")) > 1:
        raise SystemExit("this process has threads: it cannot be forked safely")


def create(spec: str) -> None:
    study = optuna.create_study(study_name="s", storage=open_fresh(spec))
    for i in range(10):
        study.enqueue_trial({"x": i / 10})


def everything(spec: str) -> list[Any]:
    storage = open_fresh(spec)
    return storage.get_all_trials(storage.get_study_id_from_name("s"))


def finished(spec: str) -> dict[int, Any]:
    return {
        t.number: (t.state, t.values, t.params, t.datetime_complete, t.user_attrs, t.system_attrs)
        for t in everything(spec) if t.state.is_finished()
    }  # fmt: skip


def apart(work: Callable[[], Any]) -> Any:
    """Does ``work`` in a forked child, so that this process stays one that may be forked."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with open(write, "wb") as pipe:
                pickle.dump(work(), pipe)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        answer = pipe.read()
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise SystemExit("a child that only reads failed")
    return pickle.loads(answer)


if __name__ == "__main__":
    sys.exit(main())
