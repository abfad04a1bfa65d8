"""Twenty moving features of 100,000 weekly series: bullwhip's tiles against mlforecast, polars, DuckDB and pandas."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import xarray as xr

from benchmarks.contest import OURS, Contender, Stage
from features.core import Feature, ago, past_mean, past_std, running
from features.panels import dense, over_steps
from features.tiles import fill
from features.weeks import Grid

SERIES, WEEKS = 100_000, 156
WINDOWS = (2, 3, 4, 6, 8, 13, 20, 26, 39, 52)
SPREADS = (13, 52)
MOVES = [*(("mean", w) for w in WINDOWS), *(("std", w) for w in SPREADS)]  # about the mix of the product's own registry
LEAST = {"mean": 1, "std": 2}  # weeks before there is a value
LAGS = (1, 2, 4, 8, 13, 26, 52)
GRID = Grid(date(2020, 1, 6), date(2020, 1, 6) + timedelta(weeks=WEEKS - 1))


FEATURES = (
    *(Feature(f"mean_{w}", lambda p, w=w: past_mean(p.y, w), "", "") for w in WINDOWS),
    *(Feature(f"std_{w}", lambda p, w=w: past_std(p.y, w, at_least=2, ddof=1), "", "") for w in SPREADS),
    *(Feature(f"lag_{w}", lambda p, w=w: ago(p.y, w), "", "") for w in LAGS),
    Feature("total", lambda p: running(p.y), "", ""),
)
NAMES = [f.name for f in FEATURES]


def make(folder: Path, scale: float) -> str:
    """Write the weekly sales of the series, sorted by series and week."""
    series = max(round(SERIES * scale), 50)
    duckdb.execute(
        f"""COPY (SELECT CAST(s AS INT) AS unique_id, CAST(w AS INT) AS ds,
              CAST(1 + floor(40 * (hash(s, w) % 1009) / 1009.0) AS FLOAT) AS y
              FROM range({series}) a(s), range({WEEKS}) b(w) ORDER BY s, w) TO '{folder}/weekly.parquet'"""
    )
    return f"{series:,} series × {WEEKS} weeks, {len(FEATURES)} features"


def as_pandas(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "weekly.parquet")


def as_polars(folder: Path) -> Any:
    import polars as pl

    return pl.read_parquet(folder / "weekly.parquet")


def as_panel(folder: Path) -> xr.Dataset:
    """Return the dense panel in which counted orders come (the stage of orders ends with it), as others get tables."""
    weekly = as_pandas(folder)
    ids, step = weekly["unique_id"].to_numpy(), weekly["ds"].to_numpy()
    panel = dense(step, ids, {"y": weekly["y"].to_numpy()}, int(ids[-1]) + 1, GRID)
    return xr.Dataset({"y": over_steps(np.ascontiguousarray(panel.y.values), GRID)}, attrs=panel.attrs)


def ours(panel: xr.Dataset) -> list[np.ndarray]:
    """Return tiles of float32 [feature, as_of, entity]."""
    return fill(panel, FEATURES)


def our_last_week(panel: xr.Dataset) -> list[np.ndarray]:
    return fill(panel, FEATURES, slice(-1, None))


def by_mlforecast(weekly: pd.DataFrame) -> pd.DataFrame:
    from mlforecast import MLForecast
    from mlforecast.lag_transforms import ExpandingMean, RollingMean, RollingStd

    of = {"mean": RollingMean, "std": RollingStd}
    moves = [*(of[kind](w, min_samples=LEAST[kind]) for kind, w in MOVES), ExpandingMean()]
    lags = [w + 1 for w in LAGS]
    model = MLForecast(models=[], freq=1, lags=lags, lag_transforms={1: moves}, num_threads=2)
    return model.preprocess(weekly, static_features=[], dropna=False)


def by_polars(weekly: Any) -> Any:
    import polars as pl

    y = pl.col("y")
    made = [getattr(y, f"rolling_{kind}")(w, min_samples=LEAST[kind]).alias(f"{kind}_{w}") for kind, w in MOVES]
    made += [*(y.shift(w).alias(f"lag_{w}") for w in LAGS), y.cum_sum().alias("total")]
    return weekly.lazy().select("unique_id", "ds", *(m.over("unique_id") for m in made)).collect()


def last_by_polars(weekly: Any) -> Any:
    """Return the features of the last week alone: polars then needs but the tail of each series."""
    import polars as pl

    y = pl.col("y")
    made = [getattr(y.tail(w), kind)().alias(f"{kind}_{w}") for kind, w in MOVES]
    made += [*(y.get(-1 - w).alias(f"lag_{w}") for w in LAGS), y.sum().alias("total")]
    return weekly.lazy().group_by("unique_id", maintain_order=True).agg(made).collect()


def by_duckdb(folder: Path) -> Any:
    of = {"mean": "avg", "std": "stddev_samp"}
    made = [f"{of[kind]}(y) OVER w{w} AS {kind}_{w}" for kind, w in MOVES]
    made += [*(f"lag(y, {w}) OVER w AS lag_{w}" for w in LAGS), "sum(y) OVER w AS total"]
    by = "PARTITION BY unique_id ORDER BY ds"
    windows = [f"w AS ({by})", *(f"w{w} AS ({by} ROWS BETWEEN {w - 1} PRECEDING AND CURRENT ROW)" for w in WINDOWS)]
    query = f"SELECT unique_id, ds, {', '.join(made)} FROM '{folder}/weekly.parquet' WINDOW {', '.join(windows)}"
    return duckdb.sql(query).to_arrow_table()


def by_pandas(weekly: pd.DataFrame) -> pd.DataFrame:
    groups = weekly.groupby("unique_id", sort=False)["y"]
    out = {}
    for kind, w in MOVES:
        rolled = groups.rolling(w, min_periods=LEAST[kind])
        out[f"{kind}_{w}"] = getattr(rolled, kind)().to_numpy(np.float32)
    out |= {f"lag_{w}": groups.shift(w).to_numpy(np.float32) for w in LAGS}
    out["total"] = groups.cumsum().to_numpy(np.float32)
    return pd.DataFrame(out)


def same(tiles: list[np.ndarray], other: Any) -> float:
    """Return the largest relative gap, whoever made the table of features."""
    own = np.concatenate(tiles, axis=2)
    weeks, frame = own.shape[1], other if isinstance(other, pd.DataFrame) else other.to_pandas()
    lagged = "lag3" in frame  # mlforecast's row of a week tells of the weeks before it: one row later than ours
    if weeks == 1 and "ds" in frame:
        frame = frame.groupby("unique_id").last()
    elif "ds" in frame and not lagged:
        frame = frame.sort_values(["unique_id", "ds"])
    gap = 0.0
    for k, name in enumerate(NAMES):
        theirs = frame[_known_as(name) if lagged else name].to_numpy(np.float64).reshape(-1, weeks)
        mine = own[k].T.astype(np.float64)
        if lagged:
            mine, theirs = mine[:, :-1], theirs[:, 1:] * (np.arange(1, weeks) if name == "total" else 1)
        gap = max(gap, float(np.nanmax(np.abs(mine - theirs) / (1 + np.abs(theirs)))))
    return gap


def _known_as(name: str) -> str:
    """Return mlforecast's name of a feature."""
    kind, _, w = name.partition("_")
    if kind in LEAST:
        return f"rolling_{kind}_lag1_window_size{w}_min_samples{LEAST[kind]}"
    return f"lag{int(w) + 1}" if kind == "lag" else "expanding_mean_lag1"


STAGES = (
    Stage(
        "panel features", make,
        (
            Contender(OURS, as_panel, ours), Contender("mlforecast", as_pandas, by_mlforecast),
            Contender("polars", as_polars, by_polars), Contender("DuckDB", Path, by_duckdb),
            Contender("pandas", as_pandas, by_pandas),
        ),
        {"mlforecast": 5, "polars": 10, "pandas": 50}, same,
    ),
    Stage(
        "panel features, last week", make,
        (
            Contender(OURS, as_panel, our_last_week), Contender("polars, every week", as_polars, by_polars),
            Contender("polars, last week", as_polars, last_by_polars),
        ),
        {"polars, every week": 40}, same,
    ),
)  # fmt: skip
