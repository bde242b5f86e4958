"""What one look costs: at 10, 100 and 1,000 jobs, and at 1,000 and 10,000 processes of the whole machine.

    python bench/look_cost.py [--look PATH] [--processes 1000 10000] [--json]

A job is an empty cgroup leaf with everything that a guard keeps open of it. At ease a guard looks at least every 2 s
and reads each job's file cache too; at the edge it looks every millisecond. `watch` scans all processes at ease, the
rarer the dearer that is and every 10 s at most, and afresh in a shortage; they are real ones that sleep, in a memory
cgroup limited to 2 GiB (cgroup v1 or v2, root). The measuring program is `cargo build --release -p oomguard --example
look`. Bounds: looks at ease with 100 jobs, and scans beside any number of processes, take at most 0.1 % of a core.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cgroup import limited
from table import Table, arguments

COLUMNS = {
    "what": ("one look", 0),
    "count": ("of them", 0),
    "read_us": ("read and decide, us", 0),
    "each_us": ("us each", 2),
    "host_us": ("of it the host, us", 1),
    "decide_us": ("of it deciding, us", 1),
    "every_s": ("every, s", 0),
    "share": ("% of a core", 3),
}
LOOKS_EVERY_S = 2
LIMIT = 2 << 30


@contextmanager
def herd(cgroup: Path, count: int) -> Iterator[None]:
    """So many processes that sleep. They end when the pipe that all of them read is closed."""
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "herd")
        source = Path(__file__).with_name("herd.c")
        subprocess.run([os.environ.get("CC", "cc"), "-O1", "-static", "-o", program, source], check=True)
        join = ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(cgroup / "cgroup.procs"), program, str(count)]
        leader = subprocess.Popen(join, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert leader.stdin is not None
        assert leader.stdout is not None
        try:
            if leader.stdout.readline() != b"ready\n":
                raise SystemExit(f"not all of {count:,} processes could be started")
            yield
        finally:
            leader.stdin.close()
            leader.wait()
            leader.stdout.close()


def measured(argv: list[str]) -> Iterator[dict[str, float]]:
    for line in subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines():
        yield json.loads(line)


def jobs(table: Table, look: str) -> None:
    for got in measured([look, "jobs", "10", "100", "1000"]):
        count, decide = int(got["jobs"]), got["decide_ns"] / 1e3
        for what, key, every in (("jobs, at ease", "idle_ns", LOOKS_EVERY_S), ("jobs, at the edge", "edge_ns", None)):
            took = got[key] / 1e3
            share = took / every / 1e4 if every else None
            table.rows.append(
                {
                    "what": what,
                    "count": count,
                    "read_us": took,
                    "each_us": took / count,
                    "host_us": got["host_ns"] / 1e3,
                    "decide_us": decide,
                    "every_s": every,
                    "share": share,
                }
            )
            if count == 100 and share is not None:
                table.promise("100 jobs at ease take at most 0.1 % of a core", share <= 0.1)
            if count == 100 and share is None:
                table.promise("a look at the edge takes at most 1 us for each of 100 jobs", took / count <= 1)
        if count == 1000:
            table.promise("deciding takes at most 0.3 us for each of 1,000 jobs", decide / count <= 0.3)


def watch(table: Table, look: str, processes: int) -> None:
    try:
        with limited(LIMIT) as cgroup, herd(cgroup, processes):
            (got,) = measured([look, "watch", "/proc", "20"])
    except OSError as error:
        table.skip(f"{processes:,} processes: no cgroup to hold them to 2 GiB ({error})")
        return
    decide = got["decide_ns"] / 1e3
    for what, key, every in (
        ("`watch`, at ease", "again_ns", got["every_ns"] / 1e9),
        ("`watch`, in a shortage", "shortage_ns", None),
    ):
        took, count = got[key] / 1e3 + decide, int(got["processes"])
        share = took / every / 1e4 if every else None
        table.rows.append(
            {
                "what": what,
                "count": count,
                "read_us": took,
                "each_us": took / count,
                "decide_us": decide,
                "every_s": every,
                "share": share,
            }
        )
        if share is not None:
            table.promise(f"`watch` takes at most 0.1 % of a core beside {count:,} processes", share <= 0.1)


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--look", default="target/release/examples/look")
    parser.add_argument("--processes", type=int, nargs="+", default=[1_000, 10_000])
    given = parser.parse_args()
    table = Table(COLUMNS)
    look = str(Path(given.look).resolve())
    jobs(table, look)
    for processes in given.processes:
        watch(table, look, processes)
    return table.finish(given.json)


if __name__ == "__main__":
    sys.exit(main())
