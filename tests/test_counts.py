"""Order lines counted by number, in pieces and in any order, are what a recount by name makes of them."""

from datetime import date, timedelta

import duckdb
import numpy as np
import pandas as pd
import pytest

from features import counts
from features.counts import COUNTED, MEASURES, weekly_counts
from features.weeks import Grid

GRID = Grid(date(2024, 1, 8), date(2024, 3, 4))


def orders(n, **columns):
    rng = np.random.default_rng(3)
    known = pd.Timestamp("2023-12-20") + pd.to_timedelta(rng.integers(0, 80 * 86400, n), unit="s")
    frame = {
        "order_line_id": [f"o{i}" for i in range(n)], "product_id": rng.choice([*"dabc"], n),
        "site_id": rng.choice(["south", "north"], n), "customer_id": rng.choice(["x", "y", "z", None], n),
        "ordered_at": known, "known_at": known, "quantity": rng.integers(1, 9, n) / 2,
        "unit_price": rng.choice([1.25, 2, np.nan], n), "requested_on": pd.NaT, "cancelled_at": pd.NaT,
    } | columns  # fmt: skip
    return pd.DataFrame(frame)


def counted(frame):
    with duckdb.connect() as con:
        con.execute(
            "CREATE TABLE products (product_id VARCHAR, category VARCHAR); INSERT INTO products VALUES ('a','k')"
        )
        con.execute("CREATE TABLE sites (site_id VARCHAR, region VARCHAR); INSERT INTO sites VALUES ('north', 'r')")
        text = [c for c in frame if c.endswith("_id")]
        cast = dict.fromkeys(text, "VARCHAR") | {"requested_on": "DATE", "cancelled_at": "TIMESTAMP"}
        shown = ", ".join(f"CAST({c} AS {kind}) AS {c}" for c, kind in cast.items())
        con.execute(f"CREATE TABLE orders AS SELECT * REPLACE ({shown}) FROM frame")
        series, cells = weekly_counts(con, GRID)
        left = con.execute("SELECT count(*) FROM duckdb_tables() WHERE temporary").fetchall()
        assert left == [(0,)]
        return series, cells


def recounted(frame):
    frame = frame[frame["known_at"] < pd.Timestamp(GRID.as_of)].copy()
    days = (frame["known_at"].dt.normalize() - pd.Timestamp(GRID.start)).dt.days
    frame["step"] = np.maximum(days + 7, 0) // 7
    frame["customer"] = frame["customer_id"].where(frame["customer_id"].notna(), frame["order_line_id"])
    frame["value"] = (frame["quantity"] * frame["unit_price"]).fillna(0)
    frame["priced_units"] = frame["quantity"].where(frame["unit_price"].notna(), 0)
    keys = ["product_id", "site_id", "step"]
    bought = frame.groupby([*keys, "customer"])["quantity"].sum()
    cells = frame.groupby(keys)
    return pd.DataFrame({
        "units": cells["quantity"].sum(), "value": cells["value"].sum(), "priced_units": cells["priced_units"].sum(),
        "lines": cells.size(), "customers": bought.groupby(keys).size(), "largest": cells["quantity"].max(),
        "customer_squares": (bought**2).groupby(keys).sum(),
    })  # fmt: skip


@pytest.mark.parametrize("bits", [26, 0], ids=["table", "search"])
@pytest.mark.parametrize(("lines", "piece"), [(4_000_000, 1 << 16), (90, 7)])
@pytest.mark.parametrize("columns", [{}, {"customer_id": None}, {"unit_price": 3.0}], ids=["mixed", "nobody", "priced"])
def test_a_recount_by_name_finds_the_same(lines, piece, columns, bits, monkeypatch):
    monkeypatch.setattr(counts, "LINES", lines)
    monkeypatch.setattr(counts, "PIECE", piece)
    monkeypatch.setattr(counts, "TABLE", 1 << bits)
    frame = orders(400, **columns)
    series, cells = counted(frame)
    expected = recounted(frame)
    assert [*zip(series["product_id"], series["site_id"], strict=True)] == sorted({i[:2] for i in expected.index})
    assert series.loc[series["product_id"] == "a", "category"].unique().tolist() == ["k"]
    place = pd.MultiIndex.from_frame(series[["product_id", "site_id"]]).get_indexer(expected.index.droplevel("step"))
    for measure in COUNTED:
        told = np.zeros((GRID.size, len(series)))
        told[expected.index.get_level_values("step"), place] = expected[measure]
        np.testing.assert_allclose(cells[measure], told, rtol=1e-12, err_msg=measure)
    assert list(cells) == list(MEASURES)


def test_lines_are_sorted_by_keys_of_any_size():
    keys = [np.random.default_rng(n).integers(0, most, 500) for n, most in enumerate((3, 1 << 40, 1 << 17, 1))]
    np.testing.assert_array_equal(counts._sorted_by(keys), np.lexsort(keys))


def test_nothing_known_is_nothing_counted():
    series, cells = counted(orders(9, known_at=pd.Timestamp(GRID.as_of) + timedelta(days=1)))
    assert len(series) == 0
    assert {x.shape for x in cells.values()} == {(GRID.size, 0)}
    assert len(counted(orders(0))[0]) == 0
