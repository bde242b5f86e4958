"""Depth ``imports``: pytest and third-party modules are imported, and each child runs pytest from its beginning."""

from __future__ import annotations

import os
import sys
import tempfile
from unittest import mock

import pytest

from oomguard.pytest import _heartbeat, _report_file
from oomguard.pytest._zygote._order import Hello, Order

PLUGIN = ("-p", "oomguard.pytest._heartbeat")


def warm_up() -> None:
    """Runs pytest on an empty folder, without anybody's plugins or options: it imports its own modules. 30 ms."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ):
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS"):
            os.environ.pop(name, None)
        pytest.main(["-q", "-c", os.devnull, "--rootdir", folder, "--noconftest", "-p", "no:cacheprovider", folder])


def run(hello: Hello, order: Order) -> int:
    """In a child: pytest on the ordered arguments."""
    os.environ[_heartbeat.VARIABLE] = str(order.heartbeat)
    os.environ[_report_file.VARIABLE] = str(order.report)
    arguments = [*hello.args, *order.args]
    sys.argv[1:] = arguments
    return int(pytest.main([*PLUGIN, *arguments]))
