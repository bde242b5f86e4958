"""`python3 tests/survival`: machines that really run out of memory, with and without oomguard.

Prints one JSON object a cell on stdout and a table on stderr at the end. Exits with 1 where a guarded cell is not `ok`,
or where the unguarded spike did not make the kernel kill (then the harness would not notice anything); with 0 and a
reason where it cannot run here, unless OOMGUARD_REQUIRE names `qemu`. README.md beside this file says how it measures.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import guest
import image
import needs
from scenarios import GUARDS, PEERS, SCENARIOS, files
from table import table
from verdict import figures, judge


def main() -> int:
    """Runs the cells that were asked for."""
    typed = arguments()
    if typed.list:
        for name, what in GUARDS.items():
            print(f"guard     {name:13} {what}")
        for name, scenario in SCENARIOS.items():
            print(f"scenario  {name:13} {scenario.note}")
        return 0
    try:
        here = needs.gather([guard for guard in typed.guards if guard in PEERS])
    except needs.Absent as reason:
        if "qemu" in re.split(r"[,\s]+", os.environ.get("OOMGUARD_REQUIRE", "")):
            print(f"survival: FAILED: {reason}", file=sys.stderr)
            return 1
        print(f"survival: SKIPPED: {reason}", file=sys.stderr)
        return 0
    cells = [
        (scenario, guard)
        for scenario in typed.scenarios
        for guard in typed.guards
        if guard in SCENARIOS[scenario].guards
    ]
    with tempfile.TemporaryDirectory(prefix="oomguard-survival-") as folder:
        disk = Path(folder) / "disk"
        image.disk(disk, typed.oomguard, here)
        machine = guest.Machine(here, image.common(here), disk, typed.wall)
        with ThreadPoolExecutor(typed.jobs) as pool:
            results = []
            for result in pool.map(lambda cell: one(machine, *cell), cells):
                results.append(result)
                told = result if typed.logs or result["verdict"] != "ok" else brief(result)
                print(json.dumps(told), flush=True)
    print(table(results), file=sys.stderr)
    wrong = [result for result in results if is_wrong(result)]
    for result in wrong:
        where = f"{result['scenario']} under {result['guard']}"
        print(f"survival: {where}: {'; '.join(result['reasons'])}", file=sys.stderr)
    print(f"survival: {len(results) - len(wrong)} of {len(results)} cells as they should be", file=sys.stderr)
    return 1 if wrong or not results else 0


def one(machine: guest.Machine, name: str, guard: str) -> dict[str, Any]:
    """One cell: boots, judges, and keeps what the guard said of itself beside it."""
    scenario, begun = SCENARIOS[name], time.monotonic()
    result: dict[str, Any] = {"scenario": name, "guard": guard}
    try:
        facts = guest.run(machine, files(scenario, guard), scenario.swap, scenario.waits_for_disk)
    except guest.Silent as console:
        result |= {"verdict": "SILENT", "reasons": ["SILENT: the guest did not answer"], "console": str(console)}
    else:
        result["verdict"], result["reasons"] = judge(facts, scenario, guard)
        result |= figures(facts)
        result |= {"facts": {key: value for key, value in facts.items() if key != "logs"}, "logs": facts["logs"]}
    return result | {"wall_s": round(time.monotonic() - begun, 1)}


def is_wrong(result: dict[str, Any]) -> bool:
    """Whether this cell fails the run. Alone, a machine has to die of a spike; other cells of `none`, and those of
    other people's guards, compare."""
    if result["guard"] in PEERS:
        return False
    if result["guard"] != "none":
        return bool(result["verdict"] != "ok")
    return bool(result["scenario"] == "spike" and result["verdict"] != "KERNEL-OOM")


def brief(result: dict[str, Any]) -> dict[str, Any]:
    """The figures alone."""
    return {key: value for key, value in result.items() if key not in ("logs", "facts")}


def arguments() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(prog="survival", description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--oomguard", type=Path, default=Path("target/release/oomguard"), help="the program under trial")
    add(
        "--scenarios",
        type=names(SCENARIOS, list(SCENARIOS)),
        default=list(SCENARIOS),
        help="comma separated; default: all",
    )
    ours = [guard for guard in GUARDS if guard not in PEERS]
    add(
        "--guards", type=names(GUARDS, ours), default=ours, help=f"comma separated; default: all but {', '.join(PEERS)}"
    )
    add("--jobs", type=int, default=1, help="guests at a time, 1 GiB each")
    add("--wall", type=float, default=180, help="seconds of this machine after which a guest is given up")
    add("--logs", action="store_true", help="facts and logs also of the cells that are ok")
    add("--list", action="store_true", help="what there is")
    return parser.parse_args()


def names(known: dict[str, Any], usual: list[str]) -> Any:
    """A comma separated choice of them; none of them is the usual."""

    def parse(text: str) -> list[str]:
        chosen = [name for name in text.split(",") if name]
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"unknown `{name}`; hint: one of {', '.join(known)}")
        return chosen or usual

    return parse


if __name__ == "__main__":
    sys.exit(main())
