"""What is known ahead: which value of a week a series reads, and what events have done to demand so far."""

from datetime import date

import numpy as np
import pandas as pd
import pytest

from features.baseline import outlook
from features.events import events, learn_effects
from features.noise import Groups
from features.weeks import Grid

nan = np.nan
GRID = Grid(date(2024, 1, 8), date(2024, 2, 5))  # as-of days 8, 15, 22, 29 January and 5 February
SERIES = pd.DataFrame({
    "product_id": ["rope", "soap"], "site_id": ["south", "north"], "category": ["tool", "care"], "region": ["", "BR"]
})  # fmt: skip
PROMOTIONS = """
    signal  scope                    observed_on  known_at          value  kind
    promo   *                        2024-01-01   2023-12-20T00:00  0      calendar
    promo   product:soap             2024-01-15   2024-01-08T00:00  0.2    calendar
    promo   product:soap             2024-01-15   2024-01-16T09:00  0.3    calendar
    promo   product:soap&site:north  2024-01-24   2024-01-10T09:00  0.5    calendar
    promo   product:soap             2024-01-22   2024-01-10T09:00  0.1    calendar
    promo   supplier:acme            2024-01-22   2024-01-10T09:00  9      calendar
"""


def weeks(con, ahead, grid=GRID):
    (event,) = events(con, grid, SERIES)
    return [week[:, 1].tolist() for week in event.weeks(ahead)]


def test_a_week_has_the_latest_vintage_known_of_the_most_specific_scope(facts):
    ended, first, second = weeks(facts(signals=PROMOTIONS), 2)
    # of the as-of days 8, 15, 22, 29 January and 5 February
    assert ended == [0, 0, 0.3, 0.5, 0]
    assert first == [0, 0.2, 0.5, 0, 0]  # a vintage of 00:00 of the 8th is known on the 15th
    assert second == [0, 0.5, 0, 0, 0]


def test_other_series_are_not_touched(facts):
    (event,) = events(facts(signals=PROMOTIONS), GRID, SERIES)
    assert all((week[:, 0] == 0).all() for week in event.weeks(2))


def test_a_price_stands_until_it_changes(facts):
    days = pd.date_range("2023-10-30", periods=14, freq="7D").strftime("%Y-%m-%d")
    values = [2] * 11 + [4] * 3
    told = "\n".join(f"p * {day} 2023-10-01 {v} calendar" for day, v in zip(days, values, strict=True))
    con = facts(signals=f"signal scope observed_on known_at value kind\n{told}")
    ended, first, second = weeks(con, 2, Grid(date(2023, 11, 6), date(2024, 2, 5)))
    assert np.isnan(ended[:6]).all()  # nobody knows yet that it is a price
    np.testing.assert_allclose(ended[-5:], np.log([2, 2, 4, 4, 4]))
    np.testing.assert_allclose(first[-5:], np.log([2, 4, 4, 4, 4]))  # after the last one listed it stands
    np.testing.assert_allclose(second[-5:], np.log([4, 4, 4, 4, 4]))


def test_observations_and_forecasts_are_no_events(facts):
    told = "signal scope observed_on known_at value kind\na * 2024-01-08 2024-01-09 1 observed\n"
    assert events(facts(signals=told + "b * 2024-01-08 2024-01-01 1 forecast"), GRID, SERIES) == []


# Effects


def promoted(weeks=140, series=6, effect=1.0, seed=0):
    rng = np.random.default_rng(seed)
    promo = (rng.random((weeks, series)) < 0.2) * 1.0
    size = np.array([20, 50, 100, 200, 400, 800])[:series]
    return size * np.exp(effect * promo + rng.normal(0, 0.15, promo.shape)), promo


class Told:
    """An event that was always known."""

    def __init__(self, values):
        self.values = values

    def weeks(self, ahead):
        for a in range(ahead + 1):
            yield self.values[a : len(self.values) - 4 + a]


def groups(n):
    return Groups(np.zeros(n, int), np.arange(n), 1)


@pytest.mark.parametrize("effect", [1.0, 0.0, -0.5])
def test_the_effect_of_an_event_is_found(effect):
    units, promo = promoted(effect=effect)
    n = units.shape[1]
    beta = learn_effects(units, promo[..., None], groups(n), np.ones(units.shape, bool))
    np.testing.assert_allclose(beta[-1, :, 0], effect, atol=0.12)
    assert (beta[0] == 0).all()


def test_a_new_product_takes_its_categorys_effect():
    units, promo = promoted()
    units[:, 5], promo[:135, 5] = np.where(np.arange(140) < 130, 0, units[:, 5]), 0
    beta = learn_effects(units, promo[..., None], groups(6), units > 0)
    assert beta[-1, 5, 0] == pytest.approx(1, abs=0.15)


def test_effects_do_not_know_later_weeks():
    units, promo = promoted()
    n = units.shape[1]
    whole, part = (learn_effects(units[:k], promo[:k, :, None], groups(n), np.ones((k, n), bool)) for k in (140, 90))
    np.testing.assert_allclose(whole[:90], part)


def test_a_planned_promotion_is_in_the_baseline_and_past_ones_are_not_in_the_level():
    sizes = np.array([20, 50, 100, 200, 400, 800])
    units, promo = promoted()
    units[120:], promo[120:] = sizes, 0  # a quiet end …
    promo[136:] = 1  # … but four promoted weeks are announced
    now = units[:136]
    told = outlook(now, groups(6), windows=((0, 4),), events=[Told(promo)])
    plain = outlook(now, groups(6), windows=((0, 4),))
    np.testing.assert_allclose(told.units[0][135] / plain.units[0][135], np.e, rtol=0.25)
    promo[123:136], promo[136:] = 1, 0  # the other way round: promoted lately, nothing announced
    now = np.vstack([units[:123], units[123:136] * np.e])
    told = outlook(now, groups(6), windows=((0, 4),), events=[Told(promo)])
    np.testing.assert_allclose(told.units[0][135], 4 * sizes, rtol=0.3)
    assert (told.recent[135] > 0.3).all()


def test_without_series_or_events_nothing_breaks(facts):
    assert events(facts(), GRID, SERIES.iloc[:0]) == []
    out = outlook(np.zeros((10, 0)), groups(0), windows=((0, 4),), events=[Told(np.zeros((14, 0)))])
    assert out.units[0].shape == (10, 0)
