"""What the guest boots from: a Debian kernel, its disk driver, a static busybox, and the two programs of `guest/`.

Downloads two Debian packages with apt into the cache, once, and unpacks them there; compiles with gcc. Installs nothing
and touches nothing outside the cache. `OOMGUARD_SURVIVAL_CACHE` moves it from `$XDG_CACHE_HOME/oomguard-survival`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The smallest of Debian's stock kernels: ext4, PSI, process events and cgroup v2 are built in, the disk is a module.
KERNEL = "linux-image-cloud-amd64"
DRIVERS = ("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk")
COMMANDS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mke2fs": "e2fsprogs",
    "gcc": "gcc and libc6-dev",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "ldd": "libc-bin",
}


class Absent(Exception):
    """Something that the harness needs is not here; the text says what, and what would help."""


@dataclass(frozen=True)
class Needs:
    """Files that are the same for every cell."""

    kernel: Path
    drivers: list[Path]
    busybox: Path
    hog: Path
    witness: Path
    name: str
    # Guards that others wrote, by name.
    peers: dict[str, Path]


def cache() -> Path:
    """The folder of what was downloaded and compiled; made if it is missing."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get("OOMGUARD_SURVIVAL_CACHE") or home / "oomguard-survival")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def gather(peers: list[str]) -> Needs:
    """Everything, and those peers, fetched or built where it is missing. Raises `Absent`."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    for command, package in COMMANDS.items():
        if not shutil.which(command, path=path):
            raise Absent(f"`{command}` is not here; hint: install {package}")
    folder = cache()
    if not (folder / "kernel").exists():
        fetch(folder)
    # In the order in which they must be loaded; one that the kernel has built in is not there.
    drivers = [folder / f"{driver}.ko" for driver in DRIVERS if (folder / f"{driver}.ko").exists()]
    hog, witness = build(folder, "hog"), build(folder, "witness")
    name, others = (folder / "name").read_text(), {peer: fetch_peer(folder, peer) for peer in peers}
    return Needs(folder / "kernel", drivers, folder / "busybox", hog, witness, name, others)


def fetch(folder: Path) -> None:
    """Debian's kernel and busybox, unpacked. The kernel is renamed last, so that half a download does not count."""
    found = re.search(r"Depends: (linux-image-\d\S+)", output("apt-cache", "depends", KERNEL))
    if not found:
        raise Absent(f"apt knows no `{KERNEL}`; hint: `apt-get update`, with Debian's main archive in the sources")
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        output("apt-get", "-q", "download", found[1], "busybox-static", cwd=work)
        for package in work.glob("*.deb"):
            output("dpkg-deb", "-x", str(package), str(work / "root"))
        for driver in DRIVERS:
            for file in work.glob(f"root/**/kernel/**/{driver}.ko"):
                shutil.copy(file, folder)
        shutil.copy(next(work.glob("root/**/bin/busybox")), folder / "busybox")
        (folder / "name").write_text(found[1])
        shutil.copy(next(work.glob("root/boot/vmlinuz-*")), work / "kernel")
        (work / "kernel").rename(folder / "kernel")


def fetch_peer(folder: Path, name: str) -> Path:
    """A guard that somebody else wrote, from the Debian package of its name."""
    if not (folder / name).exists():
        with tempfile.TemporaryDirectory(dir=folder) as work:
            output("apt-get", "-q", "download", name, cwd=Path(work))
            for package in Path(work).glob("*.deb"):
                output("dpkg-deb", "-x", str(package), work)
            shutil.copy(next(Path(work).glob(f"**/bin/{name}")), Path(work) / "program")
            (Path(work) / "program").rename(folder / name)
    return folder / name


def build(folder: Path, name: str) -> Path:
    """A static program of `guest/`, compiled again when its source is newer."""
    source, program = HERE / "guest" / f"{name}.c", folder / name
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        output("gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o", str(program), str(source))
    return program


def output(*command: str, cwd: Path | None = None) -> str:
    """What a command printed. Raises `Absent` with its last line where it fails."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Absent(f"`{' '.join(command)}` failed: {last}")
    return done.stdout
