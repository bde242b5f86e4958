"""The sum tree against plain arithmetic, and priorities that follow a ring."""

from __future__ import annotations

import random

import numpy as np
import pytest

from oomguard.replay._priority import LEAST, NEW, Priorities
from oomguard.replay._ring import Ring
from oomguard.replay._sum_tree import SumTree


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 100])
def test_the_tree_agrees_with_a_list(size):
    dice = random.Random(size)
    tree, model = SumTree(size), np.zeros(size)
    for _ in range(50):
        places = np.array([dice.randrange(size) for _ in range(dice.randint(1, 10))])
        values = np.array([dice.choice([0.0, dice.random(), 10.0]) for _ in places])
        tree.update(places, values)
        for place, value in zip(places, values, strict=True):
            model[place] = value
        np.testing.assert_array_equal(tree.priorities(np.arange(size)), model)
        assert tree.total == pytest.approx(model.sum(), rel=1e-12)
        assert tree.least == min(model[model > 0], default=np.inf)
        if model.any():
            for value in [0.0, dice.random() * tree.total, np.nextafter(tree.total, 0), tree.total]:
                place = int(tree.find([value])[0])
                below = model[:place].sum()
                assert model[place] > 0
                assert below - 1e-9 <= value <= below + model[place] + 1e-9


def test_a_draw_is_in_proportion():
    tree = SumTree(5)
    tree.update([0, 1, 3], [1.0, 2.0, 5.0])
    counts = np.bincount(tree.draw(np.random.default_rng(0).random(80_000)), minlength=5)
    np.testing.assert_allclose(counts, [10_000, 20_000, 0, 50_000, 0], atol=2)


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_a_priority_that_is_none_changes_nothing(bad):
    tree = SumTree(4)
    tree.update([0, 1], 1.0)
    with pytest.raises(ValueError, match="1 are not"):
        tree.update([0, 2], [5.0, bad])
    np.testing.assert_array_equal(tree.priorities(np.arange(4)), [1, 1, 0, 0])


@pytest.mark.parametrize("place", [-1, 4])
def test_a_place_outside_is_refused(place):
    with pytest.raises(IndexError, match="0 to 3"):
        SumTree(4).update([place], 1.0)


def test_nothing_can_be_drawn_from_nothing():
    with pytest.raises(ValueError, match="all priorities are 0"):
        SumTree(4).draw([0.5])


@pytest.mark.parametrize("seed", range(20))
def test_what_can_be_drawn_is_what_has_a_successor(seed):
    dice = random.Random(seed)
    ring = Ring(dice.randint(2, 9))
    priorities = Priorities(ring, 2, alpha=1.0, beta=1.0)
    for _ in range(60):
        what = dice.choice(["advance", "advance", "advance", "open", "clear", "update"])
        if what == "advance":
            ring.advance(dice.randint(0, 2 * ring.capacity))
        elif what == "open":
            ring.open(dice.randint(1, ring.capacity))
        elif what == "clear":
            ring.clear()
        wanted = {row % ring.capacity for row in range(ring.tail, ring.head - 1)}
        if not wanted:
            with pytest.raises(ValueError, match="nothing can be drawn"):
                priorities.draw(np.full((2, 1), 0.5))
            continue
        places, sequences, weights = priorities.draw(np.random.default_rng(seed).random((2, 400)))
        assert set(places[sequences == 0]) == set(places[sequences == 1]) == wanted
        assert 0 < weights.min() <= weights.max() <= 1
        if what == "update":
            everywhere = np.arange(ring.capacity)
            priorities.update(everywhere, np.zeros_like(everywhere), np.full(ring.capacity, 3.0))


def test_weights_even_out_the_draw():
    ring = Ring(4)
    priorities = Priorities(ring, 1, alpha=0.5, beta=1.0)
    ring.advance(4)
    priorities.update(np.array([0, 1, 2]), np.zeros(3, int), np.array([4.0, 1.0, 0.0]))
    tree = priorities._trees[0]
    np.testing.assert_allclose(tree.priorities(range(4)), [2.0, 1.0, LEAST**0.5, 0.0])
    places, _, weights = priorities.draw(np.array([[0.1, 0.9]]))
    assert places.tolist() == [0, 1]
    np.testing.assert_allclose(weights, [LEAST**0.5 / 2.0, LEAST**0.5 / 1.0])


def test_an_error_for_a_row_that_is_gone_does_not_bring_it_back():
    ring = Ring(4)
    priorities = Priorities(ring, 1, alpha=1.0, beta=1.0)
    ring.advance(4)
    priorities.draw(np.full((1, 1), 0.5))
    ring.open(2)
    priorities.update(np.array([0, 2]), np.zeros(2, int), np.array([5.0, 7.0]))
    np.testing.assert_array_equal(priorities._trees[0].priorities(range(4)), [0, 0, 7, 0])
    ring.advance(2)
    priorities.draw(np.full((1, 1), 0.5))
    np.testing.assert_array_equal(priorities._trees[0].priorities(range(4)), [NEW, 0, 7, NEW])


def test_an_error_that_is_no_number_is_refused():
    ring = Ring(4)
    priorities = Priorities(ring, 1, alpha=1.0, beta=1.0)
    ring.advance(4)
    with pytest.raises(ValueError, match="1 NaN: the critic has diverged"):
        priorities.update(np.array([0, 1]), np.zeros(2, int), np.array([1.0, np.nan]))
