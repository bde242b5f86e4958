"""``Buffer``: a ring that agrees with a list, takes nothing that does not fit, and samples what it holds."""

from __future__ import annotations

import pickle
import random

import numpy as np
import pytest

from oomguard.replay import Buffer, Column

ROW = {"state": 3, "reward": (), "done": Column((), "bool"), "frame": Column((2, 2), "uint8")}


def row_of(number):
    return {
        "state": np.full(3, number, np.float32),
        "reward": float(number),
        "done": number % 3 == 0,
        "frame": np.full((2, 2), number % 256, np.uint8),
    }


def rows_of(numbers):
    rows = [row_of(number) for number in numbers]
    return {
        "state": np.array([row["state"] for row in rows], np.float32).reshape(-1, 3),
        "reward": np.array([row["reward"] for row in rows]),
        "done": np.array([row["done"] for row in rows], bool),
        "frame": np.array([row["frame"] for row in rows], np.uint8).reshape(-1, 2, 2),
    }


def held(buffer):
    """The numbers of the rows held, oldest first; every column must tell the same."""
    pieces = buffer.pieces()
    numbers = [int(number) for piece in pieces for number in buffer["reward"][piece]]
    expected = rows_of(numbers)
    for name in ROW:
        found = [row for piece in pieces for row in buffer[name][piece]]
        assert len(found) == len(numbers)
        for one, other in zip(found, expected[name], strict=True):
            np.testing.assert_array_equal(one, other)
    return numbers


@pytest.mark.parametrize("seed", range(30))
def test_any_order_of_writes_agrees_with_a_list(seed):
    dice = random.Random(seed)
    capacity = dice.randint(1, 12)
    buffer, model, number = Buffer(capacity, ROW), [], 0
    for _ in range(60):
        door = dice.choice(["push", "push", "extend", "writer", "clear"])
        count = dice.randint(0, 2 * capacity)
        if door == "push":
            buffer.push(**row_of(number))
            model.append(number)
            number += 1
        elif door == "extend":
            buffer.extend(**rows_of(range(number, number + count)))
            model += range(number, number + count)
            number += count
        elif door == "writer":
            asked = dice.randint(1, capacity)
            writer = buffer.writer(asked)
            model = model[-capacity:][max(0, len(model[-capacity:]) - (capacity - len(writer))) :]
            assert held(buffer) == model, "what lies under the window is given up"
            written = dice.randint(0, len(writer))
            for name, rows in rows_of(range(number, number + written)).items():
                writer[name][:written] = rows
            writer.commit(written)
            model += range(number, number + written)
            number += written
        else:
            buffer.clear()
            model = []
        model = model[-capacity:]
        assert len(buffer) == len(model)
        assert held(buffer) == model


def test_a_row_can_be_given_in_order_or_by_name():
    buffer = Buffer(4, ROW)
    buffer.push(*row_of(1).values())
    buffer.push(np.full(3, 2), 2, **{name: row_of(2)[name] for name in ("done", "frame")})
    assert held(buffer) == [1, 2]


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [({"state": [1, 2]}, ValueError, "column `state`: expected shape (3,), given (2,)"),
     ({"state": 1.0}, ValueError, "column `state`: expected shape (3,), given ()"),
     ({"reward": [1.0]}, ValueError, "column `reward`: expected shape (), given (1,)"),
     ({"frame": np.zeros((2, 2))}, TypeError, "column `frame`: expected uint8, given float64"),
     ({"frame": [[0, 0], [0, 256]]}, ValueError, "column `frame`: expected uint8 (0 to 255), given 0 to 256"),
     ({"frame": [[0, -1], [0, 0]]}, ValueError, "given -1 to 0"),
     ({"done": 0.5}, TypeError, "column `done`: expected bool, given float64"),
     ({"extra": 1}, TypeError, "`extra` is not expected")],
)  # fmt: skip
def test_a_row_that_does_not_fit_says_why_and_changes_nothing(change, error, said):
    buffer = Buffer(2, ROW)
    buffer.extend(**rows_of([1, 2]))
    with pytest.raises(error) as caught:
        buffer.push(**{**row_of(3), **change})
    assert said in str(caught.value)
    assert held(buffer) == [1, 2]


def test_a_missing_column_is_named():
    with pytest.raises(TypeError, match="`done` is missing, `frame` is missing"):
        Buffer(2, ROW).push([1, 2, 3], 1.0)


def test_rows_that_do_not_fit_change_nothing():
    buffer = Buffer(4, ROW)
    buffer.push(**row_of(1))
    bad = rows_of([2, 3])
    with pytest.raises(ValueError, match=r"column `frame`: expected shape \(2, 2, 2\), given \(2, 2\)"):
        buffer.extend(**{**bad, "frame": bad["frame"][:, 0]})
    with pytest.raises(TypeError, match="column `reward`: expected rows, given a single float"):
        buffer.extend(**{**bad, "reward": 2.0})
    with pytest.raises(ValueError, match="differ in their number of rows"):
        buffer.extend(**{**bad, "frame": bad["frame"][:1]})
    assert held(buffer) == [1]


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [((0, ROW), ValueError, "`capacity` must be a number of rows above 0, not 0"),
     ((2.5, ROW), ValueError, "not 2.5"), ((True, ROW), ValueError, "not True"),
     ((4, {}), ValueError, "at least one column"), ((4, {"a b": 1}), ValueError, "'a b'"),
     ((4, {"x": (0,)}), TypeError, "column `x`"), ((4, {"x": Column((), "O")}), TypeError, "given dtype `object`"),
     ((4, {"x": Column((), "torch.bfloat16")}), TypeError, "bfloat16")],
)  # fmt: skip
def test_a_buffer_that_makes_no_sense_is_refused(arguments, error, said):
    with pytest.raises(error) as caught:
        Buffer(*arguments)
    assert said in str(caught.value)


def test_the_memory_is_what_the_columns_need():
    buffer = Buffer(1000, {"state": 16, "reward": ()})
    assert buffer.nbytes == 1000 * (16 + 1) * 4
    assert buffer["reward"].ctypes.data - buffer["state"].ctypes.data == 1000 * 16 * 4, "one mapping"
    assert not buffer["state"].any()


def test_a_sample_holds_rows_of_the_buffer_with_what_followed_them():
    buffer = Buffer(10, ROW, seed=1)
    buffer.extend(**rows_of(range(17)))
    batch = buffer.sample(500, following=("state", "reward"))
    assert set(batch["reward"]) == set(range(7, 16)), "every row but the newest, which has no next one"
    np.testing.assert_array_equal(batch["next_reward"], batch["reward"] + 1)
    np.testing.assert_array_equal(batch["next_state"][:, 0], batch["state"][:, 0] + 1)
    assert set(buffer.sample(500)["reward"]) == set(range(7, 17))


def test_one_seed_draws_the_same():
    def drawn(**options):
        buffer = Buffer(50, ROW, **options)
        buffer.extend(**rows_of(range(50)))
        return list(buffer.sample(20)["reward"])

    assert drawn(seed=3) == drawn(seed=3) != drawn(seed=4)
    buffer = Buffer(50, ROW)
    buffer.extend(**rows_of(range(50)))
    one, other = (buffer.sample(9, random=np.random.default_rng(5))["reward"] for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_samples_go_where_the_caller_wants_them():
    buffer = Buffer(8, ROW)
    buffer.extend(**rows_of(range(8)))
    mine = {"reward": np.zeros(5, np.float32), "next_state": np.zeros((5, 3), np.float32)}
    batch = buffer.sample(5, following=("state",), out=mine)
    assert batch["reward"] is mine["reward"]
    np.testing.assert_array_equal(mine["next_state"][:, 0], mine["reward"] + 1)
    np.testing.assert_array_equal(batch["state"][:, 0], mine["reward"])


@pytest.mark.parametrize(
    ("out", "error", "said"),
    [({"reward": np.zeros(4, np.float32)}, ValueError, "expected shape (5,) of float32, given (4,) of float32"),
     ({"reward": np.zeros(5)}, ValueError, "given (5,) of float64"), ({"price": np.zeros(5)}, KeyError, "`price`"),
     ({"reward": [0] * 5}, TypeError, "expected a NumPy array or a torch tensor")],
)  # fmt: skip
def test_an_out_that_does_not_fit_is_refused(out, error, said):
    buffer = Buffer(8, ROW)
    buffer.push(**row_of(1))
    with pytest.raises(error) as caught:
        buffer.sample(5, out=out)
    assert said in str(caught.value)


def test_nothing_is_drawn_from_too_few_rows():
    buffer = Buffer(8, ROW)
    with pytest.raises(ValueError, match="0 rows are held"):
        buffer.sample(1)
    buffer.push(**row_of(1))
    assert buffer.sample(2)["reward"].tolist() == [1, 1]
    with pytest.raises(ValueError, match="1 later ones each: 1 rows are held"):
        buffer.sample(1, following=("state",))


def test_a_window_is_the_buffers_own_memory_and_ends_with_the_ring():
    buffer = Buffer(10, ROW)
    buffer.extend(**rows_of(range(8)))
    writer = buffer.writer(5)
    assert len(writer) == 2, "up to the end of the ring"
    assert np.shares_memory(writer["state"], buffer["state"])
    writer.commit()
    assert (len(writer), writer["state"].shape) == (0, (0, 3))
    assert len(buffer.writer(5)) == 5
    assert len(buffer) == 5, "the five oldest lie under the window"


def test_a_window_moves_on_with_what_is_committed():
    buffer = Buffer(10, ROW)
    writer = buffer.writer()
    for number in range(10):
        for name, value in row_of(number).items():
            writer[name][0] = value
        writer.commit(1)
    assert held(buffer) == list(range(10))
    with pytest.raises(ValueError, match="cannot commit 1 rows: the window has 0 left"):
        writer.commit(1)


@pytest.mark.parametrize("rows", [0, 11, -1])
def test_a_window_of_a_wrong_size_is_refused(rows):
    with pytest.raises(ValueError, match="`rows` must be 1 to 10"):
        Buffer(10, ROW).writer(rows)


def test_a_window_is_closed_by_any_other_write():
    buffer = Buffer(10, ROW)
    writer = buffer.writer(3)
    buffer.push(**row_of(1))
    with pytest.raises(RuntimeError, match="closed"):
        writer.commit(1)
    with pytest.raises(RuntimeError, match="closed"):
        _ = writer["state"]


def test_a_wrong_column_is_named():
    with pytest.raises(KeyError, match="no column `price`"):
        _ = Buffer(2, ROW)["price"]
    with pytest.raises(KeyError, match="no column `price`"):
        Buffer(2, ROW).sample(1, following=("price",))


def test_rows_can_be_taken_by_place():
    buffer = Buffer(4, ROW)
    buffer.extend(**rows_of(range(6)))
    assert buffer.take(np.array([3, 0, 3]))["reward"].tolist() == [3, 4, 3]
    for place in (-1, 4):
        with pytest.raises(IndexError, match="places are 0 to 3"):
            buffer.take(np.array([0, place]))


def test_a_following_that_is_a_column_already_is_refused():
    buffer = Buffer(4, {"state": 2, "next_state": 2})
    buffer.extend(np.zeros((3, 2)), np.ones((3, 2)))
    with pytest.raises(ValueError, match="there is a column `next_state`"):
        buffer.sample(2, following=("state",))


def test_it_is_not_copied_by_accident():
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(Buffer(2, ROW))
