"""The off-policy buffer of ElegantRL 2022, in loops like theirs."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from absence import torch_or_skip

torch = torch_or_skip()

from trajectories import A, S, trajectory  # noqa: E402

from oomguard.replay.elegantrl2022 import ReplayBuffer  # noqa: E402


def marks_of(buffer):
    return [mark for piece in buffer.rows.pieces() for mark in buffer.buf_other[piece, 0].long().tolist()]


def test_the_signature_and_the_fields_are_theirs():
    parameters = inspect.signature(ReplayBuffer).parameters
    assert list(parameters)[:4] == ["max_len", "state_dim", "action_dim", "gpu_id"]
    assert parameters["gpu_id"].default == 0
    buffer = ReplayBuffer(8, S, A)
    assert (buffer.now_len, buffer.next_idx, buffer.prev_idx, buffer.if_full, buffer.max_len) == (0, 0, 0, False, 8)
    assert (buffer.buf_state.shape, buffer.buf_other.shape) == ((8, S), (8, 2 + A))
    assert ReplayBuffer(8, (3, 4, 4), A).buf_state.shape == (8, 3, 4, 4)


def test_it_wraps_as_theirs_does():
    buffer, place, full, model, first = ReplayBuffer(10, S, A), 0, False, [], 0
    for steps in [4, 6, 1, 9, 10, 3, 7]:
        assert buffer.update_buffer([trajectory(first, steps, noise=False)]) == (steps, first + (steps - 1) / 2)
        buffer.update_now_len()
        place, full = (place + steps - 10, True) if place + steps > 10 else (place + steps, full)
        model = [*model, *range(first, first + steps)][-10:]
        first += steps
        assert (buffer.next_idx, buffer.now_len) == (place, 10 if full else place)
        assert marks_of(buffer) == model
        assert torch.equal(buffer.buf_state[:, 0], buffer.buf_other[:, 0])


def test_the_mean_is_over_workers():
    buffer = ReplayBuffer(50, S, A)
    assert buffer.update_buffer([trajectory(0, 2, noise=False), trajectory(10, 11, noise=False)]) == (13, 7.75)
    assert buffer.buf_other[2:13, 3].tolist() == list(range(10, 21))


@pytest.mark.parametrize("filled", [9, 10, 25])
def test_a_sample_pairs_each_step_with_its_next(filled):
    buffer = ReplayBuffer(10, S, A)
    for first in range(0, filled, 5):
        buffer.update_buffer([trajectory(first, min(5, filled - first), noise=False)])
    np.random.seed(0)
    reward, mask, action, state, after = buffer.sample_batch(500)
    assert [tuple(item.shape) for item in (reward, mask, action, state, after)] == [
        (500, 1), (500, 1), (500, A), (500, S), (500, S)]  # fmt: skip
    assert torch.equal(after, state + 1)
    assert torch.equal(reward[:, 0], state[:, 0])
    assert torch.equal(action[:, 1], state[:, 0])
    assert mask.eq(0.99).all()
    assert set(reward[:, 0].long().tolist()) == set(range(max(0, filled - 10), filled - 1))


def test_one_seed_draws_what_theirs_does_while_the_ring_is_not_full():
    buffer = ReplayBuffer(100, S, A)
    buffer.update_buffer([trajectory(0, 40, noise=False)])
    np.random.seed(3)
    reward = buffer.sample_batch(50)[0]
    np.random.seed(3)
    assert reward[:, 0].long().tolist() == np.random.randint(39, size=50).tolist()


def test_what_came_since_the_last_look_is_given_in_order():
    buffer, first = ReplayBuffer(10, S, A), 0
    assert [len(item) for item in buffer.sample_batch_r_m_a_s()] == [0, 0, 0, 0]
    for steps in (4, 4, 4, 9, 25):
        buffer.update_buffer([trajectory(first, steps, noise=False)])
        first += steps
        reward, mask, action, state = buffer.sample_batch_r_m_a_s()
        expected = list(range(first - min(steps, 10), first))
        assert reward[:, 0].tolist() == action[:, 1].tolist() == state[:, 4].tolist() == expected
        assert mask.shape == (len(expected), 1)
        assert buffer.prev_idx == buffer.next_idx % 10


def test_rows_that_do_not_fit_change_nothing():
    buffer = ReplayBuffer(10, S, A)
    with pytest.raises(ValueError, match=r"column `buf_other`: expected shape \(3, 4\), given \(3, 5\)"):
        buffer.extend_buffer(torch.zeros(3, S), torch.zeros(3, 3 + A))
    with pytest.raises(ValueError, match="the buffer holds 0"):
        buffer.sample_batch(3)
    with pytest.raises(ValueError, match="empty"):
        buffer.update_buffer([])


@pytest.mark.parametrize("filled", [6, 13])
def test_a_history_comes_back_in_full_precision(tmp_path, filled):
    buffer, other = ReplayBuffer(10, S, A), ReplayBuffer(10, S, A)
    assert other.save_or_load_history(str(tmp_path), False, 3) is False
    buffer.update_buffer([trajectory(70001, filled, noise=False)])  # float16 would make all of them infinite
    assert buffer.save_or_load_history(str(tmp_path), True, 3) is True
    assert other.save_or_load_history(str(tmp_path), False, 3) is True
    assert marks_of(other) == marks_of(buffer) == list(range(70001, 70001 + filled))[-10:]


def test_a_history_of_theirs_is_read_and_a_bad_one_changes_nothing(tmp_path):
    path = tmp_path / "replay_0.npz"
    marks = np.arange(8, dtype=np.float16)[:, None]
    np.savez_compressed(path, buf_state=np.repeat(marks, S, 1), buf_other=np.repeat(marks, 2 + A, 1))
    buffer = ReplayBuffer(10, S, A)
    assert buffer.save_or_load_history(str(tmp_path), if_save=False) is True
    assert marks_of(buffer) == list(range(8))
    whole = path.read_bytes()
    np.savez_compressed(path, buf_state=np.zeros((4, S + 1)), buf_other=np.zeros((4, 2 + A)))
    with pytest.raises(ValueError, match="does not fit, and nothing was changed"):
        buffer.save_or_load_history(str(tmp_path), if_save=False)
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="nothing was changed"):
            buffer.save_or_load_history(str(tmp_path), if_save=False)
    assert marks_of(buffer) == list(range(8))


def test_a_ddpg_loop_of_theirs_learns(tmp_path):
    torch.manual_seed(0)
    np.random.seed(0)
    buffer = ReplayBuffer(300, S, A)
    critic = torch.nn.Linear(S + A, 1)
    optimizer = torch.optim.Adam(critic.parameters(), lr=0.05)
    losses = []
    for round_ in range(25):
        state, action = torch.randn(40, S), torch.randn(40, A)
        reward = state.sum(1, keepdim=True) - action.sum(1, keepdim=True)
        buffer.update_buffer([[state, reward, torch.ones(40, 1), action]])
        buffer.update_now_len()
        for _ in range(4):
            reward, _, action, state, _ = buffer.sample_batch(64)
            loss = (critic(torch.cat((state, action), 1)) - reward).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
        if round_ == 15:
            buffer.save_or_load_history(str(tmp_path), if_save=True)
            buffer = ReplayBuffer(300, S, A)
            buffer.save_or_load_history(str(tmp_path), if_save=False)
            assert buffer.now_len == 300
    assert losses[-1] < losses[0] / 10
