"""What `oomguard run` adds to a command that does nothing, against others that start one command under a limit.

    python bench/spawn_cost.py [--rounds 60] [--oomguard PATH] [--json]

Each round starts every way once, each time in another order, so that a busy moment meets all of them. Wall time is from
the start to the reaped end, CPU is that of the launcher and of all it has waited for; medians.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from cgroup import limited
from table import Table, arguments, median

COLUMNS = {
    "way": ("`true`, started by", 0),
    "wall_ms": ("wall, ms", 2),
    "cpu_ms": ("CPU, ms", 2),
    "over_bare": ("wall over bare, ms", 2),
}


# Whoever joins a cgroup waits for one of the kernel's grace periods, and makes it cheap for who follows at once.
PAUSE_S = 0.05


def ways(oomguard: str, true: str) -> dict[str, list[str]]:
    run = [oomguard, "run"]
    return {
        "fork and exec": [true],
        "timeout 10": ["timeout", "10", true],
        "prlimit --data=1073741824": ["prlimit", "--data=1073741824", true],
        "systemd-run --scope": ["systemd-run", "--quiet", "--scope", "-p", "MemoryMax=1G", true],
        "oomguard run": [*run, "--", true],
        "oomguard run -m 1GiB": [*run, "-m", "1GiB", "--", true],
    }


def start(argv: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of one start."""
    begun = time.perf_counter()
    pid = os.posix_spawn(argv[0], argv, os.environ)
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - begun
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"`{' '.join(argv)}` ended with {os.waitstatus_to_exitcode(status)}")
    return wall, usage.ru_utime + usage.ru_stime


def works(argv: list[str]) -> str | None:
    """Why a way is not there, in its own words."""
    tried = subprocess.run(argv, capture_output=True, text=True, check=False)
    said = tried.stderr.strip().splitlines() or [f"exit code {tried.returncode}"]
    return None if tried.returncode == 0 else said[0]


def there(ways: dict[str, list[str]], table: Table) -> dict[str, list[str]]:
    """Those that work here; of the others, why not."""
    commands: dict[str, list[str]] = {}
    for way, argv in ways.items():
        found = shutil.which(argv[0])
        why = works([found, *argv[1:]]) if found else "it is not installed"
        if found and why is None:
            commands[way] = [found, *argv[1:]]
        else:
            table.skip(f"{way}: {why}")
    return commands


def compare(commands: dict[str, list[str]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    taken: dict[str, list[tuple[float, float]]] = {way: [] for way in commands}
    order, shuffle = list(commands), random.Random(1).shuffle
    for _ in range(rounds):
        shuffle(order)
        for way in order:
            time.sleep(PAUSE_S)
            taken[way].append(start(commands[way]))
    return taken


def joining(stack: ExitStack, true: str, table: Table) -> dict[str, list[str]]:
    """A shell that moves itself into a cgroup and becomes the command: the least that any launcher into one does."""
    try:
        cgroup = stack.enter_context(limited(1 << 30))
    except OSError as error:
        table.skip(f"a shell that joins a cgroup: {error}")
        return {}
    return {"sh, joining a cgroup": ["sh", "-c", 'echo $$ >"$0" && exec "$1"', str(cgroup / "cgroup.procs"), true]}


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--oomguard", default=shutil.which("oomguard") or "target/release/oomguard")
    given = parser.parse_args()
    table = Table(COLUMNS)
    true = shutil.which("true") or "/bin/true"
    with ExitStack() as stack:
        all_ways = ways(str(Path(given.oomguard).resolve()), true) | joining(stack, true, table)
        taken = compare(there(all_ways, table), given.rounds)
    bare = median([wall for wall, _ in taken["fork and exec"]])
    for way, times in taken.items():
        wall, cpu = median([wall for wall, _ in times]), median([cpu for _, cpu in times])
        over = wall - bare
        table.rows.append({"way": way, "wall_ms": wall * 1e3, "cpu_ms": cpu * 1e3, "over_bare": over * 1e3})
    return table.finish(given.json)


if __name__ == "__main__":
    sys.exit(main())
