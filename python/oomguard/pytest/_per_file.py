"""Options of pytest that are meant for one process that runs all files, where each file has its own.

Under `oomguard test` every process is given all options of the suite.
"""

from __future__ import annotations

import os
import pathlib
import re

import pytest


def adapt(config: pytest.Config) -> None:
    """Before the plugins that they belong to are configured.

    JUnit's XML is the runner's to write, for all files. A ``--basetemp`` gets a folder for each file: pytest empties it
    when it starts.
    """
    config.option.xmlpath = None
    if config.option.basetemp is not None and config.args:
        file = config.args[0].partition("::")[0]
        name = re.sub(r"[^\w.-]+", "-", os.path.relpath(file, config.rootpath))
        folder = pathlib.Path(config.option.basetemp, name)
        folder.parent.mkdir(parents=True, exist_ok=True)
        config.option.basetemp = str(folder)
