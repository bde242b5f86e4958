"""From SIGKILL until a job's memory is back, by the guard's own way of killing and by the kill alone.

    python bench/memory_back.py [--mib 1024] [--rounds 5] [--memory-back PATH] [--json]

The guard kills the cgroup and hands the main process to a helper thread for `process_mrelease`; the other way kills the
cgroup and waits. Both alternate, each victim in a cgroup limited to an eighth more than it takes. "Busy": every core
computes and the victim has nice 19, so that it hardly comes to die by itself. Medians; the measuring program is
`cargo build --release -p oomguard-sys --example memory_back`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from table import Table, arguments, median

COLUMNS = {
    "pages": ("1 GiB of", 0),
    "load": ("the machine", 0),
    "alone_ms": ("kill alone, ms", 1),
    "alone_worst_ms": ("worst", 1),
    "helped_ms": ("with process_mrelease, ms", 1),
    "helped_worst_ms": ("worst", 1),
    "ratio": ("ratio", 2),
}
PAGES = {"small": "4 KiB pages", "huge": "huge pages"}
LOADS = {"idle": "as it is", "busy": "busy, victim at nice 19"}


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-back", default="target/release/examples/memory_back")
    given = parser.parse_args()
    columns = {**COLUMNS, "pages": (f"{given.mib} MiB of", 0)}
    table = Table(columns)
    program = str(Path(given.memory_back).resolve())
    modes = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not modes.exists() or "[never]" in modes.read_text():
        table.skip("huge pages: this kernel gives none (transparent_hugepage is `never` or absent)")
        PAGES.pop("huge")
    for load, of_machine in LOADS.items():
        for pages, of_what in PAGES.items():
            argv = [program, str(given.mib), str(given.rounds), pages, load]
            got = json.loads(subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout)
            if got["failed"]:
                table.skip(f"{of_what}, {load}: process_mrelease failed {got['failed']} times")
            alone, helped = got["alone_ms"], got["helped_ms"]
            table.rows.append(
                {
                    "pages": of_what,
                    "load": of_machine,
                    "alone_ms": median(alone),
                    "alone_worst_ms": max(alone),
                    "helped_ms": median(helped),
                    "helped_worst_ms": max(helped),
                    "ratio": median(alone) / median(helped),
                }
            )
    return table.finish(given.json)


if __name__ == "__main__":
    sys.exit(main())
