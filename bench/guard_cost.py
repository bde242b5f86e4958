"""What a guard costs while nothing happens: memory and CPU of `oomguard up` with eight sleeping workers.

Run beside earlyoom where that is installed, in the same minute on the same machine, so that the ratio means something:

    python bench/guard_cost.py [--seconds 30] [--oomguard PATH]

Figures: resident, private (Pss_Anon) and locked memory from `/proc/PID/{status,smaps_rollup}`; CPU from
`/proc/PID/schedstat` (nanoseconds on a core, all threads).
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORKERS = 8
CONFIG = f"""
state_dir = "state"
[pool.idle]
command = ["sleep", "100000"]
count = {WORKERS}
"""


def cpu_ns(pid: int) -> int:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def field(text: str, name: str) -> int:
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(name + ":")), 0)


def measure(name: str, process: subprocess.Popen[bytes], seconds: float) -> dict[str, float | str]:
    time.sleep(3)  # until it has settled
    before, start = cpu_ns(process.pid), time.monotonic()
    time.sleep(seconds)
    used, elapsed = cpu_ns(process.pid) - before, time.monotonic() - start
    status = Path(f"/proc/{process.pid}/status").read_text()
    rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    return {
        "guard": name,
        "resident_kib": field(status, "VmRSS"),
        "private_kib": field(rollup, "Pss_Anon"),
        "locked_kib": field(rollup, "Locked"),
        "cpu_percent": used / 1e7 / elapsed,
    }


def end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    process.wait(20)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--oomguard", default=shutil.which("oomguard") or "target/release/oomguard")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "oomguard.toml").write_text(CONFIG)
        binary = str(Path(given.oomguard).resolve())
        guard = subprocess.Popen([binary, "up", "--quiet"], cwd=folder, env=dict(os.environ))
        try:
            rows.append(measure(f"oomguard up, {WORKERS} workers", guard, given.seconds))
        finally:
            end(guard)
    if earlyoom := shutil.which("earlyoom"):
        other = subprocess.Popen([earlyoom, "-r", "3600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            rows.append(measure("earlyoom", other, given.seconds))
        finally:
            end(other)
    else:
        print("earlyoom is not installed: no ratio", file=sys.stderr)
    print(f"| {'guard':<24} | resident KiB | private KiB | locked KiB | CPU, % of a core |")
    print("| --- | --- | --- | --- | --- |")
    for row in rows:
        print(
            f"| {row['guard']:<24} | {row['resident_kib']:>12} | {row['private_kib']:>11} | {row['locked_kib']:>10} "
            f"| {row['cpu_percent']:>16.3f} |"
        )
    ours = rows[0]
    ok = float(ours["resident_kib"]) <= 4096 and float(ours["cpu_percent"]) <= 0.1
    print(f"\nat most 4 MiB resident and 0.1 % of a core: {'yes' if ok else 'NO'}")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
