"""Trajectories as the workers of ElegantRL 2022 send them."""

from __future__ import annotations

import torch

S, A = 5, 2


def trajectory(first, steps, noise=True):
    """What one worker sends: state, reward, mask, action and, on-policy, noise; all hold the number of the step."""
    marks = torch.arange(first, first + steps, dtype=torch.float32)[:, None]
    items = [marks.expand(-1, S), marks, torch.full_like(marks, 0.99), marks.expand(-1, A), marks.expand(-1, A)]
    return items if noise else items[:4]
