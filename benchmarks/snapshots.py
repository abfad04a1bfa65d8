"""A matrix of 31 million snapshots of open lines by 20 inputs: bullwhip's gather against polars and DuckDB joins."""

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import xarray as xr

from benchmarks.contest import OURS, Contender, Stage
from features.core import Feature
from features.orders import stays
from features.threads import pieces, side_by_side
from features.tiles import taker, worked_out, write_rows

SNAPSHOTS, WEEKS, OPEN_WEEKS = 31_000_000, 156, 10
LISTED = 1 << 14  # lines whose snapshots are listed at a time
OWN = [f"own{k}" for k in range(5)]  # inputs of the line itself, its age besides
MEASURES = [f"m{k}" for k in range(14)]  # inputs of its supplier at the as-of
FEATURES = tuple(Feature(m, lambda p, m=m: p[m], "", "") for m in MEASURES)


def make(folder: Path, scale: float) -> str:
    """Write the lines, each open for some ten weeks, and fourteen measures of every supplier and week."""
    lines = max(round(SNAPSHOTS / OPEN_WEEKS * scale), 1_000)
    suppliers = max(lines // 600, 5)
    own = ", ".join(f"CAST(hash(i, {k + 3}) % 99 AS FLOAT) AS {name}" for k, name in enumerate(OWN))
    duckdb.execute(
        f"""COPY (SELECT opens, CAST(least(opens + 1 + hash(i, 1) % {2 * OPEN_WEEKS - 1}, {WEEKS}) AS INT) AS closes,
              CAST(hash(i, 2) % {suppliers} AS INT) AS supplier, {own}
            FROM (SELECT i, CAST(i * {WEEKS} // {lines} AS INT) AS opens FROM range({lines}) t(i)))
            TO '{folder}/lines.parquet'"""
    )
    told = ", ".join(f"CAST(hash(s, w, {k}) % 97 AS FLOAT) AS {name}" for k, name in enumerate(MEASURES))
    duckdb.execute(
        f"""COPY (SELECT CAST(s AS INT) AS supplier, CAST(w AS INT) AS step, {told}
            FROM range({suppliers}) a(s), range({WEEKS}) b(w)) TO '{folder}/standing.parquet'"""
    )
    return f"about {SNAPSHOTS * scale:,.0f} snapshots × {len(OWN) + 1 + len(MEASURES)} inputs"


def as_arrays(folder: Path) -> tuple[dict[str, np.ndarray], xr.Dataset]:
    """Return the columns of the lines, and the suppliers' measures as the panel they are in the product."""
    with duckdb.connect() as con:  # what it holds is given back, as a reader's would be
        lines = con.sql(f"FROM '{folder}/lines.parquet'").fetchnumpy()
        told = con.sql(f"FROM '{folder}/standing.parquet' ORDER BY supplier, step").fetchnumpy()
    cells = {m: (("as_of", "entity"), told[m].reshape(-1, WEEKS).T) for m in MEASURES}
    return lines, xr.Dataset(cells, attrs={"step_days": 7})


def ours(given: tuple[dict[str, np.ndarray], xr.Dataset]) -> np.ndarray:
    lines, panel = given
    opens, closes, supplier = (lines[c] for c in ("opens", "closes", "supplier"))
    own = taker(np.column_stack([lines[name] for name in OWN]))
    standing = worked_out(panel, FEATURES, 0, WEEKS)
    cut = list(pieces(len(opens), LISTED))
    edges = np.cumsum([0, *((closes[some] - opens[some]).clip(0).sum() for some in cut)])
    out = np.empty((edges[-1], len(OWN) + 1 + len(MEASURES)), np.float32)

    def write(number: int) -> None:
        some = cut[number]
        line, step = stays(opens[some], closes[some], np.arange(WEEKS, dtype=np.int32), WEEKS)
        line += some.start
        parts = (
            lambda rows: own(line[rows]), lambda rows: step[rows] - opens.take(line[rows], mode="clip"),
            lambda rows: standing(supplier.take(line[rows], mode="clip"), step[rows]),
        )  # fmt: skip
        write_rows(parts, out[slice(*edges[number : number + 2])])

    side_by_side(write, range(len(cut)))
    return out


def as_polars(folder: Path) -> Any:
    import polars as pl

    return pl.read_parquet(folder / "lines.parquet"), pl.read_parquet(folder / "standing.parquet")


def by_polars(given: Any) -> Any:
    import polars as pl

    lines, told = given
    return (
        lines.lazy()
        .with_columns(step=pl.int_ranges("opens", "closes", dtype=pl.Int32))
        .explode("step", empty_as_null=False, keep_nulls=False)
        .join(told.lazy(), on=["supplier", "step"], how="left")
        .select(*OWN, (pl.col("step") - pl.col("opens")).cast(pl.Float32).alias("age"), *MEASURES)
        .collect()
    )


def by_duckdb(folder: Path) -> Any:
    columns = ", ".join([*OWN, "CAST(step - opens AS FLOAT) AS age", *MEASURES])
    return duckdb.sql(
        f"""SELECT {columns} FROM (SELECT *, CAST(unnest(range(opens, closes)) AS INT) AS step
              FROM '{folder}/lines.parquet') LEFT JOIN '{folder}/standing.parquet' USING (supplier, step)"""
    ).to_arrow_table()


def by_pandas(folder: Path) -> pd.DataFrame:
    lines, told = pd.read_parquet(folder / "lines.parquet"), pd.read_parquet(folder / "standing.parquet")
    long = lines.loc[lines.index.repeat((lines["closes"] - lines["opens"]).to_numpy())]
    step = long["opens"] + long.groupby(level=0).cumcount()
    both = long.assign(step=step.astype("int32")).merge(told, on=["supplier", "step"], how="left")
    both["age"] = (both["step"] - both["opens"]).astype(np.float32)
    return both[[*OWN, "age", *MEASURES]]


def same(own: np.ndarray, other: Any) -> float:
    """Return the largest relative gap of the columns' sums; the order of rows is not asked for."""
    names = [*OWN, "age", *MEASURES]
    sums = [float(np.asarray(other[name].to_numpy(), np.float64).sum()) for name in names]
    mine = own.sum(axis=0, dtype=np.float64)
    return float(np.max(np.abs(mine - sums) / (1 + np.abs(mine))))


STAGES = (
    Stage(
        "snapshot matrix", make,
        (
            Contender(OURS, as_arrays, ours), Contender("polars", as_polars, by_polars),
            Contender("DuckDB", Path, by_duckdb), Contender("pandas", Path, by_pandas),
        ),
        {"polars": 3, "DuckDB": 3}, same,
    ),
)  # fmt: skip
