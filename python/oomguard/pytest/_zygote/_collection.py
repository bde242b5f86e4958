"""Depth ``collection``: one long pytest session, in whose ``pytest_collection`` children are forked; each goes on with
its file. Uses public hooks and attributes only."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from oomguard.pytest import _heartbeat, _last_failed, _per_file, _report_file
from oomguard.pytest._zygote._order import Order

OWN: tuple[type, ...] = tuple(kind for name in ("Dir", "Package") if (kind := getattr(pytest, name, None)))
"""pytest's own collectors of a folder (from 8.0 on those of every folder), whose way to look through it is known."""

Serve = Callable[[pytest.Config], Order]
"""Looks whether this depth is right, then waits for orders. Returns in children only."""


class Deep:
    """The plugin that is registered in the session. ``order`` is set in children."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._only: Only | None = None
        self._pipe = _heartbeat.Pipe()
        self._report = _report_file.File()
        self.order: Order | None = None

    def pytest_configure(self, config: pytest.Config) -> None:
        """What each child will need is registered once."""
        _per_file.adapt(config)
        config.pluginmanager.register(_heartbeat.Heartbeat(config, self._pipe), _heartbeat.NAME)
        _report_file.register(config, self._report)
        _last_failed.register(config)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> None:
        """The zygote stays in here for ever; a child goes on to pytest's own collection."""
        config = session.config
        begin_anew = _beginning(session)
        self.order = order = self._serve(config)
        self._pipe.open(order.heartbeat)
        self._report.open(order.report)
        self._only = Only.of(order.args, config.args, config.invocation_params.dir)
        config.args = order.args if self._only is None else [self._only.folder]
        begin_anew()

    @pytest.hookimpl(tryfirst=True)
    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """Everything beside the way to the one file: sooner than anybody else says so."""
        return None if self._only is None or self._only.has(collection_path) else True

    @pytest.hookimpl(hookwrapper=True, optionalhook=True)
    def pytest_collect_directory(self) -> Generator[None, Any, None]:
        """A folder on the way: of a thousand entries one is looked at, not all. A plugin's own collectors do as they
        like; what they yield is ignored above."""
        made = yield
        folder = made.get_result()
        if self._only is not None and type(folder) in OWN:
            folder.collect = partial(self._only.below, folder)


class Only:
    """One file below a folder that pytest was to collect from.

    Collected from there, the file is what it is in a run of the whole folder: ignored if a ``conftest.py`` says so, not
    a test file if ``python_files`` does not match. And nothing else in its folders costs more than this look.
    """

    def __init__(self, file: Path, folder: str) -> None:
        self._way = {file, *file.parents}
        self._next = dict(zip(file.parents, (file, *file.parents), strict=False))
        self.folder = folder
        """The argument that is above it; what else was named holds nothing of it, and would be missed."""

    @classmethod
    def of(cls, wanted: Sequence[str], folders: Sequence[str], start: Path) -> Only | None:
        """``None`` if that is not what is asked for: then the arguments are taken as they are."""
        if len(wanted) != 1:
            return None
        file, *named = (os.path.normpath(os.path.join(start, one)) for one in (wanted[0], *folders))
        if file in named or not os.path.isfile(file):
            return None
        above = (one for one, path in zip(folders, named, strict=True) if file.startswith(os.path.join(path, "")))
        folder = next(above, None)
        return None if folder is None else cls(Path(file), folder)

    def has(self, path: Path) -> bool:
        """Whether the file is this, or in this."""
        return path in self._way

    def below(self, folder: Any) -> Iterator[pytest.Collector]:
        """What a folder's own ``collect`` would give if the file, or the folder on the way to it, were all there is."""
        path = self._next.get(folder.path)
        if path is None or folder.ihook.pytest_ignore_collect(collection_path=path, config=folder.config):
            return
        if path.is_dir():
            found = folder.ihook.pytest_collect_directory(path=path, parent=folder)
            if found is not None:
                yield found
        elif path.is_file():
            yield from folder.ihook.pytest_collect_file(file_path=path, parent=folder)


def check(order: Order) -> str | None:
    """Options come too late here."""
    options = [argument for argument in order.args if argument.startswith("-")]
    if options:
        return f"`{options[0]}` comes too late: at depth `collection` options are the first packet's"
    return None if order.args else "`args` is empty"


def _beginning(session: pytest.Session) -> Callable[[], None]:
    """What starts the reporter's clock in a child. The header is in its output already: making it again costs 3 ms."""
    config = session.config
    manager: Any = config.pluginmanager
    reporter = manager.get_plugin("terminalreporter")
    if reporter is None:
        return lambda: None
    others = [plugin for plugin in manager.get_plugins() if plugin is not reporter]
    start = manager.subset_hook_caller("pytest_sessionstart", others)

    def begin() -> None:
        verbose, config.option.verbose = config.option.verbose, -1
        try:
            start(session=session)
        finally:
            config.option.verbose = verbose

    return begin
