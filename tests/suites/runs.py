"""Runs a suite, plainly or by oomguard, and reads what each test came to."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import time
from collections.abc import Sequence
from typing import NamedTuple

from place import Place

PLUGIN = pathlib.Path(__file__).parent / "plain"
PATIENCE = 3600
"""Seconds for one whole run."""

Outcomes = dict[str, tuple[str, str]]
"""By node id: a word of pytest's, and why in one line."""


class Run(NamedTuple):
    """``seconds`` is wall time; ``log`` is what it wrote."""

    outcomes: Outcomes
    code: int
    seconds: float
    log: pathlib.Path


def plain(place: Place, name: str, paths: Sequence[str], args: Sequence[str]) -> Run:
    """One process of plain pytest for all the paths."""
    found = place.folder / f"{name}.jsonl"
    found.unlink(missing_ok=True)
    command = [str(place.python), "-m", "pytest", "-p", "plain_outcomes", "-q", *args, *paths]
    code, seconds, log = _run(place, name, command, PLAIN_OUTCOMES=str(found), PYTHONPATH=str(PLUGIN))
    outcomes: Outcomes = {}
    if found.exists():
        for line in found.read_text(encoding="utf-8").splitlines():
            nodeid, word, message = json.loads(line)
            outcomes[nodeid] = word, message or ""
    return Run(outcomes, code, seconds, log)


def guarded(place: Place, isolation: str, jobs: str, paths: Sequence[str], args: Sequence[str]) -> Run:
    """`oomguard test` of the paths, by the words of its report."""
    name = f"oomguard-{isolation}"
    report = place.folder / f"{name}.json"
    report.unlink(missing_ok=True)
    command = [
        str(place.oomguard), "test", "--python", str(place.python), "--isolation", isolation, "-n", jobs,
        "--report", str(report), "--ram-preflight", "100%", "--ram-target", "100%", *paths, "--", *args,
    ]  # fmt: skip
    code, seconds, log = _run(place, name, command, XDG_STATE_HOME=str(place.folder / "state"))
    outcomes: Outcomes = {}
    if report.exists():
        for file in json.loads(report.read_text(encoding="utf-8"))["files"]:
            for test in file["tests"]:
                outcomes[test["nodeid"]] = test["outcome"], test["message"] or ""
            blamed = any(test["outcome"] in ("failed", "error", "killed") for test in file["tests"])
            if file["verdict"] not in ("passed", "no-tests") and not blamed:
                outcomes[file["path"]] = file["verdict"], file["message"] or ""
    return Run(outcomes, code, seconds, log)


def _run(place: Place, name: str, command: list[str], **own: str) -> tuple[int, float, pathlib.Path]:
    log = place.folder / f"{name}.log"
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "VIRTUAL_ENV"))}
    env.pop("PYTHONPATH", None)
    began = time.monotonic()
    with log.open("wb") as output:
        done = subprocess.run(
            command, cwd=place.cwd, env={**env, **own}, stdout=output, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, timeout=PATIENCE, check=False,
        )  # fmt: skip
    return done.returncode, time.monotonic() - began, log
