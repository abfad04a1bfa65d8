"""Quantiles cover what they say on later weeks, each kind of window by itself, and never cross."""

import json

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from models.bands import Bands, kinds

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
