"""Tells a parent process what pytest is doing: one JSON object a line on the pipe ``OOMGUARD_TEST_FD``.

The variable holds the number of an inherited descriptor: a pipe or a socket. The plugin takes it by itself;
``-p oomguard.pytest._heartbeat`` takes it where plugins are not loaded automatically. Each line is one write of at most
PIPE_BUF (4096) bytes, ASCII, so lines never mix. All sizes are bytes and all times seconds. In order::

    {"v":1,"event":"collected","count":2,"ids":["t.py::a","t.py::b"]}   repeated until all ids are told
    {"v":1,"event":"start","nodeid":"t.py::a"}                          before its setup
    {"v":1,"event":"finish","nodeid":"t.py::a","outcome":"passed","seconds":0.1,
     "rss_before":1,"rss_after":1,"rss_peak":1}                         after its teardown
    {"v":1,"event":"end","exitstatus":0,"dropped":0}                    after the last

``count`` is how many tests will run. ``outcome`` is passed, failed, skipped, error, xfailed or xpassed; ``seconds`` is
setup, call and teardown. A size that is unknown is null, with the reason in ``unknown``. A node id that would not fit
is cut and its line says ``"cut":true``; such an id is left out of ``collected``. If the pipe closes after a ``start``
without its ``finish``, that test was running when the process died. No ``end``: pytest did not get there.

Writing never blocks and never raises. A line that finds the pipe full is dropped whole and counted in ``dropped``; once
the reader is gone nothing is written any more. The descriptor is not inherited: it is closed on exec, closed in forked
children, and the variable is removed. Under pytest-xdist only the controller writes. New events and fields may be added
under the same ``v``; readers pass over what they do not know.

``OOMGUARD_TEST_REPORT``, a file for the details of failures, is taken here too: :mod:`oomguard.pytest._report_file`.

PYTEST_DONT_REWRITE: a process that forks test processes has imported this before pytest does.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import stat
from typing import Any

import pytest

from oomguard.pytest import _last_failed, _per_file, _report_file, _start
from oomguard.pytest._descriptor import Descriptor
from oomguard.pytest._outcome import Outcome

_json = json.JSONEncoder(separators=(",", ":")).encode

NAME = "oomguard-heartbeat"
WANTED = "oomguard_heartbeat"
VARIABLE = "OOMGUARD_TEST_FD"
LONGEST = select.PIPE_BUF
SURE = (LONGEST - 1024) // 12
"""Characters of a node id that fit into every line: 12 bytes is the longest escape of one."""
ROOM = 1 << 20
"""Bytes that the pipe is asked to hold: what users without privileges may ask for."""


def pytest_configure(config: pytest.Config) -> None:
    """Takes the descriptors, if there are any; in a worker of pytest-xdist measures, if the controller has a pipe."""
    given, report = os.environ.pop(VARIABLE, None), os.environ.pop(_report_file.VARIABLE, None)
    if _start.is_worker(config):
        if wanted_by_controller(config):
            _start.measure(config, "never")
        return
    pipe, file = Pipe(), _report_file.File()
    if given and _opened(config, pipe, VARIABLE, given):
        config.pluginmanager.register(Heartbeat(config, pipe), NAME)
    if report and _opened(config, file, _report_file.VARIABLE, report):
        _per_file.adapt(config)
        _report_file.register(config, file)
        _last_failed.register(config)


def _opened(config: pytest.Config, to: Pipe | _report_file.File, variable: str, given: str) -> bool:
    """Whether the variable holds what it should; warns otherwise."""
    try:
        to.open(int(given))
    except (ValueError, OverflowError, OSError) as error:
        config.issue_config_time_warning(pytest.PytestConfigWarning(f"{variable}=`{given}`: {error}"), stacklevel=3)
        return False
    return True


class Pipe:
    """The writing end. Counts what it drops; everything is dropped before it is opened."""

    def __init__(self) -> None:
        self._fd: Descriptor | None = None
        self.dropped = 0

    def open(self, fd: int) -> None:
        """
        Raises:
            OSError: The descriptor is not open.
            ValueError: It is neither a pipe nor a socket: the number has come to mean something else.
        """
        mode = os.fstat(fd).st_mode
        if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
            raise ValueError("it is neither a pipe nor a socket")
        self._fd = Descriptor(fd)
        os.set_inheritable(fd, False)
        os.set_blocking(fd, False)
        if stat.S_ISFIFO(mode) and hasattr(fcntl, "F_SETPIPE_SZ"):
            try:
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, ROOM)
            except OSError:
                pass  # the user's pipes are many already: 64 KiB do, too
        os.register_at_fork(after_in_child=self.close)

    def send(self, event: str, **fields: object) -> None:
        """Writes one line, or drops it."""
        line = encoded(event, fields)
        if self._fd is None or len(line) > LONGEST:
            self.dropped += 1
            return
        try:
            # Up to PIPE_BUF a pipe takes all or nothing. A socket may take a part: then the next lines are lost, too.
            if self._fd.write(line) < len(line):
                self.dropped += 1
                self.close()
        except BlockingIOError:
            self.dropped += 1
        except OSError:
            self.dropped += 1
            self.close()

    def close(self) -> None:
        """Writes no more."""
        if self._fd is not None:
            self._fd.close()
            self._fd = None


class Heartbeat:
    """Translates pytest's hooks into events."""

    def __init__(self, config: pytest.Config, pipe: Pipe) -> None:
        self._config = config
        self._pipe = pipe
        self._told = False
        self._running: dict[str, Outcome] = {}

    def pytest_sessionstart(self) -> None:
        """Measures, if nothing else has asked for it."""
        _start.measure(self._config, "never", every_phase=False)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """A worker of pytest-xdist is about to start."""
        node.workerinput[WANTED] = True

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """What will run."""
        self._collected([item.nodeid for item in session.items])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """All workers collect the same; the first one tells."""
        self._collected(ids)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Its setup is about to begin."""
        self._running[nodeid] = Outcome()
        self._pipe.send("start", **_named(nodeid))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Takes a phase in."""
        self._running.setdefault(report.nodeid, Outcome()).add(report)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Its teardown is over."""
        outcome = self._running.pop(nodeid, None)
        if outcome is None:
            return
        found = {name: outcome.properties.get(f"oomguard_{name}") for name in ("rss_before", "rss_after", "rss_peak")}
        if None in found.values():
            found["unknown"] = outcome.properties.get("oomguard_rss_unknown", "it was not measured")
        seconds = round(outcome.seconds, 6)
        self._pipe.send("finish", **_named(nodeid), outcome=outcome.word, seconds=seconds, **found)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """All tests are over."""
        self._pipe.send("end", exitstatus=int(exitstatus), dropped=self._pipe.dropped)

    def pytest_unconfigure(self) -> None:
        """The reader sees the end of the file."""
        self._pipe.close()

    def _collected(self, ids: list[str]) -> None:
        if self._told:
            return
        self._told = True
        free = LONGEST - len(encoded("collected", {"count": len(ids), "ids": []}))
        chunk: list[str] = []
        used = 0
        for one in ids:
            length = len(_json(one)) + 1
            if length > free:
                continue
            if used + length > free:
                self._pipe.send("collected", count=len(ids), ids=chunk)
                chunk, used = [], 0
            chunk.append(one)
            used += length
        self._pipe.send("collected", count=len(ids), ids=chunk)


def wanted_by_controller(config: pytest.Config) -> bool:
    """In a worker: whether the controller tells somebody what the tests do."""
    return bool(getattr(config, "workerinput", {}).get(WANTED))


def encoded(event: str, fields: dict[str, object]) -> bytes:
    """One line."""
    return _json({"v": 1, "event": event, **fields}).encode() + b"\n"


def _named(nodeid: str) -> dict[str, object]:
    """The node id, cut if a line could not hold it."""
    if len(nodeid) <= SURE or len(_json(nodeid)) <= LONGEST - 1024:
        return {"nodeid": nodeid}
    return {"nodeid": nodeid[:SURE], "cut": True}
