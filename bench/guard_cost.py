"""What guards cost: memory and CPU while nothing happens, and while something does.

    python bench/guard_cost.py [--seconds 30] [--oomguard PATH] [--json]

All are there at once, so that what disturbs the machine disturbs all of them alike. First everybody is idle: `run`
and `test` over one command that waits, `up` over eight sleeping workers, `watch` in its dry run, earlyoom, nohang and
systemd-oomd, which are taken from their Debian packages where they are not installed (`peers.py`).
Then one thing happens to each: of the workers of `up` one grows at 100 MiB/s into its limit of 128 MiB, again and
again; for `watch` and earlyoom, both dry, the thresholds are above what is available, so that the machine counts as
short all the time. nohang and systemd-oomd can be told no such thing.

Resident, private (Pss_Anon) and locked memory are from `/proc/PID/{status,smaps_rollup}`; CPU is from
`/proc/PID/task/*/schedstat` (nanoseconds on a core), that of helper processes of the same program included. Bounds:
each oomguard locks at most 4 MiB and takes at most 0.1 % of a core at idle.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import peers
from table import Table, arguments

WORKERS = 8
LIMIT_MIB = 128
EVENT_S = 10.0
COLUMNS = {
    "guard": ("guard", 0),
    "when": ("when", 0),
    "resident_kib": ("resident KiB", 0),
    "private_kib": ("private KiB", 0),
    "locked_kib": ("locked KiB", 0),
    "cpu_percent": ("CPU, % of a core", 3),
}
SLEEP = ["sleep", "100000"]
# Grows at 100 MiB/s, each page touched, and never beyond twice the limit.
GROW = f"""
import time
held, begun = [], time.monotonic()
while len(held) < {2 * LIMIT_MIB}:
    while len(held) < (time.monotonic() - begun) * 100:
        held.append(b"1" * (1 << 20))
    time.sleep(0.01)
time.sleep(100000)
"""


def pool(command: list[str], count: int, extra: str = "") -> str:
    return f'state_dir = "state"\n[pool.all]\ncommand = {command!r}\ncount = {count}\n{extra}'


def field(text: str, name: str) -> int:
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(name + ":")), 0)


class Guard:
    """One that runs, with helper processes of the same program."""

    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.process = process
        self.pids = [process.pid]

    def find_helpers(self) -> None:
        program = os.readlink(f"/proc/{self.process.pid}/exe")
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        children = [pid for task in tasks for pid in (task / "children").read_text().split()]
        self.pids = [self.process.pid, *(int(pid) for pid in children if self.runs(pid, program))]

    @staticmethod
    def runs(pid: str, program: str) -> bool:
        try:
            return os.readlink(f"/proc/{pid}/exe") == program
        except OSError:
            return False

    def cpu_ns(self) -> int:
        tasks = (task for pid in self.pids for task in Path(f"/proc/{pid}/task").iterdir())
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)

    def memory(self) -> dict[str, float]:
        total = {"resident_kib": 0.0, "private_kib": 0.0, "locked_kib": 0.0}
        for pid in self.pids:
            status = Path(f"/proc/{pid}/status").read_text()
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total["resident_kib"] += field(status, "VmRSS")
            total["private_kib"] += field(rollup, "Pss_Anon")
            total["locked_kib"] += field(rollup, "Locked")
        return total


@contextmanager
def started(name: str, argv: list[str], folder: Path) -> Iterator[Guard]:
    """In a folder of its own; told to end afterwards, twice if need be.

    An oomguard is a copy of the program: pages shared with its neighbours here would be counted in parts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if Path(argv[0]).name == "oomguard":
        argv = [shutil.copy(argv[0], str(folder / "oomguard")), *argv[1:]]
    quiet = subprocess.DEVNULL
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(argv, cwd=folder, stdin=quiet, stdout=quiet, stderr=said)
    try:
        yield Guard(name, process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            process.wait(15)


def measure(table: Table, guards: list[Guard], when: dict[str, str], seconds: float) -> None:
    """A row for each, over the same seconds."""
    for guard in guards:
        if guard.process.poll() is not None:
            raise SystemExit(f"`{guard.name}` has ended with {guard.process.returncode} before it was measured")
        guard.find_helpers()
    before = [(guard.cpu_ns(), time.monotonic()) for guard in guards]
    time.sleep(seconds)
    for guard, (cpu, since) in zip(guards, before, strict=True):
        share = (guard.cpu_ns() - cpu) / 1e7 / (time.monotonic() - since)
        table.rows.append({"guard": guard.name, "when": when[guard.name], **guard.memory(), "cpu_percent": share})


def idle(table: Table, oomguard: str, others: dict[str, list[str]], folder: Path, seconds: float) -> None:
    (folder / "up").mkdir()
    (folder / "up" / "oomguard.toml").write_text(pool(SLEEP, WORKERS))
    (folder / "test").mkdir()
    (folder / "test" / "test_nothing.py").touch()
    ours = {
        "oomguard run": [oomguard, "run", "-m", "1GiB", "--", *SLEEP],
        f"oomguard up, {WORKERS} workers": [oomguard, "up", "--quiet"],
        "oomguard watch": [oomguard, "watch"],
        "oomguard test": [oomguard, "test", "--command", "tail -f {file}", "test_nothing.py"],
    }
    places = dict(zip(ours, ("run", "up", "watch", "test"), strict=True))
    with ExitStack() as stack:
        guards = [
            stack.enter_context(started(name, argv, folder / places.get(name, name)))
            for name, argv in {**ours, **others}.items()
        ]
        time.sleep(5)  # until all have settled
        measure(table, guards, dict.fromkeys([*ours, *others], "idle"), seconds)
    for row in table.rows:
        if row["guard"] in ours:
            locked, cpu = row["locked_kib"], row["cpu_percent"]
            assert isinstance(locked, float)
            assert isinstance(cpu, float)
            table.promise(f"{row['guard']}: at most 4 MiB locked and 0.1 % of a core", locked <= 4096 and cpu <= 0.1)


def available_kib() -> int:
    return field(Path("/proc/meminfo").read_text(), "MemAvailable")


def event(table: Table, oomguard: str, earlyoom: str | None, folder: Path) -> None:
    (folder / "grow.py").write_text(GROW)
    grow = [sys.executable, str(folder / "grow.py")]
    (folder / "hog").mkdir()
    (folder / "hog" / "oomguard.toml").write_text(
        pool(SLEEP, WORKERS - 1)
        + f'[pool.grows]\ncommand = {grow!r}\ncount = 1\nmemory_limit = "{LIMIT_MIB}MiB"\ngrace = "1s"\n'
    )
    short = available_kib() + (2 << 20)
    total = field(Path("/proc/meminfo").read_text(), "MemTotal")
    short = min(short, total - (64 << 10))
    guards = {
        f"oomguard up, {WORKERS} workers": [oomguard, "up", "--quiet"],
        "oomguard watch": [oomguard, "watch", "--reserve", f"{short}KiB", "--warning", f"{short}KiB"],
    }
    when = dict(zip(guards, ("one grows into its limit, again and again", "short all the time (dry run)"), strict=True))
    if earlyoom:
        guards["earlyoom"] = [earlyoom, "--dryrun", "-r", "3600", "-M", str(short), "-s", "100"]
        when["earlyoom"] = "short all the time (dry run)"
    places = ("hog", "short", "earlyoom-short")
    with ExitStack() as stack:
        running = [
            stack.enter_context(started(name, argv, folder / place))
            for (name, argv), place in zip(guards.items(), places, strict=False)
        ]
        time.sleep(0.5)
        measure(table, running, when, EVENT_S)


def others(table: Table) -> dict[str, list[str]]:
    """Other people's guards, as far as they can be started here; of the others, why not."""
    found: dict[str, list[str]] = {}
    for name in peers.PROGRAMS:
        try:
            program = peers.find(name)
            argv = [str(program), *more(name, program)]
            peers.must_stay(argv)
            found[name] = argv
        except peers.Absent as why:
            table.skip(f"{name}: {why}")
    return found


def more(name: str, program: Path) -> list[str]:
    """What it is started with."""
    if name == "earlyoom":
        return ["-r", "3600"]
    if name == "nohang":
        own = program.resolve().parents[2] / "etc/nohang/nohang.conf"
        return ["--monitor", "--config", str(own if own.exists() else Path("/etc/nohang/nohang.conf"))]
    return ["--dry-run"]


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--oomguard", default=shutil.which("oomguard") or "target/release/oomguard")
    given = parser.parse_args()
    table = Table(COLUMNS)
    oomguard = str(Path(given.oomguard).resolve())
    there = others(table)
    with tempfile.TemporaryDirectory() as folder:
        idle(table, oomguard, there, Path(folder), given.seconds)
        event(table, oomguard, there.get("earlyoom", [None])[0], Path(folder))
    return table.finish(given.json)


if __name__ == "__main__":
    sys.exit(main())
