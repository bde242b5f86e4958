"""The pytest plugin: what each test does to memory, and a limit that a test may carry. pytest 7.0 to 9.x, pluggy 1.2.

Off unless asked. This module only declares options and the mark; what measures is imported and registered when an
option, an ini value, ``OOMGUARD_TEST_FD``, ``OOMGUARD_TEST_REPORT`` or a collected mark asks for it. Alone it adds one
look at each collected item, and no hook that runs during a test.

``-p no:oomguard`` keeps it out. See :mod:`oomguard.pytest._measure` for what is measured and when.
"""

from __future__ import annotations

import os

import pytest

MARK = "oomguard"
MARK_LINE = (
    "oomguard(memory=None, vram=None, serial=False): limits of one test. `memory`: how much the process may grow at "
    'its peak over the start of the test ("4GiB"); `vram`: the same for what torch.cuda allocates; `serial`: no other '
    "test of this run at the same time (pytest-xdist)"
)

OPTIONS = (
    ("limit", "SIZE", "fail tests that grow by more than SIZE, as the mark's memory=SIZE does; a mark goes first"),
    ("report", "FILE", "write every test's memory to FILE, as one JSON document"),
    ("profile", "FILE", "append a [MEMORY-PROFILE] line to FILE before and after each test file"),
    ("gc", "auto|always|never", "collect garbage to tell what really stayed; auto: after growth of 1 MiB"),
    ("ram-preflight", "PERCENT", "refuse to start (exit code 75) while more than PERCENT of the RAM is used"),
    ("vram-preflight", "PERCENT", "refuse to start (exit code 75) while more than PERCENT of the VRAM is used"),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declares the options and their ini equivalents: ``--oomguard-limit`` is ``oomguard_limit``."""
    group = parser.getgroup("oomguard", "memory (oomguard)")
    group.addoption(
        "--oomguard", action="store_true", default=None, dest="oomguard", help="show each test's memory and a summary"
    )
    parser.addini("oomguard", "show each test's memory and a summary", type="bool", default=False)
    for name, metavar, text in OPTIONS:
        group.addoption(f"--oomguard-{name}", dest=_ini(name), metavar=metavar, default=None, help=text)
        parser.addini(_ini(name), text, default=None)


def pytest_configure(config: pytest.Config) -> None:
    """Registers the mark; and the rest if an option, an ini value or the environment asks.

    Raises:
        pytest.UsageError: An option or an ini value has no meaning.
    """
    config.addinivalue_line("markers", MARK_LINE)
    wanted = os.environ.get("OOMGUARD_TEST_FD") or os.environ.get("OOMGUARD_TEST_REPORT")
    if wanted or "oomguard_heartbeat" in getattr(config, "workerinput", ()):
        from oomguard.pytest import _heartbeat

        _heartbeat.pytest_configure(config)
    if any(
        config.getoption(name) or config.getini(name) for name in ("oomguard", *(_ini(name) for name, *_ in OPTIONS))
    ):
        from oomguard.pytest import _start

        _start.start(config)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Registers what the marks need. Costs about a microsecond an item.

    Raises:
        pytest.UsageError: A mark has an argument without a meaning; it names the test.
    """
    marked = [item for item in items if item.get_closest_marker(MARK) is not None]
    if marked:
        from oomguard.pytest import _start

        _start.start_for_marks(config, marked)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: object) -> None:
    """pytest-xdist is about to start a worker: gives it the place where serial tests queue."""
    from oomguard.pytest import _serial

    _serial.hand_over(node)


def _ini(name: str) -> str:
    return f"oomguard_{name.replace('-', '_')}"
