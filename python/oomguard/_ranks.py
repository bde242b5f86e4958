"""Several processes that train one model in step: what one of them wishes, all must do, or the others wait for ever."""

from __future__ import annotations

import sys
from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def several() -> Callable[[int], int] | None:
    """The greatest number among all ranks of torch's default process group, as a collective call.

    Each rank must call it as often as the others; one call waits for the accelerator.

    Returns:
        ``None`` where this process trains alone.
    """
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return None
    if torch.distributed.get_world_size() < 2:
        return None

    devices = {"gloo": "cpu", "nccl": "cuda"}

    def greatest(number: int) -> int:
        device = devices.get(str(torch.distributed.get_backend()))
        if device is None:  # slower, but it finds the backend's own device
            numbers: list[int] = [0] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(numbers, number)
            return max(numbers)
        held = torch.tensor([number], dtype=torch.int32, device=device)
        torch.distributed.all_reduce(held, op=torch.distributed.ReduceOp.MAX)
        return int(held.item())

    return greatest
