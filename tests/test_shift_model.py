"""Shifts of demand: three classes that sum to one, units that never cross, labels that may be unknown."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from models.shift import LEVELS, MAX_Z, ShiftModel

nan = np.nan
CUT = np.datetime64("2025-06-02")


def windows(n, seed=0):
    """Windows of two years whose deviation leans on one input; a tenth of the classes is unknown."""
    rng = np.random.default_rng(seed)
    as_of = CUT - rng.integers(5, 104, n) * np.timedelta64(7, "D")
    x = rng.normal(size=n)
    z = x + rng.normal(0, 1, n)
    y = 1.0 + (z > 1.5) - (z < -1.5)
    X = pd.DataFrame({"last_z": x, "noise": rng.normal(size=n)}, dtype=np.float32)
    X.loc[rng.random(n) < 0.1, "noise"] = nan
    y[rng.random(n) < 0.1] = nan
    return X, y, z, as_of, as_of + np.timedelta64(28, "D")


def fit(X, y, z, as_of, matured, **params):
    model = ShiftModel(**({"rounds": 15, "quantile_rounds": 15, "threads": 1} | params))
    return model.fit(X, y, deviation=z, as_of=as_of, matured_on=matured, cut=CUT)


@pytest.fixture(scope="module")
def learnt():
    return fit(*windows(2500))


def test_three_classes_sum_to_one_and_follow_their_cause(learnt):
    P = learnt.predict_proba(windows(300, seed=1)[0])
    assert P.shape == (300, 3)
    assert ((P >= 0) & (P <= 1)).all()
    np.testing.assert_allclose(P.sum(axis=1), 1)
    low, high = learnt.predict_proba(pd.DataFrame({"last_z": [-2.0, 2.0], "noise": 0.0}))
    assert low[0] > high[0]
    assert high[2] > low[2]


@pytest.mark.parametrize("noise", [0.0, 3.0, 500.0])
def test_units_never_cross_and_are_never_negative(learnt, noise):
    X = windows(300, seed=1)[0]
    units = learnt.predict_units(X, np.linspace(0, 200, 300), np.full(300, noise))
    assert units.shape == (300, len(LEVELS))
    assert (units >= 0).all()
    assert (np.diff(units, axis=1) >= 0).all()


def test_quantiles_lean_to_series_with_more_units_and_noise_alike_changes_nothing():
    X, y, z, as_of, matured = windows(2500)
    large = np.arange(2500) % 2 == 0  # by no input
    z = z + 2.0 * large
    base = {"quantile_rounds": 15, "rounds": 2, "threads": 1}

    def median(noise):
        model = ShiftModel(**base).fit(X, y, deviation=z, as_of=as_of, matured_on=matured, cut=CUT, noise=noise)
        return model._raw_quantiles(model.quantile_boosters_, model.encoder_.transform(X))[:, 1]

    without, alike, unlike = median(None), median(np.full(2500, 7.0)), median(np.where(large, 90.0, 10.0))
    np.testing.assert_array_equal(without, alike)
    assert 0.2 < (unlike - without).mean() < 1.0


def test_units_cover_what_they_say(learnt):
    X, _, z, *_ = windows(3000, seed=1)
    units = learnt.predict_units(X, np.full(3000, 100.0), np.full(3000, 10.0))
    below = (100 + 10 * z[:, None] < units).mean(axis=0)
    np.testing.assert_allclose(below, LEVELS, atol=0.06)


def test_windows_of_unknown_class_teach_no_class_but_their_units(learnt):
    X, y, z, as_of, matured = windows(2500)
    known = ~np.isnan(y)
    only = fit(X[known], y[known], z[known], as_of[known], matured[known])
    assert only.base_rates_ == learnt.base_rates_
    counts = np.bincount(y[known].astype(int), minlength=3) + 1 / 3
    np.testing.assert_allclose(learnt.base_rates_, counts / counts.sum())


def test_windows_without_a_deviation_teach_no_units():
    X, y, z, *days = windows(1200)
    z = np.where(np.arange(len(z)) % 3 == 0, nan, z)
    units = fit(X, y, z, *days).predict_units(X, np.full(len(X), 50.0), np.full(len(X), 5.0))
    assert np.isfinite(units).all()


def test_a_typing_error_does_not_stretch_the_units():
    X, y, z, *days = windows(1200)
    wild = np.where(np.arange(len(z)) < 400, 1e6, z)
    units = fit(X, y, wild, *days).predict_units(X, np.full(len(X), 50.0), np.full(len(X), 1.0))
    assert units.max() <= 50 + 2 * MAX_Z


def test_the_order_of_rows_does_not_matter(learnt):
    X, *rest = windows(2500)
    shuffle = np.random.default_rng(5).permutation(len(X))
    other = fit(X.iloc[shuffle], *(a[shuffle] for a in rest))
    np.testing.assert_array_equal(other.predict_proba(X), learnt.predict_proba(X))
    b = np.full(len(X), 100.0)
    np.testing.assert_array_equal(other.predict_units(X, b, b), learnt.predict_units(X, b, b))


def test_more_threads_change_nothing(learnt):
    X, b = windows(300, seed=1)[0], np.full(300, 40.0)
    other = fit(*windows(2500), threads=2)
    np.testing.assert_array_equal(other.predict_proba(X), learnt.predict_proba(X))
    np.testing.assert_array_equal(other.predict_units(X, b, b), learnt.predict_units(X, b, b))


def test_a_saved_model_is_text_and_scores_the_same(learnt, tmp_path):
    X, b = windows(300, seed=1)[0], np.full(300, 40.0)
    learnt.save(tmp_path / "model")
    assert {p.suffix for p in (tmp_path / "model").iterdir()} == {".lgb", ".json"}
    json.loads((tmp_path / "model" / "model.json").read_text(), parse_constant=pytest.fail)
    again = ShiftModel.load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict_proba(X), learnt.predict_proba(X))
    np.testing.assert_array_equal(again.predict_units(X, b, b), learnt.predict_units(X, b, b))
    assert again.base_rates_ == learnt.base_rates_
    assert again.get_params() == learnt.get_params()


@pytest.mark.parametrize("n", [0, 1, 5, 300])
@pytest.mark.parametrize("label", [1.0, nan])
def test_one_class_no_class_or_hardly_a_row_are_no_hindrance(n, label):
    X, _, z, *days = (a[:n] for a in windows(300))
    model = fit(X, np.full(n, label), z, *days)
    new = windows(20, seed=1)[0]
    np.testing.assert_allclose(model.predict_proba(new).sum(axis=1), 1)
    units = model.predict_units(new, np.full(20, 10.0), np.full(20, 2.0))
    assert (np.diff(units, axis=1) >= 0).all()
    assert model.predict_proba(new.iloc[:0]).shape == (0, 3)
    assert model.predict_units(new.iloc[:0], [], []).shape == (0, 3)


def test_scikit_learn_can_clone_and_set_it():
    model = ShiftModel(rounds=3, params={"num_leaves": 4})
    assert clone(model).get_params() == model.get_params()
    assert model.set_params(rounds=5).rounds == 5
