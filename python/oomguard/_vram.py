"""What torch holds of the GPUs, told to a guard that cannot see it: no driver's library in this container, or one that
does not show who holds what.

Comes after a guard has asked for it, and then once a second. Never begins CUDA, on no device: that alone takes 500 MB.
"""

from __future__ import annotations

import sys

from oomguard import _core
from oomguard._brake import logger

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_used: set[int] = set()
"""Devices of which some was held once: torch is at home there."""
_failed = False


def report() -> None:
    """Tells the guard. Where torch or CUDA is not in use there is nothing to tell: others may hold some then."""
    global _failed
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    if _failed or torch is None or cuda is None or not cuda.is_initialized() or torch.version.hip:
        return  # AMD's driver tells by itself
    try:
        with _core.Shield():  # an interrupt in here would hit whoever reports, not the work
            devices = range(cuda.device_count())
            told = [line(cuda, device) for device in devices if device in _used or cuda.memory_reserved(device)]
    except Exception as error:
        _failed = True
        logger().warning("telling the guard what torch holds of the GPUs failed: %s: %s", type(error).__name__, error)
        return
    if told:
        _core.notify("\n".join(told))


def line(cuda: Any, device: int) -> str:
    """One device: its place among those that this process sees, its UUID (``-`` in old versions of torch), the bytes
    held by torch's allocator, those free and all on the device, its name."""
    _used.add(device)
    free, total = cuda.mem_get_info(device)
    properties = cuda.get_device_properties(device)
    uuid = getattr(properties, "uuid", None)
    uuid = "-" if uuid is None else "GPU-" + str(uuid).removeprefix("GPU-")
    held = cuda.memory_reserved(device)
    return f"X_OOMGUARD_VRAM={device} {uuid} {held} {free} {total} {properties.name}"
