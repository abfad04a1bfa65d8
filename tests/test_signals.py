"""External series as they stood: latest vintage known, most specific scope known, values ahead only when announced."""

from datetime import date

import numpy as np
import pandas as pd
import pytest

from features.signals import AHEAD, SIGNAL_FEATURES, signal_features
from features.weeks import Grid

nan = np.nan
GRID = Grid(date(2024, 1, 8), date(2024, 2, 5))  # as-of days 8, 15, 22, 29 January and 5 February


def rows(steps=range(5), **columns):
    own = {"site_id": "north", "supplier_id": "acme", "product_id": "soap", "category": "care", "region": "BR"}
    return pd.DataFrame({"step": list(steps)}).assign(**(own | {"site_region": "DE"} | columns))


def values(con, asked=None, grid=GRID, **more):
    asked = rows(range(grid.size)) if asked is None else asked
    block, features = signal_features(con, asked, grid, region=("site_region", "region"), **more)
    return {f.name: block[:, k].tolist() for k, f in enumerate(features)}


VINTAGES = """
    signal  scope  observed_on  known_at          value
    fuel    *      2024-01-01   2024-01-08T00:00  10
    fuel    *      2024-01-08   2024-01-16T09:00  20
    fuel    *      2024-01-08   2024-01-23T09:00  21
    fuel    *      2024-01-01   2024-01-30T09:00  99
"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("level", [nan, 10, 20, 21, 21]),  # revised on the 23rd; a revision of an older period replaces nothing
        ("age_days", [nan, 14, 14, 21, 28]),  # days since the period, not since it was published
    ],
)
def test_the_level_is_the_latest_vintage_known(facts, name, expected):
    np.testing.assert_array_equal(values(facts(signals=VINTAGES))[f"signal_fuel_{name}"], expected)


def test_of_periods_published_together_the_newest_counts(facts):
    signals = """
        signal  scope  observed_on  known_at          value
        fuel    *      2024-01-03   2024-01-05T09:00  30
        fuel    *      2024-01-01   2024-01-05T09:00  10
        fuel    *      2024-01-02   2024-01-05T09:00  20
    """
    assert values(facts(signals=signals))["signal_fuel_level"] == [30] * 5


def test_a_forecast_feeds_the_level_once_its_period_has_begun(facts):
    signals = """
        signal  scope  observed_on  known_at          value  kind
        rain    *      2024-01-16   2024-01-02T09:00  5      forecast
        rain    *      2024-01-16   2024-01-10T09:00  7      forecast
        rain    *      2024-01-16   2024-01-24T09:00  4      observed
    """
    found = values(facts(signals=signals))
    np.testing.assert_array_equal(found["signal_rain_level"], [nan, nan, 7, 4, 4])
    assert found["signal_rain_ahead"] == [1.25, 1.75, 0, 0, 0]  # as forecast on the day, never as observed


def weekly(first, periods, value):
    head = "signal scope observed_on known_at value\n"
    days = pd.date_range(first, periods=periods, freq="7D")
    return head + "\n".join(f"s * {d:%Y-%m-%d} {d:%Y-%m-%d}T12:00 {value(n)}" for n, d in enumerate(days))


def test_changes_and_z_look_back_by_whole_weeks(facts):
    grid = Grid(date(2023, 1, 2), date(2024, 6, 3))
    found = values(facts(signals=weekly("2023-01-02", 80, lambda n: n * n)), grid=grid)
    level = np.array([nan, *(n * n for n in range(grid.size - 1))], float)
    np.testing.assert_allclose(found["signal_s_level"], level)
    np.testing.assert_allclose(found["signal_s_change_4w"][20:], (level - np.roll(level, 4))[20:])
    np.testing.assert_allclose(found["signal_s_change_13w"][20:], (level - np.roll(level, 13))[20:])
    last = level[-52:]
    np.testing.assert_allclose(found["signal_s_z_52w"][-1], (last[-1] - last.mean()) / last.std(), rtol=1e-4)
    assert np.isnan(found["signal_s_z_52w"][:8]).all()  # eight values at least


def test_a_signal_that_stands_still_has_no_z(facts):
    grid = Grid(date(2023, 1, 2), date(2024, 6, 3))
    found = values(facts(signals=weekly("2023-01-02", 80, lambda n: 1e9 if n < 3 else 1234567.89)), grid=grid)
    assert np.isnan(found["signal_s_z_52w"][60:]).all()


SCOPES = """
    signal  scope                    observed_on  known_at          value
    s       *                        2024-01-01   2024-01-02T09:00  1
    s       region:DE                2024-01-01   2024-01-02T09:00  2
    s       region:BR                2024-01-01   2024-01-02T09:00  3
    s       site:north               2024-01-01   2024-01-17T09:00  4
    s       product:soap&site:north  2024-01-01   2024-01-24T09:00  5
    s       site:north&product:rope  2024-01-01   2024-01-02T09:00  6
"""


@pytest.mark.parametrize(
    ("columns", "level"),
    [
        ({}, [3, 3, 4, 5, 5]),  # a scope that nobody knew of yet is not matched
        ({"region": "FR"}, [2, 2, 4, 5, 5]),  # the second choice of region
        ({"region": "FR", "site_region": "FR"}, [1, 1, 4, 5, 5]),
        ({"product_id": "rope"}, [6, 6, 6, 6, 6]),  # joined in any order
        ({"site_id": "south", "product_id": "rope"}, [3, 3, 3, 3, 3]),
    ],
)
def test_the_most_specific_scope_known_wins(facts, columns, level):
    assert values(facts(signals=SCOPES), rows(**columns))["signal_s_level"] == level


def test_rows_that_no_scope_names_have_no_value(facts):
    signals = "signal scope observed_on known_at value kind\n"
    signals += "s site:south 2024-01-01 2024-01-02 1 observed\np site:south 2024-01-20 2024-01-02 1 calendar"
    found = values(facts(signals=signals))
    assert sorted(found) == ["signal_p_ahead", *(f"signal_s_{f.name}" for f in sorted(SIGNAL_FEATURES, key=_name))]
    assert np.isnan(list(found.values())).all()


def _name(feature):
    return feature.name


def test_a_scope_of_a_kind_that_rows_do_not_have_is_left_out(facts):
    signals = "signal scope observed_on known_at value\ns supplier:acme 2024-01-01 2024-01-02 1"
    assert values(facts(signals=signals), rows().drop(columns="supplier_id")) == {}


CALENDAR = """
    signal  scope         observed_on  known_at          value  kind
    promo   product:soap  2024-01-22   2024-01-08T00:00  10     calendar
    promo   product:soap  2024-01-22   2024-01-16T09:00  30     calendar
    promo   product:soap  2024-02-26   2024-01-02T09:00  8      calendar
"""


@pytest.mark.parametrize(
    ("begin", "length", "expected"),
    [
        (0, 4, [0, 2.5, 7.5, 0, 2]),  # announced at the as-of itself is not known; then 10/4, then 30/4
        (4, 4, [2, 2, 2, 2, 0]),
        (0, 1, [0, 0, 30, 0, 0]),
        (0, 8, [1, 2.25, 4.75, 1, 1]),
    ],
)
def test_calendar_values_count_ahead_once_they_are_announced(facts, begin, length, expected):
    found = values(facts(signals=CALENDAR), begin_weeks=begin, length_weeks=length)
    assert found == {"signal_promo_ahead": expected}


def test_every_row_may_look_at_a_window_of_its_own(facts):
    found = values(
        facts(signals=CALENDAR), begin_weeks=np.array([0, 0, 0, 4, 0]), length_weeks=np.array([4, 4, 1, 4, 4])
    )
    assert found["signal_promo_ahead"] == [0, 2.5, 30, 2, 2]


def test_before_anything_is_announced_nothing_is_said(facts):
    signals = CALENDAR.replace("2024-01-02T09:00", "2024-01-18T09:00").replace("2024-01-08T00:00", "2024-01-18T09:00")
    signals = signals.replace("2024-01-16T09:00", "2024-01-18T10:00")
    np.testing.assert_array_equal(values(facts(signals=signals))["signal_promo_ahead"], [nan, nan, 7.5, 0, 2])


def test_odd_names_and_scopes_do_no_harm(facts):
    con = facts()
    odd = ["oil {0} \"x\" 'y', [z]", "promise", "level", "ünï: \\"]
    for n, name in enumerate(odd):
        con.execute("INSERT INTO signals VALUES (?, ?, '2024-01-01', '2024-01-02', ?, NULL)", [name, "region:B:R", n])
        con.execute("INSERT INTO signals VALUES (?, '*', '2024-01-01', '2024-01-02', ?, 'observed')", [name, 9 + n])
    block, features = signal_features(con, rows(region="B:R"), GRID, region=("region",))
    assert len({f.name for f in features}) == len(features) == 5 * len(odd)
    level = {f.name: k for k, f in enumerate(features) if f.name.endswith("_level")}
    assert [block[0, level[f"signal_{name}_level"]] for name in odd] == [0, 1, 2, 3]
    said = [features[k].say.format(value=1, usual=2) for k in level.values()]
    assert sorted(said) == sorted(f"signal {name}: stands at 1, usually 2" for name in odd)


def test_thousands_of_scopes(facts):
    con = facts()
    con.execute(
        "INSERT INTO signals SELECT 's', 'product:p' || n, DATE '2024-01-01', TIMESTAMP '2024-01-02 00:00:00', n, "
        "CASE WHEN n % 2 = 0 THEN 'observed' ELSE 'calendar' END FROM range(5000) t(n)"
    )
    found = values(con, rows([1] * 4, product_id=["p4998", "p4999", "p7", "none"]))
    np.testing.assert_array_equal(found["signal_s_level"], [4998, nan, nan, nan])
    np.testing.assert_array_equal(found["signal_s_ahead"], [nan, 0, 0, nan])


def test_without_signals_there_are_no_columns(facts):
    block, features = signal_features(facts(), rows(), GRID, region=("region",))
    assert (block.shape, features) == ((5, 0), ())
    assert AHEAD.say
