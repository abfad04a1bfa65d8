"""How reliable a supplier has been: every formula by table, shrinkage by law, and a recount line by line."""

from datetime import date

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from features import suppliers
from features.core import Tile, names
from features.matrix import Request, delay_matrix, first_fact
from features.panels import SUPPLY_MEASURES, Terms
from features.suppliers import LEVELS, PRIOR_LINES, late_counts
from features.weeks import Grid

nan = np.nan
AS_OF = date(2026, 6, 1)


def panel(step_days=7, prior=0.25, **measures):
    """A panel of one entity; measures that are not given are zero."""
    weeks = len(next(iter(measures.values())))
    columns = dict.fromkeys(SUPPLY_MEASURES, [0] * weeks) | measures | {"prior": [prior] * weeks}
    arrays = {
        name: xr.DataArray(np.array(values, float)[:, None], dims=("as_of", "entity"), attrs={"step_days": step_days})
        for name, values in columns.items()
    }
    return Tile(xr.Dataset(arrays, attrs={"step_days": step_days}))


def shrunk(late, matured):
    return (late + PRIOR_LINES * 0.25) / (matured + PRIOR_LINES)


BACKLOG = {"ordered_lines": [4, 0, 2, 0, 6], "closed_lines": [0, 2, 0, 4, 0]}  # 4, 2, 4, 0, 6 lines open
TABLES = {
    "late_share_4w": ({"matured_lines": [4, 0, 0, 0, 2], "late_lines": [1, 0, 0, 0, 2]},
                      [shrunk(1, 4)] * 4 + [shrunk(2, 2)]),
    "late_share_13w": ({"matured_lines": [0, 4, 6], "late_lines": [0, 1, 3]}, [0.25, shrunk(1, 4), shrunk(4, 10)]),
    "late_trend": ({"matured_lines": [8, 0, 0, 0, 8], "late_lines": [8, 0, 0, 0, 0]},
                   [0, 0, 0, 0, shrunk(0, 8) - shrunk(8, 16)]),
    "late_volatility_52w": ({"matured_lines": [2, 0, 0, 0, 2], "late_lines": [1, 0, 0, 0, 2]},
                            [nan, nan, nan, 0, np.std([0.5, 0.5, 0.5, 0.5, 1])]),
    "matured_lines_52w": ({"matured_lines": [1, 2, 0]}, [1, 3, 3]),
    "last_outcome": ({"matured_lines": [0, 1, 0, 1, 0, 0], "late_lines": [0, 1, 0, 0, 0, 0]}, [nan, 1, 1, 0, 0, 0]),
    "days_late_13w": ({"days_late": [0, -3, 9], "timed_lines": [0, 1, 2]}, [nan, -3, 2]),
    "lead_days_13w": ({"lead_days": [0, 10, 50], "completed_lines": [0, 1, 2]}, [nan, 10, 20]),
    "promised_days_52w": ({"promised_days": [10, 30], "promised_lines": [1, 1]}, [10, 20]),
    "lead_drift": ({"lead_days": [10, *[0] * 8, 30], "completed_lines": [1, *[0] * 8, 1]},
                   [0] * 8 + [nan, 30 - 20]),
    "lead_spread_52w": ({"lead_days": [10, 30], "lead_days_sq": [100, 900], "completed_lines": [1, 1]}, [0, 10]),
    "open_lines": (BACKLOG, [4, 2, 4, 0, 6]),
    "open_vs_usual": (BACKLOG, [1, 2 / 3, 4 / (10 / 3), 0, 6 / 3.2]),
    "overdue_share": (BACKLOG | {"overdue_lines": [0, 1, 1, -2, 3]}, [0, 0.5, 0.5, nan, 0.5]),
    "overdue_vs_usual": ({"overdue_lines": [0, 2, 0, -2]}, [nan, 2 / 2.5, 2 / 2.5, 0]),
    "weeks_since_receipt": ({"receipts": [0, 3, 0, 0]}, [nan, 0, 1, 2]),
    "weeks_since_order": ({"ordered_lines": [1, 0, 2]}, [0, 1, 0]),
    "lines_surge_4w": ({"ordered_lines": [2, 2, 2, 2, 6, 6, 6, 6]}, [nan] * 4 + [1.5, 2, 2.5, 3]),
    "value_surge_4w": ({"ordered_value": [2, 2, 2, 2, 0, 0, 0, 0]}, [nan] * 4 + [0.75, 0.5, 0.25, 0]),
    "pushed_share_13w": ({"pushes": [0, 1], "ordered_lines": [2, 2]}, [0, 0.25]),
    "push_days_52w": ({"pushes": [0, 2], "push_days": [0, 14]}, [nan, 7]),
    "pushes_per_open_line": (BACKLOG | {"open_pushes": [0, 1, 1, -2, 3]}, [0, 0.5, 0.5, nan, 0.5]),
    "products_26w": ({"products": [2, 0, 1, -2]}, [2, 2, 3, 1]),
    "line_units_52w": ({"ordered_units": [10, 50], "ordered_lines": [1, 2]}, [10, 20]),
    "unit_cost_52w": ({"ordered_value": [10, 50], "ordered_units": [5, 99], "costed_units": [5, 15]}, [2, 3]),
}  # fmt: skip
FORMULAS = {f.name: f for level in LEVELS for f in (*level.formulas, *level.when_ordered)}


@pytest.mark.parametrize("name", TABLES)
def test_supplier_feature(name):
    measures, expected = TABLES[name]
    np.testing.assert_allclose(FORMULAS[name].formula(panel(**measures)).values[:, 0], expected, rtol=1e-12)


def test_every_formula_has_a_table():
    windows = {"late_share_26w", "late_share_52w", "days_late_4w", "days_late_52w", "lead_days_52w", "pushed_share_4w"}
    assert set(FORMULAS) == set(TABLES) | windows


@pytest.mark.parametrize(
    ("late", "matured", "outcome", "share"),
    [
        ([1, 0, -1], [1, 0, 0], [1, 1, 0], [shrunk(1, 1), shrunk(1, 1), shrunk(0, 1)]),
        ([2, -1, 0], [2, 0, 0], [1, 0.5, 0.5], [shrunk(2, 2), shrunk(1, 2), shrunk(1, 2)]),
        ([1, 0, 0, 0, 0, -1], [1, 0, 0, 0, 0, 0], [1] * 5 + [0], [shrunk(1, 1)] * 4 + [0.25, 0.25]),  # beyond 4 weeks
    ],
)
def test_a_lateness_taken_back_is_no_longer_held_against_the_supplier(late, matured, outcome, share):
    found = panel(late_lines=late, matured_lines=matured)
    assert suppliers.last_outcome().formula(found).values[:, 0].tolist() == outcome
    np.testing.assert_allclose(suppliers.late_share(4).formula(found).values[:, 0], share)


def test_a_shrunk_share_is_not_told_as_if_it_had_been_counted():
    assert suppliers.late_share(52).say.startswith("on time about {value}")


@pytest.mark.parametrize("prior", [0.0, 0.1, 0.9])
def test_a_share_lies_between_the_prior_and_what_was_seen(prior):
    def share(late, matured):
        return float(
            suppliers.late_share(4).formula(panel(prior=prior, late_lines=[late], matured_lines=[matured])).values[0, 0]
        )

    assert share(0, 0) == pytest.approx(prior)
    for matured in (1, 8, 80, 8000):
        for late in (0, matured // 2, matured):
            assert min(prior, late / matured) - 1e-12 <= share(late, matured) <= max(prior, late / matured) + 1e-12
    assert share(8000, 8000) == pytest.approx(1, abs=0.001)  # much evidence outweighs any prior
    assert share(8, 8) == pytest.approx((prior + 1) / 2)  # as many own lines as the prior has weigh half


def test_windows_hold_for_any_step():
    daily = panel(step_days=1, matured_lines=[1] * 40, late_lines=[1] * 12 + [0] * 28)
    np.testing.assert_allclose(suppliers.late_share(4).formula(daily).values[-1], [shrunk(0, 28)])


def test_names_are_unique_and_every_feature_can_be_told():
    features = [f for level in LEVELS for f in level.features]
    assert len(set(names(features))) == len(features)
    for f in features:
        assert f.about.endswith(".")
        assert f.unit
        assert "{value" in f.say


# On the toy world, against a recount with plain pandas


@pytest.fixture(scope="module")
def known(toy):
    """The toy world as frames, the delay rows of a late as-of, and the day."""
    request = Request(Grid(first_fact(toy, "purchases"), AS_OF), Terms(posting_lag_days=5), "DE")
    step = request.grid.size - 9
    built = delay_matrix(toy, request, np.array([step, step - 20]))
    tables = {name: toy.execute(f"SELECT * FROM {name}").df() for name in ("purchases", "receipts", "promises")}
    return built, tables


def outcomes(tables, day):
    """Lines known before `day` with completion and the promise that stood when it fell due, by what was known then."""
    lines = tables["purchases"][tables["purchases"]["known_at"] < day]
    got = tables["receipts"][tables["receipts"]["known_at"] < day]
    ordered = lines[["po_line_id", "quantity"]].rename(columns={"quantity": "quantity_ordered"})
    got = got.merge(ordered, on="po_line_id").sort_values(["po_line_id", "received_on"])
    got["total"] = got["quantity"].fillna(got["quantity_ordered"]).groupby(got["po_line_id"]).cumsum()
    done = got[got["total"] >= got["quantity_ordered"] - 1e-6].groupby("po_line_id")
    found = lines.set_index("po_line_id").assign(complete_on=done["received_on"].min(), told=done["known_at"].min())
    moved = tables["promises"][tables["promises"]["known_at"] < day].sort_values("known_at")
    found["in_force"] = (
        moved.groupby("po_line_id")["promised_on"].last().reindex(found.index).fillna(found["promised_on"])
    )
    return found


def test_open_and_overdue_lines_and_lead_times_are_those_of_a_recount(known):
    built, tables = known
    for day in built.rows["as_of"].unique():
        lines = outcomes(tables, day)
        is_open = lines["complete_on"].isna() & ~(lines["cancelled_at"] < day)
        mine = built.rows["as_of"] == day
        assert set(built.rows.loc[mine, "po_line_id"]) == set(lines.index[is_open])
        for supplier, at in built.rows[mine].groupby("supplier_id").groups.items():
            own = lines[lines["supplier_id"] == supplier]
            X = built.X.loc[at[0]]
            still = is_open[own.index]
            assert X["supplier_open_lines"] == still.sum()
            assert X["supplier_overdue_share"] == pytest.approx((own["in_force"][still] < day).mean())
            year = own[own["told"] >= day - pd.Timedelta(weeks=52)]
            taken = (year["complete_on"] - year["ordered_at"].dt.normalize()).dt.days
            assert X["supplier_lead_days_52w"] == pytest.approx(taken.mean(), nan_ok=True)
            assert X["supplier_lead_spread_52w"] == pytest.approx(taken.std(ddof=0), rel=1e-4, nan_ok=True)
            late = (year["complete_on"] - year["promised_on"]).dt.days
            assert X["supplier_days_late_52w"] == pytest.approx(late.mean(), nan_ok=True)
            half = own[own["known_at"] >= day - pd.Timedelta(weeks=26)]
            assert X["supplier_products_26w"] == half["product_id"].nunique()
            got = tables["receipts"].query("known_at < @day & po_line_id in @own.index")["known_at"].max()
            assert X["supplier_weeks_since_receipt"] == (day - got - pd.Timedelta(1, "us")).days // 7


def test_late_counts_are_those_of_a_recount(known):
    built, tables = known
    moved = tables["promises"].sort_values("known_at")
    for day in built.rows["as_of"].unique():
        lines = outcomes(tables, day)
        first = lines[["promised_on", "known_at"]].reset_index()
        versions = pd.concat([first, moved[["po_line_id", "promised_on", "known_at"]].query("known_at < @day")])
        versions = versions.sort_values("known_at", kind="stable")
        versions["until"] = versions.groupby("po_line_id")["known_at"].shift(-1)
        due = versions["promised_on"]
        stood = versions["until"].isna() | (versions["until"] >= due + pd.Timedelta(days=1))
        asked = due + pd.Timedelta(days=5)
        step = day - (
            ((day - asked).dt.days // 7) * pd.Timedelta(days=7)
        )  # the as-of at which the outcome was asked for
        matured = versions[stood & (asked <= day) & (step > day - pd.Timedelta(weeks=52))].merge(
            lines[["supplier_id", "complete_on", "cancelled_at", "cancelled_by"]], on="po_line_id"
        )
        gone = (matured["cancelled_by"] != "supplier") & (
            matured["cancelled_at"] < matured["promised_on"] + pd.Timedelta(days=1)
        )
        matured = matured[~gone]
        late = ~(matured["complete_on"] <= matured["promised_on"])
        of = matured.assign(late=late).groupby("supplier_id")["late"].agg(["size", "sum"])
        mine = built.rows["as_of"] == day
        n, missed = late_counts(built.X[mine], "supplier", "chain")
        for supplier, count, misses in zip(built.rows.loc[mine, "supplier_id"], n, missed, strict=True):
            assert (count, misses) == tuple(of.loc[supplier])


def test_every_row_sees_the_standing_of_its_own_supplier(toy):
    """Reverse the order of the rows' keys: nothing but the order changes."""
    request = Request(Grid(first_fact(toy, "purchases"), AS_OF), Terms(posting_lag_days=5))
    whole = delay_matrix(toy, request, np.arange(request.grid.size))
    one = delay_matrix(toy, request, np.array([60]))
    same = whole.take(np.flatnonzero(whole.rows["step"] == 60))
    pd.testing.assert_frame_equal(one.X, same.X, rtol=1e-5)
    pd.testing.assert_frame_equal(one.rows, same.rows)
