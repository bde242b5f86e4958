"""Lines between pytest's own dots."""

from __future__ import annotations

import pytest


def say(config: pytest.Config, text: str) -> None:
    """Writes a line of its own; nothing where pytest has no terminal (``-p no:terminal``)."""
    # Looked up late: plugins are configured before the reporter is there.
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.ensure_newline()
        if config.get_terminal_writer().width_of_current_line:  # pytest-xdist's dots are no line to the reporter
            config.get_terminal_writer().line()
        reporter.write_line(text)
