"""``Buffer`` with torch: views of the same bytes, samples as tensors, rows on a device (the CPU stands for one)."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from absence import absent, torch_or_skip

from oomguard.replay import Buffer, Column, _room

torch = torch_or_skip()

ROW = {"state": 3, "reward": (), "action": Column((), "uint8")}


def rows_of(numbers):
    numbers = torch.tensor(list(numbers), dtype=torch.float32)
    return {"state": numbers[:, None].expand(-1, 3), "reward": numbers, "action": numbers.to(torch.uint8)}


@pytest.fixture(params=[None, "cpu"])
def device(request):
    """``None`` is the mapping; ``cpu`` the storage for devices, on the only device that every machine has."""
    return request.param


def test_torch_is_imported_only_when_it_is_asked_for(run):
    code = """
import sys
from oomguard.replay import Buffer
buffer = Buffer(4, {"state": 3})
buffer.push([1, 2, 3])
buffer.sample(2)
buffer.writer(1)["state"][:] = 0
print("torch" in sys.modules)
buffer.tensor("state")
print("torch" in sys.modules)
"""
    assert run(code).stdout == "False\nTrue\n"
    assert "torch" in sys.modules


def test_a_tensor_is_the_buffers_own_memory():
    buffer = Buffer(8, ROW)
    tensor = buffer.tensor("state")
    assert tensor.data_ptr() == buffer["state"].ctypes.data
    assert (tuple(tensor.shape), tensor.dtype) == ((8, 3), torch.float32)
    writer = buffer.writer(2)
    writer.tensor("state")[:] = torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    writer["reward"][:] = 7
    writer.tensor("action")[:] = torch.tensor([8, 9])
    writer.commit()
    assert buffer["state"][:2].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert buffer.tensor("action")[:2].tolist() == [8, 9]


def test_a_tensor_outlives_its_buffer():
    buffer = Buffer(8, ROW)
    buffer.push([1, 2, 3], 4.0, 5)
    tensor = buffer.tensor("state")
    del buffer
    assert tensor[0].tolist() == [1, 2, 3]


def test_rows_come_from_tensors_and_arrays_alike(device):
    buffer = Buffer(5, ROW, device=device)
    buffer.extend(**rows_of(range(4)))
    buffer.push(torch.full((3,), 4.0, requires_grad=True), torch.tensor(4.0), torch.tensor(4))
    buffer.push(np.full(3, 5.0), 5.0, 5)
    found = torch.cat([buffer.tensor("reward")[piece] for piece in buffer.pieces()])
    assert found.tolist() == [1, 2, 3, 4, 5]
    assert not buffer.tensor("state").requires_grad


@pytest.mark.parametrize(
    ("row", "error", "said"),
    [((torch.zeros(2), 1.0, 1), ValueError, "column `state`: expected shape (3,), given (2,)"),
     ((torch.zeros(3), 1.0, torch.tensor(0.5)), TypeError, "column `action`: expected uint8, given float32"),
     ((torch.zeros(3), 1.0, torch.tensor(300)), ValueError, "(0 to 255), given 300 to 300")],
)  # fmt: skip
def test_a_row_that_does_not_fit_changes_nothing(device, row, error, said):
    buffer = Buffer(1, ROW, device=device)
    buffer.push([1, 2, 3], 4.0, 5)
    with pytest.raises(error) as caught:
        buffer.push(*row)
    assert said in str(caught.value)
    assert buffer.tensor("state")[0].tolist() == [1, 2, 3]
    assert len(buffer) == 1


def test_samples_as_tensors(device):
    buffer = Buffer(10, ROW, device=device, seed=1)
    buffer.extend(**rows_of(range(17)))
    batch = buffer.sample(300, following=("state",), tensors=True)
    assert all(isinstance(rows, torch.Tensor) for rows in batch.values())
    assert set(batch["reward"].tolist()) == set(range(7, 16))
    assert torch.equal(batch["next_state"][:, 0], batch["reward"] + 1)
    assert torch.equal(batch["action"], batch["reward"].to(torch.uint8))
    again = Buffer(10, ROW, device=device, seed=1)
    again.extend(**rows_of(range(17)))
    assert torch.equal(again.sample(300, following=("state",), tensors=True)["reward"], batch["reward"])


def test_samples_go_into_the_callers_tensors(device):
    buffer = Buffer(10, ROW, device=device)
    buffer.extend(**rows_of(range(10)))
    mine = {"state": torch.empty(6, 3), "reward": torch.empty(6)}
    batch = buffer.sample(6, out=mine)
    assert batch["state"].data_ptr() == mine["state"].data_ptr()
    assert torch.equal(mine["state"][:, 0], mine["reward"])
    with pytest.raises(ValueError, match="`out` of column `reward`: expected"):
        buffer.sample(6, out={"reward": torch.empty(5)})


def test_a_generator_of_ones_own_draws_on_a_device():
    buffer = Buffer(10, ROW, device="cpu")
    buffer.extend(**rows_of(range(10)))
    one, other = (buffer.sample(9, random=torch.Generator().manual_seed(3))["reward"] for _ in range(2))
    assert torch.equal(one, other)


@pytest.mark.parametrize("source", [None, "cpu"])
@pytest.mark.parametrize("target", [None, "cpu"])
def test_a_history_moves_between_host_and_device(tmp_path, monkeypatch, source, target):
    from oomguard.replay import _device, _host

    monkeypatch.setattr(_device, "CHUNK", 40)  # several pieces
    monkeypatch.setattr(_host, "CHUNK", 40)
    buffer = Buffer(20, ROW, device=source)
    buffer.extend(**rows_of(range(31)))
    buffer.save(tmp_path / "history.npz")
    other = Buffer(25, ROW, device=target)
    other.load(tmp_path / "history.npz")
    assert other.tensor("reward")[:20].tolist() == list(range(11, 31))
    assert other.tensor("state")[:20, 2].tolist() == list(range(11, 31))
    assert other.tensor("action")[:20].tolist() == list(range(11, 31))


def test_a_device_takes_no_options_of_a_mapping():
    for option in ({"pin": True}, {"huge_pages": True}, {"touch": False}, {"path": "/tmp"}):
        with pytest.raises(ValueError, match="are for host memory"):
            Buffer(4, ROW, device="cpu", **option)


def test_a_device_without_room_is_refused_before_anything_is_taken(monkeypatch):
    monkeypatch.setattr(_room, "usable", lambda: (10, "a test"))
    with pytest.raises(MemoryError, match="only 10 B can be used"):
        Buffer(4, ROW, device="cpu")


def test_a_gpu_without_room_is_refused_before_anything_is_taken(monkeypatch):
    """No GPU is needed for this: nothing is allocated before the question."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 20, 1 << 30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3 << 20)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 2 << 20)
    with pytest.raises(MemoryError, match=r"needs 4\.0 MiB on cuda:0, but only 2\.0 MiB are free there.*by 50 %"):
        Buffer(1 << 20, {"x": ()}, device="cuda:0")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
@pytest.mark.parametrize("option", [{"device": "cuda:0"}, {"pin": True}])
def test_without_cuda_what_needs_it_says_so(option):
    with pytest.raises(RuntimeError, match="torch sees n"):
        Buffer(4, ROW, **option)


def test_on_a_gpu(tmp_path):
    if not torch.cuda.is_available():
        absent("cuda", "torch sees no CUDA device")
    buffer = Buffer(10, ROW, device="cuda:0", seed=1)
    buffer.extend(**rows_of(range(17)))
    buffer.push([17, 17, 17], 17.0, 17)
    batch = buffer.sample(300, following=("state",))
    assert batch["state"].is_cuda
    assert torch.equal(batch["next_state"][:, 0], batch["reward"] + 1)
    buffer.save(tmp_path / "history.npz")
    pinned = Buffer(10, ROW, pin=True)
    pinned.load(tmp_path / "history.npz")
    assert pinned.tensor("state").is_pinned()
    assert sorted(pinned["reward"].tolist()) == list(range(8, 18))
