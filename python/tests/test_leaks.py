"""``oomguard.leaks``: each cause is found, named, measured, and told apart from the others."""

from __future__ import annotations

import array
import functools
import gc
import json
import weakref

import pytest

from oomguard import _core, leaks
from oomguard.leaks import _mappings
from oomguard.leaks._cycles import free_and_name
from oomguard.leaks._payload import payload

np = pytest.importorskip("numpy", reason="arrays are what leaks")

MIB = 1 << 20
pytestmark = pytest.mark.usefixtures("collected_by_hand")


class Env:
    def __init__(self, mib: int) -> None:
        self.prices = np.ones(mib * MIB // 8)


class Agent:
    """As in the origin system: it stores its own methods."""

    def __init__(self, mib: int = 8) -> None:
        self.env = Env(mib)
        self.explore_env = self.explore_one_env

    def explore_one_env(self) -> None:
        """Never called."""


def test_an_instance_that_stores_its_own_method_is_named_and_freed():
    died = []
    for _ in range(3):
        weakref.finalize(Agent(), died.append, 1)
    report = leaks.examine()
    assert len(died) == 3
    cause = report.cause("cycles")
    assert cause is not None
    assert cause.facts["reasons"][0] == {"reason": "Agent.explore_env is a bound method of itself", "count": 3}
    kinds = {kind["name"].rpartition(".")[2]: kind for kind in cause.facts["kinds"]}
    assert kinds["Agent"]["instances"] == 3
    assert 24 * MIB <= kinds["Agent"]["holds"] <= 25 * MIB
    assert 24 * MIB <= cause.facts["holds"] <= 25 * MIB
    assert 20 * MIB <= cause.facts["freed"] <= 40 * MIB, "the resident set fell by it"
    assert "Agent.explore_env is a bound method of itself (3 times)" in str(report)
    assert leaks.examine().cause("cycles") is None, "and it is gone"


def test_every_way_to_reach_oneself_has_its_words():
    class Node:
        def method(self) -> None: ...

    def make(kind: str) -> None:
        node = Node()
        if kind == "itself":
            node.me = node
        elif kind == "partial":
            node.later = functools.partial(node.method)
        elif kind == "closure":
            node.call = lambda: node
        else:
            node.child = Node()
            node.child.parent = node

    for kind in ("itself", "partial", "closure", "child"):
        make(kind)
    assert {reason for reason, _ in free_and_name().reasons} == {
        "Node.me is itself",
        "Node.later is a partial of a bound method of itself",
        "Node.call is a function that closes over its own object",
        "Node.child.parent refers back to it",
        "Node.parent.child refers back to it",
    }


def test_what_lives_elsewhere_is_not_counted_as_held():
    shared = np.ones(16 * MIB // 8)

    class Borrower:
        def __init__(self) -> None:
            self.me, self.shared, self.own = self, shared, np.ones(2 * MIB // 8)

    Borrower()
    found = free_and_name()
    assert 2 * MIB <= found.holds < 3 * MIB
    assert shared[0] == 1.0


def test_what_stands_in_dictionaries_and_tuples_that_are_not_tracked_counts():
    class Deep:
        def __init__(self) -> None:
            self.me, self.table = self, {"prices": np.ones(2 * MIB // 8), "pair": (np.ones(MIB // 8), 1.0)}

    Deep()
    assert 3 * MIB <= free_and_name().holds < 4 * MIB


def test_finalizers_run_once_weak_references_die_and_settings_stay():
    calls = []

    class Closing:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            calls.append(1)

    gone = weakref.ref(Closing())
    flags, before = gc.get_debug(), list(gc.garbage)
    assert free_and_name().objects >= 1
    assert calls == [1]
    assert gone() is None
    assert (gc.get_debug(), gc.garbage, gc.isenabled()) == (flags, before, False)


def test_objects_with_hostile_code_are_named_without_running_it():
    class Hostile:
        def __init__(self) -> None:
            object.__setattr__(self, "me", self)

        def __getattribute__(self, name: str) -> object:
            raise AssertionError(f"asked for {name}")

        __repr__ = __len__ = __sizeof__ = __hash__ = __eq__ = lambda *_: 1 / 0

    Hostile()
    assert ("Hostile.me is itself", 1) in free_and_name().reasons


def test_no_garbage_is_no_cause():
    found = free_and_name()
    assert (found.holds, found.kinds, found.reasons) == (0, (), ())


def test_freed_heap_that_the_allocator_keeps_is_given_back():
    if _core.trim() is None:
        pytest.skip("this C library's heap cannot be trimmed")
    blocks = [bytearray(3000) for _ in range(20_000)]
    pin = blocks[-1]
    del blocks
    report = leaks.examine()
    cause = report.cause("retention")
    assert cause is not None
    assert 45 * MIB <= cause.bytes <= 80 * MIB
    step = report.steps[0]
    assert step.name == "trim"
    assert step.seconds > 0
    assert step.before - step.after == cause.bytes
    assert len(pin) == 3000


def test_reserved_memory_is_told_from_a_leak_with_its_holder():
    class Buffer:
        def __init__(self) -> None:
            self.rows = np.empty(160 * MIB, dtype=np.uint8)

    buffer = Buffer()

    def found() -> leaks.Cause | None:
        of_buffer = (cause for cause in leaks.examine().causes if cause.facts.get("holder") == "Buffer.rows")
        return next(of_buffer, None)

    cause = found()
    assert cause is not None
    assert cause.kind == "untouched"
    assert 150 * MIB <= cause.bytes <= 161 * MIB
    assert "not yet touched: it will grow by that without leaking" in cause.text
    buffer.rows[: 80 * MIB] = 1
    half = found()
    assert half is not None
    assert 70 * MIB <= half.bytes <= 90 * MIB


SMAPS = """\
10000000-18000000 rw-p 00000000 00:00 0
Size:             131072 kB
Rss:                1024 kB
Swap:               2048 kB
VmFlags: rd wr mr mw me ac
18000000-20000000 rw-p 00000000 00:00 0                          [anon:buffer]
Rss:                   0 kB
Swap:                  0 kB
20000000-28000000 rw-s 00000000 00:01 77                         /dev/zero (deleted)
Rss:                   0 kB
30000000-38000000 ---p 00000000 00:00 0
Rss:                   0 kB
40000000-40800000 rw-p 00000000 00:00 0
Rss:                   0 kB
50000000-58000000 rw-p 00000000 00:00 0
Rss:              131000 kB
60000000-68000000 rw-p 00000000 00:00 0                          [heap]
Rss:                   0 kB
"""


def test_only_large_private_anonymous_writable_mappings_count(tmp_path):
    path = tmp_path / "smaps"
    path.write_text(SMAPS)
    found = _mappings.untouched(str(path))
    assert [(one.start, one.size, one.resident) for one in found] == [
        (0x18000000, 128 * MIB, 0),
        (0x10000000, 128 * MIB, 3 * MIB),
    ]


def test_mappings_that_cannot_be_read_are_unknown_with_the_reason(tmp_path, monkeypatch):
    def missing() -> list[_mappings.Mapping]:
        return _mappings.untouched(str(tmp_path / "none"))

    monkeypatch.setattr("oomguard.leaks._examine.untouched", missing)
    report = leaks.examine()
    assert "No such file" in report.unknown["mappings"]
    assert "not examined: mappings" in str(report)


class Frozen:
    def __init__(self, number, **attributes):
        self.number, self.user_attrs, self.system_attrs = number, attributes, {}


class Study:
    def __init__(self, *trials):
        self.trials = trials

    def get_trials(self, deepcopy=True):
        assert not deepcopy, "the arrays must not be copied to be measured"
        return list(self.trials)


def test_data_in_trials_is_named_by_trial_key_and_size():
    prices = np.ones(3 * MIB // 8)
    study = Study(
        Frozen(3, prices=prices, sharpe=1.5), Frozen(7, data={"tech": [np.ones(5 * MIB // 8)], "again": prices})
    )
    cause = leaks.examine(study).cause("attributes")
    assert cause is not None
    found = [(one["trial"], one["key"], one["bytes"] // MIB) for one in cause.facts["attributes"]]
    assert found == [(7, "data", 5), (3, "prices", 3)], "shared data counts once"
    assert "`data` of trial 7 holds 5.0 MB" in cause.text


def test_a_real_study_is_measured_and_small_attributes_are_none():
    optuna = pytest.importorskip("optuna", reason="a study to measure")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()

    def objective(trial):
        trial.set_user_attr("note", "x" * 1000)
        if trial.number == 1:
            trial.set_user_attr("prices", np.ones(2 * MIB // 8))
        return 0.0

    study.optimize(objective, n_trials=3)
    cause = leaks.examine(study).cause("attributes")
    assert [(one["trial"], one["key"]) for one in cause.facts["attributes"]] == [(1, "prices")]
    assert leaks.examine(Study(Frozen(0, note="short"))).cause("attributes") is None


def test_watch_says_what_a_block_left_behind_and_what_it_freed():
    history = []
    with leaks.watch() as watched:
        for _ in range(4):
            Agent(4)
            history.append(np.ones(2 * MIB // 8))
        with pytest.raises(RuntimeError, match="has not ended"):
            _ = watched.report
    living = watched.report.cause("living")
    assert [one["name"] for one in living.facts["types"]] == ["list"]
    assert 8 * MIB <= living.bytes < 9 * MIB
    assert watched.report.cause("cycles").facts["kinds"][0]["instances"] == 4
    text = str(watched.report)
    assert "living: 8.0 MB more are held by living objects than before: list" in text
    assert "count living objects" in text


def test_an_exception_passes_through_a_watch_and_the_report_is_there():
    with pytest.raises(KeyError), leaks.watch() as watched:
        raise KeyError
    assert watched.report.steps


def test_a_report_is_plain_json():
    Agent()
    report = json.loads(json.dumps(leaks.examine(Study(Frozen(1, prices=np.ones(MIB // 4)))).as_json()))
    assert {cause["kind"] for cause in report["causes"]} >= {"cycles", "attributes"}
    assert [step["name"] for step in report["steps"]][:3] == ["trim", "collect and name", "trim again"]
    assert report["resident"] > 0


def test_payload_is_the_memory_behind_and_each_memory_has_one_address(tmp_path):
    whole = np.zeros((1024, 1024))
    assert payload(whole) == payload(whole[10:20].T) == (whole.__array_interface__["data"][0], 8 * MIB)
    assert payload(bytearray(10_000))[1] == 10_000
    assert payload(array.array("d", [0.0] * 1000))[1] == 8000
    assert payload(np.zeros(10)) is payload(bytes(10)) is payload("x" * 100_000) is payload(None) is None
    assert payload(np.memmap(tmp_path / "file", np.uint8, "w+", shape=MIB)) is None, "a file's memory"
