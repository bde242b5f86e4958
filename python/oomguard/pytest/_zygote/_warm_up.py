"""Runs pytest on a few tests of our own before it meets the user's: what a child would do for the first time it finds
done, and shares it with the zygote.

pytest's modules are imported then, its regular expressions compiled, its classes' caches filled, and its code, which
CPython specializes while it runs, is specialized. That takes 1 ms off what each test file costs.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import pathlib
import sys
import tempfile

import pytest

from oomguard.pytest import _heartbeat, _last_failed, _report_file

MODULE = "test_that_warms_oomguards_zygote_up"
TESTS = """
import pytest

@pytest.fixture(scope="module")
def shared():
    return [1]

@pytest.fixture
def own(shared):
    yield list(shared)

@pytest.mark.parametrize("number", range(8))
def test_numbers(number):
    assert number in range(8)

@pytest.mark.parametrize("text", ["a", "b"])
def test_texts(text, own):
    assert own == [1], text

def test_output(capsys, monkeypatch):
    monkeypatch.setenv("OOMGUARD_WARM", "1")
    print("out")
    assert capsys.readouterr().out == "out\\n"

@pytest.mark.skip(reason="so that one is skipped")
def test_skipped():
    pass

class TestClass:
    def test_method(self, tmp_path_factory):
        assert isinstance(self, TestClass)
"""


class Own:
    """What oomguard adds to pytest, with nobody listening."""

    def pytest_configure(self, config: pytest.Config) -> None:
        """As in a child."""
        config.pluginmanager.register(_heartbeat.Heartbeat(config, _heartbeat.Pipe()), _heartbeat.NAME)
        _report_file.register(config, _report_file.File())
        _last_failed.register(config)


def warm_up() -> str:
    """Some 40 ms; what pytest has written. Nobody's plugins, options or conftest have part in it, and nothing of it is
    left but what is warm. Where coverage is measured already it would be, too: then nothing is done.
    """
    if "coverage" in sys.modules:
        return ""
    path, cached = list(sys.path), set(sys.path_importer_cache)
    gc.freeze()  # pytest collects at its end: all that is imported already need not be looked through for that
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)
        file = pathlib.Path(folder, "tests", f"{MODULE}.py")
        file.parent.mkdir()
        file.write_text(TESTS)
        try:
            # Without the last pytest would look at all else that is in the folder of temporary files.
            where = ("-c", os.devnull, "--rootdir", folder, "--confcutdir", folder)
            return main(*where, folder, plugins=[Own()])
        finally:
            gc.unfreeze()
            sys.modules.pop(MODULE, None)
            sys.path[:] = path
            for added in set(sys.path_importer_cache) - cached:
                del sys.path_importer_cache[added]


def warm_again() -> None:
    """What imports have made cold since: 0.3 ms, as in each child. An abstract class knows by heart who is not of its
    kind, until somebody registers a class with any other, as NumPy does: then it asks all its subclasses anew.
    """
    for family in ((pytest.Collector, pytest.Item), (pytest.FixtureRequest,)):
        kinds: list[type] = list(family)
        for kind in kinds:
            narrower: list[type] = type.__subclasses__(kind)
            kinds += [one for one in narrower if one not in kinds]
        for kind in kinds:
            for other in kinds:
                issubclass(kind, other)


def main(*arguments: str, autoload: bool = False, plugins: list[object] | None = None) -> str:
    """pytest with nothing of the user's but, if ``autoload``, the installed plugins; what it has written."""
    written = io.StringIO()
    # Not `unittest.mock`, which imports asyncio and ssl: 20 ms, and 40 mappings for every fork to copy.
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(written):
        for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS"):
            patch.delenv(name, raising=False)
        if not autoload:
            patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        pytest.main(["--noconftest", *arguments], plugins=plugins)
    return written.getvalue()
