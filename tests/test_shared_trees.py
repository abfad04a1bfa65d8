"""What trees say of pairs of a row and a time is what LightGBM says, to the bit."""

import lightgbm as lgb
import numpy as np
import pytest

from models.shared_trees import shared

OWN = 4


def grown(missing, leaves=12, rounds=30):
    """Return a booster, block [row, 4] with a category as its first input, places [time, 3], and all pairs of both."""
    rng = np.random.default_rng(3)
    block, places = rng.normal(0, 1, (300, OWN)).astype(np.float32), rng.normal(0, 1, (20, 3)).astype(np.float32)
    block[:, 0] = rng.integers(0, 6, 300)
    if missing:
        block[rng.random(block.shape) < 0.2] = np.nan
        places[rng.random(places.shape) < 0.2] = np.nan
    row, time = (a.ravel() for a in np.meshgrid(np.arange(300), np.arange(20), indexing="ij"))
    X = np.column_stack([block[row], places[time]])
    y = np.nan_to_num(X[:, 1] * X[:, 5]) + (X[:, 0] == 2) + rng.normal(0, 0.1, len(X)) > 0.3
    params = {"objective": "binary", "num_leaves": leaves, "verbosity": -1, "num_threads": 1}
    return lgb.train(params, lgb.Dataset(X, y, categorical_feature=[0]), rounds), block, places, row, time


@pytest.mark.parametrize("missing", [True, False])
def test_the_bits_are_those_of_lightgbm(missing):
    booster, block, places, row, time = grown(missing)
    trees = shared(booster, OWN)
    assert any(tree.of_time for tree in trees.trees)
    if not missing:  # what training saw no gaps in may have them later
        block[::7, 1], places[::3, 1], block[::5, 0] = np.nan, np.nan, -1
    kind = np.arange(len(block)) % 4  # rows of four kinds, asked at five times each
    found = trees.raw(block, places.reshape(4, 5, -1), kind, (3, 30, None))
    mine = kind[row] == time // 5
    X = np.column_stack([block[row], places[time]])[mine]
    for count, told in zip((3, 30, -1), found, strict=True):
        np.testing.assert_array_equal(told.ravel(), booster.predict(X, raw_score=True, num_iteration=count))


@pytest.mark.parametrize(("rows", "times"), [(0, 5), (7, 0), (0, 0)])
def test_without_pairs_nothing_is_said(rows, times):
    booster, block, places, *_ = grown(False)
    kind, few = np.zeros(rows, int), places[None, :times]
    said = shared(booster, OWN).raw(block[:rows], few, kind, (1, None))
    assert [mine.shape for mine in said] == [(rows, times)] * 2


def test_trees_too_large_for_a_table_are_left_to_lightgbm():
    assert shared(grown(False, leaves=31)[0], OWN) is None
