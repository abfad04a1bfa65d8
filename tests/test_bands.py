"""Quantiles cover what they say on later weeks, each kind of window by itself, and never cross."""

import json

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from models.bands import LEAST_ROWS, Bands, conformal_shifts, kinds

LEVELS = (0.1, 0.5, 0.9)


def test_kinds_of_windows():
    X = pd.DataFrame({"lead_weeks": [0, 4, 4], "length_weeks": [4, 4, 4], "interval": [1.0, 1.0, 2.0]})
    assert len(set(kinds(X))) == 3
    assert kinds(pd.DataFrame({"other": [1, 2]})).tolist() == [0, 0]


def test_each_kind_is_covered():
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 2, 20_000)
    z = rng.normal(0, np.array([1.0, 3.0])[kind])
    Q = np.tile([-0.5, 0.0, 0.5], (len(z), 1))
    bands = Bands(LEVELS).fit(Q[:10_000], z[:10_000], kind[:10_000])
    for k in (0, 1):
        mine = kind[10_000:] == k
        below = (z[10_000:, None] < bands.transform(Q[10_000:], kind[10_000:]))[mine].mean(axis=0)
        np.testing.assert_allclose(below, LEVELS, atol=0.03)
    again = Bands.from_dict(json.loads(json.dumps(bands.to_dict())))
    np.testing.assert_array_equal(again.transform(Q, kind), bands.transform(Q, kind))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 200), st.integers(0, 5))
def test_they_never_cross_whatever_they_learnt(n, seed):
    rng = np.random.default_rng(seed)
    Q, z = rng.normal(size=(n, 3)), np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n))
    bands = Bands(LEVELS).fit(Q, z, rng.integers(0, 3, n))
    assert (np.diff(bands.transform(rng.normal(size=(20, 3)), rng.integers(0, 5, 20)), axis=1) >= 0).all()


def test_each_level_is_hit_on_the_rows_learnt_from_and_on_new_ones():
    (Q, z), (Q_new, z_new) = deviations(4000, seed=0), deviations(4000, seed=1)
    moved, moved_new = (x + conformal_shifts(Q, z, LEVELS) for x in (Q, Q_new))
    np.testing.assert_allclose((z[:, None] <= moved).mean(axis=0), LEVELS, atol=0.002)
    np.testing.assert_allclose((z_new[:, None] <= moved_new).mean(axis=0), LEVELS, atol=0.025)


def deviations(n, *, seed):
    """Quantiles that are too narrow and too low."""
    z = np.random.default_rng(seed).standard_t(4, n)
    return np.tile([-0.8, -0.3, 0.4], (n, 1)), z


def test_few_rows_move_nothing():
    Q, z = deviations(LEAST_ROWS, seed=0)
    assert conformal_shifts(Q, z, LEVELS).any()
    assert not conformal_shifts(Q[1:], z[1:], LEVELS).any()
    Q[0, 1] = np.nan  # a row without quantiles tells nothing
    assert not conformal_shifts(Q, z, LEVELS).any()
