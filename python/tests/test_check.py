"""``check()`` and ``MemoryMonitor``: what they decide, with a guard, without, with a dead one, and in a child."""

from __future__ import annotations

import math

import pytest

import oomguard
from oomguard import MemoryCritical, MemoryMonitor, StopRequested


def ok(result):
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_check_passes_on_a_machine_with_room():
    assert oomguard.check() is None
    assert oomguard.check("split 3/5") is None


def test_check_raises_below_the_reserve(run):
    out = ok(
        run(
            """
import oomguard
try:
    oomguard.check("split 3/5")
except Exception:
    print("wrong: `except Exception` caught it")
except oomguard.MemoryCritical as e:
    print(e.context, e.cause, e.available > 0, e.threshold == 1 << 50)
    print(e)
""",
            OOMGUARD_RESERVE="1024T",
            OOMGUARD_WARNING="1024T",
        )
    )
    assert out.startswith("split 3/5 reserve True True\n")
    assert "stop to give memory back [split 3/5]: reserve" in out


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("OOMGUARD_RESERVE", "8 bananas", "`bananas`"), ("OOMGUARD_WARNING", "-1G", "negative"),
     ("OOMGUARD_RESERVE", "150%", "between 0% and 100%"), ("OOMGUARD_RESERVE", "20T", "is above OOMGUARD_WARNING")],
)  # fmt: skip
def test_a_wrong_setting_is_one_error_that_names_it(run, name, value, said):
    env = {"OOMGUARD_WARNING": "10T", name: value}
    result = run("import oomguard; oomguard.check()", **env)
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ValueError: {name}")
    assert said in last


def test_a_share_of_the_machine_is_a_threshold(run):
    out = ok(
        run(
            "import oomguard; s = oomguard._core.snapshot(); print(s.reserve / s.total)",
            OOMGUARD_RESERVE="10%",
            OOMGUARD_WARNING="50%",
        )
    )
    assert float(out) == pytest.approx(0.1, abs=0.001)


@pytest.mark.parametrize("stop", [0, 1, 2])
def test_under_a_living_guard_only_the_guards_wish_counts(run, page, stop):
    page.set(stop=stop, cause=8, level=2, available=1)
    result = run(
        """
import oomguard, sys
assert oomguard._core.snapshot().guarded
try:
    oomguard.check()
except oomguard.StopRequested as e:
    print("terminate", e.cause); raise
except oomguard.MemoryCritical as e:
    print("prune", e.cause)
else:
    print("go on", oomguard.MemoryMonitor().check())
""",
        OOMGUARD_PAGE=str(page.path),
    )
    assert result.stdout.strip() == {0: "go on critical", 1: "prune age", 2: "terminate age"}[stop]
    assert result.returncode == 0, "uncaught, a StopRequested ends the process with 0"
    assert "Traceback" not in result.stderr


def test_a_dead_guards_wish_does_not_count(run, page):
    page.set(stop=1, available=1)
    page.die()
    out = ok(
        run("import oomguard; oomguard.check(); print(oomguard._core.snapshot().guarded)", OOMGUARD_PAGE=str(page.path))
    )
    assert out.strip() == "False"


def test_the_worker_notices_that_its_guard_dies_and_comes_back(run, page):
    code = """
import oomguard, sys, time
def wait(what):
    end = time.monotonic() + 15
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)
guarded = lambda: oomguard._core.snapshot().guarded
page = open(sys.argv[1], "r+b")
def beat(ns):
    page.seek(32); page.write(ns.to_bytes(8, sys.byteorder)); page.flush()
assert guarded()
beat(1)
wait(lambda: not guarded())
oomguard.check()
beat(time.monotonic_ns() + 10**12)
wait(guarded)
print("fine")
"""
    assert ok(run(code, str(page.path), OOMGUARD_PAGE=str(page.path))).strip() == "fine"


@pytest.mark.parametrize("content", [b"", b"x" * 4096, b"OOMGUARD" + (9).to_bytes(4, "little") + bytes(4084)])
def test_a_page_that_is_none_is_one_warning_and_the_machine_is_watched(run, tmp_path, content):
    path = tmp_path / "page"
    path.write_bytes(content)
    result = run(
        "import oomguard; oomguard.check(); oomguard.check(); print(oomguard._core.available() > 0)",
        OOMGUARD_PAGE=str(path),
    )
    assert ok(result).strip() == "True"
    assert result.stderr.count("RuntimeWarning") == 1
    assert str(path) in result.stderr


def test_a_forked_child_samples_for_itself_and_was_not_asked_to_stop(run):
    out = ok(
        run("""
import os, oomguard, time
oomguard.check()
oomguard._core.request_stop()
assert oomguard._core.stop_requested()
pid = os.fork()
if pid == 0:
    oomguard.check()
    before = oomguard._core.snapshot().samples
    end = time.monotonic() + 10
    while oomguard._core.snapshot().samples == before and time.monotonic() < end:
        time.sleep(0.01)
    os._exit(0 if oomguard._core.snapshot().samples > before and not oomguard._core.stop_requested() else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), oomguard._core.stop_requested())
""")
    )
    assert out.strip() == "0 True"


def test_checks_go_on_while_threads_fork(run):
    out = ok(
        run("""
import os, threading, warnings, oomguard
# Python 3.12 says that there are threads before it lets go of the import lock that fork() takes. Saying so imports.
warnings.simplefilter("ignore", DeprecationWarning)
def busy():
    for _ in range(20000): oomguard.check(); oomguard.MemoryMonitor().check()
threads = [threading.Thread(target=busy) for _ in range(3)]
for t in threads: t.start()
codes = set()
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        oomguard.check(); oomguard._core.snapshot(); os._exit(0)
    codes.add(os.waitpid(pid, 0)[1])
for t in threads: t.join()
print(codes)
""")
    )
    assert out.strip() == "{0}"


def test_the_monitor_knows_the_machine():
    status = MemoryMonitor().status()
    assert status.level in ("normal", "warning", "critical")
    assert 0 < status.available <= status.total
    assert 0 <= status.used_percent <= 100
    assert 1 << 20 < status.process_rss < status.total
    assert status.available_gb == status.available / (1 << 30)
    assert status.guarded is False
    assert status.unknown == {}


def test_the_monitor_agrees_with_the_kernel():
    with open("/proc/meminfo", encoding="ascii") as file:
        kernel = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in file}
    status = MemoryMonitor().status()
    assert status.total <= kernel["MemTotal"]
    if status.total == kernel["MemTotal"]:
        assert status.available == pytest.approx(kernel["MemAvailable"], rel=0.1)


def test_the_monitor_raises_below_its_safe_threshold():
    monitor = MemoryMonitor(safe_threshold_gb=1_000_000, warning_threshold_gb=1_000_000)
    with pytest.raises(MemoryCritical, match=r"\[split 1/5\].*threshold 1000000.0 GB") as caught:
        monitor.check("split 1/5")
    assert not isinstance(caught.value, Exception)
    assert monitor.status().level == "critical"


def test_the_monitor_warns_below_its_warning_threshold_once_a_minute(caplog):
    monitor = MemoryMonitor(safe_threshold_gb=0.001, warning_threshold_gb=1_000_000)
    assert [monitor.check("split 2/5") for _ in range(100)] == ["warning"] * 100
    assert len(caplog.records) == 1
    assert "Memory warning [split 2/5]" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ((-1,), ValueError, "safe_threshold_gb must be a finite number of gigabytes, 0 or more, not -1"),
        ((math.nan,), ValueError, "safe_threshold_gb"),
        ((1, math.inf), ValueError, "warning_threshold_gb"),
        ((5, 4), ValueError, r"safe_threshold_gb \(5\) must not be above warning_threshold_gb \(4\)"),
        (("2GB",), TypeError, "safe_threshold_gb must be a number of gigabytes, not '2GB'"),
        ((True,), TypeError, "safe_threshold_gb"),
        ((1, 1e300), ValueError, "larger than any machine"),
    ],
)
def test_wrong_thresholds_are_refused_by_name(arguments, error, said):
    with pytest.raises(error, match=said):
        MemoryMonitor(*arguments)


def test_stop_requested_is_both():
    assert issubclass(StopRequested, MemoryCritical)
    assert issubclass(StopRequested, SystemExit)
    assert not issubclass(MemoryCritical, Exception)


def test_import_is_quick_and_light(run):
    out = ok(
        run("""
import sys, time
before = time.perf_counter(); import oomguard; took = time.perf_counter() - before
print(took * 1000, *[m for m in ("logging", "typing", "dataclasses", "optuna", "socket", "json") if m in sys.modules])
""")
    )
    took, *heavy = out.split()
    assert heavy == []
    assert float(took) < 20


def test_a_check_costs_less_than_100_ns():
    import timeit

    best = min(timeit.repeat("check()", "from oomguard import check", number=100_000, repeat=20)) * 1e4
    assert best < 100, f"{best:.0f} ns"


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="has no attribute 'chekc'"):
        oomguard.chekc  # noqa: B018


def test_modules_that_need_nothing_else_are_there_at_once(run):
    out = ok(run("import oomguard; print(oomguard.workers.worker_init.__name__, oomguard.leaks.watch.__name__)"))
    assert out.split() == ["worker_init", "watch"]
    late = ok(run("import sys, oomguard; print([name for name in sys.modules if name.startswith('oomguard.leaks')])"))
    assert late.strip() == "[]"


def test_every_public_name_is_there_and_documented():
    for name in set(oomguard.__all__) - {"__version__"}:
        assert getattr(oomguard, name).__doc__, name
    assert set(oomguard.__all__) <= set(dir(oomguard))


def test_an_unknown_size_has_an_unknown_level(run, page):
    page.set(available=2**64 - 1)
    code = "import oomguard; c = oomguard._core; print(c.snapshot().available, c.snapshot().level, c.level())"
    assert ok(run(code, OOMGUARD_PAGE=str(page.path))).split() == ["None", "unknown", "unknown"]
