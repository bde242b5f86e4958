"""What the verdicts are made of: each word has facts that earn it, and the good run beside them earns none."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from image import cpio
from scenarios import GUARDS, OUTSIDE, SCENARIOS, STEADY_MS, SUITES, files, suite
from table import table
from verdict import figures, judge

LEAF = "/oomguard-test-survival/run-103"
OWN_LIMIT = f"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),oom_memcg={LEAF},task_memcg={LEAF},task=hog,pid=106"
CEILING = OWN_LIMIT.replace(f"oom_memcg={LEAF}", "oom_memcg=/oomguard-test-survival")
MACHINE = "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),global_oom,task_memcg=/guard,task=hog,pid=103,uid=0"
STRANGER = OWN_LIMIT.replace(f"oom_memcg={LEAF}", "oom_memcg=/people")


def end(comm: str, ms: float = 1551.2, place: str = LEAF, signal: int = 9, code: int = 0) -> dict[str, Any]:
    return {"ms": ms, "pid": 106, "signal": signal, "code": code, "comm": comm, "place": place}


# As a guest said it: `run` at its limit.
GOOD: dict[str, Any] = {
    "total_kib": 996600, "first_kib": 887932, "least_kib": 286116, "least_ms": 1146.3, "back_kib": 833728,
    "stopped_ms": 3058.1, "canary": {"alive": True, "widest_ms": 15.3, "before_ms": 10.7, "beats": 392},
    "bystander_alive": None, "hogs_ever": 1, "hogs_left": 0, "witness_late_ms": 6.9,
    "subject": {
        "alive": False, "ms": 1556.4, "signal": 0, "code": 137, "rss_kib": 7012, "locked_kib": 4572, "pinned_kib": 1920
    },
    "ends_lost": 0, "ends": [end("oomguard", 41.3, "/guard", 0), end("hog"), end("oomguard", 1556.4, "/guard", 0, 137)],
    "kernel_lost": 0, "kernel": [OWN_LIMIT], "dips": [], "signal": {"ms": 17.5, "number": 9, "from": "oomguard"},
}  # fmt: skip


def words(scenario: str = "spike", guard: str = "run", **changes: Any) -> set[str]:
    """The words that the good run earns with these facts changed; `a__b` is `facts["a"]["b"]`."""
    facts = copy.deepcopy(GOOD)
    for key, value in changes.items():
        outer, _, inner = key.partition("__")
        if inner:
            facts[outer][inner] = value
        else:
            facts[outer] = value
    verdict, reasons = judge(facts, SCENARIOS[scenario], guard)
    found = {reason.partition(":")[0] for reason in reasons}
    assert verdict == "ok" if not found else verdict in found
    return found


def test_a_job_that_ends_at_its_own_limit_is_well() -> None:
    assert words() == set()


@pytest.mark.parametrize(
    ("word", "changes"),
    [
        ("CANARY-DEAD", {"canary__alive": False}),
        ("BYSTANDER-DEAD", {"bystander_alive": False}),
        ("KERNEL-OOM", {"kernel": [MACHINE]}),
        ("CEILING", {"kernel": [CEILING]}),
        ("WRONG-VICTIM", {"kernel": [STRANGER]}),
        ("WRONG-VICTIM", {"ends": [end("hog"), end("steady")]}),
        ("GUARD-DEAD", {"subject__signal": 9}),
        ("GUARD-DEAD", {"subject__code": 125}),
        ("GUARD-DEAD", {"guard": "up"}),
        ("GUARD-DEAD", {"guard": "watch"}),
        ("MISSED", {"hogs_left": 1}),
        ("MISSED", {"ends": []}),
        ("TOO-MANY", {"ends": [end("hog"), end("hog", place=LEAF + "-2")]}),
        ("NOT-BACK", {"back_kib": 300000}),
        ("STALL", {"canary__widest_ms": 100.0}),
        ("DISORDER", {"subject__code": 0}),
        ("DISORDER", {"subject__ms": -1.0}),
        ("DISORDER", {"hogs_ever": 0}),
        ("DISORDER", {"kernel_lost": 1}),
    ],
)
def test_what_must_not_happen_has_a_word(word: str, changes: dict[str, Any]) -> None:
    assert words(**changes) == {word}


def test_under_file_cache_pressure_any_end_is_a_false_kill() -> None:
    assert words("page-cache") == {"FALSE-KILL"}
    assert words("page-cache", ends=[], hogs_left=1, subject__alive=True, subject__code=143) == set()


def test_a_guard_that_is_killed_on_purpose_leaves_the_ceiling_to_the_kernel() -> None:
    assert words("guard-killed", "reserve", kernel=[CEILING], subject__signal=9) == set()
    assert words("guard-killed", "reserve", kernel=[MACHINE], subject__signal=9) == {"KERNEL-OOM"}
    assert words("guard-killed", "reserve", kernel=[CEILING]) == {"DISORDER"}
    # Who takes over takes that over, too.
    assert words("guard-replaced", "up", kernel=[CEILING], subject__signal=9) == {"CEILING"}


def test_who_ends_after_the_witness_has_stopped_is_nobodys_victim() -> None:
    late = end("steady", ms=GOOD["stopped_ms"] + 1)
    assert words(ends=[*GOOD["ends"], late]) == set()


def test_of_several_jobs_under_up_one_goes_and_the_others_stay() -> None:
    one_gone = {"hogs_left": 2, "subject__alive": True, "subject__code": 0, "back_kib": 130000}
    assert words("several", "up", **one_gone) == set()
    assert words("several", "up", **one_gone, ends=[end("hog"), end("hog", place=LEAF + "-2")]) == {"TOO-MANY"}
    assert words("several", "up", **one_gone, ends=[]) == {"MISSED"}


# Of a suite with a guilty file, and an innocent one that passes.
SUITE: dict[str, Any] = {
    "subject__code": 1,
    "ends": [end("hog"), end("steady", 2900, LEAF + "-2", 0), end("oomguard", 3000, "/guard", 0, 1)],
}


@pytest.mark.parametrize("guard", SUITES)
def test_of_a_suite_the_guilty_file_goes_and_the_innocent_one_passes(guard: str) -> None:
    def found(scenario: str = "spike", **changes: Any) -> set[str]:
        return words(scenario, guard, **{**SUITE, **changes})

    assert found() == set()
    assert found(subject__code=0) == {"DISORDER"}
    assert found(subject__code=137) == {"DISORDER"}
    assert found(subject__code=101) == {"GUARD-DEAD"}
    assert found(subject__signal=9) == {"GUARD-DEAD"}
    assert found(subject__alive=True) == {"DISORDER"}
    assert found(ends=SUITE["ends"][:1]) == {"DISORDER"}
    failed = end("steady", 2900, LEAF + "-2", 0, 12)
    assert found(ends=[SUITE["ends"][0], failed]) == {"WRONG-VICTIM"}
    # Once more, alone, in whatever place is free; not a third time.
    again = [*SUITE["ends"], end("hog", 2800, LEAF + "-2")]
    assert found(ends=again) == set()
    assert found(ends=[*again, end("hog", 2950, LEAF + "-3")]) == {"TOO-MANY"}
    # What may pass does, the one that had no room at first too.
    assert found("several", subject__code=0) == set()
    assert found("several") == {"DISORDER"}
    assert found("page-cache", subject__code=0, ends=SUITE["ends"][1:]) == set()
    assert found("page-cache", subject__code=0) == {"FALSE-KILL"}
    # Nobody asks for an exit code where the guard was killed.
    assert found("kept", subject__signal=9, ends=[end("hog")]) == set()
    assert found("kept", subject__signal=9, ends=[end("hog")], hogs_left=2) == {"MISSED"}
    assert found("kept", subject__signal=0, ends=[end("hog")]) == {"DISORDER"}


def test_the_innocent_file_is_there_while_the_machine_runs_short() -> None:
    for scenario in SCENARIOS.values():
        tests = suite(scenario)
        assert len(tests) == scenario.workers + (not scenario.guard_dies)
        assert all(text.startswith("test -e /run/again || exit 0\nexec /bin/") for text in tests.values())
        assert scenario.guard_dies or f" -e {STEADY_MS} " in tests["innocent"]


def test_the_table_has_a_cell_for_every_result() -> None:
    dip = {"from_ms": 10.0, "to_ms": 90.0, "least_ms": 16.0, "turned_ms": 15.0, "least_kib": 1024}
    results = [
        {"scenario": "spike", "guard": "run", "verdict": "ok"} | figures(GOOD),
        {"scenario": "spike", "guard": "up", "verdict": "STALL"} | figures(GOOD | {"dips": [dip]}),
        {"scenario": "leak", "guard": "up", "verdict": "SILENT"},
    ]
    assert table(results).splitlines()[2:] == [
        "| spike | ok 15/279/-/- | STALL 15/279/8/5 |",
        "| leak |  | SILENT |",
    ]


def test_a_signal_is_told_with_the_crossing_that_it_came_after_and_with_no_later_one() -> None:
    dip = {"from_ms": 1000.0, "to_ms": 1100.0, "least_ms": 1016.0, "turned_ms": 1015.0, "least_kib": 1024}

    def signal_ms(at: float) -> object:
        return figures(GOOD | {"dips": [dip], "signal": {"ms": at, "number": 9, "from": "oomguard"}})["signal_ms"]

    assert (signal_ms(1012), signal_ms(998), signal_ms(17)) == (12, -2, None)


def test_every_cell_has_a_plan_without_holes() -> None:
    for scenario in SCENARIOS.values():
        for guard in scenario.guards:
            assert guard in GUARDS
            plan = files(scenario, guard)["plan"]
            # Only the place of the file in the command of a suite.
            assert "{" not in plan.replace("{file}", "")
            assert ("{file}" in plan) == (guard in SUITES)
            plain = max(scenario.workers, 1) if guard in OUTSIDE else 0
            assert plan.count("\nat ") == len(scenario.acts) + plain


def test_the_archive_reads_back() -> None:
    entries = {"a": (0o40755, b""), "a/b": (0o100644, b"text"), "a/c": (0o120777, b"/disk/bin/c")}
    archive, at, read = cpio(entries), 0, {}
    while True:
        assert archive[at : at + 6] == b"070701"
        field = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name = archive[at + 110 : at + 110 + field[11] - 1].decode()
        content = at + 110 + field[11] + -(at + 110 + field[11]) % 4
        if name == "TRAILER!!!":
            break
        read[name] = (field[1], archive[content : content + field[6]])
        at = content + field[6] + -(content + field[6]) % 4
    assert read == entries
