"""The drop-in for today's ElegantRL: its training loop, its fields, and prioritized replay."""

from __future__ import annotations

import inspect
import re
import types

import pytest
from absence import torch_or_skip

torch = torch_or_skip()

from oomguard.replay.elegantrl import ReplayBuffer  # noqa: E402

S, A = 4, 2
NAMES = ("states", "actions", "rewards", "undones")


def horizon(first, steps, seqs, discrete=False):
    """What ``explore_env`` returns; state, reward and action of step ``t`` of sequence ``i`` are ``t + i / 10``."""
    marks = torch.arange(first, first + steps, dtype=torch.float32)[:, None] + torch.arange(seqs) / 10
    actions = (marks.long() % 5) if discrete else marks[..., None].expand(-1, -1, A)
    undones = torch.logical_not(marks.long() % 7 == 6)
    return marks[..., None].expand(-1, -1, S), actions, marks, undones, torch.ones_like(marks)


def newest(buffer):
    """Marks of the rows held, oldest first."""
    return [mark for piece in buffer.rows.pieces() for mark in buffer.rewards[piece, 0].long().tolist()]


def test_the_signature_and_the_fields_are_theirs():
    theirs = ["max_size", "state_dim", "action_dim", "gpu_id", "num_seqs", "if_use_per", "if_discrete", "args"]
    mine = inspect.signature(ReplayBuffer).parameters
    assert list(mine)[: len(theirs)] == theirs
    assert [mine[name].default for name in theirs[3:7]] == [0, 1, False, False]
    buffer = ReplayBuffer(8, S, A, 0, 3)
    assert (buffer.p, buffer.if_full, buffer.cur_size, buffer.add_size, buffer.max_size) == (0, False, 0, 0, 8)
    assert (buffer.num_seqs, buffer.device, len(buffer.ids0), len(buffer.ids1)) == (3, torch.device("cpu"), 0, 0)
    shapes = {"states": (8, 3, S), "actions": (8, 3, A)}
    for name in ("states", "actions", "rewards", "undones", "unmasks", "cum_rewards"):
        field = getattr(buffer, name)
        assert (tuple(field.shape), field.dtype) == (shapes.get(name, (8, 3)), torch.float32)
    assert ReplayBuffer(8, (3, 5, 5), A).states.shape == (8, 1, 3, 5, 5)


@pytest.mark.parametrize("seqs", [1, 3])
def test_it_wraps_as_theirs_does(seqs):
    """Theirs, as a list: ``p`` runs to ``max_size`` and goes on from there by the rows that are over."""
    buffer, p, full, model, first = ReplayBuffer(10, S, A, num_seqs=seqs), 0, False, [], 0
    for steps in [4, 6, 1, 9, 10, 3, 7, 7]:
        buffer.update(horizon(first, steps, seqs))
        p, full = (p + steps - 10, True) if p + steps > 10 else (p + steps, full)
        model = [*model, *range(first, first + steps)][-10:]
        first += steps
        assert (buffer.p, buffer.add_size) == (p, steps)
        assert buffer.cur_size == (10 if full else p)
        assert buffer.if_full == (full or p == 10)
        assert newest(buffer) == model
        assert torch.equal(buffer.states[..., 0], buffer.rewards)


def test_a_horizon_longer_than_the_ring_keeps_its_end():
    buffer = ReplayBuffer(10, S, A)
    buffer.update(horizon(0, 27, 1))
    assert newest(buffer) == list(range(17, 27))


@pytest.mark.parametrize(
    ("change", "said"),
    [((0, torch.zeros(5, 3, S + 1)), "column `states`: expected shape (5, 3, 4), given (5, 3, 5)"),
     ((2, torch.zeros(5, 2)), "column `rewards`: expected shape (5, 3), given (5, 2)"),
     ((4, torch.zeros(4, 3)), "differ in their number of rows")],
)  # fmt: skip
def test_an_update_that_does_not_fit_changes_nothing(change, said):
    buffer = ReplayBuffer(10, S, A, num_seqs=3)
    items = list(horizon(0, 5, 3))
    items[change[0]] = change[1]
    with pytest.raises(ValueError, match=re.escape(said)):
        buffer.update(tuple(items))
    assert buffer.cur_size == 0
    with pytest.raises(TypeError, match="given 4 items"):
        buffer.update(tuple(items[:4]))


@pytest.mark.parametrize("filled", [9, 10, 25])
def test_a_sample_pairs_each_step_with_its_next(filled):
    buffer = ReplayBuffer(10, S, A, num_seqs=3)
    for first in range(0, filled, 5):
        buffer.update(horizon(first, min(5, filled - first), 3))
    states, actions, rewards, undones, unmasks, after = buffer.sample(2000)
    assert torch.equal(after[:, 0].round(decimals=1), (states[:, 0] + 1).round(decimals=1)), "the seam too"
    assert torch.equal(states[:, 0], rewards)
    assert torch.equal(actions[:, 0], rewards)
    assert torch.equal(undones, (rewards.long() % 7 != 6).float())
    assert unmasks.eq(1).all()
    held = range(max(0, filled - 10), filled - 1)
    assert {(int(r), round(float(r % 1) * 10)) for r in rewards} == {(t, i) for t in held for i in range(3)}
    assert torch.equal(buffer.rewards[buffer.ids0, buffer.ids1], rewards)


def test_one_seed_draws_what_theirs_does_while_the_ring_is_not_full():
    buffer = ReplayBuffer(100, S, A, num_seqs=3)
    buffer.update(horizon(0, 40, 3))
    torch.manual_seed(7)
    rewards = buffer.sample(50)[2]
    torch.manual_seed(7)
    ids = torch.randint(39 * 3, size=(50,))  # as theirs: step `ids % 39` of sequence `ids // 39`
    assert torch.equal(rewards, ids % 39 + ids // 39 / 10)


def test_discrete_actions_are_bytes():
    buffer = ReplayBuffer(10, S, 5, num_seqs=2, if_discrete=True)
    buffer.update(horizon(0, 8, 2, discrete=True))
    assert (buffer.actions.shape, buffer.actions.dtype) == ((10, 2), torch.uint8)
    assert buffer.actions[:8, 0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert buffer.sample(4)[1].shape == (4,)
    with pytest.raises(ValueError, match="1 to 256"):
        ReplayBuffer(10, S, 257, if_discrete=True)


@pytest.mark.parametrize("updates", [[5], [5, 5], [5, 5, 4], [8, 8]])
def test_cumulated_rewards_are_given_the_last_horizon_in_order(updates):
    buffer, first = ReplayBuffer(10, S, A, num_seqs=2), 1
    for steps in updates:
        buffer.update(horizon(first, steps, 2))
        first += steps
    asked = []

    def cumulate(rewards, undones):
        asked.append((rewards[:, 0].tolist(), undones.shape))
        return rewards + 100

    buffer.update_cum_rewards(get_cumulative_rewards=cumulate)
    assert asked == [(list(range(first - updates[-1], first)), (updates[-1], 2))]
    fresh = buffer.rewards >= first - updates[-1]
    assert torch.equal(buffer.cum_rewards[fresh], buffer.rewards[fresh] + 100)


def test_rows_can_be_written_in_place():
    buffer = ReplayBuffer(10, S, A, num_seqs=2, if_use_per=True)
    writer = buffer.rows.writer(6)
    for name, rows in zip(list(buffer.rows.columns), horizon(0, 6, 2), strict=True):
        writer.tensor(name)[:] = rows
    writer.commit()
    assert newest(buffer) == [0, 1, 2, 3, 4, 5]
    assert {int(reward) for reward in buffer.sample_for_per(200)[2]} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("filled", [6, 10, 13, 31])
def test_prioritized_samples_pair_each_step_with_its_next(filled):
    buffer, first = ReplayBuffer(10, S, A, num_seqs=2, if_use_per=True), 0
    while first < filled:
        steps = min(4, filled - first)
        buffer.update(horizon(first, steps, 2))
        indices = buffer.sample_for_per(64)[-1]
        buffer.td_error_update_for_per(indices.detach(), torch.rand(len(indices)))
        first += steps
    states, actions, rewards, undones, unmasks, after, weights, indices = buffer.sample_for_per(400)
    assert [len(each) for each in (states, actions, rewards, undones, unmasks, after, weights, indices)] == [400] * 8
    assert torch.equal(after[:, 0].round(decimals=1), (states[:, 0] + 1).round(decimals=1))
    assert weights.dtype == torch.float32
    assert 0 < weights.min() <= weights.max() <= 1
    assert torch.equal(rewards, buffer.rewards[buffer.ids0, buffer.ids1])
    assert buffer.ids1.bincount().tolist() == [200, 200]


def test_large_errors_are_drawn_more_often():
    buffer = ReplayBuffer(64, S, A, if_use_per=True, args=types.SimpleNamespace(per_alpha=1.0, per_beta=0.5))
    buffer.update(horizon(0, 64, 1))
    everything = torch.arange(63)
    errors = torch.full((63, 1), 0.01)
    errors[20] = 50.0  # clamped to 10
    buffer.td_error_update_for_per(everything, errors)
    torch.manual_seed(0)
    rewards, weights = (buffer.sample_for_per(1000)[i] for i in (2, 6))
    share = rewards.eq(20).float().mean().item()
    assert share == pytest.approx(10 / (10 + 62 * 0.01), abs=0.01)
    drawn = buffer.sample_for_per(1000)
    weight = drawn[6][drawn[2] == 20][0].item()
    assert weight == pytest.approx((10 / 0.01) ** -0.5, rel=1e-4)
    assert weights.max() <= 1


def test_what_prioritized_replay_cannot_do_is_said():
    plain = ReplayBuffer(8, S, A)
    plain.update(horizon(0, 4, 1))
    with pytest.raises(RuntimeError, match="`if_use_per=True`"):
        plain.sample_for_per(4)
    buffer = ReplayBuffer(8, S, A, num_seqs=3, if_use_per=True)
    with pytest.raises(ValueError, match="2 rows, and the buffer holds 0"):
        buffer.sample_for_per(3)
    buffer.update(horizon(0, 4, 3))
    with pytest.raises(ValueError, match=r"multiple of `num_seqs` \(3\), not 4"):
        buffer.sample_for_per(4)
    indices = buffer.sample_for_per(6)[-1]
    with pytest.raises(ValueError, match=r"expected shape \(6,\), given \(5,\)"):
        buffer.td_error_update_for_per(indices, torch.ones(5))
    with pytest.raises(ValueError, match="NaN: the critic has diverged"):
        buffer.td_error_update_for_per(indices, torch.full((6,), torch.nan))


def test_too_few_rows_are_said():
    buffer = ReplayBuffer(8, S, A)
    buffer.update(horizon(0, 1, 1))
    with pytest.raises(ValueError, match="the buffer holds 1"):
        buffer.sample(4)


@pytest.mark.parametrize("filled", [6, 10, 13])
def test_a_history_comes_back_with_all_its_columns(tmp_path, filled):
    buffer, other = (ReplayBuffer(10, S, A, num_seqs=2, if_use_per=True) for _ in range(2))
    assert other.save_or_load_history(str(tmp_path), if_save=False) is False
    for first in range(0, filled, 3):
        buffer.update(horizon(first, min(3, filled - first), 2))
    buffer.unmasks[0] = 0.0
    buffer.save_or_load_history(str(tmp_path), if_save=True)
    assert other.save_or_load_history(str(tmp_path), if_save=False) is True
    assert newest(other) == newest(buffer)
    assert other.unmasks.sum() == buffer.unmasks.sum()
    assert (other.cur_size, other.if_full) == (buffer.cur_size, buffer.if_full)
    assert {int(reward) for reward in other.sample_for_per(400)[2]} == set(newest(buffer)[:-1])


def test_a_history_of_theirs_is_read(tmp_path, caplog):
    states, actions, rewards, undones, _ = horizon(0, 6, 2)
    for name, item in zip(NAMES, (states, actions, rewards, undones.float()), strict=True):
        torch.save(item.contiguous(), tmp_path / f"replay_buffer_{name}.pth")
    buffer = ReplayBuffer(10, S, A, num_seqs=2)
    assert buffer.save_or_load_history(str(tmp_path), if_save=False) is True
    assert newest(buffer) == [0, 1, 2, 3, 4, 5]
    assert buffer.unmasks[:6].eq(1).all()
    assert "no `unmasks`" in caplog.text


@pytest.mark.parametrize("damage", ["cut", "shape", "rows"])
def test_a_bad_history_of_theirs_changes_nothing(tmp_path, damage):
    for name, item in zip(NAMES, horizon(0, 6, 2)[:4], strict=True):
        torch.save(item.contiguous(), tmp_path / f"replay_buffer_{name}.pth")
    path = tmp_path / "replay_buffer_actions.pth"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    else:
        torch.save(torch.zeros((6, 2, A + 1) if damage == "shape" else (5, 2, A)), path)
    buffer = ReplayBuffer(10, S, A, num_seqs=2)
    buffer.update(horizon(50, 7, 2))
    with pytest.raises(ValueError, match=r"replay_buffer_actions|does not fit|rows"):
        buffer.save_or_load_history(str(tmp_path), if_save=False)
    assert newest(buffer) == list(range(50, 57))


def test_a_training_loop_of_theirs(tmp_path):
    """Explore, update, sample, learn, priorities, save, go on from the history: the loss of a tiny critic falls."""
    torch.manual_seed(0)
    critic = torch.nn.Linear(S, 1)
    optimizer = torch.optim.Adam(critic.parameters(), lr=0.05)
    buffer = ReplayBuffer(200, S, A, num_seqs=4, if_use_per=True)
    losses = []
    for round_ in range(30):
        states = torch.randn(16, 4, S)
        rewards = states.sum(-1)
        ones = torch.ones(16, 4, dtype=torch.bool)
        buffer.update((states, torch.zeros(16, 4, A), rewards, ones, ones))
        for _ in range(3):
            with torch.no_grad():
                states, _, rewards, _, _, _, weights, indices = buffer.sample_for_per(32)
            errors = (critic(states).squeeze(-1) - rewards).pow(2)
            loss = (errors * weights).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            buffer.td_error_update_for_per(indices.detach(), errors.detach())
        losses.append(errors.detach().mean().item())
        if round_ == 20:
            buffer.save_or_load_history(str(tmp_path), if_save=True)
            buffer = ReplayBuffer(200, S, A, num_seqs=4, if_use_per=True)
            buffer.save_or_load_history(str(tmp_path), if_save=False)
            assert buffer.cur_size == 200
    assert losses[-1] < losses[0] / 10


def test_nothing_is_cumulated_for_rows_that_are_gone():
    buffer = ReplayBuffer(10, S, A)
    buffer.update(horizon(0, 8, 1))
    buffer.rows.clear()
    buffer.update_cum_rewards(lambda rewards, undones: pytest.fail("asked for rows that are gone"))
    assert not buffer.cum_rewards.any()
