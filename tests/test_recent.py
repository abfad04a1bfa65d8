"""What the last lines of a supplier tell: a table for every feature, and only what was known before the day."""

from datetime import date

import numpy as np
import pandas as pd
import pytest

from features.orders import new_lines, open_lines
from features.panels import Terms, write_line_history
from features.recent import HALF_LIFE, LAST, PRIOR_LINES, RECENT_FEATURES, recent_features
from features.weeks import Grid

nan = np.nan
GRID = Grid(date(2024, 1, 1), date(2024, 1, 22), 1)
LINES = """
    po_line_id  supplier_id  product_id  site_id  ordered_at        promised_on  quantity
    a           acme         soap        north    2024-01-01T06:00  2024-01-05   1
    b           acme         rope        north    2024-01-04T12:00  2024-01-08   1
    c           acme         soap        north    2024-01-11T12:00  2024-01-15   1
    mine        acme         soap        north    2024-01-10T12:00  2024-01-18   1
    else        bolt         soap        north    2024-01-10T12:00  2024-01-18   1
"""
RECEIPTS = """
    po_line_id  received_on
    a           2024-01-03
    b           2024-01-10
    c           2024-01-14
"""
OLD = 0.5 ** (1 / HALF_LIFE)


def told(con, day, po_line_id="mine", rows_of=open_lines):
    write_line_history(con, Terms())
    rows = rows_of(con, GRID, Terms(), steps=np.arange(GRID.size))
    rows = rows[(rows["as_of"] == day) & (rows["po_line_id"] == po_line_id)].reset_index(drop=True)
    block = recent_features(con, rows, GRID, country="", prior=np.full(len(rows), 0.25))
    return dict(zip([f.name for f in RECENT_FEATURES], block[0].tolist(), strict=True))


# On the 12th a and b are known complete, on the 16th c too. Working days: a 2, b 4, c 2; mine is given 6.
TABLE = [
    ("supplier_recent_working_days", (4 + 2 * OLD) / (1 + OLD), (2 + 4 * OLD + 2 * OLD**2) / (1 + OLD + OLD**2)),
    ("supplier_recent_lead_days", (6 + 2 * OLD) / (1 + OLD), (3 + 6 * OLD + 2 * OLD**2) / (1 + OLD + OLD**2)),
    ("supplier_recent_working_days_p50", 2, 2),
    ("supplier_recent_working_days_p90", 2, 2),
    ("supplier_recent_days_late", (2 - 2 * OLD) / (1 + OLD), (-1 + 2 * OLD - 2 * OLD**2) / (1 + OLD + OLD**2)),
    ("supplier_over_promise_share", PRIOR_LINES * 0.25 / (2 + PRIOR_LINES), PRIOR_LINES * 0.25 / (3 + PRIOR_LINES)),
    ("supplier_over_promise_open_share", PRIOR_LINES * 0.25 / (2 + PRIOR_LINES), 0.2),
    ("supplier_overtaken_by", 0, 1),
    ("supplier_days_since_completion", 2, 2),
    ("supplier_silence", 2 / (7 + 1), 2 / (11 / 2 + 1)),
    ("supplier_product_recent_working_days", 2, 2),
    ("supplier_product_over_promise_share", 0.2, PRIOR_LINES * 0.25 / (2 + PRIOR_LINES)),
]
PACE = "supplier_pace"


@pytest.mark.parametrize(("name", "before", "after"), TABLE, ids=[row[0] for row in TABLE])
def test_recent_feature(facts, name, before, after):
    con = facts(purchases=LINES, receipts=RECEIPTS)
    assert told(con, "2024-01-12")[name] == pytest.approx(before, rel=1e-5)
    assert told(con, "2024-01-16")[name] == pytest.approx(after, rel=1e-5)


def test_pace_counts_lines_that_still_wait(facts):
    """Other lines, newest first: on the 12th c waits a day, b took 4 working days and a 2; on the 11th c is unknown."""
    con = facts(purchases=LINES, receipts=RECEIPTS)
    waited = (5 / 7 + 0.5) + OLD**2 * 4.5 + OLD**3 * 2.5  # the line itself, second newest, is left out
    assert told(con, "2024-01-12")[PACE] == pytest.approx((1 + OLD**2 + OLD**3) / (4 + waited), rel=1e-5)
    waited = OLD * 4.5 + OLD**2 * 2.5
    assert told(con, "2024-01-11")[PACE] == pytest.approx((1 + OLD + OLD**2) / (4 + waited), rel=1e-5)


def test_every_recent_feature_has_a_table():
    assert {row[0] for row in TABLE} | {PACE} == {f.name for f in RECENT_FEATURES}


def test_of_a_supplier_without_a_past_only_the_prior_is_known(facts):
    found = told(facts(purchases=LINES, receipts=RECEIPTS), "2024-01-16", "else")
    known = {name for name, value in found.items() if not np.isnan(value)}
    assert known == {
        "supplier_pace", "supplier_over_promise_share", "supplier_over_promise_open_share",
        "supplier_product_over_promise_share",
    }  # fmt: skip
    assert found["supplier_over_promise_share"] == 0.25


def test_a_line_at_its_order_knows_what_came_before_the_day(facts):
    con = facts(purchases=LINES, receipts=RECEIPTS)
    at_order = told(con, "2024-01-10", rows_of=new_lines)
    assert at_order["supplier_days_since_completion"] == 7  # b came that day
    assert told(con, "2024-01-11")["supplier_days_since_completion"] == 1


def test_only_the_last_lines_are_looked_at(facts):
    days = pd.date_range("2024-01-01", periods=10)
    lines, receipts = [], []
    for k in range(LAST + 10):
        day = days[k // 3]
        lines.append(f"l{k:02} acme soap north {day:%Y-%m-%d}T{k % 3:02}:00 2024-01-30 1")
        receipts.append(f"l{k:02} {day + pd.Timedelta(days=1 if k >= 10 else 0):%Y-%m-%d}")
    head = "po_line_id supplier_id product_id site_id ordered_at promised_on quantity\n"
    mine = "mine acme soap north 2024-01-12T12:00 2024-01-18 1"
    con = facts(purchases=head + "\n".join([*lines, mine]), receipts="po_line_id received_on\n" + "\n".join(receipts))
    assert told(con, "2024-01-15")["supplier_recent_lead_days"] == pytest.approx(1.0)


def test_without_any_line_complete_there_is_nothing_to_tell(facts):
    found = told(facts(purchases=LINES), "2024-01-16")
    assert np.isnan(found["supplier_recent_lead_days"])
