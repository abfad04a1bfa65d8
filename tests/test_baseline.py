"""Level, season, plan and noise: what demand would be without a shift."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from features import baseline
from features.baseline import WINDOWS, demand_interval, level, outlook, seasonal_naive, seasons
from features.noise import Groups, Past, _squares, over_dispersion

nan = np.nan


def groups(n=1, category=None):
    category = np.zeros(n, int) if category is None else np.array(category)
    return Groups(category, np.arange(n), category.max(initial=0) + 1)


ONE = groups()


def dispersion(error, made):
    """φ [as_of] of series of one category."""
    return over_dispersion(_squares(Past(error, made, made, 4), np.zeros(error.shape[1], int)), (len(error), 1))[:, 0]


def series(*values):
    return np.array(values, float)[:, None]


def levels(values):
    units = series(*values)
    return level(units, demand_interval(units))[:, 0]


@pytest.mark.parametrize(
    ("values", "last"),
    [
        ([10] * 13, 10),
        ([10] * 12 + [1000], 10),  # one order of a lifetime moves nothing
        ([10] * 6 + [0] + [10] * 6, 10),
        ([10] * 20 + [20] * 13, 20),
        ([0] * 20 + [10] * 8, 10),  # weeks before the first demand say nothing
        ([0] * 20 + [4, 8], 6),  # too short to trim
        ([5, 0, 0, 0] * 10, 30 / 26),  # intermittent: the mean of 26 weeks, of which 6 had demand
        ([0] * 10, nan),
        ([3] * 10 + [0] * 60, 0),
    ],
)
def test_the_level_is_robust(values, last):
    np.testing.assert_allclose(levels(values)[-1], last)


@pytest.mark.parametrize(
    ("values", "interval"),
    [
        ([1, 1, 1], 1),
        ([0, 0, 1, 0], 2),
        ([0, 4, 0, 0, 4, 0], 2.5),
        ([0, 0], nan),
        ([1] + [0] * 51, 52),
        ([1] + [0] * 52, nan),
    ],
)
def test_the_interval_between_weeks_with_demand(values, interval):
    np.testing.assert_allclose(demand_interval(series(*values))[-1], [interval])


def test_quantities_that_leave_residues_leave_no_level():
    assert levels([0.1, 0.2, 1e9, 0.3, *[0] * 60])[-1] == 0


def seasonal(weeks, swing=0.5):
    return 100 * (1 + swing * np.sin(2 * np.pi * np.arange(weeks) / 52))


def test_season_is_believed_only_with_two_years_behind_it():
    index = np.sum(list(seasons(2 * seasonal(160)[:, None], 4)), axis=0)[:, 0]
    np.testing.assert_array_equal(index[:103], 4)  # a window of four weeks at factor one
    assert np.abs(index[110:] - 4).max() > 0.5


def test_season_leads_the_level_up_and_down():
    units = seasonal(200)[:, None]
    out = outlook(units, ONE)
    flat = np.abs(out.level[140:187, 0] * 4 - [units[t + 1 : t + 5, 0].sum() for t in range(140, 187)])
    seasoned = np.abs(out.units[0][140:187, 0] - [units[t + 1 : t + 5, 0].sum() for t in range(140, 187)])
    assert seasoned.mean() < 0.5 * flat.mean()


def test_season_does_not_see_the_weeks_it_is_about():
    units = seasonal(200)[:, None]
    other = units.copy()
    other[170:] *= 5
    np.testing.assert_array_equal(outlook(units, ONE).units[2][:170], outlook(other, ONE).units[2][:170])


def test_a_plan_overrides_where_every_week_is_planned():
    units = series(*[10] * 60)
    plan = np.full((60, 1), nan)
    plan[50] = 77
    out = outlook(units, ONE, (plan, None, None))
    assert out.units[0][49:52, 0].tolist() == [40, 77, 40]
    assert out.error[0][54, 0] == 40 - 77  # the plan is what the window is held against


@pytest.mark.parametrize("k", range(len(WINDOWS)))
def test_errors_are_known_when_their_window_has_ended(k):
    lead, length = WINDOWS[k]
    units = series(*[10] * 39, 50, *[10] * 30)
    out = outlook(units, ONE)
    for t in range(39, 39 + length):
        assert out.error[k][t, 0] == pytest.approx(40, abs=1e-6) or t - lead - length >= 39
    assert np.abs(out.error[k][20:39]).max() < 1e-6


def test_sigma_is_the_larger_of_mad_and_count_noise():
    rng = np.random.default_rng(3)
    units = rng.normal(1000, 100, (150, 1)).clip(0)
    out = outlook(units, ONE)
    t = 140
    own = out.error[0][t - 51 : t + 1, 0]
    mad = 1.4826 * np.median(np.abs(own - np.median(own)))
    phi = dispersion(out.error[0], np.roll(out.units[0], 4, axis=0))[t]
    floor = np.sqrt(max(phi, 1) * out.units[0][t, 0])
    assert out.noise[0][t, 0] == pytest.approx(max(mad, floor), rel=0.05)
    constant = outlook(series(*[100] * 80), ONE)
    assert constant.noise[0][-1, 0] == pytest.approx(20)  # √(1 · 400)
    assert outlook(series(*[0] * 40, 0.01, 0.01), ONE).noise[0][-1, 0] >= 1  # never below one unit


def test_new_series_borrow_their_noise_from_the_category():
    rng = np.random.default_rng(5)
    sizes = np.array([50, 200, 800, 3000, 100, 400, 1600, 6000, 25, 1000])
    old = np.maximum(rng.normal(sizes, 0.3 * sizes, (120, 10)), 0)
    new = np.zeros((120, 1))
    new[116:] = 500
    out = outlook(np.hstack([old, new]), groups(11))
    smaller, larger, borrowed = out.noise[0][-1, [5, 9, 10]]  # of series that sell 400, 1000 and 500 a week
    assert smaller < borrowed < larger


@pytest.mark.parametrize("phi", [1.0, 3.0])
def test_over_dispersion_is_variance_over_mean(phi):
    rng = np.random.default_rng(11)
    mean = 40.0
    drawn = rng.poisson(mean, (120, 300)) if phi == 1 else rng.negative_binomial(mean / (phi - 1), 1 / phi, (120, 300))
    made = np.full((120, 300), mean)
    assert dispersion(drawn - mean, made)[-1] == pytest.approx(phi, rel=0.15)
    shifted = drawn.copy()
    shifted[:, :40] *= 4  # shifts of some series stay in the tail
    assert dispersion(shifted - mean, made)[-1] < 1.6 * phi


def test_the_seasonal_naive_forecast_is_last_years_window_or_the_last_weeks():
    units = series(*range(1, 81))
    made, spread = seasonal_naive(units, 0, 4)
    assert made[40, 0] == sum(range(38, 42))  # less than a year: the last four weeks
    assert made[60, 0] == sum(units[9 + 0 : 13, 0])  # weeks 61 … 64, a year earlier
    assert np.isnan(spread[5, 0])
    assert spread[-1, 0] > 0
    assert seasonal_naive(units[:3], 0, 4)[1].shape == (3, 1)


def test_windows_can_be_others():
    out = outlook(series(*[10] * 60), ONE, windows=((0, 2), (3, 1)))
    assert [u[-1, 0] for u in out.units] == [20, 10]
    assert len(out.noise) == len(out.z) == 2


@pytest.mark.parametrize("weeks", [1, 2, 5, 30, 130])
@pytest.mark.parametrize("shape", ["zero", "once", "constant", "none"])
def test_no_series_crashes(weeks, shape):
    units = np.zeros((weeks, 0 if shape == "none" else 3))
    if shape == "once":
        units[0] = 5
    if shape == "constant":
        units[:] = 7
    out = outlook(units, groups(units.shape[1]))
    for k in range(len(WINDOWS)):
        assert out.units[k].shape == out.noise[k].shape == out.z[k].shape == units.shape
        assert (out.noise[k] >= 1).all()
        assert not np.isinf(out.units[k]).any()


@settings(max_examples=30, deadline=None)
@given(
    arrays(float, st.tuples(st.just(90), st.integers(1, 4)), elements=st.integers(0, 9).map(float)), st.integers(0, 89)
)
def test_nothing_of_the_outlook_depends_on_later_weeks(units, cut):
    category = np.arange(units.shape[1]) % 2
    mine = groups(units.shape[1], np.unique(category, return_inverse=True)[1])
    whole, part = outlook(units, mine), outlook(units[: cut + 1], mine)
    for name in ("level", "interval", "dispersion", "units", "noise", "error", "z"):
        a, b = getattr(whole, name), getattr(part, name)
        for x, y in zip(a, b, strict=True) if isinstance(a, tuple) else [(a, b)]:
            np.testing.assert_allclose(x[: cut + 1], y, rtol=1e-6, atol=1e-9)


def test_asking_for_late_rows_only_changes_nothing_in_them():
    rng = np.random.default_rng(1)
    units = rng.poisson(3, (150, 5)).astype(float)
    mine = groups(5, [0, 0, 1, 1, 1])
    whole, late = outlook(units, mine), outlook(units, mine, oldest=149)
    for k in range(len(WINDOWS)):
        np.testing.assert_array_equal(whole.noise[k][-1], late.noise[k][-1])
        np.testing.assert_array_equal(whole.z[k][-52:], late.z[k][-52:])
    assert baseline.INTERMITTENT == 1.32
