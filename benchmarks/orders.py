"""20 million order lines in Parquet to weekly panels: bullwhip against DuckDB alone, polars and pandas."""

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from benchmarks.chain import END, WEEKS, timedelta, write_orders
from benchmarks.contest import OURS, Contender, Stage
from features.counts import MEASURES, weekly_counts
from features.weeks import Grid

LINES = 20_000_000
GRID = Grid(END - timedelta(weeks=WEEKS), END)
KEYS = ["step", "product_id", "site_id"]


def make(folder: Path, scale: float) -> str:
    lines = max(round(LINES * scale), 5_000)
    write_orders(folder, lines)
    return f"{lines:,} order lines in Parquet, {WEEKS} weeks"


def ours(folder: Path) -> list[Any]:
    """Return the dense panel [step, series] of the twelve measures, which is what the demand features read."""
    with duckdb.connect() as con:
        con.execute(f"CREATE VIEW orders AS SELECT *, ordered_at AS known_at FROM '{folder}/orders.parquet'")
        con.execute("CREATE TABLE products (product_id VARCHAR, category VARCHAR)")
        con.execute("CREATE TABLE sites (site_id VARCHAR, region VARCHAR)")
        return [weekly_counts(con, GRID)[1]]


# The peers count the same twelve measures and may leave them in a table per kind of event, unsorted and not yet dense.
STEP = f"CAST((CAST(%s AS DATE) - DATE '{GRID.start}' + 7) // 7 AS INTEGER)"
OF_DAY = f"CAST((CAST(%s AS DATE) - DATE '{GRID.start}' + 6) // 7 AS INTEGER)"


def by_duckdb(folder: Path) -> list[Any]:
    lines, step, cancelled = f"'{folder}/orders.parquet'", STEP % "ordered_at", STEP % "cancelled_at"
    ahead = f"FROM {lines} WHERE requested_on > CAST(ordered_at AS DATE)"
    queries = (
        f"""SELECT step, product_id, site_id, sum(units) AS units, sum(value) AS value, sum(priced) AS priced_units,
              sum(lines) AS lines, count(*) AS customers, max(largest) AS largest,
              sum(units * units) AS customer_squares, sum(units) ** 2 AS units_squared
            FROM (SELECT {step} AS step, product_id, site_id, coalesce(customer_id, order_line_id) AS customer,
                    sum(quantity) AS units, sum(quantity * unit_price) AS value,
                    sum(quantity) FILTER (unit_price IS NOT NULL) AS priced, count(*) AS lines, max(quantity) AS largest
                  FROM {lines} GROUP BY ALL) GROUP BY ALL""",
        f"""SELECT {step} AS step, product_id, site_id, sum(quantity) AS asked_units,
              sum(quantity * greatest(requested_on - CAST(ordered_at AS DATE), 0)) AS wait_unit_days
            FROM {lines} WHERE requested_on IS NOT NULL GROUP BY ALL""",
        f"""SELECT {cancelled} AS step, product_id, site_id, sum(quantity) AS cancelled_units
            FROM {lines} WHERE {cancelled} < {GRID.size} GROUP BY ALL""",
        f"""SELECT step, product_id, site_id, sum(units) AS ahead_units FROM (
              SELECT {step} AS step, product_id, site_id, quantity AS units {ahead}
              UNION ALL SELECT least({OF_DAY % "requested_on"}, {cancelled}), product_id, site_id, -quantity {ahead})
            WHERE step < {GRID.size} GROUP BY ALL""",
    )
    return [duckdb.sql(query).df() for query in queries]


def by_polars(folder: Path) -> list[Any]:
    import polars as pl

    def step(day: Any, more: int = 7) -> Any:
        return ((day - GRID.start).dt.total_days() + more).floordiv(7).cast(pl.Int32)

    units, asked, day = pl.col("quantity"), pl.col("requested_on"), pl.col("ordered_at").dt.date()
    cancelled = step(pl.col("cancelled_at").dt.date())
    lines = pl.scan_parquet(folder / "orders.parquet").with_columns(step=step(day))
    ahead = lines.filter(asked > day)
    counted = (
        lines.group_by(*KEYS, customer=pl.coalesce("customer_id", "order_line_id"))
        .agg(
            units=units.sum(), value=(units * pl.col("unit_price")).sum(), lines=pl.len(), largest=units.max(),
            priced_units=units.filter(pl.col("unit_price").is_not_null()).sum(),
        )
        .group_by(KEYS)
        .agg(
            pl.col("units", "value", "priced_units", "lines").sum(), pl.col("largest").max(), customers=pl.len(),
            customer_squares=(pl.col("units") ** 2).sum(), units_squared=pl.col("units").sum() ** 2,
        ),
        lines.filter(asked.is_not_null()).group_by(KEYS).agg(
            asked_units=units.sum(), wait_unit_days=(units * (asked - day).dt.total_days().clip(0)).sum()
        ),
        lines.filter(cancelled < GRID.size)
        .with_columns(step=cancelled)
        .group_by(KEYS)
        .agg(cancelled_units=units.sum()),
        pl.concat([
            ahead.select(*KEYS, units),
            ahead.select(pl.min_horizontal(step(asked, 6), cancelled).alias("step"), "product_id", "site_id", -units),
        ]).filter(pl.col("step") < GRID.size).group_by(KEYS).agg(ahead_units=units.sum()),
    )  # fmt: skip
    return pl.collect_all(counted, engine="streaming")


def by_pandas(folder: Path) -> list[pd.DataFrame]:
    lines = pd.read_parquet(folder / "orders.parquet")
    start = pd.Timestamp(GRID.start)
    day, asked = lines["ordered_at"].dt.normalize(), pd.to_datetime(lines["requested_on"])
    lines["step"] = (day - start).dt.days // 7 + 1
    lines["customer"] = lines["customer_id"].fillna(lines["order_line_id"])
    lines["value"] = lines["quantity"] * lines["unit_price"]
    lines["priced"] = lines["quantity"].where(lines["unit_price"].notna(), 0)
    once = lines.groupby([*KEYS, "customer"], sort=False).agg(
        units=("quantity", "sum"), value=("value", "sum"), lines=("quantity", "size"), largest=("quantity", "max"),
        priced_units=("priced", "sum"),
    ).reset_index()  # fmt: skip
    once["squares"] = once["units"] ** 2
    counted = once.groupby(KEYS, sort=False).agg(
        units=("units", "sum"), value=("value", "sum"), priced_units=("priced_units", "sum"), lines=("lines", "sum"),
        largest=("largest", "max"), customers=("units", "size"), customer_squares=("squares", "sum"),
    )  # fmt: skip
    counted["units_squared"] = counted["units"] ** 2
    wants = lines[asked.notna()].assign(wait=(asked - day).dt.days.clip(lower=0))
    wants = wants.assign(wait_unit_days=wants["wait"] * wants["quantity"], asked_units=wants["quantity"])
    gone = lines[lines["cancelled_at"].notna()]
    gone = gone.assign(step=(gone["cancelled_at"].dt.normalize() - start).dt.days // 7 + 1)
    ahead = lines[asked > day]
    until = pd.concat([((asked[ahead.index] - start).dt.days + 6) // 7, gone["step"].reindex(ahead.index)], axis=1)
    both = pd.concat([ahead, ahead.assign(step=until.min(axis=1), quantity=-ahead["quantity"])])
    tables = (
        wants,
        gone.rename(columns={"quantity": "cancelled_units"}),
        both.rename(columns={"quantity": "ahead_units"}),
    )
    measures = (["asked_units", "wait_unit_days"], ["cancelled_units"], ["ahead_units"])
    late = [t[t["step"] < GRID.size].groupby(KEYS, sort=False)[m].sum() for t, m in zip(tables, measures, strict=True)]
    return [counted, *late]


def same(own: list[Any], other: list[Any]) -> float:
    """Return the largest relative gap of the measures' totals."""
    told = {m: float(np.sum(table[m].to_numpy())) for table in other for m in MEASURES if m in table}
    return max(abs(told[m] / float(cells.sum()) - 1) for m, cells in own[0].items())


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
