"""20 million order lines in Parquet to weekly panels: bullwhip against DuckDB alone, polars and pandas."""

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from benchmarks.chain import END, WEEKS, timedelta, write_orders
from benchmarks.contest import OURS, Contender, Stage
from features.counts import weekly_counts
from features.weeks import Grid

LINES = 20_000_000
GRID = Grid(END - timedelta(weeks=WEEKS), END)
SUMS = ("units", "value", "lines", "customers", "customer_squares")
KEYS = ["step", "product_id", "site_id"]


def make(folder: Path, scale: float) -> str:
    lines = max(round(LINES * scale), 5_000)
    write_orders(folder, lines)
    return f"{lines:,} order lines in Parquet, {WEEKS} weeks"


def ours(folder: Path) -> Any:
    """Count what the demand features read: more than is asked of the others, cancellations and backlog among it."""
    with duckdb.connect() as con:
        con.execute(f"CREATE VIEW orders AS SELECT *, ordered_at AS known_at FROM '{folder}/orders.parquet'")
        con.execute("CREATE TABLE products (product_id VARCHAR, category VARCHAR)")
        con.execute("CREATE TABLE sites (site_id VARCHAR, region VARCHAR)")
        return weekly_counts(con, GRID)[1]


STEP = f"CAST((CAST(ordered_at AS DATE) - DATE '{GRID.start}' + 7) // 7 AS INTEGER)"


def by_duckdb(folder: Path) -> Any:
    return duckdb.sql(
        f"""SELECT step, product_id, site_id, sum(units) AS units, sum(value) AS value, sum(lines) AS lines,
              count(*) AS customers, max(largest) AS largest, sum(units * units) AS customer_squares
            FROM (SELECT {STEP} AS step, product_id, site_id, customer_id, sum(quantity) AS units,
                    sum(quantity * unit_price) AS value, count(*) AS lines, max(quantity) AS largest
                  FROM '{folder}/orders.parquet' GROUP BY ALL) GROUP BY ALL"""
    ).df()


def by_polars(folder: Path) -> Any:
    import polars as pl

    step = (pl.col("ordered_at").dt.date() - GRID.start).dt.total_days() // 7 + 1
    units = pl.col("quantity")
    return (
        pl.scan_parquet(folder / "orders.parquet")
        .with_columns(step=step.cast(pl.Int32))
        .group_by(*KEYS, "customer_id")
        .agg(
            units=units.sum(), value=(units * pl.col("unit_price")).sum(), lines=pl.len(), largest=units.max(),
        )
        .group_by(KEYS)
        .agg(
            pl.col("units", "value", "lines").sum(), pl.col("largest").max(), customers=pl.len(),
            customer_squares=(pl.col("units") ** 2).sum(),
        )
        .collect(engine="streaming")
    )  # fmt: skip


def by_pandas(folder: Path) -> pd.DataFrame:
    columns = ["ordered_at", "product_id", "site_id", "customer_id", "quantity", "unit_price"]
    lines = pd.read_parquet(folder / "orders.parquet", columns=columns)
    lines["step"] = (lines["ordered_at"].dt.normalize() - pd.Timestamp(GRID.start)).dt.days // 7 + 1
    lines["value"] = lines["quantity"] * lines["unit_price"]
    grouped = lines.groupby([*KEYS, "customer_id"], sort=False)
    once = grouped.agg(
        units=("quantity", "sum"), value=("value", "sum"), lines=("quantity", "size"), largest=("quantity", "max")
    ).reset_index()
    once["squares"] = once["units"] ** 2
    return once.groupby(KEYS, sort=False).agg(
        units=("units", "sum"), value=("value", "sum"), lines=("lines", "sum"), largest=("largest", "max"),
        customers=("units", "size"), customer_squares=("squares", "sum"),
    )  # fmt: skip


def same(own: Any, other: Any) -> float:
    """Return the largest relative gap of the measures' totals."""
    gaps = [abs(float(np.sum(other[m].to_numpy())) / float(own[m].sum()) - 1) for m in SUMS]
    return max(gaps)


STAGES = (
    Stage(
        "orders to weekly panel", make,
        (
            Contender(OURS, Path, ours), Contender("polars", Path, by_polars), Contender("pandas", Path, by_pandas),
        ),
        {"polars": 2, "pandas": 5}, same,
    ),
    Stage(
        "orders to weekly panel, over DuckDB", make,
        (Contender(OURS, Path, ours), Contender("DuckDB", Path, by_duckdb)),
        {"DuckDB": 1.2}, same, at_most=True,
    ),
)  # fmt: skip
