"""The mapping under a buffer: refused before anything is touched, there when it is made, gone with its last view."""

from __future__ import annotations

import mmap
import os
import weakref

import numpy as np
import pytest

from oomguard import _core
from oomguard.replay import Buffer, _mapping, _pin, _room

MIB = 1 << 20
SIZE = 64 * MIB
linux = pytest.mark.skipif(not os.path.exists("/proc/self/smaps"), reason="needs /proc/self/smaps (Linux)")


def kib_of(view, field):
    """``field`` of the mapping that ``view`` begins, from ``/proc/self/smaps``."""
    address = view.ctypes.data
    inside = False
    with open("/proc/self/smaps", encoding="ascii", errors="replace") as file:
        for line in file:
            head = line.split()[0]
            if "-" in head and not head.endswith(":"):
                start, end = (int(part, 16) for part in head.split("-"))
                inside = start <= address < end
            elif inside and head == f"{field}:":
                return int(line.split()[1])
    return pytest.fail("the mapping is not listed")


@linux
def test_the_memory_is_there_when_it_is_made():
    assert kib_of(_mapping.reserve(SIZE), "Rss") >= SIZE // 1024


@linux
def test_the_memory_comes_row_by_row_where_it_is_not_touched():
    view = _mapping.reserve(SIZE, touch=False)
    assert kib_of(view, "Rss") == 0
    view[: SIZE // 2] = 1
    assert SIZE // 2048 <= kib_of(view, "Rss") < SIZE // 1500


@linux
def test_an_old_kernel_is_touched_page_by_page(monkeypatch):
    monkeypatch.setattr(_mapping, "POPULATE_WRITE", 9999)  # EINVAL, as before Linux 5.14
    assert kib_of(_mapping.reserve(SIZE), "Rss") >= SIZE // 1024


def test_every_size_is_touched_to_its_end(monkeypatch):
    monkeypatch.setattr(_mapping, "STRIDE", 8 * mmap.PAGESIZE)
    asked = []
    monkeypatch.setattr(_room, "require", lambda need, what: asked.append(need))
    size = 20 * mmap.PAGESIZE + 1
    assert len(_mapping.reserve(size)) == size
    assert asked == [size, size - 8 * mmap.PAGESIZE, size - 16 * mmap.PAGESIZE]


def test_a_neighbour_that_takes_the_memory_meanwhile_stops_the_touching(monkeypatch):
    monkeypatch.setattr(_mapping, "STRIDE", MIB)
    left = iter([100 * MIB, 100 * MIB, 5 * MIB])
    monkeypatch.setattr(_room, "usable", lambda: (next(left), "a test"))
    with pytest.raises(MemoryError, match=r"after the first 2\.0 MiB\): needs 8\.0 MiB, but only 5\.0 MiB"):
        _mapping.reserve(10 * MIB)


def test_too_large_is_an_error_before_anything_is_touched(run):
    code = """
import oomguard.replay, oomguard._core as core
before = core.resident()
try:
    oomguard.replay.Buffer(1 << 20, {"state": 64})
except MemoryError as error:
    print(error)
print(core.resident() - before < 16 << 20)
print(len(oomguard.replay.Buffer(1 << 20, {"state": 64}, touch=False)))
"""
    result = run(code, OOMGUARD_RESERVE="1024T", OOMGUARD_WARNING="1024T")
    said, small, late = result.stdout.splitlines()
    assert said.startswith("replay buffer of 1,048,576 rows: needs 256.0 MiB, but only 0 B can be used (")
    assert "available less the reserve of 1024.0 TiB): lower the capacity" in said
    assert (small, late) == ("True", "0"), result.stderr


def test_under_a_guard_the_jobs_limit_counts(run, page):
    page.set(limit=300 * MIB, usage=100 * MIB)
    code = """
from oomguard.replay import Buffer
print(Buffer(100 << 20, {"x": ()}, dtype="uint8").nbytes)
try:
    Buffer(201 << 20, {"x": ()}, dtype="uint8")
except MemoryError as error:
    print(error)
"""
    result = run(code, OOMGUARD_PAGE=str(page.path))
    fits, said = result.stdout.splitlines()
    assert fits == str(100 * MIB)
    assert (
        "needs 201.0 MiB, but only 200.0 MiB can be used (the limit of the job, 300.0 MiB, less the 100.0 MiB in use)"
        in said
    )


def test_inside_a_guard_its_limit_counts(run):
    code = """
import oomguard
from oomguard.replay import Buffer
with oomguard.guard(limit=oomguard._core.resident() + (100 << 20)):
    print(Buffer(40 << 20, {"x": ()}, dtype="uint8").nbytes)
    try:
        Buffer(400 << 20, {"x": ()}, dtype="uint8")
    except MemoryError as error:
        print(error)
"""
    result = run(code)
    fits, said = result.stdout.splitlines()
    assert fits == str(40 * MIB), result.stderr
    assert "needs 400.0 MiB, but only" in said
    assert "(the limit of this process's guard, " in said


def test_memory_that_cannot_be_read_is_said_and_not_taken_for_none(monkeypatch, caplog):
    monkeypatch.setattr(_room, "usable", lambda: (None, "no /proc here"))
    assert len(_mapping.reserve(MIB)) == MIB
    assert "cannot tell whether 1.0 MiB fit: no /proc here" in caplog.text


def test_a_mapping_that_the_system_refuses_is_a_memory_error():
    with pytest.raises(MemoryError, match=r"the system refuses a mapping of .* TiB"):
        _mapping.reserve(1 << 62, touch=False)


@linux
def test_it_is_given_back_with_the_last_view():
    before = _core.resident()
    buffer = Buffer(SIZE // 64, {"state": 16})
    view = buffer["state"][:3]
    del buffer
    assert _core.resident() - before >= SIZE
    assert not view.any()
    del view
    assert _core.resident() - before < SIZE // 4


@linux
def test_on_a_disk_it_is_a_file_without_a_name(tmp_path):
    if _mapping._is_tmpfs(tmp_path):
        pytest.skip("the temporary folder is memory (tmpfs)")
    view = _mapping.reserve(SIZE, path=tmp_path)
    assert os.listdir(tmp_path) == []
    assert kib_of(view, "Rss") == 0, "its blocks are reserved, not its memory"
    view[: 4 * MIB] = 7
    assert kib_of(view, "Anonymous") == 0, "what is written can be written out"
    assert kib_of(view, "Rss") >= 4096


@linux
def test_a_folder_in_memory_counts_as_memory(monkeypatch):
    if not _mapping._is_tmpfs("/dev/shm"):
        pytest.skip("/dev/shm is no tmpfs here")
    monkeypatch.setattr(_room, "usable", lambda: (MIB, "a test"))
    with pytest.raises(MemoryError, match=r"only 1\.0 MiB"):
        _mapping.reserve(2 * MIB, path="/dev/shm")


def test_a_path_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "absent"):
        with pytest.raises(NotADirectoryError, match="`path` must be a folder"):
            _mapping.reserve(MIB, path=path)


def test_a_disk_without_room_is_an_error_and_no_signal_later(tmp_path):
    with pytest.raises(OSError, match=r"cannot reserve 4\.0 EiB|cannot reserve .* TiB"):
        _mapping.reserve(1 << 61, path=tmp_path)
    assert os.listdir(tmp_path) == []


@linux
def test_huge_pages_are_taken_where_the_kernel_has_them():
    with open(_mapping.HUGE, encoding="ascii") as file:
        if "[never]" in file.read():
            pytest.skip("transparent huge pages are off here")
    assert kib_of(_mapping.reserve(SIZE, huge_pages=True), "AnonHugePages") > 0
    assert kib_of(_mapping.reserve(SIZE, huge_pages=False, touch=False), "AnonHugePages") == 0


def test_missing_huge_pages_are_said(monkeypatch, caplog, tmp_path):
    (tmp_path / "enabled").write_text("always madvise [never]\n")
    monkeypatch.setattr(_mapping, "HUGE", str(tmp_path / "enabled"))
    assert len(_mapping.reserve(MIB, huge_pages=True)) == MIB
    assert "goes on without huge pages" in caplog.text


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_has_its_own_copy():
    view = _mapping.reserve(MIB)
    child = os.fork()
    if child == 0:
        view[:] = 9
        os._exit(0 if (view == 9).all() else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert not view.any()


class Runtime:
    """CUDA's two functions, with a memory of their calls."""

    def __init__(self, code=0):
        self.code, self.calls = code, []

    def cudaHostRegister(self, address, size, flags):
        self.calls.append(("register", address, size, flags))
        return self.code

    def cudaHostUnregister(self, address):
        self.calls.append(("unregister", address))
        return 0


def test_pinned_memory_is_let_go_before_its_mapping():
    runtime, view = Runtime(), _mapping.reserve(MIB)
    address = view.ctypes.data
    _pin.register(runtime, view)
    assert runtime.calls == [("register", address, MIB, 0)]
    rows = view[64:128].view(np.float32).reshape(4, 4)
    mapped = weakref.ref(_pin._owner(view))
    del view
    assert mapped() is not None
    assert len(runtime.calls) == 1, "a view is left"
    del rows
    assert runtime.calls[1:] == [("unregister", address)]


def test_a_refusal_to_pin_says_what_helps():
    runtime = Runtime(code=2)
    with pytest.raises(RuntimeError, match=r"refuses to pin 1\.0 MiB \(error 2\).*ulimit -l"):
        _pin.register(runtime, _mapping.reserve(MIB))
    assert [call[0] for call in runtime.calls] == ["register"]
