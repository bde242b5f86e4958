"""What a guest sees: an initramfs in two parts (one for all cells, one for this cell) and a disk with the program.

Writes only the files that it is told to. `cpio` needs no privilege: modes and owners are ours to say.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from needs import HERE, Absent, Needs, output

FOLDER, PROGRAM, FILE, LINK = 0o40755, 0o100755, 0o100644, 0o120777
DISK_BYTES = 1 << 30
BALLAST_BYTES = 16 << 20

Entries = dict[str, tuple[int, bytes]]


def cpio(entries: Entries) -> bytes:
    """A `newc` archive of {path: (mode, content)}; folders have to come before what is in them."""
    out = bytearray()
    for number, (path, (mode, content)) in enumerate([*entries.items(), ("TRAILER!!!", (0, b""))], start=1):
        name = path.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
        out += b"070701" + b"".join(b"%08x" % field for field in fields) + name
        out += bytes(-len(out) % 4) + content
        out += bytes(-len(out) % 4)
    return bytes(out)


def common(needs: Needs) -> bytes:
    """The part that is the same for all cells."""
    folders = ("bin", "dev", "proc", "sys", "modules", "disk", "lib", "lib64")
    entries: Entries = {folder: (FOLDER, b"") for folder in folders if not folder.startswith("lib")}
    entries["init"] = (PROGRAM, (HERE / "guest/init").read_bytes())
    entries["bin/busybox"] = (PROGRAM, needs.busybox.read_bytes())
    entries["bin/witness"] = (PROGRAM, needs.witness.read_bytes())
    for name in ("canary", "bystander"):
        entries[f"bin/{name}"] = (LINK, b"witness")
    # On the disk, where a machine short of memory has to read them again.
    for name in ("hog", "steady", "oomguard", *needs.peers):
        entries[f"bin/{name}"] = (LINK, f"/disk/bin/{name}".encode())
    for name in ("lib", "lib64"):
        entries[name] = (LINK, f"/disk/{name}".encode())
    for driver in needs.drivers:
        entries[f"modules/{driver.name}"] = (FILE, driver.read_bytes())
    entries["modules/order"] = (FILE, "\n".join(driver.name for driver in needs.drivers).encode())
    return cpio(entries)


def cell(files: dict[str, str]) -> bytes:
    """The part of one cell: text files below `/cell`, in folders of one level."""
    entries: Entries = {"cell": (FOLDER, b"")}
    entries |= {f"cell/{name.partition('/')[0]}": (FOLDER, b"") for name in files if "/" in name}
    entries |= {f"cell/{name}": (PROGRAM, text.encode()) for name, text in files.items()}
    return cpio(entries)


def libraries(program: Path) -> list[Path]:
    """The shared libraries of a program and its loader; none where it is static."""
    try:
        listed = output("ldd", str(program))
    except Absent:
        return []
    return [Path(path) for path in re.findall(r"(/\S+) \(0x", listed)]


def disk(path: Path, program: Path, needs: Needs) -> None:
    """An ext4 image with the program under trial, the workloads, and a file for the canary to read. Sparse."""
    root = path.with_suffix(".root")
    (root / "bin").mkdir(parents=True)
    shutil.copy(program, root / "bin/oomguard")
    shutil.copy(needs.hog, root / "bin/hog")
    shutil.copy(needs.hog, root / "bin/steady")
    for name, peer in needs.peers.items():
        shutil.copy(peer, root / "bin" / name)
    for library in {library for one in (program, *needs.peers.values()) for library in libraries(one)}:
        # Merged `/usr`: the initramfs links `/lib64` and `/lib` to the disk.
        target = root / str(library).removeprefix("/usr").lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library.resolve(), target)
    (root / "ballast").write_bytes(bytes(range(1, 256)) * (BALLAST_BYTES // 255))
    with open(path, "wb") as image:
        image.truncate(DISK_BYTES)
    output("mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-d", str(root), str(path))
    shutil.rmtree(root)
