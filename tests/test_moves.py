"""Moves of demand: what is told of steps, of chance, of a category that moves together, and of too little history."""

import numpy as np
import pytest

from features.moves import FLOOR, Move, move


def moved(units, others=None, told=True):
    units = np.asarray(units, float)
    others = np.full(units.shape, 500.0) if others is None else others
    return move(units, others, np.full(units.shape, told))


def weeks(n=104, series=1, level=100.0, seed=0):
    return np.random.default_rng(seed).poisson(level, (n, series)).astype(float)


@pytest.mark.parametrize("factor", [0.5, 0.7, 1.3, 2.0])
def test_a_step_is_told_in_its_size_as_soon_as_it_has_two_weeks(factor):
    units = weeks(series=20)
    units[100:] *= factor
    found = moved(units)
    np.testing.assert_allclose(found.share[101].mean(), factor - 1, atol=0.1)
    assert (np.sign(found.z[101]) == np.sign(factor - 1)).all()
    assert (np.abs(found.z[101]) > 1.64).mean() >= 0.9
    assert np.abs(found.z[99]).mean() < 1.3


def test_a_series_that_moved_for_good_comes_to_rest_where_it_is():
    units = weeks(n=200)
    units[100:] *= 2
    z = moved(units).z[:, 0]
    assert z[110] > 2
    assert abs(z[160]) < 2


def test_by_chance_alone_one_series_in_ten_is_beyond_the_limit():
    z = moved(weeks(n=160, series=400, level=30)).z[80:]
    assert 0.03 < (z > 1.64).mean() < 0.07
    assert 0.03 < (z < -1.64).mean() < 0.07


def test_what_the_whole_category_does_is_no_move():
    units = weeks(series=30)
    units[98:] *= 1.5
    everyone = units.sum(axis=1, keepdims=True)
    assert np.abs(moved(units, everyone - units).z[99:]).mean() < 1.5
    assert (moved(units).z[99] > 2).all()  # alone in its category it has moved


def test_a_category_s_other_series_may_be_none_or_begin_late():
    units = weeks()
    late = np.zeros(units.shape)
    late[60:] = 40
    for others in (np.zeros(units.shape), late):
        np.testing.assert_array_less(np.abs(moved(units, others).z[61:]), 4.5)


def test_demand_that_ends_is_all_gone_and_units_have_no_scale():
    units = weeks()
    units[102:] = 0
    found = moved(units)
    assert -1 <= found.share[-1, 0] < -0.95
    np.testing.assert_allclose(moved(units * 1000, np.full(units.shape, 5e5)).z, found.z, atol=1e-6)


def test_nothing_of_later_weeks_is_heard():
    units = weeks(series=5)
    for whole, part in zip(fields(moved(units)), fields(moved(units[:70])), strict=True):
        np.testing.assert_array_equal(whole[:70], part)


def fields(found: Move):
    return found.share, found.z


@pytest.mark.parametrize("units", [np.zeros((9, 0)), np.ones((1, 2)), np.zeros((40, 2))])
def test_too_little_tells_nothing(units):
    assert all(np.isnan(x).all() and x.shape == units.shape for x in fields(moved(units)))
    assert FLOOR > 0


def test_missing_until_half_a_year_is_known_and_where_demand_comes_now_and_then():
    z = moved(weeks()).z[:, 0]
    assert np.isnan(z[:26]).all()
    assert not np.isnan(z[30:]).any()
    assert np.isnan(moved(weeks(), told=False).z).all()
