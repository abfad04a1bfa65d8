"""Demand per product and site as it became known, its movements, and the windows to be judged."""

from datetime import date

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from features.baseline import WINDOWS
from features.core import Tile
from features.counts import MEASURES
from features.demand import demand, is_intermittent, piece_of, series_windows
from features.labels import ShiftTerms, shift_labels, shift_outcomes
from features.matrix import Request, delay_matrix, first_fact, shift_matrix
from features.panels import Terms
from features.series import SERIES_FEATURES, WINDOW_FEATURES, demand_features
from features.weeks import Grid

nan = np.nan
GRID = Grid(date(2024, 1, 8), date(2024, 2, 5))  # as-of days 8, 15, 22, 29 January and 5 February
AS_OF = date(2026, 6, 1)
ORDERS = """
    order_line_id  product_id  site_id  ordered_at        quantity  unit_price  customer_id  requested_on  cancelled_at      known_at
    o1             soap        north    2024-01-02T10:00  4         2           c1           2024-01-10    -                 2024-01-02T10:00
    o2             soap        north    2024-01-03T10:00  2         3           c1           2024-01-03    -                 2024-01-03T10:00
    o3             soap        north    2024-01-04T10:00  6         -           c2           2024-01-26    2024-01-16T10:00  2024-01-09T10:00
    o4             soap        north    2024-01-08T00:00  8         1           -            -             -                 2024-01-08T00:00
    o5             soap        north    2024-01-30T10:00  5         1           c1           2024-03-30    2024-01-31T10:00  2024-02-03T10:00
    o6             rope        south    2024-01-30T10:00  1         1           c1           -             -                 2024-01-30T10:00
"""  # noqa: E501


def built(con, grid=GRID, **more):
    return demand(con, grid, **more)


def soap(data, measure):
    (entity,) = np.flatnonzero(data.series["product_id"] == "soap")
    return data.panel[measure].values[:, entity].tolist()


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        ("units", [6, 14, 0, 0, 5]),  # o3 by the day it was entered, o4 of an as-of at 00:00 in the step after
        ("value", [14, 8, 0, 0, 5]),
        ("priced_units", [6, 8, 0, 0, 5]),
        ("lines", [2, 2, 0, 0, 1]),
        ("customers", [1, 2, 0, 0, 1]),  # an order without customer is one of its own
        ("largest", [4, 8, 0, 0, 5]),
        ("customer_squares", [36, 36 + 64, 0, 0, 25]),
        ("units_squared", [36, 14**2, 0, 0, 25]),
        ("cancelled_units", [0, 0, 6, 0, 5]),  # o5 was cancelled before it was entered
        ("ahead_units", [4, 6 - 4, -6, 0, 0]),  # until the day it is wanted, or its cancellation
        ("net", [6, 14, 0, 0, 0]),
    ],
)
def test_orders_count_when_they_became_known(facts, measure, expected):
    assert soap(built(facts(orders=ORDERS)), measure) == expected


def test_series_have_their_category_and_site_totals(facts):
    products = "product_id category\nsoap care\nrope care"
    sites = "site_id region\nnorth BR"
    data = built(facts(orders=ORDERS, products=products, sites=sites))
    assert data.series.to_dict("list") == {
        "product_id": ["rope", "soap"], "site_id": ["south", "north"],
        "category": ["care", "care"], "region": ["", "BR"],
    }  # fmt: skip
    assert soap(data, "category_units") == [6, 14, 0, 0, 1]
    assert soap(data, "site_units") == [6, 14, 0, 0, 0]


def test_stock_is_the_latest_count_known(facts):
    stock = """
        product_id  site_id  known_at          on_hand
        soap        north    2024-01-09T08:00  5
        soap        north    2024-01-12T08:00  3
        soap        north    2024-01-22T00:00  9
        cord        north    2024-01-12T08:00  7
    """
    np.testing.assert_array_equal(soap(built(facts(orders=ORDERS, stock=stock)), "on_hand"), [nan, 3, 3, 9, 9])


PLAN = """
    product_id  site_id  week        known_at          quantity
    soap        north    2024-01-15  2024-01-02T08:00  1
    soap        north    2024-01-22  2024-01-02T08:00  1
    soap        north    2024-01-29  2024-01-02T08:00  1
    soap        north    2024-02-05  2024-01-02T08:00  1
    soap        north    2024-01-22  2024-01-15T00:00  50
    soap        north    2024-02-12  2024-01-16T08:00  5
    cord        north    2024-02-12  2024-01-16T08:00  5
"""


def test_the_plan_in_force_is_the_baseline_where_every_week_is_planned(facts):
    data = built(facts(orders=ORDERS, plan=PLAN))
    (entity,) = np.flatnonzero(data.series["product_id"] == "soap")
    planned, level = data.outlook.units[0][:, entity], 4 * data.outlook.level[:, entity]
    assert planned[1] == 4  # of the 15th: the vintage of 00:00 that day is not known yet
    assert planned[2] == 50 + 1 + 1 + 5
    np.testing.assert_allclose(planned[[0, 3, 4]], level[[0, 3, 4]])  # a week is missing: not a plan


def test_prices_are_those_of_26_weeks_and_one_where_none_was_ever_known(facts):
    data = built(facts(orders=ORDERS.replace("1           c1           -   ", "-           c1           -   ")))
    assert data.price[:, 1].tolist() == pytest.approx([14 / 6, 22 / 14, 22 / 14, 22 / 14, 27 / 19])
    assert data.price[:, 0].tolist() == [1] * 5


# Features


def panel(**given):
    weeks = len(next(iter(given.values())))
    given = {"net": given.get("units", [0] * weeks)} | given
    columns = dict.fromkeys((*MEASURES, "net", "level", "interval", "on_hand"), [0] * weeks) | given
    arrays = {
        name: xr.DataArray(np.array(values, float)[:, None], dims=("as_of", "entity"), attrs={"step_days": 7})
        for name, values in columns.items()
    }
    return Tile(xr.Dataset(arrays, attrs={"step_days": 7}))


YEAR = [*range(1, 61)]
TABLES = {
    "level": ({"level": [3, 4]}, [3, 4]),
    "units_1w_to_level": ({"net": [3, 8], "level": [6, 4]}, [0.5, 2]),
    "units_4w_to_level": ({"net": [0, 3, 8], "level": [0, 6, 4]}, [nan, 0.5, 5.5 / 4]),
    "net_momentum_4w_13w": ({"net": [2, 2, 2, 2, 6, 6, 6, 6]},
                            [1, 1, 1, 1, 3 / 2.8, 4 / (20 / 6), 5 / (26 / 7), 6 / 4]),
    "lines_momentum_4w_26w": ({"lines": [1, 1, 1, 1, 3]}, [1, 1, 1, 1, 1.5 / 1.4]),
    "category_units_momentum_4w_13w": ({"category_units": [1, 1, 1, 1, 3]}, [1, 1, 1, 1, 1.5 / 1.4]),
    "product_units_momentum_4w_13w": ({"product_units": [1, 1, 1, 1, 3]}, [1, 1, 1, 1, 1.5 / 1.4]),
    "product_units_momentum_1w_13w": ({"product_units": [1, 3]}, [1, 1.5]),
    "site_units_momentum_4w_13w": ({"site_units": [1, 1, 1, 1, 3]}, [1, 1, 1, 1, 1.5 / 1.4]),
    "slope_4w": ({"net": [2, 2, 2, 2, 6, 6, 6, 6], "level": [4] * 8}, [nan] * 4 + [0.25, 0.5, 0.75, 1]),
    "volatility_13w": ({"net": [2, 4, 2, 4]}, [nan] * 3 + [1 / 3]),
    "interval": ({"interval": [1, 2]}, [1, 2]),
    "zero_share_13w": ({"net": [0, 0, 5, 5, 0, 0]}, [nan, nan, 0, 0, 1 / 3, 1 / 2]),  # since the first demand
    "days_since_order": ({"lines": [0, 2, 0, 0, 1]}, [nan, 0, 7, 14, 0]),
    "age_weeks": ({"net": [0, 2, 0, *[1] * 105]}, [0, *range(1, 105), 104, 104, 104]),
    "last_year_move": ({"net": YEAR}, [nan] * 52 + [
        np.mean(YEAR[t - 51 : t - 47]) / np.mean(YEAR[max(t - 64, 0) : t - 51]) for t in range(52, 60)
    ]),
    "line_size_change": ({"units": [4, 4, 4, 4, 12], "lines": [2, 2, 2, 2, 1]}, [1, 1, 1, 1, (24 / 7) / (28 / 9)]),
    "largest_share_13w": ({"largest": [3, 0, 1], "units": [4, 0, 2]}, [0.75, 0.75, 0.5]),
    "customer_concentration_13w": ({"customer_squares": [10, 6], "units_squared": [16, 16]}, [10 / 16, 0.5]),
    "concentration_change": ({"customer_squares": [8, *[0] * 3, 4], "units_squared": [8, *[0] * 3, 8]},
                             [0] * 4 + [0.5 - 0.75]),
    "cancelled_share_13w": ({"cancelled_units": [0, 1], "units": [2, 2]}, [0, 0.25]),
    "wait_change": ({"wait_unit_days": [20, *[0] * 3, 60], "asked_units": [10, *[0] * 3, 10]}, [0] * 4 + [6 - 4]),
    "price_change": ({"value": [10, 0, 0, 0, 20], "priced_units": [10, 0, 0, 0, 10]}, [1, 1, 1, 1, 2 / 1.5]),
    "ahead_to_level": ({"ahead_units": [8, 4, -8], "level": [4, 4, 4]}, [2, 3, 1]),
    "cover_weeks": ({"on_hand": [nan, 8, 8, 8], "level": [4, 4, 2, 0]}, [nan, 2, 4, nan]),
}  # fmt: skip
SAME_FORMULA = {
    "units_2w_to_level", "units_8w_to_level", "units_26w_to_level", "units_52w_to_level", "net_momentum_13w_52w",
    "customers_momentum_4w_26w", "category_units_momentum_2w_13w", "category_units_momentum_4w_26w", "volatility_52w",
    "cancelled_share_4w",
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_series_feature(name):
    measures, expected = TABLES[name]
    (feature,) = (f for f in SERIES_FEATURES if f.name == name)
    extra = {k: [0] * len(expected) for k in ("category_units", "site_units", "product_units") if k not in measures}
    np.testing.assert_allclose(feature.formula(panel(**measures, **extra)).values[:, 0], expected, rtol=1e-12)


def test_every_series_feature_has_a_table_or_its_formula_has():
    assert {f.name for f in SERIES_FEATURES} == set(TABLES) | SAME_FORMULA
    every = [f.name for f in (*SERIES_FEATURES, *WINDOW_FEATURES)]
    assert len(set(every)) == len(every)


def orders(units, product="soap", first="2022-01-03"):
    days = pd.date_range(first, periods=len(units), freq="7D")
    frame = pd.DataFrame({"ordered_at": days + pd.Timedelta(hours=12), "quantity": np.array(units, float)})
    frame = frame[frame["quantity"] > 0].assign(product_id=product, site_id="north")
    return frame.assign(order_line_id=product + frame.index.astype(str), known_at=frame["ordered_at"])


def world(con, *parts):
    frame = pd.concat(parts)
    con.execute(f"INSERT INTO orders BY NAME SELECT {', '.join(frame.columns)} FROM frame")
    return con


def windows(con, weeks, origins, **more):
    grid = Grid(date(2022, 1, 10), date(2022, 1, 3) + pd.Timedelta(weeks=weeks), 7)
    data = built(con, grid, **more)
    rows = series_windows(data, np.array(origins), "DE")
    block, names = demand_features(data, rows)
    return data, rows, pd.DataFrame(block, columns=names)


def test_a_series_has_a_row_per_origin_and_window_while_it_had_orders_within_a_year(facts):
    con = world(facts(), orders([1] * 3 + [0] * 70), orders([0] * 70 + [1], "rope"))
    _, rows, _ = windows(con, 71, [0, 52, 55, 70])
    seen = rows.groupby(["product_id", "step"]).size()
    assert seen.to_dict() == {("rope", 70): 3, ("soap", 0): 3, ("soap", 52): 3}  # last order in the week of step 2
    assert sorted(set(zip(rows["lead_weeks"], rows["length_weeks"], strict=True))) == sorted(WINDOWS)


def test_window_features_by_hand(facts):
    units = [10] * 80
    units[60:64] = [30] * 4
    _, rows, X = windows(world(facts(), orders(units)), 80, [63, 79])
    first = (rows["window"] == 0) & (rows["step"] == 63)
    assert X.loc[first, "last_z"].item() == pytest.approx(4 * 20 / np.sqrt(40), rel=1e-5)  # σ was √(1 · 40)
    assert X.loc[first, "past_up"].item() == pytest.approx(4 / 52)
    later = (rows["window"] == 0) & (rows["step"] == 79)
    past_n = rows.loc[later, "past_n"].item()
    assert past_n == 52
    assert X.loc[later, "past_up"].item() == pytest.approx(6 / 52)  # then the level had learnt of it
    assert X.loc[later, "tracking_signal"].abs().item() <= 8
    assert X["lead_weeks"].tolist() == [0, 0, 4, 4, 8, 8]
    begin = rows["as_of"] + pd.to_timedelta(7 * rows["lead_weeks"], unit="D")
    assert X["month"].tolist() == begin.dt.month.tolist()
    assert (X["season"] == 1).all()


def test_holidays_of_the_window_are_counted(facts):
    _, rows, X = windows(world(facts(), orders([5] * 51)), 51, [49])
    assert rows["as_of"].unique().tolist() == [pd.Timestamp("2022-12-19")]
    assert X["holidays"].tolist() == [3, 0, 0]  # both Christmas days, New Year's Day; none until mid-March


def test_a_steady_series_never_shifts_and_a_doubled_one_does(facts):
    units = [10] * 100
    units[90:] = [30] * 10
    data, rows, _ = windows(world(facts(), orders(units)), 100, [60, 89])
    rows = rows.assign(**shift_outcomes(world(facts(), orders(units)), data.grid, rows, ShiftTerms()))
    labels = dict(zip(zip(rows["step"], rows["window"], strict=True), shift_labels(rows, ShiftTerms()), strict=True))
    assert [labels[60, k] for k in range(3)] == [1, 1, 1]
    assert labels[89, 0] == 2


def test_a_row_tells_how_far_its_series_has_moved(facts):
    units = [10, 12] * 49 + [8, 8]
    _, rows, _ = windows(world(facts(), orders(units), orders([10] * 100, "rope")), 100, [12, 99])
    rows = rows[rows["product_id"] == "soap"].set_index(["step", "window"])
    assert rows.loc[12, "moved_z"].isna().all()
    assert rows.loc[99, "moved_share"].to_list() == pytest.approx([8 / 11 - 1] * 3, abs=0.02)
    assert (rows.loc[99, "moved_z"] < -3).all()


@pytest.mark.parametrize("units", [[1], [0, 0, 1], [3] * 2, [1] + [0] * 60 + [1]])
def test_short_and_sparse_series_do_no_harm(facts, units):
    _, rows, X = windows(world(facts(), orders(units)), len(units), [len(units) - 1])
    assert len(rows) == len(X) == 3
    assert (rows["noise_units"] >= 1).all()
    assert not np.isinf(X.to_numpy()).any()


@pytest.mark.parametrize(
    ("quantities", "piece"),
    [
        ([1, 12, 300], 1),
        ([0.3, 1.2, 4], 0.1),
        ([0.25, 0.5, 0.75], 0.01),
        ([0.004, 0.012, 0.025], 0.001),
        ([1.234, 2.718, 3.142], 0.1),  # a usual line of some 2: the third digit is measured, not counted
        ([12.5, 27.2, 31.6], 1),
        ([1 / 3, 2 / 7, 0.123456789], 0.01),
        ([1] * 60 + [0.5], 1),  # one that is a mistake
        ([-3.5, 0, 2], 1),  # returns tell nothing
        ([], 1),
    ],
)
def test_demand_is_counted_in_the_pieces_it_is_told_in(facts, quantities, piece):
    con = world(facts(), orders([1]))
    con.execute("DELETE FROM orders")
    for quantity in quantities:
        con.execute("INSERT INTO orders BY NAME SELECT ? AS quantity, TIMESTAMP '2026-05-01' AS known_at", [quantity])
    con.execute(
        "INSERT INTO orders BY NAME SELECT 0.017 AS quantity, TIMESTAMP '2026-06-01' AS known_at FROM range(999)"
    )
    assert piece_of(con, AS_OF) == pytest.approx(piece)


def shifted(facts, unit):
    """Return inputs, labels and rows of six series, three of them slow, whose pieces are `unit` units."""
    rng = np.random.default_rng(4)
    parts = [
        orders(unit * rng.poisson(mean * np.repeat(rng.choice([0.2, 1, 2], 11), 10)), name)
        for name, mean in zip("abcdef", (90, 50, 30, 0.9, 0.8, 0.7), strict=True)
    ]
    con = world(facts(), *(part.assign(unit_price=2 / unit) for part in parts))
    piece = piece_of(con, AS_OF)
    data, rows, X = windows(con, 110, range(40, 104), piece=piece)
    terms = ShiftTerms(z_down=0.8, z_up=1.0, piece=piece)
    rows = rows.assign(**shift_outcomes(con, data.grid, rows, terms))
    return X, shift_labels(rows, terms), rows


@pytest.mark.parametrize("unit", [0.01, 0.1])
def test_tonnes_and_kilograms_give_the_same_inputs_and_events(facts, unit):
    X, y, rows = shifted(facts, 1)
    X2, y2, rows2 = shifted(facts, unit)
    np.testing.assert_array_equal(y, y2)
    assert min((y == k).sum() for k in (0, 1, 2)) > 20
    for name in ("baseline_units", "noise_units", "naive_units"):
        np.testing.assert_allclose(rows2[name], unit * rows[name], rtol=1e-3)
    X2["level"] /= unit
    np.testing.assert_allclose(X2, X, rtol=1e-3, atol=1e-3)


def test_intermittent_begins_at_the_limit():
    assert is_intermittent([1.0, 1.31, 1.32, 9, nan]).tolist() == [False, False, True, True, False]


# Worlds that lack something


def request(first="2024-01-08", as_of="2024-02-05", step_days=7):
    return Request(Grid(date.fromisoformat(first), date.fromisoformat(as_of), step_days), Terms(), "DE")


def test_purchases_alone_are_enough_for_delays(facts):
    purchases = "po_line_id supplier_id product_id site_id ordered_at promised_on quantity\nl1 a p n 2024-01-02 - 5"
    built = delay_matrix(facts(purchases=purchases), request(), np.arange(5))
    assert len(built.rows) == len(built.X) == 5
    assert list(built.X) == [f.name for f in built.features]
    assert built.X["supplier_open_lines"].tolist() == [1] * 5
    assert delay_matrix(facts(), request(), np.arange(5)).X.shape == (0, built.X.shape[1])


@pytest.mark.parametrize("asked", [request(as_of="2024-01-08"), request(step_days=1), request(as_of="2024-01-15")])
def test_grids_of_any_size(facts, asked):
    purchases = "po_line_id supplier_id product_id site_id ordered_at promised_on quantity\n"
    con = facts(purchases=purchases + "l1 a p n 2024-01-02 2024-01-05 5", orders=ORDERS)
    assert len(delay_matrix(con, asked, np.arange(asked.grid.size)).rows) == asked.grid.size
    if asked.grid.step_days == 7:
        assert len(shift_matrix(con, asked, np.arange(asked.grid.size))[0].rows) == 3 * asked.grid.size


def test_orders_alone_are_enough_for_shifts(facts):
    built, _ = shift_matrix(facts(orders=ORDERS), request(), np.arange(5))
    assert list(built.X) == [f.name for f in built.features]
    assert len(built.rows) == 3 * (5 + 1)
    none, _ = shift_matrix(facts(), request(), np.arange(5))
    assert none.X.shape == (0, built.X.shape[1])


def test_attributes_are_numbers_only_where_every_line_has_one(facts):
    head = "po_line_id supplier_id product_id site_id ordered_at promised_on quantity ship_mode supplier_rank\n"
    con = facts(
        purchases=head + "l1 a p n 2024-01-02 - 5 7 1\nl2 a p n 2024-01-20 - 5 air 2\nl3 a p n 2024-03-01 - 5 air x"
    )
    asked = Request(GRID, Terms(), "", ("ship_mode", "supplier_rank", "supplier_id"))
    one, every = (delay_matrix(con, asked, np.array(steps)).X for steps in ([0], range(5)))
    for X in (one, every):  # of one day or many: the kind is that of all lines known by the grid's end
        assert X["attribute_ship_mode"].dtype == object
        assert X["attribute_supplier_rank"].dtype == np.float32
        assert X["attribute_supplier_id"].tolist() == ["a"] * len(X)
    assert every["attribute_ship_mode"].tolist() == ["7"] * 5 + ["air"] * 3


# On the toy world, against a recount with plain pandas


def divided(part, whole):
    return part / whole if whole else nan


def approx(value):
    return pytest.approx(value, rel=1e-5, nan_ok=True)


def test_shift_rows_are_those_of_a_recount(toy):
    asked = Request(Grid(first_fact(toy, "orders"), AS_OF), Terms(), "DE")
    step = asked.grid.size - 20
    built, data = shift_matrix(toy, asked, np.array([step]))
    day = pd.Timestamp(asked.grid.days[step])
    lines = toy.execute("SELECT * FROM orders").df()
    seen = lines[lines["known_at"] < day]
    came = shift_outcomes(toy, data.grid, built.rows, ShiftTerms())
    rows = pd.concat([built.rows, built.X], axis=1).assign(**came)
    rows = rows[rows["window"] == 0].set_index(["product_id", "site_id"])
    for key, own in seen[seen["known_at"] >= day - pd.Timedelta(weeks=52)].groupby(["product_id", "site_id"]):
        row, recent = rows.loc[key], own[own["known_at"] >= day - pd.Timedelta(weeks=13)]
        mine = seen[(seen["product_id"] == key[0]) & (seen["site_id"] == key[1])]
        gone = mine[(mine["cancelled_at"] < day) & (mine["cancelled_at"] >= day - pd.Timedelta(weeks=13))]
        assert row["largest_share_13w"] == approx(divided(recent["quantity"].max(), recent["quantity"].sum()))
        assert row["cancelled_share_13w"] == approx(divided(gone["quantity"].sum(), recent["quantity"].sum()))
        price = []
        for weeks in (4, 26):
            part = own[own["known_at"] >= day - pd.Timedelta(weeks=weeks)]
            price.append(divided((part["unit_price"] * part["quantity"]).sum(), part["quantity"].sum()))
        assert row["price_change"] == approx(price[0] / price[1])
        assert row["days_since_order"] == (day - own["known_at"].max() - pd.Timedelta(1, "us")).days // 7 * 7
        ahead = lines[(lines["product_id"] == key[0]) & (lines["site_id"] == key[1])]
        end = day + pd.Timedelta(weeks=4)
        ahead = ahead[(ahead["ordered_at"] >= day) & (ahead["ordered_at"] < end) & ~(ahead["cancelled_at"] < end)]
        assert row["actual_units"] == approx(ahead["quantity"].sum())
    assert (
        len(rows) == seen[seen["known_at"] >= day - pd.Timedelta(weeks=52)].groupby(["product_id", "site_id"]).ngroups
    )
