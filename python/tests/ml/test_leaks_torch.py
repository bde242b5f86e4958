"""Leaks of torch's tensors: counted by their storage, freed with their agents, cheap to collect after a freeze."""

from __future__ import annotations

import pathlib

import pytest
from absence import torch_or_skip

import oomguard
from oomguard import leaks
from oomguard.leaks._payload import payload

MIB = 1 << 20
HERE = str(pathlib.Path(oomguard.__file__).parents[1])

torch = torch_or_skip()
pytestmark = pytest.mark.usefixtures("collected_by_hand")


class Agent:
    """A network, its optimizer's state, and a method of its own."""

    def __init__(self) -> None:
        self.net = torch.nn.Linear(512, 512)
        self.optimizer = torch.optim.Adam(self.net.parameters())
        self.net(torch.ones(1, 512)).sum().backward()
        self.optimizer.step()
        self.explore_env = self.explore_one_env

    def explore_one_env(self) -> None:
        """Never called."""


def test_a_view_and_its_tensor_and_its_array_are_one_memory():
    tensor = torch.ones(512, 512)
    assert payload(tensor) == payload(tensor[3]) == payload(tensor.T)
    assert payload(tensor)[1] == MIB
    assert payload(tensor)[0] == payload(tensor.numpy())[0]
    assert payload(torch.empty(512, 512, device="meta")) is None, "it has no memory here"
    assert payload(torch.eye(512).to_sparse()) is None or payload(torch.eye(512).to_sparse())[1] < MIB


def test_networks_gradients_and_optimizer_state_of_dead_agents_are_added_up():
    for _ in range(4):
        Agent()
    cause = leaks.examine().cause("cycles")
    assert cause.facts["reasons"][0] == {"reason": "Agent.explore_env is a bound method of itself", "count": 4}
    agent = next(kind for kind in cause.facts["kinds"] if kind["name"].endswith("Agent"))
    # Weights, gradients and Adam's two moments: four times 1 MiB each.
    assert agent["instances"] == 4
    assert 16 * MIB <= agent["holds"] <= 17 * MIB


def test_an_empty_buffer_of_tensors_is_reserved_memory_not_a_leak():
    class ReplayBuffer:
        def __init__(self) -> None:
            self.states = torch.empty(192 * MIB // 4)

    buffer = ReplayBuffer()
    found = [cause for cause in leaks.examine().causes if cause.facts.get("holder") == "ReplayBuffer.states"]
    assert len(found) == 1
    # The kernel may have joined it with a neighbour.
    assert 180 * MIB <= found[0].bytes <= 240 * MIB
    assert buffer.states.numel() == 48 * MIB


def test_a_collection_after_a_freeze_is_cheap_with_torch_loaded(run):
    result = run(
        """
import gc, time, torch, oomguard
def seconds():
    start = time.perf_counter(); gc.collect(); return time.perf_counter() - start
before = min(seconds() for _ in range(3))
oomguard.freeze_imports()
print(before, min(seconds() for _ in range(3)))
""",
        PYTHONPATH=HERE,
    )
    before, after = map(float, result.stdout.split())
    assert after < before / 10, (before, after)
