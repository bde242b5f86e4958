"""``guard``: what it decides, what leaves it, and that an interrupt never escapes it."""

from __future__ import annotations

import functools
import os
import sys
import textwrap

import pytest
from test_check import ok

import oomguard
from oomguard import MemoryCritical

GIB = 1 << 30
NEVER = "1024T"
"""A critical threshold that every machine is below."""

ROUNDS = int(os.environ.get("OOMGUARD_INTERRUPTS", "40"))
"""Interrupts in each of the tests below that count them."""


def test_a_guard_on_a_machine_with_room_does_nothing():
    with oomguard.guard(critical="1M", warn="2M") as g:
        assert g.check() is None
        assert g.check("split 3/5") is None
        assert (g.critical_below, g.warn_below, g.limit) == (1 << 20, 2 << 20, None)
        assert oomguard._core.holds_reserve()


def test_its_defaults_are_the_thresholds_of_check():
    seen = oomguard._core.snapshot()
    g = oomguard.guard()
    assert (g.critical_below, g.warn_below) == (seen.reserve, seen.warning)
    assert oomguard.guard(warn="1M").critical_below == 1 << 20, "never above warn"
    assert oomguard.guard(critical="900G").warn_below == 900 * GIB


@pytest.mark.parametrize("cause", ["reserve", "limit"])
def test_what_check_raises_leaves_the_guard_as_a_memory_error(cause, caplog):
    settings = {"critical": NEVER} if cause == "reserve" else {"limit": "1M"}
    holds = bytearray(1 << 20)
    with pytest.raises(MemoryError) as caught, oomguard.guard(**settings, context="the work") as g:
        until_it_raises(g)
    stop = caught.value.__cause__
    assert isinstance(stop, MemoryCritical)
    assert stop.cause == cause
    assert stop.context == "epoch 3"
    assert (stop.usage is None) == (cause == "reserve")
    assert stop.threshold == (1 << 50 if cause == "reserve" else 1 << 20)
    assert stop.__traceback__ is None, "its frames would keep what they hold"
    assert "[epoch 3]" in str(caught.value)
    assert f"{os.path.basename(__file__)}:" in str(caught.value)
    lines = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert lines[0] == "🚨 EMERGENCY BRAKE ACTIVATED [epoch 3]"
    assert ("Job memory" in lines[-1]) == (cause == "limit")
    del holds


def until_it_raises(g):
    """The limit is seen by the next look, within a second."""
    import time

    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            g.check("epoch 3")
        except Exception:
            raise AssertionError("`except Exception` caught it") from None


def test_other_exceptions_pass_as_they_are():
    with pytest.raises(KeyError), oomguard.guard(interrupt=True):
        raise KeyError("x")


def test_a_caller_may_catch_it_inside_and_go_on():
    with oomguard.guard(critical=NEVER) as g:
        try:
            g.check()
        except MemoryCritical:
            pass
    with oomguard.guard(critical="1M", warn="2M") as g:
        g.check()


def test_below_warn_it_says_so_once(caplog):
    with oomguard.guard(critical="1M", warn="900T") as g:
        for _ in range(1000):
            g.check("fold 1")
    said = [record.getMessage() for record in caplog.records if "Memory warning" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("Memory warning [fold 1]: ")


def test_a_guard_can_be_used_again_but_not_twice_at_once():
    g = oomguard.guard()
    for _ in range(2):
        with g:
            pass
    with g, pytest.raises(RuntimeError, match="in use already"):
        g.__enter__()


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [({"critical": "4G", "warn": "2G"}, ValueError, r"critical \(4 GiB\) must not be above warn \(2 GiB\)"),
     ({"limit": "8 bananas"}, ValueError, "limit: .*`bananas`"), ({"warn": 1.5}, TypeError, "warn must be a size"),
     ({"critical": True}, TypeError, "critical must be a size"), ({"limit": -1}, ValueError, "limit must be a number"),
     ({"limit": 0}, ValueError, "limit must be above 0")],
)  # fmt: skip
def test_a_wrong_size_is_one_error_that_names_it(settings, error, said):
    with pytest.raises(error, match=said):
        oomguard.guard(**settings)
    with pytest.raises(error, match=said):
        oomguard.guarded(**settings)(print)


def test_guarded_functions_are_guarded_at_every_call():
    @oomguard.guarded(critical=NEVER)
    def work(x, *, y):
        """Doc."""
        if y:
            raise MemoryCritical("here")
        return x

    assert work(1, y=False) == 1
    assert (work.__name__, work.__doc__) == ("work", "Doc.")
    for _ in range(2):
        with pytest.raises(MemoryError, match=r"\[here\]"):
            work(1, y=True)

    @oomguard.guarded
    def plain():
        return 5

    assert plain() == 5


def test_guarded_refuses_what_runs_in_pieces():
    async def coroutine(): ...

    def generator():
        yield

    for function in (coroutine, generator, functools.partial(coroutine)):
        with pytest.raises(TypeError, match="runs in pieces"):
            oomguard.guarded(function)


LOOPS = {
    "busy": "while True: pass",
    "tried": "try:\n    while True: pass\nexcept Exception: print('swallowed')",
    "calls": "try:\n    while True: step()\nexcept Exception: print('swallowed')",
    "until": "n = 1\ntry:\n    while n: n = step()\nexcept Exception: print('swallowed')",
    "handled": "for i in range(1 << 60):\n    try: step()\n    except Exception: print('no')\n    finally: step()",
    "asleep": "time.sleep(60)",
    "locked": "lock = threading.Lock(); lock.acquire(); lock.acquire()",
}
"""What may be going on in the block; in the main thread in the frame of the ``with``, where CPython has its holes."""

INTERRUPT = """
import sys, threading, time, oomguard
where, rounds = sys.argv[1], int(sys.argv[2])
def step():
    return sum(range(50))
def work():
    while True:
{loop}
def once(out):
    try:
        with oomguard.guard(critical="1024T", warn="1024T", interrupt=True, context="here"):
            if where == "threads":
                work()
{loop}
    except MemoryError as e:
        out.append("ok" if "[here]" in str(e) and e.__cause__ is not None else repr(e))
    except BaseException as e:
        out.append(repr(e))
    for _ in range(100): step()     # nothing arrives late
for _ in range(rounds):
    out = []
    if where == "main":
        once(out)
    else:
        threads = [threading.Thread(target=once, args=(out,)) for _ in range(4)]
        for t in threads: t.start()
        for t in threads: t.join()
    assert out == ["ok"] * len(out) and out, out
print("fine")
"""


@pytest.mark.parametrize(
    ("mode", "where"),
    [*((mode, "main") for mode in LOOPS), *((mode, "threads") for mode in ("busy", "calls", "until", "handled"))],
)
def test_no_interrupt_escapes_its_guard(run, mode, where):
    """Not so: a `try` whose whole content is an empty loop, in 3.11 and 3.12: there no place is safe, so it runs on."""
    if mode == "tried" and sys.version_info[:2] in ((3, 11), (3, 12)):
        pytest.skip("nothing can interrupt `try: while True: pass` in Python 3.11 and 3.12 without being lost")
    rounds = max(ROUNDS // (1 if where == "main" else 4), 2)
    code = INTERRUPT.replace("{loop}", textwrap.indent(LOOPS[mode], " " * 12))
    assert ok(run(code, where, str(rounds))).strip() == "fine"


def test_each_shortage_interrupts_once_and_a_shield_delays_it(run):
    out = ok(
        run("""
import oomguard, time
def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end: pass
saved = cleaned = False
early = oomguard.shield()
early.__enter__()  # before the guard: it is due at once
try:
    with oomguard.guard(critical="1024T", warn="1024T", interrupt=True) as g:
        with g.shield():
            early.__exit__()
            spin(0.2)
            saved = True
        try:
            spin(20)
            print("wrong: not interrupted after the shield")
        finally:
            spin(0.2)  # the second poke, if there were one, would be here
            cleaned = True
except MemoryError:
    print(saved, cleaned)
""")
    )
    assert out.strip() == "True True"


def test_nested_guards_raise_in_the_inner_one_and_the_outer_goes_on(run):
    out = ok(
        run("""
import oomguard, time
end = time.monotonic() + 20
with oomguard.guard(critical="1M", warn="2M", interrupt=True) as outer:
    try:
        with oomguard.guard(critical="1024T", warn="1024T", interrupt=True):
            while time.monotonic() < end: pass
    except MemoryError:
        print("inner")
    for _ in range(10000): outer.check()
print("outer")
""")
    )
    assert out.split() == ["inner", "outer"]


def test_a_signal_of_somebody_elses_is_passed_on(run):
    out = ok(
        run("""
import os, signal, oomguard
signal.signal(signal.SIGURG, lambda number, frame: print("theirs"))
with oomguard.guard(critical="1M", warn="2M", interrupt=True):
    os.kill(os.getpid(), signal.SIGURG)
    for _ in range(100): pass
os.kill(os.getpid(), signal.SIGURG)
for _ in range(100): pass
""")
    )
    assert out.split() == ["theirs", "theirs"]


@pytest.mark.parametrize("stop", [1, 2])
def test_under_a_guard_its_request_interrupts(run, page, stop):
    page.set(stop=0, cause=6)
    result = run(
        """
import sys, struct, oomguard
page = open(sys.argv[1], "r+b", buffering=0)
try:
    with oomguard.guard(interrupt=True, critical="1024T", warn="1024T"):
        page.seek(12); page.write(struct.pack("=I", int(sys.argv[2])))
        while True: pass
except MemoryError as e:
    print("pruned:", e.__cause__.cause)
except oomguard.StopRequested as e:
    print("to end:", e.cause); raise
""",
        str(page.path),
        str(stop),
        OOMGUARD_PAGE=str(page.path),
    )
    assert ok(result).strip() == {1: "pruned: reserve", 2: "to end: reserve"}[stop]


@pytest.mark.parametrize(("available", "cause"), [(10, "limit"), (1, "reserve")])
def test_a_request_that_was_taken_back_on_the_way_keeps_its_cause(run, page, available, cause):
    page.set(available=available << 30)
    code = "import oomguard; from oomguard._errors import Interrupted; oomguard.check(); print(Interrupted().cause)"
    result = run(code, OOMGUARD_PAGE=str(page.path))
    assert result.stdout == f"{cause}\n", result


def test_a_forked_child_is_not_interrupted_for_its_parents_guard(run):
    out = ok(
        run("""
import os, time, oomguard
with oomguard.guard(critical="1M", warn="2M", interrupt=True):
    pid = os.fork()
    if pid == 0:
        child = True
    else:
        child = False
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
if child:
    # Its own guard works, in the child's main thread.
    try:
        with oomguard.guard(critical="1024T", warn="1024T", interrupt=True):
            while True: pass
    except MemoryError:
        os._exit(7)
    os._exit(1)
print(code)
""")
    )
    assert out.strip() == "7"


def test_an_ending_interpreter_is_left_in_peace(run):
    """The threads of ours that may want the GIL must not get it while it goes away."""
    code = """
import threading, oomguard
def work():
    try:
        with oomguard.guard(critical="1024T", warn="1024T", interrupt=True):
            while True: pass
    except MemoryError: pass
threading.Thread(target=work, daemon=True).start()
oomguard._core.check
"""
    for _ in range(5):
        result = run(code)
        assert (result.returncode, "Fatal" in result.stderr) == (0, False), result.stderr


def test_an_inner_guard_that_was_left_in_time_does_not_interrupt_the_outer_one(run):
    """The inner one is left again and again just when its interrupt is under way."""
    code = """
import logging, sys, threading, oomguard
logging.disable()
seen, escaped = [], []
def work():
    try:
        with oomguard.guard(critical="1M", warn="2M", interrupt=True):
            for turn in range(int(sys.argv[1])):
                try:
                    with oomguard.guard(critical="1024T", warn="1024T", interrupt=True):
                        for _ in range(turn % 40 * 5): sum(range(20))
                except MemoryError as error: seen.append(error.__cause__.threshold)
    except MemoryError as error: escaped.append(error)
work()
thread = threading.Thread(target=work); thread.start(); thread.join()
print(escaped, set(seen) <= {1 << 50})
"""
    assert ok(run(code, str(50 * ROUNDS))).strip() == "[] True"


def test_a_shield_that_is_gone_protects_nothing_any_more(run):
    code = """
import time, oomguard
shield = oomguard.shield()
shield.__enter__(); shield.__enter__()
del shield  # a KeyboardInterrupt can have the same effect
end = time.monotonic() + 15
try:
    with oomguard.guard(critical="1024T", warn="1024T", interrupt=True):
        while time.monotonic() < end: pass
    print("not interrupted")
except MemoryError: print("interrupted")
"""
    assert ok(run(code)).strip() == "interrupted"


def test_a_trial_that_keeps_its_guard_can_be_collected():
    import gc
    import weakref

    class Trial:
        def set_user_attr(self, key, value): ...

    trial = Trial()
    trial.guard = oomguard.guard(trial=trial)
    gone = weakref.ref(trial)
    del trial
    gc.collect()
    assert gone() is None


def test_an_interrupt_says_which_threshold_was_crossed(run):
    code = """
import pickle, time, oomguard
from oomguard._errors import Interrupted
held = bytearray(64 << 20)
for settings in {"critical": "1024T", "warn": "1024T"}, {"critical": "1M", "warn": "2M", "limit": "32M"}:
    end = time.monotonic() + 15
    try:
        with oomguard.guard(limit="1T") as around, oomguard.guard(interrupt=True, **settings):
            while time.monotonic() < end: pass
    except MemoryError as error:
        stop = error.__cause__
        assert type(stop) is Interrupted
        print(stop.cause, stop.threshold, (stop.usage or 0) > 32 << 20)
        again = pickle.loads(pickle.dumps(stop))
        assert isinstance(again, oomguard.MemoryCritical) and str(again) == str(stop), again
"""
    assert ok(run(code)).splitlines() == [f"reserve {1 << 50} False", f"limit {32 << 20} True"]


def test_a_size_that_is_given_as_the_trial_is_refused():
    with pytest.raises(TypeError, match="trial must be an Optuna trial, not '6GiB'; hint: "):
        oomguard.guard("6GiB")
