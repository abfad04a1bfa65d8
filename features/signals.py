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
        f"moved by {{value}} in {weeks} weeks",
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
    "moves by {value} against the last 4 weeks", "signal",
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
    columns, features = [], []
    scopes = KEYS | {"region": tuple(region)}
    keys = {kind: [c for c in of if c in rows] for kind, of in scopes.items()}
    steps = rows["step"].to_numpy()
    for (name,) in con.execute("SELECT DISTINCT signal FROM signals ORDER BY signal").fetchall():
        observed = _series(con, name, LEVEL_SQL, KNOWN_SQL, grid, keys)
        if observed.scopes:
            where, panel = match(observed, rows, keys), Tile(_panel(con, observed, grid))
            columns += [_take(f.formula(panel).values, steps, where) for f in formulas]
            features += [f.at(f"signal_{name}", f"signal {name}") for f in formulas]
        planned = _series(con, name, AHEAD_SQL, "known_at", grid, keys)
        if planned.scopes:
            named = match(planned, rows, keys)
            columns.append(_ahead(con, planned, rows, grid, named, begin_weeks, length_weeks))
            features.append(AHEAD.at(f"signal_{name}", f"signal {name}"))
            if recent:
                columns.append(columns[-1] - _ahead(con, planned, rows, grid, named, -4, 4))
                features.append(AHEAD_CHANGE.at(f"signal_{name}", f"signal {name}"))
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


def _series(
    con: duckdb.DuckDBPyConnection, name: str, which: str, known: str, grid: Grid, keys: Mapping[str, Sequence[str]]
) -> Series:
    """Return the series of a signal whose scope can name a row: a supplier's backlog says nothing of demand."""
    found = con.execute(
        f"SELECT scope, min({grid.sql_index(known)}) AS since FROM signals WHERE signal = ? AND {which} "
        "GROUP BY scope ORDER BY scope",
        [name],
    ).df()
    kinds = [[part.partition(":")[0] for part in scope.split("&")] for scope in found["scope"]]
    found = found[np.array([all(kind == "*" or keys.get(kind) for kind in each) for each in kinds], bool)]
    return Series(name, found["scope"].tolist(), found["since"].to_numpy())


def _panel(con: duckdb.DuckDBPyConnection, series: Series, grid: Grid) -> xr.Dataset:
    """Level and age of each of a signal's series; a value of an older period never replaces a newer one's."""
    states = con.execute(
        f"""SELECT scope, step, last(value ORDER BY since, observed_on, known_at) AS value,
                   last(observed_on ORDER BY since, observed_on, known_at) AS observed_on
            FROM (SELECT *, {KNOWN_SQL} AS since, {grid.sql_index(KNOWN_SQL)} AS step,
                         max(observed_on)
                           OVER (PARTITION BY scope ORDER BY {KNOWN_SQL}, observed_on, known_at) AS newest
                  FROM signals WHERE signal = ? AND {LEVEL_SQL})
            WHERE observed_on = newest AND step < {grid.size} GROUP BY scope, step""",
        [series.signal],
    ).df()
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
    con: duckdb.DuckDBPyConnection,
    series: Series,
    rows: pd.DataFrame,
    grid: Grid,
    where: np.ndarray,
    begin_weeks: np.ndarray | int,
    length_weeks: np.ndarray | int,
) -> np.ndarray:
    """Mean known-ahead value per week of [begin, begin + length) after each row's as-of.

    Asks, for every distinct (series, as-of, window) among the rows, for the latest vintage known then of each
    observed period inside the window.
    """
    asked = pd.DataFrame(
        {"place": where, "step": rows["step"].to_numpy(), "begin": begin_weeks, "length": length_weeks}
    )
    wanted = asked[asked["place"] >= 0].drop_duplicates()
    scopes = np.array(series.scopes, dtype=object)[wanted["place"]]
    con.register("wanted", wanted.assign(scope=scopes, day=grid.days[wanted["step"]].astype("datetime64[s]")))
    found = con.execute(
        f"""SELECT place, step, begin, length, sum(value) / any_value(length) AS ahead FROM (
             SELECT w.place, w.step, w.begin, w.length, s.observed_on, last(s.value ORDER BY s.known_at) AS value
             FROM wanted w JOIN signals s ON s.scope = w.scope AND s.known_at < w.day
              AND s.observed_on >= w.day + to_days(CAST(7 * w.begin AS INTEGER))
              AND s.observed_on < w.day + to_days(CAST(7 * (w.begin + w.length) AS INTEGER))
             WHERE s.signal = ? AND {AHEAD_SQL} GROUP BY ALL) GROUP BY ALL""",
        [series.signal],
    ).df()
    con.unregister("wanted")
    merged = asked.merge(found, how="left", on=["place", "step", "begin", "length"])["ahead"].to_numpy()
    return np.where(where >= 0, np.nan_to_num(merged), np.nan)
