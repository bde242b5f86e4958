"""The on-policy list of ElegantRL 2022 and FinRL_Crypto, in loops like theirs."""

from __future__ import annotations

import re

import numpy as np
import pytest
from absence import torch_or_skip

from oomguard.replay import _room

torch = torch_or_skip()

from trajectories import A, S, trajectory  # noqa: E402

from oomguard.replay.elegantrl2022 import ReplayBufferList  # noqa: E402


def test_a_round_is_the_five_tensors_of_all_workers():
    buffer = ReplayBufferList()
    assert isinstance(buffer, list)
    assert len(buffer) == 0
    steps, mean = buffer.update_buffer([trajectory(0, 30), trajectory(100, 20)])
    marks = [*range(30), *range(100, 120)]
    assert (steps, mean) == (50, pytest.approx(np.mean(marks)))
    assert (type(steps), type(mean)) == (int, float)
    state, reward, mask, action, noise = (item.to("cpu") for item in buffer)  # as `update_net` takes them
    assert [tuple(item.shape) for item in buffer] == [(50, S), (50, 1), (50, 1), (50, A), (50, A)]
    assert all(item.dtype == torch.float32 for item in buffer)
    for item in (state[:, 0], reward[:, 0], action[:, 1], noise[:, 1]):
        assert item.tolist() == marks
    assert mask.eq(0.99).all()


def test_rounds_of_different_length_stay_in_one_mapping():
    buffer = ReplayBufferList()
    places = set()
    for round_, steps in enumerate([20, 7, 60, 1, 80]):
        assert buffer.update_buffer([trajectory(round_ * 100, steps)])[0] == steps
        assert buffer[1][:, 0].tolist() == list(range(round_ * 100, round_ * 100 + steps))
        places.add(tuple(item.data_ptr() for item in buffer))
    assert len(places) == 1


def test_the_cap_is_hard_and_a_round_above_it_changes_nothing():
    for buffer, cap in ((ReplayBufferList(), 40), (ReplayBufferList(capacity=40), 40)):
        buffer.update_buffer([trajectory(0, 10)])
        with pytest.raises(MemoryError, match=rf"a round of 41 rows is above the cap of {cap}: .*capacity=\.\.\."):
            buffer.update_buffer([trajectory(0, 20), trajectory(0, 21)])
        assert buffer[1][:, 0].tolist() == list(range(10))


def test_a_first_round_without_room_is_refused(monkeypatch):
    monkeypatch.setattr(_room, "usable", lambda: (100, "a test"))
    with pytest.raises(MemoryError, match=r"a round of 10 rows: needs 440 B, but only 100 B"):
        ReplayBufferList().update_buffer([trajectory(0, 10)])
    with pytest.raises(MemoryError, match=r"replay buffer of 10 rows: needs"):
        ReplayBufferList(10, S, A)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [(0, torch.zeros(10, S + 1), "column `state`: expected shape (10, 5), given (10, 6)"),
     (1, torch.zeros(10), "column `reward`: expected shape (10, 1), given (10,)"),
     (3, torch.zeros(9, A), "worker 1 differ in their number of rows: [10, 10, 10, 9, 10]")],
)  # fmt: skip
def test_a_trajectory_that_does_not_fit_changes_nothing(column, value, said):
    buffer = ReplayBufferList()
    buffer.update_buffer([trajectory(0, 10)])
    bad = trajectory(100, 10)
    bad[column] = value
    with pytest.raises(ValueError, match=re.escape(said)):
        buffer.update_buffer([trajectory(200, 10), bad])
    assert buffer[1][:, 0].tolist() == list(range(10))
    with pytest.raises(TypeError, match="given \\[4\\] items"):
        buffer.update_buffer([trajectory(0, 10, noise=False)])
    with pytest.raises(ValueError, match="empty"):
        buffer.update_buffer([])


def test_a_round_can_be_pushed_row_by_row():
    buffer = ReplayBufferList(30, S, A)
    memory = buffer.rows.nbytes
    for first, steps in ((0, 30), (100, 3)):
        for mark in range(first, first + steps):
            buffer.push(np.full(S, mark), float(mark), 0.99, torch.full((A,), mark), np.full(A, mark, np.float32))
        assert buffer.finish() == (steps, pytest.approx(first + (steps - 1) / 2))
        assert [tuple(item.shape) for item in buffer] == [(steps, S), (steps, 1), (steps, 1), (steps, A), (steps, A)]
        assert buffer[0][:, 0].tolist() == buffer[4][:, 1].tolist() == list(range(first, first + steps))
    assert buffer.rows.nbytes == memory >= 30 * (S + 2 + 2 * A) * 4


def test_a_round_can_be_written_in_place():
    buffer = ReplayBufferList(30, S, A, noise_dim=1)
    writer = buffer.writer()
    assert len(writer) == 30
    for number in range(12):
        writer["state"][number] = number
        writer["reward"][number] = number
        writer["noise"][number] = number
    writer.commit(12)
    assert buffer.finish() == (12, 5.5)
    assert buffer[0].data_ptr() == buffer.rows.tensor("state").data_ptr()
    assert buffer[4].shape == (12, 1)


def test_writing_beyond_the_cap_is_refused():
    buffer = ReplayBufferList(3, S, A)
    row = (np.zeros(S), 0.0, 1.0, np.zeros(A), np.zeros(A))
    for _ in range(3):
        buffer.push(*row)
    with pytest.raises(MemoryError, match="the cap of 3 rows is reached"):
        buffer.push(*row)
    with pytest.raises(MemoryError, match="0 of 3 rows are left"):
        buffer.writer()
    assert buffer.finish()[0] == 3
    buffer.push(*row)
    with pytest.raises(MemoryError, match="2 of 3 rows are left"):
        buffer.writer(3)


def test_what_was_not_told_is_asked_for():
    with pytest.raises(RuntimeError, match="no memory yet"):
        ReplayBufferList().push(0, 0, 0, 0, 0)
    with pytest.raises(ValueError, match="`capacity` too"):
        ReplayBufferList(device="cpu")
    with pytest.raises(ValueError, match="are for host memory"):
        ReplayBufferList(10, S, A, device="cpu", pin=True)
    with pytest.raises(ValueError, match="go together"):
        ReplayBufferList(10, S)
    with pytest.raises(ValueError, match="the round is empty"):
        ReplayBufferList(10, S, A).finish()


def test_a_round_on_a_device():
    buffer = ReplayBufferList(50, device="cpu")
    assert buffer.update_buffer([trajectory(0, 5), trajectory(10, 5)])[0] == 10
    assert buffer[1][:, 0].tolist() == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]


def test_a_ppo_loop_of_theirs_learns():
    """Explore in two workers, update_buffer, several epochs over the five tensors, again."""
    torch.manual_seed(0)
    buffer = ReplayBufferList()
    actor = torch.nn.Linear(S, A)
    optimizer = torch.optim.Adam(actor.parameters(), lr=0.05)
    rewards = []

    def explore(steps):
        with torch.no_grad():
            state = torch.randn(steps, S)
            noise = torch.randn(steps, A)
            action = actor(state) + noise
            reward = -(action - state[:, :A]).pow(2).mean(1, keepdim=True)
        return [state, reward, torch.ones(steps, 1), action, noise]

    for _ in range(40):
        steps, mean = buffer.update_buffer([explore(60), explore(40 + len(rewards))])
        rewards.append(mean)
        state, reward, _, action, _ = (item.to("cpu") for item in buffer)
        assert len(state) == steps
        advantage = (reward - reward.mean()) / reward.std()
        for _ in range(4):
            loss = ((action - actor(state)).pow(2).mean(1, keepdim=True) * advantage).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert np.mean(rewards[-5:]) > rewards[0] + 0.3
