"""Depth ``imports``: pytest and third-party modules are imported, and each child runs pytest from its beginning."""

from __future__ import annotations

import os
import sys
import tempfile
from unittest import mock

import pytest

from oomguard.pytest import _heartbeat, _report_file
from oomguard.pytest._zygote import _preload
from oomguard.pytest._zygote._order import Hello, Order

PLUGIN = ("-p", "oomguard.pytest._heartbeat")


def warm_up() -> None:
    """Runs pytest on an empty folder, without anybody's plugins or options: it imports its own modules. 30 ms."""
    _main("-q", autoload=False)


def load_plugins(args: list[str]) -> None:
    """Has pytest load the installed plugins, as it does, and end at once: none of them is configured.

    Those that ``args`` block stay out, and those whose code is the user's.
    """
    blocked = [args[at + 1] for at, one in enumerate(args[:-1]) if one == "-p" and args[at + 1].startswith("no:")]
    blocked += [one[2:] for one in args if one.startswith("-pno:")]
    blocked += [f"no:{name}" for name in _preload.users_plugins()]
    _main("--version", "--version", *(text for one in blocked for text in ("-p", one)), autoload=True)


def _main(*arguments: str, autoload: bool) -> None:
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ):
        for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS"):
            os.environ.pop(name, None)
        if not autoload:
            os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        plain = ("-c", os.devnull, "--rootdir", folder, "--noconftest", "-p", "no:cacheprovider", folder)
        pytest.main([*arguments, *plain])


def run(hello: Hello, order: Order) -> int:
    """In a child: pytest on the ordered arguments."""
    os.environ[_heartbeat.VARIABLE] = str(order.heartbeat)
    os.environ[_report_file.VARIABLE] = str(order.report)
    arguments = [*hello.args, *order.args]
    sys.argv[1:] = arguments
    return int(pytest.main([*PLUGIN, *arguments]))
