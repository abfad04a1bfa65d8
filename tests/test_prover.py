"""Nothing is rebuilt to prove what no later fact could change, and everything is where one could."""

from datetime import date

import numpy as np
import pandas as pd
import pytest

from features.matrix import Matrix, Request
from features.panels import Terms
from features.prover import prove_no_leak
from features.weeks import Grid

LINE = """
    po_line_id  supplier_id  product_id  site_id  ordered_at  promised_on  quantity  cancelled_at
    l1          acme         soap        north    2024-01-01  2024-01-10   10        {}
"""
RECEIPT = """
    po_line_id  received_on  known_at
    l1          2024-01-09   {}
"""
REQUEST = Request(Grid(date(2024, 1, 8), date(2024, 1, 22)), Terms())


@pytest.mark.parametrize(
    ("cancelled", "received", "step", "rebuilt"),
    [
        ("-", "2024-01-21", 2, 0),
        ("-", "2024-01-22", 2, 2),  # known on the day itself
        ("2024-01-25", "2024-01-10", 2, 2),  # a cell of a row that is known
        ("-", "2024-01-10", 1, 2),  # not the grid's last day
    ],
)
def test_worlds_are_rebuilt_where_anything_was_known_later(facts, cancelled, received, step, rebuilt):
    con = facts(purchases=LINE.format(cancelled), receipts=RECEIPT.format(received))
    rows = pd.DataFrame({"po_line_id": ["l1"], "step": [step]})
    whole, built = Matrix(rows, pd.DataFrame({"x": [1.0]}), ()), []

    def build(*given):
        built.append(given)
        return whole

    said = prove_no_leak(con, build, REQUEST, whole, ("po_line_id",), [np.int64(step)])
    assert len(built) == rebuilt
    assert said["rows"] == 1
