"""From the first packet to the first order: finds the depth that is right, beginning anew where a try spoils it."""

from __future__ import annotations

import importlib.util
import os
import platform
import signal
import sys
import traceback
from typing import Any, NoReturn

import pytest

from oomguard.pytest._zygote import (
    _again,
    _child,
    _collection,
    _death,
    _depth,
    _imports,
    _preload,
    _server,
    _warm_up,
)
from oomguard.pytest._zygote._channel import VARIABLE, Channel
from oomguard.pytest._zygote._order import Hello, Order
from oomguard.pytest._zygote._output import Output

NVML = "PYTORCH_NVML_BASED_CUDA_CHECK"
"""With this ``torch.cuda.is_available()`` asks the driver's library instead of making a context."""

PLUGINS = "pytest's plugins"
"""Stands among the modules that were passed over, if each child loads them itself."""


def main() -> NoReturn:
    """The zygote. Ends with 0 when the socket does, with 1 if it is of no use."""
    given = os.environ.pop(VARIABLE, None)
    if given is None:
        sys.exit(f"oomguard.pytest._zygote: {VARIABLE} is not set: `oomguard test` starts this")
    channel = Channel(int(given))
    attempt = _again.left_behind()
    if attempt is None:
        try:
            received = channel.receive()
            if received is None:
                os._exit(0)
            hello = Hello.read(received.fields)
        except ValueError as error:
            _give_up(channel, str(error))
        attempt = _again.Attempt(hello, "imports" if hello.depth == "imports" else "collection", None, [])
    Zygote(channel, attempt).run()


class Zygote:
    """One attempt at one depth."""

    def __init__(self, channel: Channel, attempt: _again.Attempt) -> None:
        self._channel = channel
        self._attempt = attempt
        self._hello = attempt.hello
        self._place = _again.Place.here()
        self._cleanups = _depth.Cleanups()

    def run(self) -> NoReturn:
        """Serves at the attempt's depth. Returns nowhere: children leave from here, too."""
        try:
            os.setsid()
        except PermissionError:
            pass  # the runner has made us a group's leader
        _death.kill_me_after(os.getppid())
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # inherited; pytest counts on Python's own
            signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ[NVML] = "1"
        self._output = Output()
        spec = importlib.util.find_spec("pytest.__main__")
        sys.argv = [str(spec.origin) if spec is not None else "pytest"]
        try:
            _warm_up.warm_up()
            if self._attempt.depth == "collection":
                self._collection()
            self._imports()
        except Exception:
            _give_up(self._channel, "the zygote failed", output=traceback.format_exc())

    def _collection(self) -> NoReturn:
        arguments = [*self._hello.args, *self._hello.paths]
        sys.argv[1:] = arguments
        deep = _collection.Deep(self._serve_collection)
        with self._cleanups:
            code = _child.exit_code(lambda: pytest.main(arguments, plugins=[deep]))
        if deep.order is not None:
            _child.leave(code)
        why = f"pytest ended with {code} before it collected anything"
        _give_up(self._channel, why, output=self._output.text(), exitstatus=code)

    def _serve_collection(self, config: pytest.Config) -> Order:
        """Children begin with what pytest has written so far, its header."""
        self._cleanups.stop()
        telling = _depth.telling(config, self._cleanups.users) if self._hello.depth == "auto" else None
        why = telling or _depth.unsafe() or self._output.look().why_not
        if why is not None:
            if self._hello.depth != "auto":
                _give_up(self._channel, why)
            self._again(depth="imports", why=why)
        begun = self._output.begun()
        order = self._serve(_collection.check, plugins_too=True, rootdir=str(config.rootpath))
        os.write(1, begun)
        return order

    def _imports(self) -> NoReturn:
        plugins = PLUGINS not in dict(self._attempt.passed_over)
        if plugins:
            _imports.load_plugins(self._hello.args)
        why = _depth.unsafe() or self._output.look().why_not
        if why is not None and plugins:
            self._again(passed_over=[*self._attempt.passed_over, (PLUGINS, why)])
        if why is not None:
            _give_up(self._channel, why, output=self._output.text())
        order = self._serve(lambda order: None, plugins_too=False, rootdir=None)
        _child.leave(_child.exit_code(lambda: _imports.run(self._hello, order)))

    def _serve(self, check: _server.Check, plugins_too: bool, rootdir: str | None) -> Order:
        passed_over = list(self._attempt.passed_over)
        try:
            preloaded = _preload.preload(self._hello.preload, passed_over, plugins_too)
        except _preload.Spoiled as spoiled:
            self._again(passed_over=[*self._attempt.passed_over, (spoiled.module, spoiled.why)])
        _warm_up.warm_again()
        server = _server.Server(self._channel, self._output, check, {NVML: self._place.env.get(NVML)})
        self._channel.send(
            "ready",
            depth=self._attempt.depth,
            why=self._attempt.why,
            python=platform.python_version(),
            pytest=pytest.__version__,
            rootdir=rootdir,
            preloaded=preloaded,
            passed_over=passed_over,
            rss=_server.resident(),
            pid=os.getpid(),
        )
        return server.serve()

    def _again(self, **changed: Any) -> NoReturn:
        self._place.start(self._attempt._replace(**changed), self._channel.fileno())


def _give_up(channel: Channel, why: str, output: str = "", exitstatus: int | None = None) -> NoReturn:
    """Tells the runner that it must start fresh processes."""
    channel.send("unusable", why=why, output=output, exitstatus=exitstatus)
    os._exit(1)
