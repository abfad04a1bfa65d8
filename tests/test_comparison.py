"""Two models on the same predictions: what each is worth, whether they can be told apart, what planners would see."""

import numpy as np
import pandas as pd
import pytest

from models.comparison import common_pairs, list_changes, side_by_side


def walk(p, seed=1, n=600):
    """A walk-forward of 10 weeks of a true probability, of which the model says p(truth)."""
    rng = np.random.default_rng(seed)
    truth = rng.beta(1, 3, n)
    return pd.DataFrame({
        "po_line_id": [f"l{k}" for k in range(n)], "event": "late", "y": 1.0 * (rng.random(n) < truth), "p": p(truth),
        "as_of": np.repeat(pd.date_range("2026-01-05", periods=10, freq="7D"), n // 10),
        "supplier_id": [f"s{k % 20}" for k in range(n)],
        "product_id": "p", "site_id": "s", "p_model": 0.5, "p_climatology": 0.25,
    })  # fmt: skip


GOOD, BLUNT = walk(lambda truth: truth), walk(lambda truth: np.full(len(truth), 0.25))


def test_only_predictions_of_both_about_the_same_question_count():
    later, other = GOOD.iloc[200:], GOOD.assign(y=GOOD["y"].where(GOOD.index != 300, 1 - GOOD["y"]))
    pairs = common_pairs(later, other, "delay")
    assert set(pairs["po_line_id"]) == set(GOOD["po_line_id"][200:]) - {"l300"}
    assert list(common_pairs(GOOD.iloc[:0], GOOD, "delay").columns) == [
        "event", "as_of", "y", "p_a", "p_b", "supplier_id"
    ]  # fmt: skip


@pytest.mark.parametrize(("a", "b", "better"), [
    (BLUNT, GOOD, "b"), (GOOD, BLUNT, "a"), (GOOD, GOOD, "neither can be told"),
    (BLUNT.iloc[:60], GOOD, "too few to tell"),
], ids=["better", "worse", "same", "few"])  # fmt: skip
def test_the_difference_comes_with_its_interval(a, b, better):
    (found,) = side_by_side(common_pairs(a, b, "delay"), "delay", seed=1)
    assert found["better"] == better
    low, high = found["interval"]
    assert low <= found["skill_of_b_over_a"] <= high
    assert found["skill_of_b_over_a"] == pytest.approx(1 - found["b"]["brier"] / found["a"]["brier"])
    assert found["n"] == min(len(a), len(b))


def test_what_comes_onto_the_list_and_what_goes():
    rows = pd.DataFrame({
        "row_id": ["x", "y", "z", "unpriced"], "p_a": [0.9, 0.5, 0.1, 0.9], "p_b": [0.2, 0.5, 0.8, 0.9],
        "stake_a": [90, 50, 10, np.nan], "stake_b": [20, 50, 80, np.nan],
    })  # fmt: skip
    found = list_changes(rows, 2)
    assert (found["k"], found["in_both"]) == (2, 1)
    assert [(c["change"], c["row_id"]) for c in found["changes"]] == [("comes", "z"), ("goes", "x")]
