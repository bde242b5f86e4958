"""``monitor()``: the line, where it goes, and how it ends."""

from __future__ import annotations

import io
import os
import pty

import pytest
from conftest import wait_until
from test_check import ok

import oomguard


def test_in_a_pipe_it_is_whole_lines_without_colours():
    out = io.StringIO()
    with oomguard.monitor(every=0.01, file=out) as live:
        wait_until(out.getvalue, "a first line")
        assert live.line().startswith("RAM ")
    text = out.getvalue()
    assert text.endswith("\n")
    assert "\x1b" not in text
    assert "\r" not in text
    assert "available [" in text
    assert "this process " in text
    live.stop()
    assert out.getvalue() == text, "stopped is stopped"


def test_in_a_terminal_one_line_is_written_over():
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        with oomguard.monitor(every=0.01, file=terminal):
            seen = b""
            while seen.count(b"\r") < 4:
                seen += os.read(ours, 4096)
        seen += os.read(ours, 4096)
    os.close(ours)
    assert seen.count(b"\n") == 1
    assert seen.endswith(b"\n")


def test_a_closed_file_ends_it_quietly():
    out = io.StringIO()
    live = oomguard.monitor(every=0.01, file=out)
    out.close()
    live.stop()
    assert not live._thread.is_alive()
    with pytest.raises(ValueError, match="every must be"):
        oomguard.monitor(every=0)


def test_an_interpreter_with_a_live_line_ends(run):
    result = run("import oomguard; oomguard.monitor(); oomguard.check()")
    assert ok(result) == ""
    assert result.stderr.startswith("RAM ")


def test_under_a_guard_the_line_names_the_job(run, page):
    page.set(stop=1, cause=8)
    out = ok(run("import oomguard; print(repr(oomguard.monitor()))", OOMGUARD_PAGE=str(page.path)))
    assert "guarded: 1.0 GB of 8.0 GB | asked to stop: age" in out
