"""What became of lines and windows: labels mature at the promise, and no outcome decides which rows are learnt from."""

from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.demand import demand, series_windows
from features.labels import (
    ShiftTerms,
    chosen,
    delay_labels,
    delay_outcomes,
    entry_lag_days,
    least_value,
    shift_labels,
    shift_outcomes,
    shift_thresholds,
    tail_probabilities,
)
from features.orders import open_lines
from features.panels import Terms, write_line_history
from features.weeks import Grid

nan = np.nan
GRID = Grid(date(2024, 1, 8), date(2024, 1, 29))
LINE = """
    po_line_id  supplier_id  product_id  site_id  ordered_at  promised_on  quantity
    l1          acme         soap        north    2024-01-03  2024-01-17   10
"""


def labelled(con, terms):
    write_line_history(con, terms)
    rows = open_lines(con, GRID, terms, steps=np.arange(GRID.size))
    return rows.join(delay_labels(con, rows, terms))


OUTCOMES = {
    "on the day": ("l1 2024-01-17 10", Terms(), [0, 0]),
    "a day late": ("l1 2024-01-18 10", Terms(), [1, 1]),
    "a day late, tolerated": ("l1 2024-01-18 10", Terms(tolerance_days=1), [0, 0]),
    "never": ("", Terms(), [1, 1]),
    "in part": ("l1 2024-01-16 9", Terms(), [1, 1]),
    "in part, tolerated": ("l1 2024-01-16 9", Terms(short_tolerance=0.1), [0, 0]),
    "the rest late": ("l1 2024-01-16 9 \n l1 2024-01-19 1", Terms(), [1, 1]),
    "in two parts": ("l1 2024-01-16 9 \n l1 2024-01-17 1", Terms(), [0, 0]),
}


@pytest.mark.parametrize(("receipts", "terms", "late"), OUTCOMES.values(), ids=OUTCOMES)
def test_late_is_completion_after_promise_and_tolerance(facts, receipts, terms, late):
    head = "po_line_id received_on quantity\n"
    found = labelled(facts(purchases=LINE, receipts=head + receipts if receipts else "-"), terms)
    assert found["y_late"].tolist()[:2] == late


def test_business_days_are_compared_not_moments(facts):
    receipts = "po_line_id received_on known_at\nl1 2024-01-17 2024-01-25T08:00"  # came on the day, posted a week later
    assert labelled(facts(purchases=LINE, receipts=receipts), Terms())["y_late"].tolist()[:2] == [0, 0]


@pytest.mark.parametrize(
    ("cancelled", "by", "late"),
    [
        ("2024-01-16T10:00", "buyer", [nan, nan]),  # leaves the risk set
        ("2024-01-17T23:00", "buyer", [nan, nan]),
        ("2024-01-18T00:00", "buyer", [1, 1]),  # after the promise was missed
        ("2024-01-16T10:00", "supplier", [1, 1]),
    ],
)
def test_a_buyer_who_cancels_in_time_leaves_no_label_a_supplier_is_late(facts, cancelled, by, late):
    purchases = f"""
        po_line_id  supplier_id  product_id  site_id  ordered_at  promised_on  quantity  cancelled_at  cancelled_by
        l1          acme         soap        north    2024-01-03  2024-01-17   10        {cancelled}   {by}
    """
    np.testing.assert_array_equal(labelled(facts(purchases=purchases), Terms())["y_late"][:2], late)


def test_a_line_already_late_or_without_promise_has_no_label(facts):
    purchases = LINE + "    l2 acme soap north 2024-01-03 - 10"
    found = labelled(facts(purchases=purchases), Terms())
    assert found.loc[found["state"] != "due_future", ["y_late", "matured_on"]].isna().all(axis=None)
    assert found["state"].value_counts().to_dict() == {"no_promise": 4, "due_future": 2, "already_late": 2}


def test_each_row_is_judged_by_the_promise_in_force_on_its_day(facts):
    promises = "po_line_id known_at promised_on\nl1 2024-01-12T10:00 2024-01-26"
    receipts = "po_line_id received_on\nl1 2024-01-25"
    found = labelled(facts(purchases=LINE, promises=promises, receipts=receipts), Terms())
    assert found["y_late"].tolist() == [1, 0, 0]


@pytest.mark.parametrize("received", ["", "l1 2024-01-09", "l1 2024-01-17", "l1 2024-03-30"])
@pytest.mark.parametrize(("tolerance", "lag", "day"), [(0, 1, "2024-01-18"), (3, 5, "2024-01-25")])
def test_a_label_matures_at_promise_tolerance_and_lag_whatever_the_outcome(facts, received, tolerance, lag, day):
    receipts = f"po_line_id received_on\n{received}" if received else "-"
    found = labelled(facts(purchases=LINE, receipts=receipts), Terms(tolerance_days=tolerance, posting_lag_days=lag))
    judged = found[found["state"] == "due_future"]
    assert len(judged)
    assert (judged["matured_on"] == pd.Timestamp(day)).all()


SIBLINGS = """
    po_line_id  supplier_id  product_id  site_id  ordered_at  promised_on  quantity
    a1          acme         soap        north    2024-01-03  2024-01-12   10
    a2          acme         soap        north    2024-01-03  2024-01-12   10
    a3          acme         soap        north    2024-01-03  2024-01-12   10
    a4          acme         soap        north    2024-01-03  2024-01-12   10
    b1          acme         soap        north    2024-01-03  2024-01-30   10
    b2          acme         soap        north    2024-01-03  2024-01-30   10
    b3          acme         soap        north    2024-01-03  2024-01-30   10
"""
ARRIVALS = """
    po_line_id  received_on
    a1          2024-01-11
    a2          2024-01-12
    a3          2024-01-14
    b1          2024-01-10
    b2          2024-02-20
"""  # a4 and b3 never come


def test_survivors_would_lie_about_the_share_that_is_late(facts):
    cut = pd.Timestamp("2024-01-22")
    found = labelled(facts(purchases=SIBLINGS, receipts=ARRIVALS), Terms())
    found = found[found["as_of"] == "2024-01-08"]
    matured = found[found["matured_on"] <= cut]
    received = found[found["completed_known_at"] < cut]
    assert matured["po_line_id"].tolist() == ["a1", "a2", "a3", "a4"]
    assert matured["y_late"].mean() == 0.5
    assert received["y_late"].mean() == 0.25  # a4, the worst, is left out, and early b1 is let in


def test_early_siblings_of_immature_lines_wait_with_them(facts):
    found = labelled(facts(purchases=SIBLINGS, receipts=ARRIVALS), Terms())
    b = found[found["po_line_id"].str.startswith("b") & (found["as_of"] == "2024-01-08")]
    assert (b["matured_on"] == pd.Timestamp("2024-01-31")).all()  # b1, received on the 10th, not earlier
    assert b["y_late"].tolist() == [0, 1, 1]


KNOWN = {  # cut, receipts, cancelled_at, by: y, completed_in, watched of the row of 2024-01-08
    "not due yet": ("2024-01-15", "2024-01-20", "-", "-", nan, nan, 6),
    "matured, not there": ("2024-01-18", "2024-01-20", "-", "-", 1, nan, 9),
    "came late": ("2024-01-21", "2024-01-20", "-", "-", 1, 12, 12),
    "came early, not due yet": ("2024-01-15", "2024-01-10", "-", "-", nan, 2, 6),
    "came early": ("2024-01-29", "2024-01-10", "-", "-", 0, 2, 20),
    "cancelled by the buyer": ("2024-01-29", "-", "2024-01-12T10:00", "buyer", nan, nan, 4),
    "to be cancelled": ("2024-01-12", "-", "2024-01-12T10:00", "buyer", nan, nan, 3),
    "cancelled by the supplier": ("2024-01-29", "-", "2024-01-12T10:00", "supplier", 1, nan, 20),
    "asked at the cut": ("2024-01-08", "2024-01-20", "-", "-", nan, nan, -1),
}


@pytest.mark.parametrize(
    ("cut", "received", "cancelled", "by", "y", "completed_in", "watched"), KNOWN.values(), ids=KNOWN
)
def test_outcomes_are_those_known_at_the_cut(facts, cut, received, cancelled, by, y, completed_in, watched):
    purchases = f"""
    po_line_id  supplier_id  product_id  site_id  ordered_at  promised_on  quantity  cancelled_at  cancelled_by
    l1          acme         soap        north    2024-01-03  2024-01-17   10        {cancelled}   {by}
    """
    receipts = "-" if received == "-" else f"po_line_id received_on\nl1 {received}"
    rows = labelled(facts(purchases=purchases, receipts=receipts), Terms())
    found = delay_outcomes(rows, np.datetime64(cut), Terms())
    row = found.iloc[0]
    assert row["due_in"] == 9
    np.testing.assert_array_equal(row[["y", "completed_in", "watched"]].astype(float), [y, completed_in, watched])


def test_outcomes_at_a_cut_are_those_of_a_world_that_ends_there(toy):
    """Nothing that became known after the cut is in them: receipts, cancellations and labels of later days."""
    grid, terms = Grid(date(2025, 6, 2), date(2026, 6, 1)), Terms(posting_lag_days=3)
    cut = np.datetime64("2026-01-05")
    write_line_history(toy, terms)
    rows = open_lines(toy, grid, terms, steps=np.arange(0, 32, 3))
    rows = rows[rows["as_of"] < pd.Timestamp(cut)].reset_index(drop=True)
    before = delay_outcomes(rows.assign(**delay_labels(toy, rows, terms)), cut, terms)
    toy.execute(
        f"UPDATE line_history SET complete_on = NULL, complete_known_at = NULL WHERE complete_known_at >= '{cut}';"
        f"UPDATE line_history SET cancelled_at = NULL, buyer_cancelled = false WHERE cancelled_at >= '{cut}'"
    )
    after = delay_outcomes(rows.assign(**delay_labels(toy, rows, terms)), cut, terms)
    pd.testing.assert_frame_equal(before.drop(columns="matured_on"), after.drop(columns="matured_on"))
    assert before["y"].notna().sum() > 100
    assert before["completed_in"].notna().sum() > 100


def test_maturity_and_rows_do_not_depend_on_outcomes(toy):
    """Delete every receipt: the same labels mature on the same days, for all rows that are still open then."""
    terms, grid = Terms(posting_lag_days=5), Grid(date(2025, 12, 1), date(2026, 6, 1))
    write_line_history(toy, terms)
    rows = open_lines(toy, grid, terms, steps=np.arange(grid.size))
    known = delay_labels(toy, rows, terms)
    toy.execute("UPDATE line_history SET complete_on = NULL, complete_known_at = NULL")
    unknown = delay_labels(toy, rows, terms)
    both = known["y_late"].notna() & unknown["y_late"].notna()
    assert both.mean() > 0.5
    pd.testing.assert_series_equal(known["matured_on"][both], unknown["matured_on"][both])
    assert unknown["y_late"][both].eq(1).all()
    assert 0.02 < known["y_late"][both].mean() < 0.6


# Demand

WEEKLY = Grid(date(2024, 1, 1), date(2024, 3, 4))


def orders(lines):
    head = "order_line_id product_id site_id ordered_at quantity known_at cancelled_at"
    rows = [f"o{n} soap north {' '.join((text + ' - -').split()[:4])}" for n, text in enumerate(lines)]
    return "\n".join([head, *rows])


def outcomes(con, terms=None, origin=2):
    """Return the actual units of the three windows of the one series at 15 January."""
    data = demand(con, WEEKLY)
    rows = series_windows(data, np.array([origin]))
    return shift_outcomes(con, data.grid, rows, terms or ShiftTerms())


@pytest.mark.parametrize(
    ("lines", "units"),
    [
        (["2024-01-15 3", "2024-02-11T23:59 4"], [7, 0, 0]),
        (["2024-01-14T23:59 3", "2024-02-12 4"], [0, 4, 0]),
        (["2024-03-10T23:59 1", "2024-03-11 2", "2024-04-14 4", "2024-04-15 8"], [0, 1, 6]),
        (["2024-01-16 3 2024-01-30"], [3, 0, 0]),  # counted in the week it was ordered, though entered later
        (["2024-01-16 3 - 2024-02-11T23:59"], [0, 0, 0]),  # cancelled before the label matures
        (["2024-01-16 3 - 2024-02-12"], [3, 0, 0]),  # cancelled later: the label stands
        (["2024-02-11 3 - 2024-02-20"], [3, 0, 0]),
        (["2024-03-20 3 - 2024-03-22"], [0, 0, 0]),
    ],
)
def test_demand_counts_in_its_week_net_of_cancellations_known_when_the_label_matures(facts, lines, units):
    con = facts(orders=orders(["2024-01-02 1", *lines]))
    assert outcomes(con)["actual_units"].tolist() == units


def test_the_label_matures_at_the_windows_end_and_the_entry_lag(facts):
    con = facts(orders=orders(["2024-01-02 1", "2024-01-16 3 - 2024-02-14"]))
    found = outcomes(con, ShiftTerms(entry_lag_days=3))
    assert found["matured_on"].dt.strftime("%m-%d").tolist() == ["02-15", "03-14", "04-18"]
    assert found["actual_units"].tolist() == [0, 0, 0]  # cancelled while the label waited


@pytest.mark.parametrize(("known", "lag"), [("2024-01-02", 0), ("2024-01-02T12:00", 1), ("2024-01-09", 7)])
def test_the_entry_lag_is_measured(facts, known, lag):
    assert entry_lag_days(facts(orders=orders([f"2024-01-02 1 {known}"])), date(2024, 3, 1)) == lag


@pytest.mark.parametrize(
    ("counts", "empty"),
    [
        ("2024-01-20T10:00 0", [True, True, True]),  # nothing heard since
        ("2024-01-20T10:00 0 \n 2024-01-30T10:00 5", [True, False, False]),
        ("2024-01-10T10:00 0 \n 2024-02-01T10:00 5", [True, False, False]),  # already out when the window begins
        ("2024-01-10T10:00 0 \n 2024-01-14T10:00 5", [False, False, False]),
        ("2024-02-20T10:00 -1 \n 2024-02-22T10:00 5", [False, True, False]),
        ("2024-01-20T10:00 3", [False, False, False]),
    ],
)
def test_a_window_is_a_stock_out_while_the_latest_count_is_zero(facts, counts, empty):
    stock = "product_id site_id known_at on_hand\n" + "\n".join(f"soap north {c}" for c in counts.split("\n"))
    found = outcomes(facts(orders=orders(["2024-01-02 1"]), stock=stock))
    assert found["stock_out"].tolist() == empty


REGULAR = {
    "unit_price": 2.0,
    "noise_units": 10.0,
    "interval": 1.0,
    "length_weeks": 4,
    "dispersion": 1.0,
    "stock_out": False,
}
SPARSE = REGULAR | {"interval": 1.9, "dispersion": 1.5}


@pytest.mark.parametrize(
    ("baseline", "actual", "terms", "more", "label"),
    [
        (100, 120, {}, {}, 2),  # z = 2, 20 %
        (100, 119, {}, {}, 1),  # 19 % is under r
        (50, 66, {}, {}, 1),  # z = 1.6
        (50, 66.4, {}, {}, 2),  # z = 1.64
        (100, 80, {}, {}, 0),
        (100, 80, {"v_min": 40.0}, {}, 0),  # 20 units × 2
        (100, 80, {"v_min": 40.1}, {}, 1),
        (100, 80, {}, {"stock_out": True}, nan),  # sales are a lower bound of demand
        (100, 120, {}, {"stock_out": True}, 2),
        (100, 100, {}, {"stock_out": True}, 1),
        (nan, 100, {}, {}, nan),
        (0, 0, {}, {}, 1),
        (0, 20, {}, {}, 2),
        (4, 7, {}, SPARSE, 1),
        (4, 12, {}, SPARSE, 2),
        (4, 1, {}, SPARSE, 1),
        (4, 0, {}, SPARSE, 0),
        (12, 4, {}, SPARSE, 0),
        (12, 4, {}, SPARSE | {"interval": 2.1}, nan),  # less than two intervals
        (0, 0, {}, SPARSE, 1),
    ],
)
def test_shift_label(baseline, actual, terms, more, label):
    rows = pd.DataFrame([REGULAR | {"baseline_units": float(baseline), "actual_units": float(actual)} | more])
    rows["noise_units"] = rows["noise_units"].astype(float)
    np.testing.assert_array_equal(shift_labels(rows, ShiftTerms(**terms)), [label])


@settings(deadline=None)
@given(
    st.floats(0, 200),
    st.floats(0.5, 30),
    st.floats(1, 3),
    st.floats(1, 2.5),
    st.floats(0, 50),
    st.floats(0, 300),
    st.tuples(st.floats(0.8, 4), st.floats(0.8, 4)),
    st.sampled_from([0.01, 0.1, 1.0]),
)
def test_thresholds_and_labels_say_the_same(baseline, noise, phi, interval, v_min, actual, z, piece):
    rows = pd.DataFrame([REGULAR | {"baseline_units": baseline, "noise_units": noise, "dispersion": phi}])
    actual = round(actual) * piece
    rows = rows.assign(interval=interval, actual_units=actual)
    terms = ShiftTerms(v_min=v_min, z_down=z[0], z_up=z[1], piece=piece)
    down, up = (float(x[0]) for x in shift_thresholds(rows, terms))
    label = shift_labels(rows, terms)[0]
    if np.isnan(label):
        assert np.isnan(up)
    elif min(abs(actual - down), abs(actual - up)) > 1e-6:
        assert label == (2 if actual > up else 0 if actual < down else 1)


@pytest.mark.parametrize("piece", [0.1, 0.001])
def test_slow_series_are_judged_by_their_pieces(piece):
    rng = np.random.default_rng(3)
    rows = pd.DataFrame([SPARSE] * 400).assign(
        baseline_units=rng.integers(0, 20, 400) * 1.0, actual_units=rng.poisson(rng.gamma(1, 12, 400)) * 1.0
    )
    small = rows.assign(unit_price=rows["unit_price"] / piece, **{
        name: rows[name] * piece for name in ("baseline_units", "actual_units", "noise_units")
    })  # fmt: skip
    y = shift_labels(rows, ShiftTerms())
    assert {0, 1, 2} <= set(y)
    np.testing.assert_array_equal(shift_labels(small, ShiftTerms(piece=piece)), y)
    assert (shift_labels(small, ShiftTerms()) != y).mean() > 0.1
    for whole, parts in zip(
        shift_thresholds(rows, ShiftTerms()), shift_thresholds(small, ShiftTerms(piece=piece)), strict=True
    ):
        np.testing.assert_allclose(parts, np.where(whole < 0, whole, whole * piece), rtol=1e-9)


def test_tails_are_those_of_a_count_with_this_mean_and_dispersion():
    rng = np.random.default_rng(7)
    mean, phi = 6.0, 2.0
    drawn = rng.negative_binomial(mean / (phi - 1), 1 / phi, 200_000)
    low, high = tail_probabilities(np.array([3.0, 10.0]), np.full(2, mean), np.full(2, phi))
    np.testing.assert_allclose(low, [(drawn <= 3).mean(), (drawn <= 10).mean()], atol=0.005)
    np.testing.assert_allclose(high, [(drawn >= 3).mean(), (drawn >= 10).mean()], atol=0.005)


@given(st.lists(st.integers(0, 10**6).map(lambda n: n / 1000), min_size=1, max_size=40), st.floats(0.1, 1.0))
def test_the_least_value_covers_its_share_and_no_smaller_set_does(gaps, cover):
    rows = pd.DataFrame({"actual_units": gaps, "baseline_units": 0.0, "unit_price": 1.0})
    money, least = np.array(gaps), least_value(rows, cover)
    assert money[money >= least].sum() >= cover * money.sum() * (1 - 1e-9)
    if money.sum() > 0:
        assert money[money > least].sum() < cover * money.sum() * (1 + 1e-9)


def history(z, n=4000, weeks=60):
    rng = np.random.default_rng(0)
    rows = pd.DataFrame([REGULAR | {"baseline_units": 100.0}] * n).assign(noise_units=20.0)
    as_of = pd.Timestamp("2025-06-02") - pd.to_timedelta(7 * rng.integers(0, weeks, n), unit="D")
    return rows.assign(actual_units=100 + 20 * z(rng, n), as_of=as_of)


@pytest.mark.parametrize(
    ("z", "down", "up"),
    [
        (lambda rng, n: rng.normal(0, 1, n), 1.64, 1.64),  # five in a hundred on either side
        (lambda rng, n: rng.normal(0, 2, n), 2.56, 2.56),
        (lambda rng, n: np.abs(rng.normal(0, 2, n)), 0.8, 3.29),
        (lambda _, n: np.zeros(n), 0.8, 0.8),
    ],
)
def test_z_star_is_chosen_so_that_events_are_neither_rare_nor_all_over(z, down, up):
    rows = history(z)
    terms = chosen(rows, ShiftTerms(share=0.0))
    assert (terms.z_down, terms.z_up) == (pytest.approx(down, abs=0.15), pytest.approx(up, abs=0.15))
    y = shift_labels(rows, terms)
    for k, z_star in ((0, terms.z_down), (2, terms.z_up)):
        assert (y == k).mean() <= 0.105
        assert z_star == 0.8 or (y == k).mean() >= 0.025


def test_z_star_needs_windows_to_choose_from_and_looks_at_the_last_year_only():
    few = history(lambda rng, n: rng.normal(0, 3, n), n=150)
    assert chosen(few, ShiftTerms()).z_up == 1.64
    rows = history(lambda rng, n: rng.normal(0, 1, n), weeks=104)
    old = rows["as_of"] <= rows["as_of"].max() - pd.Timedelta(weeks=52)
    wild = rows.assign(actual_units=np.where(old, 100 + 20 * 3 * (rows["actual_units"] - 100), rows["actual_units"]))
    assert chosen(wild, ShiftTerms()) == chosen(rows[~old], ShiftTerms())
    assert chosen(rows.iloc[:0], ShiftTerms()) == ShiftTerms()


@pytest.mark.parametrize("rows", [[], [nan, nan], [0.0, 0.0]])
def test_without_deviation_every_value_counts(rows):
    assert least_value(pd.DataFrame({"actual_units": rows, "baseline_units": 0.0, "unit_price": 1.0}, dtype=float)) == 0
