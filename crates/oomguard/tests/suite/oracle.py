"""What pytest itself collects: one JSON object of cases on stdin, one list of answers on stdout.

Each case is collected in a fork of this process, which has imported pytest and nothing else.
"""

from __future__ import annotations

import json
import os
import sys

import pytest


class Recorder:
    """Keeps the files of all items, in their order, each once; and those that were collected and gave none.

    The latter have no test, or cannot be imported here: `build/__init__.py` is a module of that name elsewhere.
    """

    def __init__(self) -> None:
        self.collected: dict[str, None] = {}
        self.answer: dict[str, object] = {"files": [], "empty": []}

    def pytest_collectstart(self, collector: pytest.Collector) -> None:
        if isinstance(collector, pytest.File):
            self.collected[str(collector.path)] = None

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        for item in items:
            self.collected.pop(str(item.path), None)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        paths = list(dict.fromkeys(str(item.path) for item in session.items))
        inifile = session.config.inipath
        self.answer = {
            "files": paths,
            "empty": [path for path in self.collected if path not in paths],
            "rootdir": str(session.config.rootpath),
            "inifile": inifile and str(inifile),
        }


def collect(case: dict) -> dict:
    """The answer to one case, from a child."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        os.chdir(case["cwd"])
        os.environ["PYTEST_ADDOPTS"] = case["addopts"]
        recorder = Recorder()
        options = ["--collect-only", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", "-p", "no:xdist"]
        code = pytest.main([*options, *case["options"], *case["args"]], plugins=[recorder])
        os.write(write, json.dumps({**recorder.answer, "code": int(code)}).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else {"code": -1, "files": [], "empty": []}


def main() -> None:
    cases = json.load(sys.stdin)
    json.dump([collect(case) for case in cases], sys.stdout)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    main()
