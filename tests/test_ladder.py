"""The on-time ladder: one population, stricter from rung to rung, and no data is not 100 %."""

from datetime import date

import numpy as np
import pytest

from features.ladder import RUNGS, on_time_lines
from features.panels import Terms, write_line_history

nan = np.nan
AS_OF = date(2024, 2, 5)


def rungs(con, terms):
    write_line_history(con, terms)
    return on_time_lines(con, AS_OF, terms)


HEAD = (
    "po_line_id supplier_id product_id site_id ordered_at promised_on quantity requested_on cancelled_at cancelled_by\n"
)
LINES = {
    "in time for everything": ("2024-01-10 -", "2024-01-09 10", [1, 1, 1, 1, 1]),
    "in time for the promise": ("2024-01-08 -", "2024-01-10 10", [1, 1, 0, 0, 0]),
    "in time with tolerance": ("2024-01-08 -", "2024-01-12 10", [1, 0, 0, 0, 0]),
    "late": ("2024-01-20 -", "2024-01-13 10", [0, 0, 1, 1, 1]),
    "never": ("2024-01-10 -", "", [0, 0, 0, 0, 0]),
    "in part": ("2024-01-10 -", "2024-01-09 9", [0, 0, 0, 0, 0]),
    "nobody asked for a day": ("- -", "2024-01-09 10", [1, 1, nan, nan, nan]),
    "cancelled before the promise": ("2024-01-10 2024-01-12T23:00", "", [nan, nan, nan, nan, 0]),
    "cancelled after it": ("2024-01-10 2024-01-13T00:00", "", [0, 0, 0, 0, 0]),
    "posted after the day": ("2024-01-10 -", "2024-01-09 10 2024-02-05T00:00", [0, 0, 0, 0, 0]),
}


@pytest.mark.parametrize(("line", "receipt", "expected"), LINES.values(), ids=LINES)
def test_rung(facts, line, receipt, expected):
    purchases = f"{HEAD}l1 acme soap north 2024-01-02 2024-01-10 10 {line} -"
    receipts = f"po_line_id received_on quantity known_at\nl1 {receipt} {'' if 'T' in receipt else '-'}"
    found = rungs(facts(purchases=purchases, receipts=receipts if receipt else "-"), Terms(tolerance_days=2))
    np.testing.assert_array_equal(found[list(RUNGS)].to_numpy(float), [expected])


@pytest.mark.parametrize(
    ("promised", "lines"), [("2024-02-03", 1), ("2024-02-04", 0), ("2023-11-05", 1), ("2023-11-04", 0)]
)
def test_lines_count_in_the_13_weeks_after_their_promise_matured(facts, promised, lines):
    con = facts(purchases=f"{HEAD}l1 acme soap north 2023-10-02 {promised} 10 - - -")
    assert len(rungs(con, Terms(posting_lag_days=2))) == lines
