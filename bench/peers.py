"""Other people's guards, as Debian has them: those that are installed, else unpacked from their packages.

A package is downloaded once into `$XDG_CACHE_HOME/oomguard-bench`, which `OOMGUARD_BENCH_CACHE` moves; nothing is
installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

# Where each has its program below the root of its package.
PROGRAMS = {"earlyoom": "usr/bin/earlyoom", "nohang": "usr/sbin/nohang", "systemd-oomd": "lib/systemd/systemd-oomd"}
# What ends by itself for want of something has done so by then.
SETTLED_S = 1.0


class Absent(Exception):
    """It cannot be measured here; the text says why."""


def find(name: str) -> Path:
    """Its program. Raises `Absent`."""
    installed = shutil.which(name) or f"/{PROGRAMS[name]}"
    if Path(installed).exists():
        return Path(installed)
    unpacked = cache() / name
    if not unpacked.exists():
        fetch(name, unpacked)
    program = unpacked / PROGRAMS[name]
    if not program.exists():
        raise Absent(f"its package has no `{PROGRAMS[name]}`")
    return program


def cache() -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get("OOMGUARD_BENCH_CACHE") or home / "oomguard-bench")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def fetch(name: str, unpacked: Path) -> None:
    """Its package, unpacked; half of one is never there."""
    for command in ("apt-get", "dpkg-deb"):
        if not shutil.which(command):
            raise Absent(f"it is not installed, and there is no `{command}` to get it with")
    with tempfile.TemporaryDirectory(dir=unpacked.parent) as folder:
        got = subprocess.run(
            ["apt-get", "-q", "download", name], cwd=folder, capture_output=True, text=True, check=False
        )
        packages = list(Path(folder).glob("*.deb"))
        if not packages:
            raise Absent(f"it is not installed, and apt does not have it: {last_line(got.stderr)}")
        subprocess.run(["dpkg-deb", "-x", str(packages[0]), str(Path(folder) / "root")], check=True)
        (Path(folder) / "root").rename(unpacked)


def must_stay(argv: list[str]) -> None:
    """Starts it once for a moment. Raises `Absent` with what it says where it ends by itself."""
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    end = time.monotonic() + SETTLED_S
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    stayed = process.poll() is None
    process.terminate()
    _, said = process.communicate()
    if not stayed:
        raise Absent(last_line(said.decode(errors="replace")) or f"it ends with {process.returncode}")


def last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]
