"""External series as they stood at each as-of: latest vintage known, matched to rows by scope."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import bottleneck as bn
import duckdb
import numpy as np
import pandas as pd
import xarray as xr

from features.core import Cells, Feature, Tile, ago, each, past
from features.panels import over_steps
from features.weeks import Grid


def _z(panel: Tile) -> Cells:
    mean, spread = past(bn.move_mean, panel.level, 52, 8), past(bn.move_std, panel.level, 52, 8)
    return each(_in_spreads, panel.level, mean, spread)


def _in_spreads(level: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    still = spread <= 1e-6 * np.maximum(np.abs(mean), 1e-6)  # a moving window leaves residues of rounding
    return np.divide(level - mean, spread, out=np.full(level.shape, np.nan), where=~still)


def _change(weeks: int) -> Feature:
    return Feature(
        f"change_{weeks}w",
        lambda panel: panel.level - ago(panel.level, weeks),
        "signal's unit",
        f"Latest known value less the value that was the latest {weeks} weeks earlier.",
        f"{{value:rose}} in {weeks} weeks",
        "signal",
    )


SIGNAL_FEATURES = (
    Feature("level", lambda panel: panel.level, "signal's unit", "Latest known value of the latest observed period.",
            "stands at {value}, usually {usual}", "signal"),
    _change(4),
    _change(13),
    Feature("z_52w", _z, "standard deviations", "Level against its mean and standard deviation of 52 weeks.",
            "is {value:z} its mean of the last year", "signal"),
    Feature("age_days", lambda panel: panel.age, "days", "Days since the observed period of the level.",
            "was last observed {value} ago", "signal age"),
)  # fmt: skip
LATELY_FEATURES = (  # how much of a signal, say of a promotion, the recent level of demand already holds
    Feature("mean_4w", lambda panel: past(bn.move_mean, panel.level, 4), "signal's unit",
            "Mean of the last 4 weeks' levels.", "averaged {value} over 4 weeks, usually {usual}", "signal"),
    Feature("mean_13w", lambda panel: past(bn.move_mean, panel.level, 13), "signal's unit",
            "Mean of the last 13 weeks' levels.", "averaged {value} over 13 weeks, usually {usual}", "signal"),
)  # fmt: skip
AHEAD_CHANGE = Feature(
    "ahead_change", lambda panel: panel.ahead - panel.before, "signal's unit",
    "Mean of the values known ahead for the weeks looked at less that for the last 4 weeks.",
    "{value:higher} over the weeks ahead than over the last 4", "signal",
)  # fmt: skip
AHEAD = Feature(
    "ahead", lambda panel: panel.ahead, "signal's unit",
    "Mean, over the weeks looked at, of the values known ahead for them; 0 for weeks without one.",
    "averages {value} over the weeks ahead, usually {usual}", "signal",
)  # fmt: skip


ENDINGS = sorted(
    (f"_{feature.name}" for feature in (*SIGNAL_FEATURES, *LATELY_FEATURES, AHEAD, AHEAD_CHANGE)), key=len, reverse=True
)  # the longest first: one may end another


def signal_of(column: str) -> str | None:
    """Return the signal a model input is about, None for inputs from elsewhere."""
    ending = next((e for e in ENDINGS if column.startswith("signal_") and column.endswith(e)), None)
    return None if ending is None else column[len("signal_") : -len(ending)]


KEYS = {"site": ("site_id",), "supplier": ("supplier_id",), "product": ("product_id",), "category": ("category",)}
LEVEL_SQL = "coalesce(kind, 'observed') <> 'calendar'"
AHEAD_SQL = "kind IN ('calendar', 'forecast')"
KNOWN_SQL = "greatest(known_at, CAST(observed_on AS TIMESTAMP))"  # a forecast feeds the level once its period has begun


@dataclass(frozen=True, slots=True)
class Series:
    """The series of one signal: their scopes, and the step from which each is known."""

    signal: str
    scopes: list[str]
    since: np.ndarray


def signal_features(
    con: duckdb.DuckDBPyConnection,
    rows: pd.DataFrame,
    grid: Grid,
    *,
    region: Sequence[str],
    begin_weeks: np.ndarray | int = 0,
    length_weeks: np.ndarray | int = 4,
    recent: bool = False,
) -> tuple[np.ndarray, tuple[Feature, ...]]:
    """Return float32 [row, feature] of every signal for each row, and the features.

    A row takes the series of the most specific scope that names it and is known at the row's as-of. `region` lists the
    columns of `rows` that a `region:` scope may name, the preferred last. Calendar and forecast rows are averaged over
    the weeks [begin, begin + length) after the row's as-of; forecasts and observations feed the level. `recent` adds
    what both were over recent weeks.
    """
    formulas = (*SIGNAL_FEATURES, *(LATELY_FEATURES if recent else ()))
    scopes = KEYS | {"region": tuple(region)}
    keys = {kind: [c for c in of if c in rows] for kind, of in scopes.items()}
    observed, planned = _every_series(con, grid, keys)
    panels = _panels(con, observed, grid)
    windows = [(begin_weeks, length_weeks), *([(-4, 4)] if recent else [])]
    ahead = _ahead(
        con, {name: (series, match(series, rows, keys)) for name, series in planned.items()}, rows, grid, windows
    )
    columns, features = [], []
    for name in sorted({*observed, *planned}):
        if name in observed:
            where, panel = match(observed[name], rows, keys), Tile(panels[name])
            columns += [_take(f.formula(panel).values, rows["step"].to_numpy(), where) for f in formulas]
            features += [f.at(f"signal_{name}", f"signal {name}") for f in formulas]
        if name in planned:
            coming, *before = ahead[name]
            columns += [coming, *(coming - lately for lately in before)]
            told = (AHEAD, AHEAD_CHANGE) if recent else (AHEAD,)
            features += [f.at(f"signal_{name}", f"signal {name}") for f in told]
    block = np.column_stack(columns) if columns else np.empty((len(rows), 0))
    return block.astype(np.float32), tuple(features)


def match(series: Series, rows: pd.DataFrame, keys: Mapping[str, Sequence[str]]) -> np.ndarray:
    """Return the place of the most specific series that names each row and is known at its step, −1 for none.

    `keys` says which columns of `rows` each kind of scope may name, the preferred last.
    """
    out = np.full(len(rows), -1)
    steps = rows["step"].to_numpy()
    shapes: dict[tuple[str, ...], dict[tuple[str, ...], int]] = {}
    for place, scope in enumerate(series.scopes):
        parts = [] if scope == "*" else sorted(part.partition(":")[::2] for part in scope.split("&"))
        shapes.setdefault(tuple(kind for kind, _ in parts), {})[tuple(value for _, value in parts)] = place
    for shape in sorted(shapes, key=lambda kinds: (len(kinds), kinds)):
        places = np.array([*shapes[shape].values(), -1])
        for columns in _choices(shape, keys):
            found = np.zeros(len(rows), np.int64)
            if columns:
                found = pd.MultiIndex.from_tuples(shapes[shape].keys()).get_indexer(
                    pd.MultiIndex.from_arrays([rows[c].astype(object) for c in columns])
                )
            named = places[found]
            out = np.where((named >= 0) & (series.since[named] <= steps), named, out)
    return out


def _choices(shape: Sequence[str], keys: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, ...]]:
    if not shape:
        yield ()
        return
    for column in keys.get(shape[0], ()):
        for rest in _choices(shape[1:], keys):
            yield (column, *rest)


def _every_series(
    con: duckdb.DuckDBPyConnection, grid: Grid, keys: Mapping[str, Sequence[str]]
) -> tuple[dict[str, Series], dict[str, Series]]:
    """Return, by signal, the series that feed its level and those that are known ahead.

    Those whose scope can name a row: a supplier's backlog says nothing of demand.
    """
    found = con.execute(
        f"""SELECT signal, scope, min({grid.sql_index(KNOWN_SQL)}) FILTER ({LEVEL_SQL}) AS observed,
                   min({grid.sql_index("known_at")}) FILTER ({AHEAD_SQL}) AS planned
            FROM signals GROUP BY signal, scope ORDER BY signal, scope"""
    ).df()
    kinds = [[part.partition(":")[0] for part in scope.split("&")] for scope in found["scope"]]
    found = found[np.array([all(kind == "*" or keys.get(kind) for kind in each) for each in kinds], bool)]
    observed, planned = (
        {
            str(name): Series(str(name), mine["scope"].tolist(), mine[since].to_numpy(int))
            for name, mine in found.dropna(subset=[since]).groupby("signal")
        }
        for since in ("observed", "planned")
    )
    return observed, planned


def _panels(con: duckdb.DuckDBPyConnection, every: Mapping[str, Series], grid: Grid) -> dict[str, xr.Dataset]:
    """Level and age of each signal's series; a value of an older period never replaces a newer one's."""
    if not every:
        return {}
    states = con.execute(
        f"""SELECT signal, scope, step, last(value ORDER BY since, observed_on, known_at) AS value,
                   last(observed_on ORDER BY since, observed_on, known_at) AS observed_on
            FROM (SELECT *, {KNOWN_SQL} AS since, {grid.sql_index(KNOWN_SQL)} AS step,
                         max(observed_on)
                           OVER (PARTITION BY signal, scope ORDER BY {KNOWN_SQL}, observed_on, known_at) AS newest
                  FROM signals WHERE {LEVEL_SQL})
            WHERE observed_on = newest AND step < {grid.size} GROUP BY signal, scope, step"""
    ).df()
    parts = {str(name): mine for name, mine in states.groupby("signal")}
    return {name: _panel(parts.get(name, states[:0]), series, grid) for name, series in every.items()}


def _panel(states: pd.DataFrame, series: Series, grid: Grid) -> xr.Dataset:
    of = pd.Index(series.scopes).get_indexer(states["scope"])
    states, of = states[of >= 0], of[of >= 0]
    place = (states["step"].to_numpy(), of)
    level, seen = np.full((2, grid.size, len(series.scopes)), np.nan)
    level[place] = states["value"]
    seen[place] = states["observed_on"].to_numpy().astype("datetime64[D]").astype(np.int64)
    age = grid.days.astype(np.int64)[:, None] - bn.push(seen, axis=0)
    return xr.Dataset(
        {"level": over_steps(bn.push(level, axis=0), grid), "age": over_steps(age, grid)},
        attrs={"step_days": grid.step_days},
    )


def _take(values: np.ndarray, steps: np.ndarray, where: np.ndarray) -> np.ndarray:
    return np.where(where >= 0, values[steps, where], np.nan)


def _ahead(
    con: duckdb.DuckDBPyConnection, every: Mapping[str, tuple[Series, np.ndarray]], rows: pd.DataFrame, grid: Grid,
    windows: Sequence[tuple[np.ndarray | int, np.ndarray | int]],
) -> dict[str, list[np.ndarray]]:  # fmt: skip
    """Mean known-ahead value per week of each window [begin, begin + length) after every row's as-of, by signal.

    `every` has a signal's series and the place among them of each row's. Asks, for every distinct (series, as-of,
    window) there is, for the latest vintage known then of each observed period inside the window.
    """
    asked, wanted = {}, []
    for name, (series, where) in every.items():
        for k, (begin, length) in enumerate(windows):
            mine = pd.DataFrame({"place": where, "step": rows["step"].to_numpy(), "begin": begin, "length": length})
            asked[name, k] = mine
            once = mine[mine["place"] >= 0].drop_duplicates()
            scope = np.array(series.scopes, dtype=object)[once["place"]]
            wanted.append(
                once.assign(signal=name, k=k, scope=scope, day=grid.days[once["step"]].astype("datetime64[s]"))
            )
    if not wanted:
        return {}
    con.register("wanted", pd.concat(wanted, ignore_index=True))
    found = con.execute(
        f"""SELECT signal, k, place, step, begin, length, sum(value ORDER BY observed_on) / any_value(length) AS ahead
            FROM (SELECT w.*, s.observed_on, last(s.value ORDER BY s.known_at) AS value
                  FROM wanted w JOIN signals s ON s.signal = w.signal AND s.scope = w.scope AND s.known_at < w.day
                   AND s.observed_on >= w.day + to_days(CAST(7 * w.begin AS INTEGER))
                   AND s.observed_on < w.day + to_days(CAST(7 * (w.begin + w.length) AS INTEGER))
                  WHERE {AHEAD_SQL} GROUP BY ALL) GROUP BY ALL"""
    ).df()
    con.unregister("wanted")
    told = dict(iter(found.groupby(["signal", "k"])))
    out: dict[str, list[np.ndarray]] = {name: [] for name in every}
    for (name, k), mine in asked.items():
        known = told.get((name, k), found[:0]).drop(columns=["signal", "k"])
        ahead = mine.merge(known, how="left", on=["place", "step", "begin", "length"])["ahead"].to_numpy()
        out[name].append(np.where(mine["place"] >= 0, np.nan_to_num(ahead), np.nan))
    return out
