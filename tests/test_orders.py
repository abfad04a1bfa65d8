"""Open lines as they stood: state, promise in force, what had come in, and what the line itself tells."""

from datetime import date

import numpy as np
import pandas as pd
import pytest

from features.orders import LINE_FEATURES, line_features, new_lines, open_lines
from features.panels import Terms, write_line_history
from features.weeks import Grid

GRID = Grid(date(2024, 1, 8), date(2024, 2, 5))  # as-of days 8, 15, 22, 29 January and 5 February
LINE = """
    po_line_id  supplier_id  product_id  site_id  ordered_at  promised_on  quantity  unit_cost  need_on     requested_on
    l1          acme         soap        north    2024-01-03  2024-01-17   10        2.5        2024-01-22  2024-01-15
"""
EVERY, TERMS = np.arange(5), Terms()


def rows(con, steps=EVERY, terms=TERMS, country="", grid=GRID):
    write_line_history(con, terms)
    return open_lines(con, grid, terms, steps=steps, country=country)


def days(found, column="as_of"):
    return found[column].dt.strftime("%m-%d").tolist()


@pytest.mark.parametrize(
    ("known", "received", "as_of"),
    [
        ("2024-01-07T23:59", "-", ["01-08", "01-15", "01-22", "01-29", "02-05"]),
        ("2024-01-08T00:00", "-", ["01-15", "01-22", "01-29", "02-05"]),  # known at an as-of, not before it
        ("2024-01-03T10:00", "2024-01-21", ["01-08", "01-15"]),  # known by midnight of the 22nd
        ("2024-01-03T10:00", "2024-01-22", ["01-08", "01-15", "01-22"]),
        ("2024-02-20T10:00", "-", []),
        ("2024-01-16T10:00", "2024-01-10", []),  # entered after it had come
    ],
)
def test_a_line_is_seen_from_the_day_it_is_known_until_it_is_known_complete(facts, known, received, as_of):
    purchases = LINE.replace("ordered_at", "ordered_at known_at").replace("2024-01-03", f"2024-01-03 {known}")
    receipts = f"po_line_id received_on\nl1 {received}" if received != "-" else "-"
    assert days(rows(facts(purchases=purchases, receipts=receipts))) == as_of


def test_only_the_asked_days_are_built_in_any_order(facts):
    con = facts(purchases=LINE)
    assert days(rows(con, steps=np.array([3, 1, 1]))) == ["01-15", "01-29"]
    assert rows(con, steps=np.array([], int)).empty


PROMISES = """
    po_line_id  known_at          promised_on
    l1          2024-01-15T00:00  2024-01-24
    l1          2024-01-20T09:00  2024-02-02
    l1          2024-02-04T09:00  2024-01-31
"""


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("promised_on", ["01-17", "01-17", "02-02", "02-02", "01-31"]),  # that of 00:00 on the 15th is not known then
        ("first_promised_on", ["01-17"] * 5),
        ("promise_known_on", ["01-03", "01-03", "01-20", "01-20", "02-04"]),
        ("due_on", ["01-17", "01-17", "02-02", "02-02", "01-31"]),
    ],
)
def test_the_promise_in_force_is_the_latest_known_before_the_day(facts, column, expected):
    assert days(rows(facts(purchases=LINE, promises=PROMISES)), column) == expected


def test_pushes_count_promises_moved_back_only(facts):
    found = rows(facts(purchases=LINE, promises=PROMISES))
    assert found["pushes"].tolist() == [0, 0, 2, 2, 2]


@pytest.mark.parametrize(
    ("tolerance", "states"),
    [
        (0, ["due_future", "due_future", "already_late", "already_late", "already_late"]),
        (5, ["due_future", "due_future", "due_future", "already_late", "already_late"]),  # due on the 22nd itself
        (30, ["due_future"] * 5),
    ],
)
def test_state(facts, tolerance, states):
    assert rows(facts(purchases=LINE), terms=Terms(tolerance_days=tolerance))["state"].tolist() == states


def test_a_line_without_promise_says_so_and_gets_one_later(facts):
    none = LINE.replace("2024-01-17", "-")
    promise = "po_line_id known_at promised_on\nl1 2024-01-16T10:00 2024-01-30"
    found = rows(facts(purchases=none, promises=promise))
    assert found["state"].tolist() == ["no_promise", "no_promise", "due_future", "due_future", "already_late"]
    assert found["working_days_left"].tolist()[2:] == [6, 1, -4]
    assert np.isnan(found["working_days_left"][:2]).all()
    assert found["pushes"].tolist() == [0] * 5


@pytest.mark.parametrize(
    ("receipts", "units"),
    [
        ("-", [0, 0, 0, 0, 0]),
        ("l1 2024-01-14 4 \n l1 2024-01-15 3", [0, 4, 7, 7, 7]),  # cumulative
        ("l1 2024-01-14 4 \n l1 2024-01-14 3", [0, 7, 7, 7, 7]),
        ("l1 2024-01-14 9.5", [0, 9.5, 9.5, 9.5, 9.5]),
    ],
)
def test_parts_add_up(facts, receipts, units):
    lines = receipts.split("\n") if receipts != "-" else []
    table = "\n".join(f"{text} r{n}" for n, text in enumerate(lines))
    con = facts(purchases=LINE, receipts=f"po_line_id received_on quantity receipt_id\n{table}" if table else "-")
    found = rows(con)
    assert found["received_units"].tolist() == units
    assert (found["open_units"] == 10 - found["received_units"]).all()


def test_what_came_in_is_capped_at_what_was_ordered(facts):
    con = facts(purchases=LINE, receipts="po_line_id received_on quantity\nl1 2024-01-14 9")
    write_line_history(con, Terms())
    con.execute("UPDATE receipts SET quantity = 900")  # more than ordered, while the line counts as open
    assert open_lines(con, GRID, Terms(), steps=EVERY)["received_units"].max() == 10


def test_no_row_knows_how_its_line_ends(facts):
    con = facts(purchases=LINE, receipts="po_line_id received_on\nl1 2024-01-30")
    hidden = {"complete_on", "complete_known_at", "closed_at", "cancelled_at", "cancelled_by", "buyer_cancelled"}
    assert not hidden & set(rows(con).columns)


# What the line itself tells

USUAL = {
    "supplier_promised_days_52w": 10.0,
    "supplier_product_promised_days_52w": 20.0,
    "supplier_lead_days_13w": 18.0,
    "supplier_product_lead_days_52w": np.nan,
    "supplier_product_line_units_52w": 5.0,
    "supplier_product_unit_cost_52w": 2.0,
}


@pytest.fixture
def told(facts):
    purchases = LINE + "l2 acme rope north 2024-01-02T10:00 - 4 - - 2024-01-15"
    receipts = "po_line_id received_on quantity\nl1 2024-01-13 4"
    found = rows(facts(purchases=purchases, receipts=receipts, promises=PROMISES), country="DE")
    found = found[found["as_of"] == "2024-01-22"].assign(**USUAL).reset_index(drop=True)
    return dict(zip([f.name for f in LINE_FEATURES], line_features(found).T.tolist(), strict=True))


@pytest.mark.parametrize(
    ("name", "value", "without_promise"),
    [
        ("age_days", 19, 20),
        ("days_to_promise", 11, np.nan),
        ("working_days_left", 9, np.nan),
        ("holidays_left", 0, np.nan),
        ("age_share", 19 / 30, np.nan),
        ("promised_lead_days", 14, np.nan),
        ("promised_lead_vs_supplier", 4, np.nan),
        ("promised_lead_vs_item", -6, np.nan),
        ("slack_vs_supplier", 12, np.nan),
        ("slack_vs_item", np.nan, np.nan),
        ("pushes", 2, 0),
        ("slip_days", 16, np.nan),
        ("promise_age_days", 2, np.nan),
        ("received_share", 0.4, 0),
        ("units_vs_usual", 2, 0.8),
        ("line_value", 25, np.nan),
        ("cost_vs_usual", 1.25, np.nan),
        ("need_slack_days", -11, np.nan),
        ("promised_vs_requested_days", 2, np.nan),
        ("promised_working_days", 22, np.nan),
        ("as_of_day", 19744, 19744),
        ("order_hour", 0, 10),
        ("order_weekday", 2, 1),
        ("promise_weekday", 4, np.nan),
        ("order_month", 1, 1),
        ("promise_month", 2, np.nan),
    ],
)
def test_line_feature(told, name, value, without_promise):
    np.testing.assert_allclose(told[name], [value, without_promise], rtol=1e-6)


def test_every_line_feature_has_a_table(told):
    tested = {mark.args[1][k][0] for mark in test_line_feature.pytestmark for k in range(len(mark.args[1]))}
    assert tested == set(told)


def test_holidays_are_counted_until_the_promise_and_never_below_zero(facts):
    con = facts(purchases=LINE.replace("2024-01-03", "2023-12-10").replace("2024-01-17", "2024-01-09"))
    found = rows(con, grid=Grid(date(2023, 12, 18), date(2024, 1, 22)), steps=np.arange(6), country="DE")
    assert found["holidays_left"].tolist() == [3, 3, 1, 0, 0, 0]  # both Christmas days and New Year's Day
    assert found["working_days_left"].tolist() == [13, 8, 5, 1, -4, -9]


def test_without_lines_there_are_no_rows(facts):
    found = rows(facts())
    assert found.empty
    assert line_features(found.assign(**dict.fromkeys(USUAL, 0.0))).shape == (0, len(LINE_FEATURES))
    assert pd.api.types.is_datetime64_any_dtype(found["due_on"])


# Lines as they are ordered

DAILY = Grid(date(2024, 1, 1), date(2024, 2, 5), 1)


def ordered(con, steps=None):
    write_line_history(con, TERMS)
    return new_lines(con, DAILY, TERMS, steps=np.arange(DAILY.size) if steps is None else steps)


@pytest.mark.parametrize(
    ("known", "received", "as_of"),
    [
        ("2024-01-08T00:00", "-", ["01-08"]),
        ("2024-01-08T23:59", "2024-01-09", ["01-08"]),
        ("2024-01-08T10:00", "2024-01-08", ["01-08"]),  # came later that day
        ("2024-01-08T10:00", "2024-01-07", []),  # had come before the day began
        ("2024-02-05T10:00", "-", ["02-05"]),  # the grid's last day
        ("2024-02-06T10:00", "-", []),
    ],
)
def test_a_line_is_seen_once_on_the_day_it_becomes_known(facts, known, received, as_of):
    purchases = LINE.replace("ordered_at", "ordered_at known_at").replace("2024-01-03", f"2024-01-03 {known}")
    receipts = f"po_line_id received_on\nl1 {received}" if received != "-" else "-"
    assert days(ordered(facts(purchases=purchases, receipts=receipts))) == as_of


def test_at_its_order_a_line_knows_its_first_record_only(facts):
    receipts = "po_line_id received_on quantity\nl1 2024-01-03 4"
    promises = "po_line_id known_at promised_on\nl1 2024-01-03T18:00 2024-01-30"
    con = facts(purchases=LINE, receipts=receipts, promises=promises)
    found = ordered(con).iloc[0]
    assert found["promised_on"] == found["first_promised_on"] == found["due_on"] == pd.Timestamp("2024-01-17")
    assert found["pushes"] == found["received_units"] == 0
    assert found["state"] == "due_future"
    assert (found["step"], found["ordered_step"]) == (2, 2)
    assert set(ordered(con)) == set(rows(con, grid=DAILY))
    assert ordered(con, np.array([1, 3])).empty


def test_orders_are_seen_on_a_grid_of_days_only(facts):
    con = facts(purchases=LINE)
    write_line_history(con, TERMS)
    with pytest.raises(ValueError, match="steps of 7"):
        new_lines(con, GRID, TERMS, steps=EVERY)
