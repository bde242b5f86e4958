"""Options of pytest that are meant for one process that runs all files, where each file has its own.

Under `oomguard test` every process is given all options of the suite.
"""

from __future__ import annotations

import os
import pathlib

import pytest


def adapt(config: pytest.Config) -> None:
    """Before the plugins that they belong to are configured.

    JUnit's XML is the runner's to write, for all files. A ``--basetemp`` gets a folder for each file: pytest empties it
    when it starts.
    """
    config.option.xmlpath = None
    if config.option.basetemp is not None and config.args:
        # Its own comes behind those of the settings.
        file = pathlib.Path(os.path.relpath(config.args[-1].partition("::")[0], config.rootpath))
        folder = pathlib.Path(config.option.basetemp, *(part for part in file.parts if part != os.pardir))
        folder.parent.mkdir(parents=True, exist_ok=True)
        config.option.basetemp = str(folder)
