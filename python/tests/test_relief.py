"""Relief: what is tried, in which order, by whom, and that it comes before the brake."""

from __future__ import annotations

import pytest
from test_check import ok

import oomguard
from oomguard import _relief


@pytest.fixture(autouse=True)
def _no_callbacks(monkeypatch):
    monkeypatch.setattr(_relief, "_callbacks", {})


def test_relief_gives_back_garbage_and_says_how_much():
    import gc

    gc.disable()
    try:
        cycle = [bytearray(1000) for _ in range(60_000)]
        cycle.append(cycle)
        del cycle
        done = oomguard.relieve()
    finally:
        gc.enable()
    assert [step.name for step in done.steps][:2] == ["trim", "gc"]
    assert done.steps[1].freed > 40 << 20
    assert done.before - done.after > 40 << 20
    assert str(done).startswith("gave back ")
    assert "gc" in str(done)
    assert all(step.seconds >= 0 and step.failed is None for step in done.steps)


def test_callbacks_run_once_each_in_order_and_a_failing_one_stops_nobody(caplog):
    called = []
    cell = """
@oomguard.on_pressure
def first():
    called.append(word)
    raise RuntimeError(word)
"""
    notebook = {"oomguard": oomguard, "called": called, "__name__": "__main__"}
    exec(cell, {**notebook, "word": "first"})

    @oomguard.on_pressure
    def second():
        called.append("second")

    exec(cell, {**notebook, "word": "again"})  # the cell is run again: its function replaces itself
    oomguard.on_pressure(lambda: called.append("a lambda"))
    oomguard.on_pressure(lambda: called.append("another"))

    done = oomguard.relieve()
    assert called == ["again", "second", "a lambda", "another"]
    assert [step.failed for step in done.steps][2:] == ["RuntimeError: again", None, None, None, None]
    assert "`first` failed: RuntimeError: again" in caplog.text
    with pytest.raises(TypeError, match="takes a function"):
        oomguard.on_pressure(5)


def test_a_library_that_is_not_loaded_is_not_imported():
    import sys

    before = set(sys.modules)
    oomguard.relieve()
    assert not {"torch", "cupy", "jax"} & (set(sys.modules) - before)


def test_a_callback_that_checks_does_not_relieve_again():
    calls = []

    @oomguard.on_pressure
    def again():
        calls.append(oomguard.relieve())

    oomguard.relieve()
    assert [done.steps for done in calls] == [()]


def test_it_comes_before_the_brake_and_can_make_it_needless(run):
    """A limit of this process that is met by a cache alone."""
    out = ok(
        run("""
import oomguard, time
cache = [bytearray(96 << 20)]
@oomguard.on_pressure
def drop():
    cache.clear()
    print("dropped")
end = time.monotonic() + 20
with oomguard.guard(limit=oomguard._core.resident() - (32 << 20)) as g:
    while cache and time.monotonic() < end:
        g.check()
    for _ in range(1000): g.check()
print("went on")
""")
    )
    assert out.split("\n")[:2] == ["dropped", "went on"]


BUSY = """
import sys, time, threading, oomguard
main = threading.main_thread()
ran = []
@oomguard.on_pressure
def drop():
    ran.append(threading.current_thread() is main)
def until(what, seconds=20):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "too late"
"""


@pytest.mark.parametrize("how", ["check", "busy"])
def test_at_warning_the_main_thread_answers_whatever_it_does(run, how):
    """Without a guard: available is below `warning`, far above `reserve`."""
    code = (
        BUSY
        + {
            "check": "until(lambda: oomguard.check() or ran)",
            "busy": "oomguard.check()\nuntil(lambda: ran)",
        }[how]
    )
    assert ok(run(code + "\nprint(ran[0])", OOMGUARD_WARNING="1024T", OOMGUARD_RESERVE="1M")).strip() == "True"


def test_it_comes_while_the_main_thread_waits_in_c_for_it(run):
    code = """
lock = threading.Lock(); lock.acquire()
def wait():
    oomguard._core.level()  # begins to watch
    until(lambda: ran); lock.release()
threading.Thread(target=wait).start()
lock.acquire()  # whoever waits for a lock runs no pending calls
print(len(ran))
"""
    assert ok(run(BUSY + code, OOMGUARD_WARNING="1024T", OOMGUARD_RESERVE="1M")).strip() == "1"


def test_the_guards_wish_is_heard(run, page):
    code = (
        BUSY
        + """
import struct
oomguard.check()
page = open(sys.argv[1], "r+b", buffering=0)
page.seek(20); page.write(struct.pack("=I", 1))
until(lambda: oomguard.check() or ran)
page.seek(20); page.write(struct.pack("=I", 2))
until(lambda: oomguard.check() or len(ran) == 2)
print(len(ran))
"""
    )
    assert ok(run(code, str(page.path), OOMGUARD_PAGE=str(page.path))).strip() == "2"


def test_a_forked_child_relieves_for_itself(run):
    code = (
        BUSY
        + """
import os
oomguard.check()
until(lambda: oomguard.check() or ran)
pid = os.fork()
if pid == 0:
    del ran[:]
    main = threading.main_thread()
    until(lambda: oomguard.check() or oomguard.relieve().steps)
    os._exit(0 if ran else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    )
    assert ok(run(code, OOMGUARD_WARNING="1024T", OOMGUARD_RESERVE="1M")).strip() == "0"


def test_the_reserve_is_let_go_when_memory_is_short_and_taken_again(run):
    code = """
import time, oomguard
def until(what):
    end = time.monotonic() + 20
    while not what(): assert time.monotonic() < end
before = oomguard._core.resident()
with oomguard.guard(limit="1T"):
    assert oomguard._core.holds_reserve()
    held = oomguard._core.resident() - before
    with oomguard.guard(limit="1M"):
        until(lambda: before + held - oomguard._core.resident() > 60 << 20)
        assert not oomguard._core.holds_reserve()
until(oomguard._core.holds_reserve)
print(held >> 20)
"""
    held = int(ok(run(code, OOMGUARD_HANDLER_RESERVE="64MiB", OOMGUARD_RESERVE="1M", OOMGUARD_WARNING="2M")))
    assert 60 <= held <= 72
    never_short = (
        "import oomguard\nwith oomguard.guard(warn=0, critical=0, limit='1G'): print(oomguard._core.holds_reserve())"
    )
    assert ok(run(never_short)).strip() == "False", "nobody needs it"
    none = "import oomguard\nwith oomguard.guard(): print(oomguard._core.holds_reserve())"
    assert ok(run(none, OOMGUARD_HANDLER_RESERVE="0")).strip() == "False"
    wrong = run(none, OOMGUARD_HANDLER_RESERVE="8 bananas").stderr.strip().splitlines()[-1]
    assert wrong.startswith("ValueError: OOMGUARD_HANDLER_RESERVE: ")


def test_a_forked_childs_own_memory_is_never_taken_for_the_reserve(run):
    """What the child maps next would lie where its parent's reserve was, and be emptied when memory is short."""
    code = """
import mmap, os, time, oomguard
def until(what):
    end = time.monotonic() + 15
    while not what(): assert time.monotonic() < end
with oomguard.guard(): pass
pid = os.fork()
if pid == 0:
    size = 16 << 20
    kept = [mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for _ in range(4)]
    for each in kept: each.write(b"x" * size)
    before = oomguard._core.resident()
    oomguard.check()
    first = oomguard._core.snapshot().samples
    until(lambda: oomguard._core.snapshot().samples > first)
    assert not oomguard._core.holds_reserve(), "nobody asked for one in this process"
    with oomguard.guard():
        assert oomguard._core.holds_reserve()
        assert oomguard._core.resident() - before > 15 << 20, "one of its own"
    with oomguard.guard(limit="1M"):
        until(lambda: not oomguard._core.holds_reserve())
    os._exit(sum(each[:].count(b"x") != size for each in kept))
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert ok(run(code, OOMGUARD_RESERVE="1M", OOMGUARD_WARNING="2M")).strip() == "0"


def test_a_child_that_is_forked_in_the_middle_of_relief_can_relieve(run):
    code = """
import os, threading, oomguard
inside, go = threading.Event(), threading.Event()
@oomguard.on_pressure
def slow():
    if threading.current_thread() is not threading.main_thread():
        inside.set(); assert go.wait(15)
thread = threading.Thread(target=oomguard.relieve); thread.start()
assert inside.wait(15)
assert oomguard.relieve().steps == (), "somebody is at it"
pid = os.fork()
if pid == 0:
    os._exit(len(oomguard.relieve().steps))
steps = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
go.set(); thread.join()
print(steps)
"""
    assert ok(run(code)).strip() == "4"


@pytest.mark.parametrize("where", ["Shield", "resident"])
def test_what_interrupts_relief_does_not_end_it_for_good(monkeypatch, where):
    def interrupted():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_relief._core, where, interrupted)
        with pytest.raises(KeyboardInterrupt):
            oomguard.relieve()
    assert oomguard.relieve().steps


def test_a_check_waits_for_the_relief_of_another_thread(run):
    """It raised in the middle of it, though the cache that was about to be dropped was enough."""
    code = """
import threading, time, oomguard
from oomguard import _relief
cache = [bytearray(96 << 20)]
inside = threading.Event()
@oomguard.on_pressure
def drop():
    inside.set()
    end = time.monotonic() + 15
    while not waits.is_set(): assert time.monotonic() < end
    cache.clear()
waits = threading.Event()
def look():
    waits.set()
    return before_stopping()
before_stopping, _relief.before_stopping = _relief.before_stopping, look
limit = oomguard._core.resident() - (32 << 20)
thread = threading.Thread(target=oomguard.relieve); thread.start()
assert inside.wait(15)
end = time.monotonic() + 15
with oomguard.guard(limit=limit) as g:
    while not waits.is_set():
        g.check(); assert time.monotonic() < end
thread.join()
print("went on")
"""
    assert ok(run(code)).strip() == "went on"


def test_a_bound_method_is_forgotten_with_its_object():
    called = []

    class Cache:
        def drop(self):
            called.append(self)

    kept = Cache()
    oomguard.on_pressure(kept.drop)
    oomguard.on_pressure(kept.drop)
    oomguard.on_pressure(Cache().drop)
    builtin = {1: 2}
    oomguard.on_pressure(builtin.clear)
    oomguard.relieve()
    assert called == [kept]
    assert builtin == {}
    assert len(_relief._callbacks) == 2
