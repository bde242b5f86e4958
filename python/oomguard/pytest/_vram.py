"""GPU memory: of the machine's GPUs, and of what torch allocates in this process.

Never imports torch and never makes a CUDA context: it looks only where the tests have already been.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from typing import Any, NamedTuple

from oomguard.pytest._footprint import Reading

NVIDIA_SMI = ("--format=csv,noheader,nounits", "--query-gpu=memory.used,memory.total")
KEPT_S = 1.0
"""A reading of `nvidia-smi` is used again for so long: a call takes 20 ms to 1 s."""


class Machine(NamedTuple):
    """The fullest GPU that this process may see, in bytes; or ``unknown`` says why it is not known."""

    used: int = 0
    total: int = 0
    unknown: str | None = None

    @property
    def percent(self) -> float | None:
        """Used, 0 to 100."""
        return None if self.unknown is not None else 100.0 * self.used / self.total


def cuda() -> Any:
    """``torch.cuda`` if it has been initialised in this process, else ``None``."""
    module = getattr(sys.modules.get("torch"), "cuda", None)
    return module if module is not None and module.is_initialized() else None


class Allocated:
    """What torch has allocated on all GPUs together, from now on; resets torch's own peaks."""

    def __init__(self) -> None:
        module = cuda()
        # Before CUDA is initialised torch has allocated nothing there.
        self._before = 0 if module is None else _sum(module, module.memory_allocated)
        if module is not None:
            _sum(module, module.reset_peak_memory_stats)

    def read(self) -> Reading | None:
        """From the start until now; ``None`` while torch does not use CUDA."""
        module = cuda()
        if module is None:
            return None
        after = _sum(module, module.memory_allocated)
        return Reading(self._before, after, max(_sum(module, module.max_memory_allocated), self._before, after))


def _sum(module: Any, of: Any) -> int:
    return sum(of(device) or 0 for device in range(module.device_count()))


_kept: tuple[float, Machine] | None = None


def machine() -> Machine:
    """A GPU as a whole, all processes together: torch's current one if it uses CUDA here, else by `nvidia-smi`."""
    global _kept
    module = cuda()
    if module is not None:
        try:
            free, total = module.mem_get_info()  # of the current device; asking for another would make a context there
        except RuntimeError as error:
            return Machine(unknown=f"torch cannot ask the GPU: {error}")
        return _fullest([(total - free, total)])
    if _kept is None or time.monotonic() - _kept[0] > KEPT_S:
        _kept = time.monotonic(), _ask_nvidia_smi()
    return _kept[1]


def _ask_nvidia_smi() -> Machine:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return Machine(unknown=f"CUDA_VISIBLE_DEVICES is `{visible}`: no GPU is visible")
    out, unknown = nvidia_smi(*NVIDIA_SMI, *([] if visible is None else [f"--id={visible}"]))
    if unknown is not None:
        return Machine(unknown=unknown)
    try:
        rows = [[int(float(cell) * (1 << 20)) for cell in line.split(",")] for line in out.splitlines()]
        return _fullest([(used, total) for used, total in rows])
    except ValueError:
        return Machine(unknown=f"`nvidia-smi` says `{out.strip().splitlines()[0] if out.strip() else ''}`")


def nvidia_smi(*arguments: str) -> tuple[str, str | None]:
    """What `nvidia-smi` prints, or why it does not."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return "", "torch does not use CUDA in this process and there is no `nvidia-smi`"
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"`nvidia-smi` does not answer: {error}"
    if done.returncode != 0:
        said = (done.stderr + done.stdout).strip().splitlines()
        return "", f"`nvidia-smi` ended with {done.returncode}: {said[0] if said else 'no reason given'}"
    return done.stdout, None


def _fullest(gpus: list[tuple[int, int]]) -> Machine:
    sized = [(used, total) for used, total in gpus if total > 0]
    if not sized:
        return Machine(unknown="no GPU is listed")
    return Machine(*max(sized, key=lambda gpu: gpu[0] / gpu[1]))
