"""From the witness's facts to one word, and the figures behind it. Pure: no file, no clock, no process.

Judges only by what the guest's kernel said. What oomguard says of itself is kept beside it and never believed.
"""

from __future__ import annotations

import re
from typing import Any

from scenarios import OUTSIDE, PARENT, PEERS, STEADY_PERCENT, SUITES, Scenario

STALL_MS = 100.0
# The witness looks every 5 ms, and a guard may see a shortage before it does.
EARLY_MS = 100.0
# Of what was available before: the rest belongs to whoever still lives, or sits on per-CPU lists for a while.
BACK_SHARE = 0.8
# The worst first: a cell is called by the first that holds.
WORDS = (
    "SILENT", "CANARY-DEAD", "BYSTANDER-DEAD", "KERNEL-OOM", "WRONG-VICTIM", "GUARD-DEAD", "FALSE-KILL", "CEILING",
    "MISSED", "TOO-MANY", "NOT-BACK", "STALL", "DISORDER",
)  # fmt: skip
Facts = dict[str, Any]


def judge(facts: Facts, scenario: Scenario, guard: str) -> tuple[str, list[str]]:
    """The worst word and every reason, as `WORD: what was seen`; `ok` and nothing where all is well."""
    found: list[tuple[str, str]] = []
    died = deaths(facts)
    guilty = [end for end in died if end["comm"] == "hog"]
    if not facts["canary"]["alive"]:
        found.append(("CANARY-DEAD", "the canary died"))
    if facts["bystander_alive"] is False:
        found.append(("BYSTANDER-DEAD", "the bystander died"))
    for where, line in kernel_kills(facts):
        if where == "machine":
            found.append(("KERNEL-OOM", line))
        elif where == "ceiling" and (scenario.heir or not scenario.guard_dies):
            found.append(("CEILING", line))
        elif where == "elsewhere":
            found.append(("WRONG-VICTIM", line))
    for end in died:
        if end["comm"] not in ("hog", "oomguard", "canary", "bystander", *PEERS) and end["signal"]:
            found.append(("WRONG-VICTIM", f"{end['comm']} got signal {end['signal']} at {end['ms']} ms"))
    if guard in SUITES:
        found += judge_suite(facts, scenario)
    elif guard != "none":
        found += judge_guard(facts["subject"], scenario, guard)
    found += judge_guilty(facts, scenario, guard, guilty)
    if facts["canary"]["widest_ms"] >= STALL_MS and facts["canary"]["alive"]:
        found.append(("STALL", f"the canary stood still for {facts['canary']['widest_ms']} ms"))
    if facts["kernel_lost"]:
        found.append(("DISORDER", f"{facts['kernel_lost']} lines of the kernel's log were lost"))
    found.sort(key=lambda one: WORDS.index(one[0]))
    return (found[0][0] if found else "ok"), [f"{word}: {reason}" for word, reason in found]


def judge_guilty(facts: Facts, scenario: Scenario, guard: str, guilty: list[Facts]) -> list[tuple[str, str]]:
    """Whether the jobs that had to go are gone, no others are, and their memory is back."""
    if scenario.want == "keep":
        return [("FALSE-KILL", f"a hog ended with {ending(end)} at {end['ms']} ms") for end in guilty[:1]]
    found = []
    jobs = {end["place"] for end in guilty}
    # With several guilty jobs some may stay; elsewhere nothing of the one job may.
    several = guard in ("up", *OUTSIDE) and scenario.workers > 1
    if not facts["hogs_ever"]:
        found.append(("DISORDER", "the hog never ran"))
    elif not guilty or (facts["hogs_left"] and not several):
        found.append(("MISSED", f"{facts['hogs_left']} hogs left after {facts['stopped_ms']:.0f} ms"))
    # A test file that memory has killed is run once more, in a place of its own.
    if len(jobs) > scenario.victims * (2 if guard in SUITES else 1):
        found.append(("TOO-MANY", f"{len(jobs)} jobs ended: {', '.join(sorted(jobs))}"))
    before = facts["first_kib"] - (facts["total_kib"] * STEADY_PERCENT // 100 if guard == "up" else 0)
    if guilty and not several and facts["back_kib"] < BACK_SHARE * before:
        found.append(("NOT-BACK", f"{facts['back_kib'] // 1024} of {facts['first_kib'] // 1024} MiB came back"))
    return found


def judge_guard(subject: Facts, scenario: Scenario, guard: str) -> list[tuple[str, str]]:
    """Whether the guard lived as long as it had to, and ended as it should."""
    told = f"the guard ended with {ending(subject)} at {subject['ms']} ms"
    if scenario.guard_dies:
        return [] if subject["signal"] == 9 else [("DISORDER", f"{told}, not by SIGKILL")]
    if guard in PEERS:
        return [] if subject["alive"] else [("GUARD-DEAD", f"{told}, though nobody asked it to")]
    if subject["ms"] < 0:
        return [("DISORDER", "the guard did not end within 15 s of SIGTERM")]
    if subject["signal"]:
        return [("GUARD-DEAD", told)]
    if guard == "watch":
        return [] if subject["alive"] else [("GUARD-DEAD", f"{told}, though nobody asked it to")]
    if guard == "up" and not subject["alive"]:
        return [("GUARD-DEAD", f"{told}, though a worker was left")]
    if guard != "up" and scenario.want == "end" and not subject["alive"] and subject["code"] != 137:
        return [("GUARD-DEAD" if subject["code"] in (101, 125, 134) else "DISORDER", f"{told}, not with 137")]
    if guard != "up" and scenario.want == "keep" and not subject["alive"]:
        return [("FALSE-KILL", told)]
    return []


def judge_suite(facts: Facts, scenario: Scenario) -> list[tuple[str, str]]:
    """Whether the suite came to its end, with the innocent file passed, and says so."""
    subject = facts["subject"]
    told = f"oomguard ended with {ending(subject)} at {subject['ms']} ms"
    if scenario.guard_dies:
        return [] if subject["signal"] == 9 else [("DISORDER", f"{told}, not by SIGKILL")]
    if subject["signal"]:
        return [("GUARD-DEAD", told)]
    if subject["alive"]:
        return [("DISORDER", "the suite has not come to its end")]
    ends = [end for end in facts["ends"] if end["comm"] == "steady"]
    found = [("WRONG-VICTIM", f"the innocent file ended with {ending(end)}") for end in ends if end["code"]]
    if not ends:
        found.append(("DISORDER", "the innocent file never ran to its end"))
    # What may pass does: at the second time, where it had no room at the first.
    wanted = 0 if scenario.passes else 1
    if subject["code"] != wanted:
        found.append(("GUARD-DEAD" if subject["code"] in (101, 134) else "DISORDER", f"{told}, not with {wanted}"))
    return found


def deaths(facts: Facts) -> list[Facts]:
    """Who was killed or failed before the witness itself began to end things."""
    return [end for end in facts["ends"] if end["ms"] <= facts["stopped_ms"] and (end["signal"] or end["code"])]


def ending(end: Facts) -> str:
    """How a process ended, in words."""
    return f"signal {end['signal']}" if end["signal"] else f"code {end['code']}"


def kernel_kills(facts: Facts) -> list[tuple[str, str]]:
    """Each of the kernel's own kills: `machine`, `ceiling` (around all jobs), `job` (its own limit) or `elsewhere`."""
    return [(place_of(line), line) for line in facts["kernel"]]


def place_of(line: str) -> str:
    """Whose limit was reached when the kernel killed."""
    where = re.search(r"oom_memcg=([^,]*)", line)
    if "CONSTRAINT_MEMCG" not in line or not where:
        return "machine"
    if where[1] == PARENT:
        return "ceiling"
    return "job" if re.fullmatch(re.escape(PARENT) + r"/[^/]+", where[1]) else "elsewhere"


def figures(facts: Facts) -> Facts:
    """The numbers that are worth a column. Milliseconds and MiB of the guest."""
    guilty = [end for end in deaths(facts) if end["comm"] == "hog"]
    dip = facts["dips"][0] if facts["dips"] else None
    signal = facts["signal"]
    # One that was over before it came to that says nothing of a later shortage.
    if dip and signal and signal["ms"] < dip["from_ms"] - EARLY_MS:
        signal = None
    return {
        "stall_ms": facts["canary"]["widest_ms"],
        "least_mib": facts["least_kib"] // 1024,
        # From the reserve to the turning point: when memory last fell by a further MiB.
        "turned_ms": round(dip["turned_ms"] - dip["from_ms"], 1) if dip else None,
        # From the reserve to the first SIGTERM or SIGKILL that a guilty process got from anybody.
        "signal_ms": round(signal["ms"] - dip["from_ms"], 1) if dip and signal else None,
        "back_mib": facts["back_kib"] // 1024,
        "jobs_ended": len({end["place"] for end in guilty}),
        "dips": len(facts["dips"]),
        "kernel": [place for place, _ in kernel_kills(facts)],
        "guard_rss_mib": round(facts["subject"]["rss_kib"] / 1024, 1),
        # Address space that is to stay in RAM, and what of it is there.
        "guard_locked_mib": round(facts["subject"]["locked_kib"] / 1024, 1),
        "guard_pinned_mib": round(facts["subject"]["pinned_kib"] / 1024, 1),
    }
