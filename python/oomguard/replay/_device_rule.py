"""ElegantRL's rule for where tensors go, in every generation. Needs torch."""

from __future__ import annotations

from typing import Any

import torch


def device_of(gpu_id: int) -> Any:
    """``cuda:{gpu_id}`` if CUDA is there and ``gpu_id`` is 0 or more, else the CPU."""
    return torch.device(f"cuda:{gpu_id}" if torch.cuda.is_available() and gpu_id >= 0 else "cpu")


def placement(device: Any, **options: Any) -> dict[str, Any]:
    """Options for a ``Buffer``: a mapping with ``options`` on the CPU, else tensors on ``device``."""
    return options if device.type == "cpu" else {"device": device}
