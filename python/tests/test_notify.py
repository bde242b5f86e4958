"""What the guard hears from a worker."""

from __future__ import annotations

import os
import socket

import pytest


def heard(sock):
    words = []
    sock.setblocking(False)
    while True:
        try:
            words.append(sock.recv(4096).decode())
        except BlockingIOError:
            return words


@pytest.fixture(params=["path", "abstract"])
def guard(request, tmp_path):
    name = str(tmp_path / "notify") if request.param == "path" else f"\0oomguard-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name)
        yield sock, name.replace("\0", "@")


def test_the_guard_hears_that_the_page_is_read_and_of_checkpoints(run, page, guard):
    sock, name = guard
    code = "import oomguard; oomguard.check(); oomguard.check(); print(oomguard.checkpoint())"
    result = run(code, OOMGUARD_PAGE=str(page.path), NOTIFY_SOCKET=name)
    assert result.stdout == "True\n", result.stderr
    assert heard(sock) == ["X_OOMGUARD_CHECKS=1", "X_OOMGUARD_CHECKPOINT=1"]


def test_without_a_page_nobody_is_told_of_checks(run, guard):
    sock, name = guard
    run("import oomguard; oomguard.check()", NOTIFY_SOCKET=name)
    assert heard(sock) == []


@pytest.mark.parametrize("name", ["", "/nowhere/at/all", "@nobody", "x" * 300])
def test_a_guard_that_does_not_listen_does_no_harm(run, name):
    assert run("import oomguard; print(oomguard.checkpoint())", NOTIFY_SOCKET=name).stdout == "False\n"


def test_a_full_socket_does_not_block(run, guard):
    _, name = guard
    result = run("import oomguard; print(all([oomguard.checkpoint() for _ in range(5000)]))", NOTIFY_SOCKET=name)
    assert result.stdout == "False\n"
