"""The runner's side of the zygote's protocol, for tests and the benchmark: real sockets, real forks, real pytest."""

from __future__ import annotations

import json
import os
import pathlib
import select
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

SECONDS = 60.0
"""Deadline of each wait."""


class Zygote:
    """One zygote in ``folder``; ``ready`` is its answer, whether that is ready or unusable."""

    def __init__(
        self, folder: pathlib.Path, env: dict[str, str], *args: str, python: str = sys.executable, **hello: Any
    ) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket = ours
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115
        with theirs:
            self.process = subprocess.Popen(
                [python, "-m", "oomguard.pytest._zygote"],
                cwd=folder,
                env={**env, "OOMGUARD_ZYGOTE_FD": str(theirs.fileno())},
                pass_fds=[theirs.fileno()],
                stdout=self.errors,
                stderr=self.errors,
            )
        first = {"v": 1, "args": list(args), "paths": ["."], "preload": [], "depth": "auto", **hello}
        self.socket.send(json.dumps(first).encode())
        self.children: dict[int, Child] = {}
        self.stands_by = False
        """Whether each child is made, and in its cgroups, before its order is given."""
        self.standbys = 0
        self.not_standing: list[dict[str, Any]] = []
        """Refusals of children that were to stand by."""
        self.ready = self.next()[0]

    def __enter__(self) -> Zygote:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> int:
        """Ends the socket; the zygote's exit code."""
        self.socket.close()
        return self.process.wait(SECONDS)

    def next(self) -> tuple[dict[str, Any], list[int]]:
        """The next packet, waited for."""
        if not select.select([self.socket], [], [], SECONDS)[0]:
            raise TimeoutError(f"no packet for {SECONDS} s")
        raw, fds, _, _ = socket.recv_fds(self.socket, 1 << 17, 4)
        if not raw:
            self.errors.seek(0)
            raise EOFError(self.errors.read().decode())
        return json.loads(raw), fds

    def fork(self, *args: str, joins: tuple[int, ...] = (), joins_told: int | None = None, **more: Any) -> Child:
        """Orders a child; waits until it runs. ``Child.refused`` says why it does not."""
        if self.stands_by:
            more["standby"] = self.stand_by(*joins, oom_score_adj=more.get("oom_score_adj"))
        child = Child(len(self.children) + 1)
        self.children[child.id] = child
        order = {
            "op": "fork",
            "id": child.id,
            "args": list(args),
            "env": {},
            "joins": len(joins) if joins_told is None else joins_told,
            **more,
        }
        fds = [child.out.fileno(), child.err.fileno(), child.writing, child.report.fileno(), *joins]
        socket.send_fds(self.socket, [json.dumps(order, ensure_ascii=False).encode()], fds)
        os.close(child.writing)
        self._until(lambda: child.pid is not None or child.refused is not None)
        return child

    def stand_by(self, *joins: int, joins_told: int | None = None, **more: Any) -> int:
        """Orders a child that waits for its order; its number."""
        self.standbys += 1
        number = self.standbys
        order = {"op": "stand by", "standby": number, "joins": len(joins) if joins_told is None else joins_told, **more}
        socket.send_fds(self.socket, [json.dumps(order).encode()], list(joins))
        return number

    def wait(self, *children: Child) -> None:
        """Until they have ended."""
        self._until(lambda: all(child.end is not None for child in children))
        for child in children:
            child.finish()

    def wait_any(self, *children: Child) -> Child:
        """Until one of them has ended; gives it."""
        self._until(lambda: any(child.end is not None for child in children))
        child = next(child for child in children if child.end is not None)
        child.finish()
        return child

    def run(self, *args: str, **more: Any) -> Child:
        """Forks and waits."""
        child = self.fork(*args, **more)
        if child.refused is None:
            self.wait(child)
        return child

    def _until(self, done: Any) -> None:
        while not done():
            packet, fds = self.next()
            if "standby" in packet:
                self.not_standing.append(packet)
                continue
            child = self.children[packet["id"]]
            if packet["event"] == "forked":
                child.pid, child.pidfd = packet["pid"], fds[0]
            elif packet["event"] == "refused":
                child.refused = packet["why"]
            else:
                child.end = packet


class Child:
    """One order, and what came of it."""

    def __init__(self, number: int) -> None:
        self.id = number
        self.out, self.err, self.report = (tempfile.TemporaryFile() for _ in range(3))  # noqa: SIM115
        self.reading, self.writing = os.pipe()
        self.pid: int | None = None
        self.pidfd: int | None = None
        self.refused: str | None = None
        self.end: dict[str, Any] | None = None
        self.stdout = self.stderr = ""
        self.events: list[dict[str, Any]] = []
        self.details: list[dict[str, Any]] = []

    @property
    def code(self) -> int | None:
        """The exit code; a signal's number is negative."""
        assert self.end is not None
        return self.end["code"] if "code" in self.end else -self.end["signal"]

    def finish(self) -> None:
        """Reads what it has left."""
        self.stdout, self.stderr = _text(self.out), _text(self.err)
        self.details = [json.loads(line) for line in _text(self.report).splitlines()]
        with open(self.reading) as pipe:
            self.events = [json.loads(line) for line in pipe]
        if self.pidfd is not None:
            os.close(self.pidfd)

    def outcomes(self) -> dict[str, str]:
        """By node id."""
        return {one["nodeid"]: one["outcome"] for one in self.events if one["event"] == "finish"}

    def __repr__(self) -> str:
        return f"{self.end or self.refused}\n{self.stdout}\n{self.stderr}"


def children(pid: int) -> list[int]:
    """Its children, the oldest first."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def gone(pid: int) -> bool:
    """Whether there is no such process any more, within the deadline."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except OSError:
            return True
        time.sleep(0.005)
    return False


def _text(file: Any) -> str:
    file.seek(0)
    return file.read().decode()
