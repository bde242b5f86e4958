"""Begins anew in the same process, with a fresh interpreter: what an import has started cannot be taken back."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any, NamedTuple, NoReturn

from oomguard.pytest._zygote import _safety
from oomguard.pytest._zygote._channel import VARIABLE
from oomguard.pytest._zygote._order import Hello

LEFT = "OOMGUARD_ZYGOTE_AGAIN"
"""Holds the descriptor of what the first attempt leaves to the next."""


class Attempt(NamedTuple):
    """What is known. ``why`` is why the depth is not ``collection``."""

    hello: Hello
    depth: str
    why: str | None
    passed_over: list[tuple[str, str]]


class Place(NamedTuple):
    """Where the first attempt began, before anybody changed it."""

    env: dict[str, str]
    cwd: str

    @classmethod
    def here(cls) -> Place:
        """Now."""
        return cls(dict(os.environ), os.getcwd())

    def start(self, attempt: Attempt, channel: int) -> NoReturn:
        """The next attempt. Kills what this one has started."""
        for pid in _safety.child_pids():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for fd in os.listdir("/proc/self/fd"):
            if int(fd) > 2:
                try:
                    os.set_inheritable(int(fd), False)
                except OSError:
                    continue  # the listing's own
        left = os.memfd_create("oomguard-zygote", 0)
        os.write(left, json.dumps(attempt).encode())
        os.set_inheritable(channel, True)
        os.chdir(self.cwd)
        env = {**self.env, VARIABLE: str(channel), LEFT: str(left)}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], env)


def left_behind() -> Attempt | None:
    """What an earlier attempt has found; ``None`` in the first."""
    given = os.environ.pop(LEFT, None)
    if given is None:
        return None
    with open(int(given), "rb") as file:
        file.seek(0)
        found: list[Any] = json.loads(file.read())
    hello, depth, why, passed_over = found
    return Attempt(Hello(*hello), depth, why, [(name, reason) for name, reason in passed_over])
