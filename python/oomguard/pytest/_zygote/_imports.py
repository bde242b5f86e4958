"""Depth ``imports``: pytest and third-party modules are imported, and each child runs pytest from its beginning."""

from __future__ import annotations

import os
import sys
import tempfile

import pytest

from oomguard.pytest import _heartbeat, _report_file
from oomguard.pytest._zygote import _preload, _warm_up
from oomguard.pytest._zygote._order import Hello, Order

PLUGIN = ("-p", "oomguard.pytest._heartbeat")


def load_plugins(args: list[str]) -> None:
    """Has pytest load the installed plugins, as it does, and end at once: none of them is configured.

    Those that ``args`` block stay out, and those whose code is the user's.
    """
    blocked = [args[at + 1] for at, one in enumerate(args[:-1]) if one == "-p" and args[at + 1].startswith("no:")]
    blocked += [one[2:] for one in args if one.startswith("-pno:")]
    blocked += [f"no:{name}" for name in _preload.users_plugins()]
    blocking = (text for one in blocked for text in ("-p", one))
    with tempfile.TemporaryDirectory() as folder:
        plain = ("-c", os.devnull, "--rootdir", folder, "-p", "no:cacheprovider", folder)
        _warm_up.main("--version", "--version", *blocking, *plain, autoload=True)


def run(hello: Hello, order: Order) -> int:
    """In a child: pytest on the ordered arguments."""
    os.environ[_heartbeat.VARIABLE] = str(order.heartbeat)
    os.environ[_report_file.VARIABLE] = str(order.report)
    arguments = [*hello.args, *order.args]
    sys.argv[1:] = arguments
    return int(pytest.main([*PLUGIN, *arguments]))
