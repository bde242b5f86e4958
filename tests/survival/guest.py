"""One guest: QEMU boots, the witness answers on the second serial port, the machine switches itself off.

The guest's clock counts its own instructions (2 ns each) and jumps to the next timer where it has nothing to do, so a
busy host makes a run take longer and changes nothing that it measures. A disk answers in this machine's time, so a
cell that waits for disks idles in this machine's time, too, and sees its load.

One CPU, no network, disks that forget. Takes the guest's memory and some 100 MiB of this machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from image import cell
from needs import Needs

MEMORY_MIB = 1024
# Cheaper to emulate without; they make no difference to memory.
CPU = "max,erms=off,fsrm=off,la57=off,smap=off,smep=off,pku=off"
APPEND = (
    "console=ttyS0 quiet loglevel=3 panic=-1 psi=1 mitigations=off nokaslr audit=0 apparmor=0 "
    "tsc=reliable no_timer_check cgroup_no_v1=all"
)


@dataclass(frozen=True)
class Machine:
    """What every cell starts from."""

    needs: Needs
    initramfs: bytes
    disk: Path
    wall_s: float


class Silent(Exception):
    """The guest gave no answer: it hung, or died. The text is the end of its console."""


def run(machine: Machine, files: dict[str, str], swap_mib: int, waits_for_disk: bool) -> dict[str, Any]:
    """Boots one cell and returns the witness's facts. Raises `Silent`."""
    with tempfile.TemporaryDirectory(prefix="oomguard-survival-") as name:
        work = Path(name)
        (work / "initramfs").write_bytes(machine.initramfs + cell(files))
        with open(work / "swap", "wb") as swap:
            swap.truncate(max(swap_mib, 1) << 20)
        command = arguments(machine, work, waits_for_disk)
        # QEMU keeps what the guest writes to its disks here.
        environment = {**os.environ, "TMPDIR": name}
        emulator = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
        try:
            _, errors = emulator.communicate(timeout=machine.wall_s)
        except subprocess.TimeoutExpired:
            emulator.kill()
            _, errors = emulator.communicate()
        except BaseException:
            emulator.kill()
            emulator.wait()
            raise
        try:
            facts: dict[str, Any] = json.loads((work / "answer").read_text(errors="replace"))
        except (OSError, ValueError):
            console = (work / "console").read_text(errors="replace") if (work / "console").exists() else ""
            raise Silent((errors.decode(errors="replace") + console)[-2000:]) from None
        return facts


def arguments(machine: Machine, work: Path, waits_for_disk: bool) -> list[str]:
    """QEMU's command line."""
    idle = "on" if waits_for_disk else "off"
    disk = "if=virtio,format=raw,cache=unsafe"
    return [
        "qemu-system-x86_64", "-accel", "tcg,thread=single", "-icount", f"shift=1,sleep={idle}", "-cpu", CPU,
        "-m", str(MEMORY_MIB), "-smp", "1", "-display", "none", "-nic", "none", "-no-reboot", "-monitor", "none",
        "-kernel", str(machine.needs.kernel), "-initrd", str(work / "initramfs"), "-append", APPEND, "-snapshot",
        "-drive", f"file={machine.disk},{disk},file.locking=off",
        "-drive", f"file={work / 'swap'},{disk},throttling.bps-total=100000000",
        "-serial", f"file:{work / 'console'}", "-serial", f"file:{work / 'answer'}",
    ]  # fmt: skip
