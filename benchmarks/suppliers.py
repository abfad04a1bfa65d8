"""How every supplier stood at the as-of of each of 5 million purchase lines: dense panels against as-of joins."""

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from benchmarks.chain import END, timedelta
from benchmarks.contest import OURS, Contender, Stage
from features.panels import Book
from features.standing import look_up
from features.suppliers import Level, days_late, lead_days
from features.weeks import Grid

LINES, WEEKS = 5_000_000, 104
GRID = Grid(END - timedelta(weeks=WEEKS - 1), END)
WINDOWS = (13, 52)
LEVEL = Level(
    "supplier", "supplier", ("supplier_id",), "chain",
    tuple(f for w in WINDOWS for f in (lead_days(w), days_late(w))),
)  # fmt: skip


def make(folder: Path, scale: float) -> str:
    """Write lines with the step from which their completion is known and the one that asks of their supplier."""
    lines = max(round(LINES * scale), 2_000)
    suppliers = max(lines // 1_000, 5)
    duckdb.execute(
        f"""COPY (SELECT *, least(step + 1 + took // 7, {WEEKS + 20})::INT AS known,
                CAST(took - 30 AS DOUBLE) AS late, CAST(took AS DOUBLE) AS lead
            FROM (SELECT CAST(i AS INT) AS line, CAST(hash(i) % {suppliers} AS INT) AS supplier,
                    CAST(i * {WEEKS} // {lines} AS INT) AS step, CAST(10 + hash(i, 2) % 40 AS INT) AS took
                  FROM range({lines}) t(i))) TO '{folder}/lines.parquet'"""
    )
    return f"{lines:,} purchase lines, {suppliers:,} suppliers, {WEEKS} weekly snapshots"


def as_book(folder: Path) -> tuple[Book, pd.DataFrame]:
    lines = pd.read_parquet(folder / "lines.parquet")
    done = lines[lines["known"] < GRID.size]
    one = np.ones(len(done))
    values = {
        "completed_lines": one, "lead_days": done["lead"].to_numpy(), "timed_lines": one,
        "days_late": done["late"].to_numpy(),
    }  # fmt: skip
    events = {"completed": (done["line"].to_numpy(), done["known"].to_numpy(), values)}
    book = Book({"supplier_id": lines["supplier"].to_numpy()}, events)
    return book, lines[["line", "step"]].assign(ordered_step=lines["step"])


def ours(given: tuple[Book, pd.DataFrame]) -> np.ndarray:
    book, rows = given
    out = np.empty((len(rows), len(LEVEL.formulas)), np.float32)
    look_up(book, LEVEL, rows, GRID, np.zeros(len(rows)), out)
    return out


def as_pandas(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "lines.parquet")


def by_pandas(lines: pd.DataFrame) -> np.ndarray:
    weekly = (
        lines[lines["known"] < GRID.size]
        .groupby(["known", "supplier"], as_index=False)[["lead", "late"]]
        .agg(["sum", "count"])
    )
    weekly.columns = ["known", "supplier", "lead", "n", "late", "_"]
    total = weekly.groupby("supplier", sort=False)[["lead", "late", "n"]].cumsum()
    total[["known", "supplier"]] = weekly[["known", "supplier"]]

    def at(back: int) -> np.ndarray:
        asked = lines[["step", "supplier"]].assign(step=lines["step"] - back)
        found = pd.merge_asof(asked, total, left_on="step", right_on="known", by="supplier")
        return found[["lead", "late", "n"]].fillna(0).to_numpy()

    return _means(at(0), [at(w) for w in WINDOWS])


def _means(now: np.ndarray, before: list[np.ndarray]) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        parts = [(now - then)[:, :2] / (now - then)[:, 2:] for then in before]
    return np.concatenate(parts, axis=1).astype(np.float32)


def as_polars(folder: Path) -> Any:
    import polars as pl

    return pl.read_parquet(folder / "lines.parquet")


def by_polars(lines: Any) -> np.ndarray:
    import polars as pl

    weekly = lines.filter(pl.col("known") < GRID.size).group_by("supplier", "known").agg(
        pl.col("lead", "late").sum(), n=pl.len().cast(pl.Float64)
    ).sort("known")  # fmt: skip
    total = weekly.with_columns(pl.col("lead", "late", "n").cum_sum().over("supplier"))

    def at(back: int) -> np.ndarray:
        asked = lines.select("supplier", step=pl.col("step") - back)
        found = asked.join_asof(
            total, left_on="step", right_on="known", by="supplier", strategy="backward", check_sortedness=False
        )
        return found.select(pl.col("lead", "late", "n").fill_null(0)).to_numpy()

    return _means(at(0), [at(w) for w in WINDOWS])


def by_duckdb(folder: Path) -> np.ndarray:
    joins = "".join(
        f" ASOF LEFT JOIN total t{w} ON t{w}.supplier = l.supplier AND l.step - {w} >= t{w}.known"
        for w in (0, *WINDOWS)
    )
    columns = ", ".join(
        f"(coalesce(t0.{m}, 0) - coalesce(t{w}.{m}, 0)) / nullif(coalesce(t0.n, 0) - coalesce(t{w}.n, 0), 0) AS {m}_{w}"
        for w in WINDOWS for m in ("lead", "late")
    )  # fmt: skip
    found = duckdb.sql(
        f"""WITH weekly AS (SELECT supplier, known, sum(lead) AS lead, sum(late) AS late, count(*) AS n
              FROM '{folder}/lines.parquet' WHERE known < {GRID.size} GROUP BY ALL),
            total AS (SELECT supplier, known, {", ".join(f"sum({m}) OVER w AS {m}" for m in ("lead", "late", "n"))}
              FROM weekly WINDOW w AS (PARTITION BY supplier ORDER BY known))
            SELECT {columns} FROM '{folder}/lines.parquet' l{joins} ORDER BY l.line"""
    ).fetchnumpy()
    return np.column_stack([np.ma.filled(c.astype(float), np.nan) for c in found.values()]).astype(np.float32)


def same(own: np.ndarray, other: np.ndarray) -> float:
    if (np.isnan(own) != np.isnan(other)).any():
        return np.inf
    return float(np.nanmax(np.abs(own - other) / (1 + np.abs(other))))


STAGES = (
    Stage(
        "supplier history as of each week", make,
        (
            Contender(OURS, as_book, ours), Contender("polars join_asof", as_polars, by_polars),
            Contender("DuckDB ASOF", Path, by_duckdb), Contender("pandas merge_asof", as_pandas, by_pandas),
        ),
        {"polars join_asof": 5, "DuckDB ASOF": 5, "pandas merge_asof": 5}, same,
    ),
)  # fmt: skip
