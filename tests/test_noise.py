"""Noise of a window: own record, the category's line, and how they share."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.noise import Groups, Past, _slope_sums, category_slopes, log_mad, noise

nan = np.nan


def windows(share, sizes, weeks=120, seed=0):
    """Errors that are `share` of their baseline."""
    rng = np.random.default_rng(seed)
    made = np.tile(np.array(sizes, float), (weeks, 1))
    return rng.normal(0, share, made.shape) * made, made


def sigma(error, made, now=None, category=None, length=1):
    category = np.zeros(error.shape[1], int) if category is None else category
    now = made if now is None else now
    of = Groups(category, np.arange(len(category)), category.max(initial=0) + 1)
    ((_, found),) = noise([Past(error, made, now, length)], of, oldest=0)
    return np.fmax(found, np.sqrt(np.maximum(now, 1)))


def test_noise_grows_with_the_level():
    error, made = windows(0.3, [1000.0] * 10 + [4000.0] * 10)
    small, twice = (sigma(error, made, made * factor)[-1] for factor in (1, 2))
    assert (twice > 1.3 * small).all()  # what is planned at twice the level is not judged by the old noise
    np.testing.assert_allclose(small / made[0], 0.3, rtol=0.3)


def test_a_series_whose_record_looks_too_quiet_is_pulled_to_its_category():
    error, made = windows(0.3, [1000.0] * 20)
    error[:, 0] *= 0.05
    own, usual = np.exp(log_mad(error[-52:, :2].T, np.array([52, 52])))
    quiet = sigma(error, made, length=13)[-1, 0]
    assert 2 * own < quiet < usual


def test_a_series_without_record_stands_on_the_line():
    error, made = windows(0.3, [1000.0] * 20)
    error[:-3, 0] = nan
    out = sigma(error, made)[-1]
    assert out[0] == pytest.approx(np.median(out[1:]), rel=0.2)


def test_categories_have_lines_of_their_own():
    calm, made = windows(0.1, [1000.0] * 20)
    wild, _ = windows(0.6, [1000.0] * 20, seed=1)
    calm[:, 0] = wild[:, 0] = nan
    out = sigma(np.hstack([calm, wild]), np.hstack([made, made]), category=np.repeat([0, 1], 20))[-1]
    assert out[20] > 2.5 * out[0]


def slope(y, x):
    return category_slopes(_slope_sums(y[None], x[None], Groups(np.zeros(len(x), int), np.arange(len(x)), 1)))[0, 0]


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_the_slope_of_a_category(power):
    x = np.linspace(3, 9, 60)
    assert slope(power * x, x) == pytest.approx(power, abs=0.05)
    assert slope(np.array([1.0]), np.array([3.0])) == pytest.approx(0.75)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 60), st.integers(1, 5))
def test_noise_is_never_below_chance_and_never_infinite(weeks, series):
    rng = np.random.default_rng(weeks)
    error = np.where(rng.random((weeks + 1, series)) < 0.3, nan, rng.normal(0, 5, (weeks + 1, series)))
    made = np.abs(rng.normal(20, 10, error.shape))
    out = sigma(error, made, length=4)
    assert (out >= np.sqrt(np.maximum(made, 1)) * (1 - 1e-9)).all()
    assert np.isfinite(out).all()
