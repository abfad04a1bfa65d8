"""How many trees the parts of a model have: the best pair is found without growing every tree."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.boosting import Growing, train
from models.rounds import choose_rounds, round_counts

COUNTS = {"hazard": round_counts(420), "direct": round_counts(280)}
NUMBERS = st.sampled_from(range(6))


def bowl(hazard, direct):
    """Return parts whose forecasts say how far from `hazard` and `direct` their number of trees is, and what grew."""
    grown = {"hazard": [], "direct": []}

    def part(name, best):
        def grow(numbers):
            grown[name] += numbers
            return [np.array([1 / (1 + np.exp(-abs(np.log(n / COUNTS[name][best]))))]) for n in numbers]

        return grow

    return {"hazard": part("hazard", hazard), "direct": part("direct", direct)}, grown


@given(hazard=NUMBERS, direct=NUMBERS)
def test_the_best_numbers_are_found_and_none_is_grown_twice(hazard, direct):
    parts, grown = bowl(hazard, direct)
    chosen, said = choose_rounds(parts, COUNTS, lambda p: float(p[0]))
    assert chosen == {"hazard": COUNTS["hazard"][hazard], "direct": COUNTS["direct"][direct]}
    assert said == pytest.approx(0.5)
    for name, best in (("hazard", hazard), ("direct", direct)):
        assert grown[name] == COUNTS[name][: min(max(best + 2, 4), 6)], "one more than the best, and four at least"


def test_a_part_alone_is_what_is_said():
    parts, _ = bowl(2, 0)
    chosen, _ = choose_rounds({"hazard": parts["hazard"]}, COUNTS, lambda p: float(p[0]))
    assert chosen == {"hazard": COUNTS["hazard"][2]}


def test_few_rounds_are_tried_as_often_as_they_differ():
    assert [round_counts(3), round_counts(1)] == [[1, 2, 3], [1]]


def test_trees_that_grow_on_are_those_that_grew_at_once():
    rng = np.random.default_rng(0)
    block = rng.normal(size=(400, 4)).astype(np.float32)
    y = (block[:, 0] + rng.normal(size=400) > 0) * 1.0
    params = {"objective": "binary", "bagging_fraction": 0.5, "bagging_freq": 1, "feature_fraction": 0.5}
    growing = Growing(block, y, params, seed=3, threads=1)
    for rounds in (2, 7, 7, 20):
        at_once = train(block, y, params, rounds=rounds, seed=3, threads=1)
        np.testing.assert_array_equal(growing.upto(rounds).predict(block), at_once.predict(block))
    assert growing.upto(5).num_trees() == 20
